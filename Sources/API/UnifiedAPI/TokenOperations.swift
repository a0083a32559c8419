import HTTPService
import HTTPTypes
import Hummingbird
import JSON
import Master
import MasterCore
import Model
import Wire

extension UnifiedAPI {
    private static let path = APIPaths.tokens

    /// Credentials, and how other machines reach and join the cluster.
    var tokenOperations: [Operation] {
        [
            Operation(
                .get, access: .administer, Self.path, "List tokens, without their secrets.",
                answer: .json([TokenView].self), statuses: [200]
            ) { _ in
                guard case .tokens(let views) = try await master.query(.tokens) else { throw APIProblem.unexpected }
                return try .json(views)
            },
            Operation(
                .post, access: .administer, Self.path, "Make a token; its text is in this answer only.",
                body: .json(CreateToken.self), answer: .json(TokenCreated.self), statuses: [201, 409, 413, 507]
            ) { call in
                let wish = try await call.body(CreateToken.self)
                var response = try Response.json(try await master.createToken(wish), status: .created)
                response.headers[.cacheControl] = "no-store"
                return response
            },
            Operation(
                .delete, access: .administer, "\(Self.path)/{token}", "Revoke a token.", statuses: [204, 404, 409, 507]
            ) { call in
                _ = try await master.perform(.revokeToken(call.name("token")))
                return Response.empty
            },
            Operation(
                .put, access: .administer, "\(APIPaths.cluster)/settings",
                "Say how other machines reach the cluster; the master listens there from then on.",
                body: .json(ClusterSettings.self), answer: .json(ClusterView.self), statuses: [200, 413, 507]
            ) { call in
                let settings = try await call.body(ClusterSettings.self)
                guard case .cluster(let view) = try await master.configure(settings) else {
                    throw APIProblem.unexpected
                }
                return try .json(view)
            },
            Operation(
                .get, access: .contents, "\(APIPaths.cluster)/members",
                "Ids of the nodes that belong to it, for agents.", answer: .json([NodeID].self), statuses: [200]
            ) { _ in
                try .json(await master.nodeIDs)
            },
            Operation(
                .post, access: .join, "\(APIPaths.nodes)/join", "A machine with a token becomes a node.",
                body: .json(NodeJoin.self), answer: .json(NodeJoined.self), statuses: [200, 409, 413, 507]
            ) { call in
                let wish = try JSONCoding.decode(NodeJoin.self, from: await call.request.jsonBytes(call.context))
                return try .json(try await master.join(wish))
            },
            Operation(
                .post, access: .node, "\(APIPaths.nodes)/{node}/certificate", "A node's next certificate.",
                body: .json(CertificateRequest.self), answer: .json(CertificateIssued.self),
                statuses: [200, 404, 409, 413]
            ) { call in
                let wish = try JSONCoding.decode(
                    CertificateRequest.self, from: await call.request.jsonBytes(call.context))
                return try .json(try await master.renew(NodeID(call.name("node")), wish))
            },
        ]
    }
}
