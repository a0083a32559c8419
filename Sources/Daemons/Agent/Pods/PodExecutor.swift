import AgentCore
import CDI
import CNISpec
import Cgroups
import DeviceDiscovery
import Images
import JSON
import Kernel
import Logging
import Model
import Networking
import Reactor
import ShimProtocol
import Synchronization
import Volumes
import Wire

/// Runs pods with martlet-shim and martlet-runtime on this machine.
package final class PodExecutor: Executor {
    let paths: AgentPaths
    let configuration: AgentConfiguration
    let pool: BlockingPool
    let reactor: Reactor
    let images: ImageStore
    let transfers: ImageTransfers
    let volumes: VolumeStore
    let network: BridgeNetwork
    let userNetworks: UserNetworks
    let overlays: OverlayNetworks
    let cniNetworks: CNINetworks
    let cdi: CDIRegistry
    let devices: NodeDevices
    let cgroups: CgroupLayout
    let sharedProcessors: SharedProcessors
    /// Sizes of huge pages that the kernel knows, where containers can be kept from them.
    let hugepageSizes: [String]
    let launcher: ShimLauncher
    let gate = AttachGate()
    let leases: LeaseKeeper
    let probeLog = ProbeLog()
    let table: TaskTable
    let logger: Logger
    let bootID: String

    /// Long-running work that operations leave to `run`.
    enum Job: Sendable {
        case watch(TaskID, ContainerID)
        case reap(SharedFD)
    }

    let jobs: AsyncStream<Job>
    let giveJob: AsyncStream<Job>.Continuation
    let live = Mutex<[TaskID: LiveTask]>([:])
    /// Of who lays down the init of containers.
    let initCopy = Mutex<Void>(())
    /// What the hosts files say that this process wrote. Held while one is written: who looked at the table later writes
    /// later.
    let hosts = Mutex<[TaskID: TaskFiles]>([:])
    /// How many make an image of a container and want it to stand still. Held while one is frozen or thawed.
    let frozen = Mutex<[TaskID: Int]>([:])
    private let listeners = Mutex(Listeners())

    /// Whoever is told. In a struct, because a closure that a `Mutex` holds bare is wrapped once more by each access, and
    /// a call of it goes through all the wraps.
    private struct Listeners: Sendable {
        var event: (@Sendable (AgentEvent) -> Void)?
        var inventoryChanged: (@Sendable () -> Void)?
        var secrets: (@Sendable (TaskID) async throws -> TaskSecrets)?
    }

    /// What is kept in memory of a task whose shim lives.
    struct LiveTask: Sendable {
        /// The newest start that was given to the shim.
        var start: Int
        /// Its events are watched.
        var isWatched: Bool
        /// It is being taken down: the end of the shim is no loss.
        var isEnding: Bool
    }

    init(
        _ configuration: AgentConfiguration, images: ImageStore, transfers: ImageTransfers, volumes: VolumeStore,
        network: BridgeNetwork, underlay: IPAddress,
        table: TaskTable, pool: BlockingPool, reactor: Reactor, logger: Logger
    ) throws {
        self.configuration = configuration
        paths = configuration.paths
        self.images = images
        self.transfers = transfers
        self.volumes = volumes
        self.network = network
        userNetworks = UserNetworks(beside: network, prefix: Model.Network.devicePrefix)
        overlays = OverlayNetworks(network.configuration, underlay: underlay, cryptography: .nodes)
        cniNetworks = CNINetworks(
            network.configuration, directory: CNIDirectory(configuration.cniDirectory),
            reservedPrefixes: [Model.Network.devicePrefix])
        cdi = CDIRegistry(configuration.cdiDirectories)
        self.pool = pool
        self.reactor = reactor
        self.logger = logger
        leases = LeaseKeeper(table, logger)
        self.table = table
        cgroups = try CgroupLayout.detect()
        sharedProcessors = SharedProcessors(cgroups, parent: configuration.cgroupParent)
        hugepageSizes =
            cgroups.home(of: .hugetlb) == nil ? [] : ProcessorFacts.hugepageSizes(sys: configuration.deviceRoots.sys)
        bootID = try Proc.bootID()
        devices = NodeDevices(configuration, cdi, bootID: bootID, logger: logger)
        launcher = ShimLauncher(
            program: configuration.shimProgram, runtime: configuration.runtimeProgram,
            runtimeRoot: configuration.paths.runtime, cgroup: "\(configuration.cgroupParent)/shims")
        (jobs, giveJob) = AsyncStream.makeStream()
    }

    package var features: [String] {
        [
            "pods", "exec", "attach", "logs", "archive", "stats", "pause", "bridge", "host-network", "volumes",
            "overlay", "cni", Model.Network.trafficLimits, DeviceGrant.changeFeature,
        ] + (userNetworks.lack == nil ? ["bridge-isolation"] : [])
            + (overlays.encryptionLack == nil ? [Model.Network.overlayEncryption] : [])
            + (userNetworks.hasV6 ? [Model.Network.bridgeIPv6] : [])
            + (cgroups.home(of: .cpuset) == nil ? [] : [NodeProcessors.pinningFeature])
            + (cgroups.home(of: .hugetlb) == nil ? [] : [NodeProcessors.hugepagesFeature])
    }

    package func run(tell: @escaping @Sendable (AgentEvent) -> Void) async throws {
        listeners.withLock { $0.event = tell }
        await withDiscardingTaskGroup { group in
            group.addTask { await self.keepLeases() }
            group.addTask { await self.keepHosts() }
            group.addTask { await self.keepNetworks() }
            group.addTask { await self.keepDevices() }
            group.addTask { await self.keepProcessors() }
            for await job in jobs {
                switch job {
                case .watch(let task, let container):
                    group.addTask { await self.watch(task, container) }
                case .reap(let process):
                    group.addTask { _ = try? await self.reactor.waitExit(process.raw) }
                }
            }
        }
    }

    func tell(_ event: AgentEvent) { listeners.withLock { $0 }.event?(event) }

    /// Has `listener` called when a volume was made on its first use, or an image fetched for a task.
    func onInventoryChanged(_ listener: @escaping @Sendable () -> Void) {
        listeners.withLock { $0.inventoryChanged = listener }
    }

    /// Has the secrets of tasks got by `fetch`.
    func onSecretsWanted(_ fetch: @escaping @Sendable (TaskID) async throws -> TaskSecrets) {
        listeners.withLock { $0.secrets = fetch }
    }

    func secrets(of task: TaskID) async throws -> TaskSecrets {
        guard let fetch = listeners.withLock({ $0 }).secrets else { throw AgentError("no master is known") }
        return try await fetch(task)
    }

    func inventoryChanged() { listeners.withLock { $0 }.inventoryChanged?() }

    func cgroup(of task: TaskID) throws(CgroupError) -> CgroupManager {
        try CgroupManager(layout: cgroups, path: "/\(configuration.cgroupParent)/\(task)")
    }

    func shim(of task: TaskID) -> ShimClient { ShimClient(socket: paths.task(task).shimSocket) }

    /// Gives what is thrown the core's shape.
    func explaining<Result>(
        _ doing: String, _ body: () async throws -> Result
    ) async throws(ExecutorFailure) -> Result {
        do {
            return try await body()
        } catch {
            throw ExecutorFailure(error, doing)
        }
    }
}
