import AgentCore
import HTTPService
import Images
import JSON
import Kernel
import Logging
import Model
import Networking
import Reactor
import ServiceLifecycle
import Synchronization
import Volumes
import Wire

/// The agent of one node: runs what the master assigns to it, and nothing dies with it.
package final class AgentDaemon: Service {
    private let configuration: AgentConfiguration
    private let lock: FileLock
    private let pool: BlockingPool
    private let reactor: Reactor
    private let store: TaskStore
    private let executor: PodExecutor
    private let identity: NodeIdentity
    private let membership: Membership
    private let table = TaskTable()
    private let logger: Logger

    /// Locks the data directory, opens the stores and makes the node's network; starts nothing yet.
    ///
    /// - Throws: an error whose text is a sentence for the operator: a directory, bridge or subnet is taken, a program
    ///   is missing.
    package init(_ configuration: AgentConfiguration, logger: Logger) async throws {
        self.configuration = configuration
        self.logger = logger
        pool = try BlockingPool(threads: 16, queue: 4096)
        reactor = try Reactor()
        let paths = configuration.paths
        store = TaskStore(paths: paths)
        lock = try await pool.run {
            try Self.makeDirectories(paths)
            guard let lock = try FileLock(paths.lock) else {
                throw AgentError(
                    "another agent is running with the data directory \(paths.data): stop it, or choose another "
                        + "directory with --data-dir")
            }
            return lock
        }
        identity = try await pool.run { try NodeIdentity.load(paths.identity) }
        membership = try await Membership(
            endpoint: configuration.masterEndpoint, token: configuration.joinToken, directory: paths.membership,
            pool: pool, logger: logger)
        let (pool, reactor, table, membership) = (pool, reactor, table, membership)
        executor = try await pool.run {
            for program in [configuration.shimProgram, configuration.runtimeProgram] where !File.exists(program) {
                throw AgentError(
                    "the program \(program) is missing: install martlet whole, or build it with `make build`")
            }
            let network = try Self.network(configuration)
            let images = try ImageStore(root: paths.images)
            let transfers = ImageTransfers(
                store: images, membership: membership, configuration: configuration.registries, pool: pool,
                logger: logger)
            let executor = try PodExecutor(
                configuration, images: images, transfers: transfers,
                volumes: try VolumeStore(root: paths.volumes, refusedSources: [paths.data, paths.run]),
                network: network,
                underlay: NodeFacts(configuration: configuration, membership: membership).underlay, table: table,
                pool: pool, reactor: reactor, logger: logger)
            do {
                try executor.userNetworks.adopt()
            } catch {
                logger.warning("networks are taken over later", metadata: ["error": "\(error)"])
            }
            return executor
        }
    }

    private static func makeDirectories(_ paths: AgentPaths) throws {
        for directory in [paths.data, paths.tasks] { try File.makeDirectories(directory, mode: 0o700) }
        try File.makeDirectories(paths.run, mode: 0o750)
        for directory in [paths.namespaces, paths.shims, paths.runtime] {
            try File.makeDirectories(directory, mode: 0o700)
        }
    }

    private static func network(_ configuration: AgentConfiguration) throws -> BridgeNetwork {
        let network = try BridgeNetwork(configuration.network)
        try network.prepare()
        return network
    }

    /// Takes over what runs already and serves until it is cancelled or shut down gracefully. Containers live on.
    package func run() async throws {
        try await cancelWhenGracefulShutdown { try await self.serve() }
        reactor.shutdown()
        await pool.shutdown()
    }

    private func serve() async throws {
        let (reports, giveReport) = AsyncStream<AgentEffect>.makeStream()
        let core = CoreLoop(
            executor: executor, store: store, pool: pool, timer: try WakeTimer(reactor), table: table, logger: logger,
            report: { giveReport.yield($0) })
        try await recover(core)
        let link = makeLink(core)
        executor.overlays.onKeyChange { link.registerAgain() }
        executor.onInventoryChanged { link.inventoryChanged() }
        executor.onSecretsWanted { try await link.secrets(of: $0) }
        executor.leases.onContactWanted { link.beatSoon() }
        executor.leases.onAssignmentWanted { try await link.assignment(of: $0) }
        let port = StreamPort(
            table: table, executor: executor, transfers: try Transfers(reactor: reactor),
            node: { [identity] in identity.node }, cluster: { link.cluster },
            members: Members(logger: logger) { try await link.members() },
            inContact: { link.isInContact },
            inventoryChanged: { link.inventoryChanged() }, logger: logger)
        let server = try await HTTPServer.listen(
            on: [.unix(path: configuration.paths.socket, group: nil)], router: port.router(), role: "agent",
            logger: logger)
        try await withThrowingTaskGroup(of: Void.self) { group in
            defer { group.cancelAll() }
            group.addTask { try await self.executor.run { core.tell($0) } }
            group.addTask { try await core.run() }
            group.addTask { for await report in reports { link.post(report) } }
            group.addTask { try await link.run() }
            group.addTask { try await server.run() }
            group.addTask { try await self.serveNetwork(like: server) }
            group.addTask { try await self.membership.keepRenewing { link.node } }
            group.addTask { try await self.collectGarbage { link.inventoryChanged() } }
            try await group.next()
        }
    }

    /// Serves streams to other machines once the node has a certificate.
    private func serveNetwork(like server: HTTPServer) async throws {
        guard let identity = await membership.listenerIdentity() else { return }
        let endpoint = Endpoint.tls(host: configuration.listen.host, port: configuration.listen.port, identity)
        while true {
            do {
                let network = try await server.another(on: endpoint, role: "agent")
                logger.info("streams are served", metadata: ["endpoint": "\(endpoint)"])
                return try await network.run()
            } catch let error as ListenError {
                logger.error("other machines cannot reach this node; trying again", metadata: ["error": "\(error)"])
                try await Task.sleep(for: .seconds(2))
            }
        }
    }

    /// Content of images that nobody needs goes at the start and every hour; what has a name or a task stays.
    private func collectGarbage(_ changed: @Sendable () -> Void) async throws {
        while true {
            let (images, table) = (executor.images, table)
            do {
                let garbage = try await pool.run {
                    try images.collectGarbage(inUse: PodExecutor.imagesInUse(table.all))
                }
                if garbage.blobs + garbage.snapshots + garbage.images.count > 0 {
                    logger.info("content of images removed", metadata: ["bytes": "\(garbage.bytes)"])
                    changed()
                }
            } catch {
                try Task.checkCancellation()
                logger.warning("content of images is not collected", metadata: ["error": "\(error)"])
            }
            try await Task.sleep(for: .seconds(3600))
        }
    }

    private func recover(_ core: CoreLoop) async throws {
        let logger = logger
        let (records, leftovers) = try await pool.run { [store] in try store.load(logger) }
        let epochs = try await pool.run { [store] in try store.epochs.load(logger) }
        let found = try await executor.recover(records)
        for task in found { table.put(task.record) }
        logger.info(
            "tasks taken over", metadata: ["tasks": "\(found.count)", "leftovers": "\(leftovers.count)"])
        core.tell(.recovered(found, bootID: executor.bootID, epochs: epochs))
    }

    private func makeLink(_ core: CoreLoop) -> MasterLink {
        let (configuration, executor, pool, table) = (configuration, executor, pool, table)
        let (membership, logger) = (membership, logger)
        let path = configuration.paths.identity
        return MasterLink(
            membership, identity: identity, logger: logger,
            describe: { identity in
                try await pool.run {
                    let facts = NodeFacts(configuration: configuration, membership: membership)
                    // What others are told to send to is what they are sent from.
                    executor.overlays.setUnderlay(facts.underlay)
                    var key: [UInt8]?
                    do {
                        key = try executor.overlays.publicKey()
                    } catch {
                        // Nothing of encrypted networks comes here without it; all else does.
                        logger.warning("the node has no key for encrypted networks", metadata: ["error": "\(error)"])
                    }
                    return try facts.node(
                        identity, features: executor.features, overlayKey: key.map { Hexadecimal.text($0) })
                }
            },
            inventory: { await executor.inventory(table.all) },
            usage: { await executor.deviceUsage(table.all) },
            save: { identity in try await pool.run { try identity.save(path) } },
            period: { executor.leases.period },
            confirm: { moment in
                executor.leases.confirm(sentAt: moment)
                // The core's clock is the wall's.
                let age = LeaseKeeper.now() - moment
                core.tell(.contact(at: Timestamp.now() - age * 1_000_000))
            },
            tell: { core.tell($0) },
            tellPeers: { [identity] change in try await executor.take(change, node: identity.node) })
    }
}
