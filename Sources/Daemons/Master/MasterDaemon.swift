import HTTPService
import Hummingbird
import Kernel
import Logging
import MasterCore
import ServiceLifecycle
import Storage
import Wire

/// The master of a cluster: store, decisions and API in one service.
package final class MasterDaemon: Service {
    private let master: ClusterMaster
    private let server: HTTPServer
    private let listener: ClusterListener
    private let settings: ClusterSettings?
    private let logger: Logger

    /// Where the API is served.
    package var endpoints: [Endpoint] { server.endpoints }

    /// Opens the store, reads it whole and begins to listen; clients are answered once `run` is called.
    ///
    /// - Throws: an error whose text is a sentence for the operator: another master has the store or the socket, the
    ///   store is damaged, a directory cannot be made.
    package init(
        _ configuration: MasterConfiguration, faces: [MasterFace], logger: Logger = Logger(label: "martlet.master")
    ) async throws {
        self.logger = logger
        settings = configuration.settings
        try File.makeDirectories(configuration.dataDirectory, mode: 0o700)
        try File.makeDirectories(configuration.storeDirectory, mode: 0o700)
        try File.makeDirectories(configuration.runDirectory, mode: 0o750)
        let store = try SQLiteStore(path: configuration.storePath)
        let vault = try SecretVault(keyFile: configuration.secretsKeyPath)
        master = try await ClusterMaster(store: store, vault: vault, logger: logger)
        for problem in try await master.unreadableSecrets() {
            logger.error("a secret cannot be delivered", metadata: ["why": "\(problem)"])
        }
        let router = makeRouter()
        router.add(
            middleware: Authentication(
                master: master, audit: AuditLog(path: configuration.auditPath, logger: logger)))
        for face in faces { face(router, master) }
        server = try await HTTPServer.listen(
            on: [.unix(path: configuration.socket, group: configuration.group)], router: router, role: "master",
            limits: configuration.limits, logger: logger)
        listener = ClusterListener(
            master: master, local: server, directory: configuration.authorityDirectory, logger: logger)
    }

    /// Serves until the task is cancelled or the service group shuts down. Pods go on.
    ///
    /// - Throws: `MasterFailure` when the master must not go on, because somebody else writes to its store.
    package func run() async throws {
        logger.info("the master serves", metadata: ["endpoints": "\(server.endpoints.map(\.description))"])
        try await withThrowingTaskGroup(of: Void.self) { group in
            defer { group.cancelAll() }
            group.addTask { try await self.master.run() }
            group.addTask { try await self.server.run() }
            group.addTask { [settings, master] in
                if let settings {
                    // At the very first start the cluster's record is made first.
                    while await master.clusterID.isEmpty { try await Task.sleep(for: .milliseconds(10)) }
                    _ = try await master.perform(.configureCluster(settings))
                }
                try await self.listener.run()
            }
            try await group.next()
        }
    }
}

/// Why a master ends by itself.
package struct MasterFailure: Error, Sendable, CustomStringConvertible {
    package let description: String
}
