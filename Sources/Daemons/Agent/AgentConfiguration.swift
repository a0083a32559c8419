import CDI
import DeviceDiscovery
import Model

/// What an agent is started with.
package struct AgentConfiguration: Sendable {
    /// Everything that lives longer than a boot; made with mode 0700.
    package var dataDirectory = "/var/lib/martlet"
    /// Sockets, pins and states of this boot.
    package var runDirectory = "/run/martlet"
    /// `unix:/path` or `https://host:port` of the master's API.
    package var masterEndpoint = "unix:/run/martlet/martlet.sock"
    /// With which the machine joins a cluster, at its first start.
    package var joinToken: String?
    /// Where streams are served to other machines, once the node belongs to a cluster of several.
    package var listen: (host: String, port: Int) = ("0.0.0.0", 7071)
    /// Unique in the cluster; empty: the machine's host name.
    package var nodeName = ""
    /// The cgroup that holds all containers' and shims', below the root of every hierarchy.
    package var cgroupParent = "martlet"
    package var bridge = "martlet0"
    /// IPv4 with prefix length.
    package var subnet = "10.213.0.0/16"
    /// Where CNI plugins are looked for; empty: the usual places.
    package var pluginDirectories: [String] = []
    /// Where the CNI configuration lists of networks with the driver `cni` are.
    package var cniDirectory = "/etc/cni/net.d"
    /// Where CDI specifications of devices are, the later the higher.
    package var cdiDirectories = CDIRegistry.standardDirectories
    /// Where devices are looked for.
    package var deviceRoots = DeviceRoots()
    /// How many tasks may have a device at the same time that claim shares, by its id, its number or `all`; else it is given
    /// whole only.
    package var deviceShares: [String: Int] = [:]
    /// Absolute paths of the small programs; our CNI plugins' may be empty: then they are looked for as others are.
    package var shimProgram = ""
    package var runtimeProgram = ""
    package var nvmlProgram = ""
    package var overlayProgram = ""
    package var portmapProgram = ""
    /// Given to the node when it registers for the first time.
    package var labels: [String: String] = [:]
    /// What the machine keeps for itself; not offered to containers.
    package var reserved = Resources()
    /// The address under which published ports are reached; empty: discovered.
    package var address = ""
    /// What is particular about registries, see docs/registries.md; read when it is there.
    package var registries = "/etc/martlet/registries.json"
    /// A log file is rotated before it grows beyond this many bytes; as many are kept.
    package var logMaxBytes: Int64 = 10 << 20
    package var logMaxFiles = 3

    package init() {}

    /// Where everything is.
    var paths: AgentPaths { AgentPaths(data: dataDirectory, run: runDirectory) }
}

/// The agent's files; see the documentation of the data and run directories.
struct AgentPaths: Sendable {
    let data: String
    let run: String

    var lock: String { "\(data)/agent.lock" }
    var identity: String { "\(data)/agent.json" }
    /// Certificate and key.
    var membership: String { "\(data)/identity" }
    var images: String { "\(data)/images" }
    var volumes: String { "\(data)/volumes" }
    var tasks: String { "\(data)/tasks" }
    var epochs: String { "\(data)/epochs" }
    var network: String { "\(data)/cni" }
    /// What becomes the first process of containers that want an init: a copy, so that no container has the node's own
    /// program.
    var initProgram: String { "\(data)/init" }
    var socket: String { "\(run)/agent.sock" }
    var namespaces: String { "\(run)/netns" }
    var shims: String { "\(run)/shims" }
    var runtime: String { "\(run)/runtime" }
    var deviceTroubles: String { "\(run)/devices.json" }
    /// A file system in memory for each task that has secrets.
    var secrets: String { "\(run)/secrets" }

    /// All of them: what is removed with the node.
    var everything: [String] {
        [socket, "\(socket).lock", namespaces, shims, runtime, secrets, "\(run)/cni", deviceTroubles]
            + [
                tasks, epochs, "\(epochs).new", images, volumes, network, membership, identity, "\(identity).new",
                initProgram, "\(initProgram).new", lock,
            ]
    }

    func task(_ id: TaskID) -> TaskPaths { TaskPaths(id: id, agent: self) }
}

/// One task's files.
struct TaskPaths: Sendable {
    let id: TaskID
    private let agent: AgentPaths

    init(id: TaskID, agent: AgentPaths) {
        self.id = id
        self.agent = agent
    }

    var directory: String { "\(agent.tasks)/\(id)" }
    var record: String { "\(directory)/task.json" }
    /// What preparation made; written when it is complete.
    var pod: String { "\(directory)/pod.json" }
    var bundle: String { "\(directory)/bundle" }
    var config: String { "\(bundle)/config.json" }
    /// The same without what the container claims of devices; there when it has claimed any since its start.
    var unclaimedConfig: String { "\(bundle)/unclaimed.json" }
    var rootfs: String { "\(directory)/rootfs" }
    var files: String { "\(directory)/files" }
    var logs: String { "\(directory)/logs" }
    var exits: String { "\(directory)/exits" }
    /// The shared memory of another container, which this one shares.
    var sharedMemory: String { "\(directory)/mounts/shm" }
    func log(_ container: ContainerID) -> String { "\(logs)/\(container)" + ".log" }
    func exit(_ start: Int) -> String { "\(exits)/\(start).json" }
    var namespace: String { "\(agent.namespaces)/\(id)" }
    var secrets: String { "\(agent.secrets)/\(id)" }
    var shim: String { "\(agent.shims)/\(id)" }
    var shimSocket: String { "\(shim)/shim.sock" }
    var shimPID: String { "\(shim)/shim.pid" }
}
