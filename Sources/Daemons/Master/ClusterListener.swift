import Client
import ClusterSecurity
import HTTPService
import JSON
import Kernel
import Logging
import MasterCore
import Model
import Synchronization
import Wire

/// The master on the network: its authority, its own certificate, and the listener with TLS, which is there as soon as
/// and as long as the cluster's settings say so.
final class ClusterListener: Sendable {
    private let master: ClusterMaster
    /// Serves the unix socket with the same routes.
    private let local: HTTPServer
    private let directory: String
    private let logger: Logger

    init(master: ClusterMaster, local: HTTPServer, directory: String, logger: Logger) {
        self.master = master
        self.local = local
        self.directory = directory
        self.logger = logger
    }

    /// Runs until it is cancelled.
    ///
    /// - Throws: `MasterFailure` when the authority cannot be used.
    func run() async throws {
        for await settings in await master.followSettings() {
            guard let settings else { continue }
            try await serve(settings)
        }
    }

    /// Serves until the settings change.
    private func serve(_ settings: ClusterSettings) async throws {
        try await withThrowingTaskGroup(of: Void.self) { group in
            defer { group.cancelAll() }
            group.addTask { try await self.listen(settings) }
            group.addTask { await self.master.untilSettingsDiffer(from: settings) }
            try await group.next()
        }
    }

    private func listen(_ settings: ClusterSettings) async throws {
        let authority = try await master.openAuthority(directory)
        let colon = settings.listen.lastIndex(of: ":") ?? settings.listen.endIndex
        var host = String(settings.listen[..<colon])
        if host.hasPrefix("["), host.hasSuffix("]") { host = String(host.dropFirst().dropLast()) }
        let port = Int(settings.listen[colon...].dropFirst()) ?? ServerAddress.masterPort
        let credentials = try issue(authority, settings)
        let identity = try TLSIdentity(
            certificate: credentials.certificate, key: credentials.key, authority: credentials.authority)
        try await master.use(credentials)
        let server = try await open(.tls(host: host, port: port, identity), settings)
        logger.notice("other machines are served", metadata: ["endpoints": "\(server.endpoints.map(\.description))"])
        try await withThrowingTaskGroup(of: Void.self) { group in
            defer { group.cancelAll() }
            group.addTask { try await server.run() }
            group.addTask { try await self.renew(credentials, of: identity, authority, settings) }
            try await group.next()
        }
    }

    private func renew(
        _ first: Credentials, of identity: TLSIdentity, _ authority: CertificateAuthority, _ settings: ClusterSettings
    ) async throws {
        var credentials = first
        while true {
            try await Self.sleep(until: credentials.renewal())
            credentials = try issue(authority, settings)
            try identity.replace(
                certificate: credentials.certificate, key: credentials.key, authority: credentials.authority)
            try await master.use(credentials)
            logger.info("the master's certificate was renewed")
        }
    }

    /// A port that is taken does not end the master: it serves its socket, says what is wrong and tries again.
    private func open(_ endpoint: Endpoint, _ settings: ClusterSettings) async throws -> HTTPServer {
        while true {
            do {
                let server = try await local.another(on: endpoint)
                await master.listens(settings, problem: nil)
                return server
            } catch let error as ListenError {
                logger.error("other machines cannot be served; trying again", metadata: ["error": "\(error)"])
                await master.listens(settings, problem: error.description)
                try await Task.sleep(for: .seconds(2))
            }
        }
    }

    private func issue(_ authority: CertificateAuthority, _ settings: ClusterSettings) throws -> Credentials {
        try authority.issueMaster(
            hosts: settings.advertise + ["localhost", "127.0.0.1", "::1"], life: Int64(settings.certificateLife),
            now: .now())
    }

    /// In steps, so that a clock that jumps is noticed.
    static func sleep(until moment: Timestamp) async throws {
        while true {
            let left = moment - .now()
            guard left > 0 else { return }
            try await Task.sleep(for: .nanoseconds(min(left, 60_000_000_000)))
        }
    }
}

extension ClusterMaster {
    /// Opens the cluster's authority, or makes it.
    ///
    /// - Throws: `MasterFailure`.
    func openAuthority(_ directory: String) throws -> CertificateAuthority {
        if let authority { return authority }
        do {
            let opened = try CertificateAuthority(directory: directory, cluster: clusterID, now: .now())
            authority = opened
            return opened
        } catch {
            throw MasterFailure(description: "\(error)")
        }
    }

    /// Shows the certificate to agents from now on.
    func use(_ credentials: Credentials) throws {
        try agents.use(credentials)
    }

    /// The outcome of an attempt to listen.
    func listens(_ settings: ClusterSettings, problem: String?) {
        listenOutcome = (settings, problem)
    }

    /// The settings as they are, and each time that they change.
    func followSettings() -> AsyncStream<ClusterSettings?> {
        let (stream, continuation) = AsyncStream<ClusterSettings?>.makeStream(bufferingPolicy: .bufferingNewest(1))
        settingsFollowers.append(continuation)
        continuation.yield(core.settings)
        return stream
    }

    func untilSettingsDiffer(from settings: ClusterSettings) async {
        for await now in followSettings() where now != settings { return }
    }

    func tellSettings() {
        let now = core.settings
        guard toldSettings != now else { return }
        toldSettings = now
        settingsFollowers.removeAll { continuation in
            if case .terminated = continuation.yield(now) { true } else { false }
        }
        // Agents register again, and learn of it so.
        watches.endTasks()
    }

    /// Where others reach this master; empty: nowhere.
    package var addresses: [String] {
        guard let settings = core.settings else { return [] }
        let port = settings.listen.split(separator: ":").last.map(String.init) ?? ""
        return settings.advertise.map { $0.contains(":") ? "https://[\($0)]:\(port)" : "https://\($0):\(port)" }
    }
}
