import Client
import ClusterSecurity
import FoundationEssentials
import HTTPService
import JSON
import Kernel
import Logging
import Model
import NIOHTTP1
import Reactor
import Synchronization
import Wire

/// This node's place in a cluster of several machines: its certificate and key, kept in `DATA/identity`, by which the
/// master knows it and it knows the master.
///
/// An agent on the master's machine speaks through the unix socket, which needs no certificate; it gets one as soon as
/// the cluster is reached from other machines, so that their agents can fetch content here.
final class Membership: Sendable {
    private struct State: Sendable {
        var credentials: Credentials?
        var client: ClientIdentity?
        var listener: TLSIdentity?
        var settings: ClusterSettings?
    }

    /// Where the master is.
    let address: ServerAddress
    private let path: String
    private let token: String?
    private let pool: BlockingPool
    private let logger: Logger
    private let state = Mutex(State())
    /// Fires when there is a certificate.
    private let certified = Signal()

    /// - Parameters:
    ///   - token: with which the machine joins, when it has no certificate yet.
    /// - Throws: `AgentError` when the kept certificate cannot be read, or when there is none and no token.
    init(
        endpoint: String, token: String?, directory: String, pool: BlockingPool, logger: Logger
    ) async throws {
        address = try ServerAddress(endpoint)
        path = "\(directory)/credentials.json"
        self.token = token
        self.pool = pool
        self.logger = logger
        let path = path
        let kept: Credentials? = try await pool.run {
            try File.makeDirectories(directory, mode: 0o700)
            guard File.exists(path) else { return nil }
            do {
                return try JSONCoding.decode(KeptCredentials.self, from: File.read(path)).credentials
            } catch {
                throw AgentError(
                    "\(path) cannot be read: \(error); restore it, or remove it and join again with a token")
            }
        }
        if let kept { try take(kept) }
        if case .tls = address, kept == nil, token == nil {
            throw AgentError(
                "this machine does not belong to the cluster at \(address) yet: give --join TOKEN, which `martlet token "
                    + "create --role node` makes on the master's machine")
        }
        if case .tls = address, token == nil, let until = try kept?.validity().until, until < .now() {
            throw AgentError(Self.hasRunOut(until))
        }
    }

    private static func hasRunOut(_ until: Timestamp) -> String {
        "this node's certificate ran out at \(until), while it could not be renewed: if the clock is right, give --join "
            + "TOKEN, which `martlet token create --role node` makes on the master's machine; its containers go on"
    }

    private struct KeptCredentials: Codable {
        var certificate: String
        var key: String
        var authority: String

        var credentials: Credentials { Credentials(certificate: certificate, key: key, authority: authority) }
    }

    private func take(_ credentials: Credentials) throws {
        try state.withLock { state in
            if let client = state.client {
                try client.replace(certificate: credentials.certificate, key: credentials.key)
            } else {
                state.client = try ClientIdentity(certificate: credentials.certificate, key: credentials.key)
            }
            if let listener = state.listener {
                try listener.replace(
                    certificate: credentials.certificate, key: credentials.key, authority: credentials.authority)
            } else {
                state.listener = try TLSIdentity(
                    certificate: credentials.certificate, key: credentials.key, authority: credentials.authority)
            }
            state.credentials = credentials
        }
        certified.fire()
    }

    private func keep(_ credentials: Credentials) async throws {
        let kept = KeptCredentials(
            certificate: credentials.certificate, key: credentials.key, authority: credentials.authority)
        let path = path
        try await pool.run { try File.replace(path, with: JSONCoding.encode(kept), mode: 0o600) }
        try take(credentials)
    }

    // MARK: Speaking to others

    /// Whether a token has to be shown before anything else.
    var mustJoin: Bool {
        guard case .tls = address else { return false }
        guard let until = try? state.withLock({ $0.credentials })?.validity().until else { return true }
        // What has run out opens nothing; a token may.
        return until < .now() && token != nil
    }

    /// The master, as this node.
    func master() throws -> APIClient {
        guard case .tls = address else { return APIClient(address) }
        return try client(address, role: .master, expecting: .master)
    }

