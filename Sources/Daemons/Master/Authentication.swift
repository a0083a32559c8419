import ClusterSecurity
import HTTPService
import HTTPTypes
import Hummingbird
import JSON
import Logging
import MasterCore
import Model
import Synchronization
import Wire

/// Finds out who asks, for all faces: from the unix socket's rights, a node's certificate or a token. What each may do
/// is said by the routes (`Access`) and by the core.
///
/// Without a credential there is nothing but `/healthz`. Every request that changes something is written to the audit
/// log, and every one that is refused.
struct Authentication: RouterMiddleware {
    typealias Context = ServiceContext

    let master: ClusterMaster
    let audit: AuditLog

    func handle(
        _ request: Request, context: ServiceContext, next: (Request, ServiceContext) async throws -> Response
    ) async throws -> Response {
        var subject = Subject.anonymous
        do {
            subject = try await self.subject(of: request, context.connection)
            if subject == .anonymous, request.uri.path != "/healthz" {
                throw APIError(
                    status: 401, code: "unauthorized",
                    message:
                        "this takes a credential: a token in the Authorization header (MARTLET_TOKEN for `martlet`), or a "
                        + "node's certificate", headers: Self.challenge)
            }
            if subject != .anonymous {
                context.connection.recognize()
                master.connections.note(context.connection, subject)
            }
            let response = try await Subject.$current.withValue(subject) { try await next(request, context) }
            await note(request, context, subject, status: response.status.code)
            return Self.keeping(subject, in: response)
        } catch {
            let known = APIError(error)
            await note(request, context, subject, status: known.status)
            throw error
        }
    }

    /// The body of an answer is written after the route has returned: it is still the caller's business.
    private static func keeping(_ subject: Subject, in response: Response) -> Response {
        guard response.body.contentLength == nil else { return response }
        var response = response
        let body = response.body
        response.body = ResponseBody { writer in
            try await Subject.$current.withValue(subject) { try await body.write(writer) }
        }
        return response
    }

    private func note(_ request: Request, _ context: ServiceContext, _ subject: Subject, status: Int) async {
        let reads = request.method == .get || request.method == .head
        if case .node = subject, status < 400 { return }
        guard !reads || status == 401 || status == 403 else { return }
        await audit.write(
            AuditLog.Entry(
                time: .now(), subject: subject.description, peer: "\(context.connection.peer)",
                method: request.method.rawValue, path: request.uri.path, status: status))
    }

    /// - Throws: `APIError` 401 for a credential that does not count.
    private func subject(of request: Request, _ connection: ClientConnection) async throws -> Subject {
        let authorizations = request.headers[values: .authorization]
        guard authorizations.count <= 1 else {
            throw Self.unauthorized("there are \(authorizations.count) Authorization header fields instead of one")
        }
        if let authorization = authorizations.first {
            guard authorization.prefix(7).lowercased() == "bearer " else {
                throw Self.unauthorized("only bearer tokens are known in the Authorization header field")
            }
            let text = authorization.dropFirst(7).trimmingPrefix { $0 == " " }
            guard let subject = master.credentials.bearer(String(text)) else {
                throw Self.unauthorized(
                    "the token does not count: it is unknown, has run out or was revoked; `martlet token create` makes another"
                )
            }
            return subject
        }
        if case .local(_, let uid, _) = connection.peer { return .local(uid: uid) }
        guard let certificate = await connection.peerCertificate() else { return .anonymous }
        return try await node(certificate)
    }

    private func node(_ certificate: [UInt8]) async throws -> Subject {
        let name: CertificateName
        do {
            name = try CertificateName(certificate: certificate)
        } catch {
            throw Self.unauthorized("\(error)")
        }
        guard name.cluster == (await master.clusterID), case .node(let id) = name.holder else {
            throw Self.unauthorized("the certificate of \(name) is not one of a node of this cluster")
        }
        guard await master.hasNode(NodeID(id)) else {
            throw APIError(
                status: 401, code: "node-removed",
                message:
                    "the node \(id) was removed from the cluster: join again with a new data directory and a token",
                headers: Self.challenge)
        }
        return .node(NodeID(id))
    }

    private static func unauthorized(_ message: String) -> APIError {
        APIError(status: 401, code: "unauthorized", message: message, headers: challenge)
    }

    /// The connection ends too: whoever has no credential keeps none of them open.
    private static let challenge: HTTPFields = [.wwwAuthenticate: "Bearer", .connection: "close"]
}

/// The tokens that count, for whoever asks: a listener need not wait for the master, which may be busy with much.
final class TokenBook: Sendable {
    private let tokens = Mutex<[TokenID: Token]>([:])

    func replace(with new: [TokenID: Token]) { tokens.withLock { $0 = new } }

    /// Whose token it is; nil: nobody's.
    func bearer(_ text: String) -> Subject? {
        guard let given = try? TokenText(text), let token = tokens.withLock({ $0[TokenID(given.id)] }),
            token.isValid(at: .now()), TokenText.equal(token.secretDigest, given.secretDigest)
        else { return nil }
        return .user(token.id, name: token.name, role: token.role, group: token.group)
    }
}

extension ClusterMaster {
    func hasNode(_ id: NodeID) -> Bool { core.hasNode(id) }
}
