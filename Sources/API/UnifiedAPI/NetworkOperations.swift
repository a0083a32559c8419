import HTTPService
import HTTPTypes
import Hummingbird
import JSON
import Master
import MasterCore
import Model
import Wire

extension UnifiedAPI {
    private static let path = APIPaths.networks

    var networkOperations: [Operation] {
        [
            Operation(
                .get, access: .read, Self.path,
                "List the networks that users made, without what is on them and without CNI configurations.",
                answer: .json([NetworkView].self), statuses: [200]
            ) { _ in
                guard case .networks(let views) = try await master.query(.networks) else { throw APIProblem.unexpected }
                return try .json(views)
            },
            Operation(
                .post, access: .work, Self.path, "Make a network.", body: .json(CreateNetwork.self),
                answer: .json(NetworkView.self), statuses: [201, 403, 409, 413, 501, 507]
            ) { call in
                let body = try await call.body(CreateNetwork.self)
                guard case .network(let view) = try await master.perform(.createNetwork(body)) else {
                    throw APIProblem.unexpected
                }
                return try .json(view, status: .created)
            },
            Operation(
                .get, access: .read, "\(Self.path)/{network}",
                "Inspect a network, with what is on it: at most \(NetworkView.mostMembers) containers; `next` in the answer "
                    + "says that there are more.",
                query: [.text("after", "Only containers whose names come after this one.")],
                answer: .json(NetworkView.self), statuses: [200, 404, 409]
            ) { call in
                let query = MasterQuery.network(try call.name("network"), after: call.query["after"] ?? "")
                guard case .network(let view) = try await master.query(query) else { throw APIProblem.unexpected }
                return try .json(view)
            },
            Operation(
                .delete, access: .work, "\(Self.path)/{network}", "Remove a network that nothing is attached to.",
                statuses: [204, 403, 404, 409, 507]
            ) { call in
                _ = try await master.perform(.removeNetwork(call.name("network")))
                return Response.empty
            },
            Operation(
                .post, access: .work, "\(Self.path)/{network}/connect",
                "Attach a container, running or not.", body: .json(ConnectNetwork.self),
                statuses: [204, 403, 404, 409, 413, 507]
            ) { call in
                let body = try await call.body(ConnectNetwork.self)
                _ = try await master.perform(.connect(call.name("network"), body))
                return Response.empty
            },
            Operation(
                .post, access: .work, "\(Self.path)/{network}/disconnect",
                "Detach a container, running or not.", body: .json(DisconnectNetwork.self),
                statuses: [204, 403, 404, 409, 413, 507]
            ) { call in
                let body = try await call.body(DisconnectNetwork.self)
                _ = try await master.perform(.disconnect(call.name("network"), body))
                return Response.empty
            },
            Operation(
                .post, access: .work, "\(Self.path)/prune", "Remove the networks that nothing is attached to.",
                body: .json(PruneNetworks.self), answer: .json(RemovedNetworks.self), statuses: [200, 413, 507]
            ) { call in
                let body = try await call.body(PruneNetworks.self)
                guard case .removed(let names) = try await master.perform(.pruneNetworks(body)) else {
                    throw APIProblem.unexpected
                }
                return try .json(RemovedNetworks(networks: names))
            },
        ]
    }
}