    /// Another node's agent, for content.
    func peer(_ source: ContentSourceView) throws -> APIClient {
        let address = try ServerAddress(source.endpoint)
        guard case .tls = address else { return APIClient(address, role: .agent) }
        return try client(address, role: .agent, expecting: .node(source.node.text))
    }

    private func client(
        _ address: ServerAddress, role: ServerRole, expecting holder: CertificateName.Holder
    ) throws -> APIClient {
        let (identity, credentials) = state.withLock { ($0.client, $0.credentials) }
        guard let identity, let credentials else {
            throw AgentError("this node has no certificate yet, without which \(address) is not reached")
        }
        let verification = PeerVerification(.certificate(credentials.authority), expecting: holder)
        return APIClient(address, role: role, tls: ClientTLS(identity) { try await verification.verify(chain: $0) })
    }

    /// What the stream port shows on the network, once there is a certificate.
    func listenerIdentity() async -> TLSIdentity? {
        await certified.wait()
        return state.withLock { $0.listener }
    }

    /// How the cluster is reached; nil: through the unix socket only.
    var settings: ClusterSettings? { state.withLock { $0.settings } }

    // MARK: Joining and renewing

    /// Joins with the token.
    ///
    /// - Throws: `ClientError`; `AgentError` for a token that is none.
    func join(_ registration: NodeRegistration) async throws -> NodeRegistered {
        guard let token else { throw AgentError("there is no token to join with: give --join TOKEN") }
        let text: TokenText
        do {
            text = try TokenText(token)
        } catch {
            throw AgentError("--join: \(error)")
        }
        let request = try SigningRequest()
        let verification = PeerVerification(.pin(text.pin))
        let tls = ClientTLS(try ClientIdentity(), bearer: "\(text)") { try await verification.verify(chain: $0) }
        let joined: NodeJoined
        do {
            joined = try await APIClient(address, tls: tls).json(
                .POST, "\(APIPaths.nodes)/join",
                body: .json(NodeJoin(registration: registration, certificateRequest: request.text)))
        } catch let error as ClientError where error.kind == .untrusted {
            // Trying again would not help: the token is of another cluster, or somebody else answers.
            throw AgentError("the machine does not join: \(error.message)")
        }
        try await keep(
            Credentials(
                certificate: joined.issued.certificate, key: request.key, authority: joined.issued.authority))
        logger.notice("joined", metadata: ["cluster": "\(joined.registered.clusterID)"])
        return joined.registered
    }

    /// Notes what the master said of the cluster, and gets a first certificate when there is need for one.
    ///
    /// - Returns: whether the node has more to say of itself now than when it registered.
    func learn(_ settings: ClusterSettings?, node: NodeID) async throws -> Bool {
        state.withLock { $0.settings = settings }
        guard settings != nil, state.withLock({ $0.credentials }) == nil else { return false }
        try await renew(node)
        return true
    }

    private func renew(_ node: NodeID) async throws {
        let request = try SigningRequest()
        let issued: CertificateIssued = try await master().json(
            .POST, "\(APIPaths.nodes)/\(node)/certificate",
            body: .json(CertificateRequest(certificateRequest: request.text)))
        try await keep(Credentials(certificate: issued.certificate, key: request.key, authority: issued.authority))
    }

    /// Renews the certificate at two thirds of its life, for ever.
    func keepRenewing(_ node: @Sendable () -> NodeID) async throws {
        await certified.wait()
        while true {
            try Task.checkCancellation()
            guard let credentials = state.withLock({ $0.credentials }) else { return }
            let (from, until) = try credentials.validity()
            let due = try credentials.renewal()
            let now = Timestamp.now()
            if now < due {
                try await Task.sleep(for: .nanoseconds(min(due - now, 60_000_000_000)))
                continue
            }
            do {
                try await renew(node())
                logger.info("the node's certificate was renewed")
            } catch {
                try Task.checkCancellation()
                logger.warning(
                    until < .now()
                        ? "\(Self.hasRunOut(until))" : "the node's certificate is not renewed; trying again",
                    metadata: ["runs out": "\(until)", "error": "\(error)"])
                // Some twenty tries in the last third.
                try await Task.sleep(for: .nanoseconds(max(500_000_000, min((until - from) / 60, 600_000_000_000))))
            }
        }
    }
}
