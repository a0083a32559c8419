import HTTPService
import Hummingbird
import Model
import Security
import Wire

/// Who may use the stream port: root on its unix socket; on the network the cluster's masters, and its other nodes for
/// content of images.
struct StreamAuthentication: RouterMiddleware {
    typealias Context = ServiceContext

    /// nil until the node belongs to a cluster.
    let cluster: @Sendable () -> String?

    func handle(
        _ request: Request, context: ServiceContext, next: (Request, ServiceContext) async throws -> Response
    ) async throws -> Response {
        if case .network = context.connection.peer { try check(request, await context.connection.peerCertificate()) }
        return try await next(request, context)
    }

    private func check(_ request: Request, _ certificate: [UInt8]?) throws(APIError) {
        guard let certificate else {
            throw APIError(
                status: 401, code: "unauthorized",
                message: "this port is for the cluster's masters and nodes, by certificate")
        }
        let name: CertificateName
        do {
            name = try CertificateName(certificate: certificate)
        } catch {
            throw APIError(status: 401, code: "unauthorized", message: "\(error)")
        }
        guard name.cluster == cluster() else {
            throw APIError(status: 401, code: "unauthorized", message: "\(name) is not of this node's cluster")
        }
        switch name.holder {
        case .master: return
        case .node:
            let reads = request.method == .get || request.method == .head
            guard reads, request.uri.path.hasPrefix("\(StreamPort.prefix)/content/") else {
                throw .forbidden("\(name) may read content of images here, and nothing else")
            }
        }
    }
}
