import ClusterSecurity
import HTTPService
import HTTPTypes
import Hummingbird
import Model
import Wire

/// Who may use the stream port: root on its unix socket; on the network the cluster's masters, and its other nodes for
/// content of images.
struct StreamAuthentication: RouterMiddleware {
    typealias Context = ServiceContext

    /// nil until the node belongs to a cluster.
    let cluster: @Sendable () -> String?
    let members: Members

    func handle(
        _ request: Request, context: ServiceContext, next: (Request, ServiceContext) async throws -> Response
    ) async throws -> Response {
        if case .network = context.connection.peer {
            try await check(request, await context.connection.peerCertificate())
            context.connection.recognize()
        }
        return try await next(request, context)
    }

    private static func unauthorized(_ message: String) -> APIError {
        APIError(status: 401, code: "unauthorized", message: message, headers: [.connection: "close"])
    }

    private func check(_ request: Request, _ certificate: [UInt8]?) async throws(APIError) {
        guard let certificate else {
            throw Self.unauthorized("this port is for the cluster's masters and nodes, by certificate")
        }
        let name: CertificateName
        do {
            name = try CertificateName(certificate: certificate)
        } catch {
            throw Self.unauthorized("\(error)")
        }
        guard name.cluster == cluster() else {
            throw Self.unauthorized("\(name) is not of this node's cluster")
        }
        switch name.holder {
        case .master: return
        case .node(let id):
            guard await members.contains(NodeID(id)) else {
                throw Self.unauthorized("the node \(id) is not one of this cluster's, as far as the master has said")
            }
            let reads = request.method == .get || request.method == .head
            guard reads, request.uri.path.hasPrefix("\(StreamPort.prefix)/content/") else {
                throw .forbidden("\(name) may read content of images here, and nothing else")
            }
        }
    }
}
