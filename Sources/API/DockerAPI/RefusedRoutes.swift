import HTTPService
import HTTPTypes
import Hummingbird
import Model

/// What Docker's API has and this one does not do yet: 501 with a sentence, never silence.
extension DockerAPI {
    var refusedRoutes: [DockerRoute] {
        let swarm =
            "Swarm mode is not served: the cluster has its own services, nodes, secrets and configs, see `martlet`"
        let plugins = "plugins are not served: volumes and networks are made by Martlet's own drivers"
        let build = "building images is not served yet: build elsewhere and push or load the image"
        let checkpoints = "checkpoints are not served yet"
        return [
            ("/swarm", [.get], swarm), ("/swarm/{verb}", [.get, .post], swarm),
            ("/nodes", [.get], swarm), ("/nodes/{id}", [.get, .delete], swarm), ("/nodes/{id}/update", [.post], swarm),
            ("/services", [.get], swarm), ("/services/create", [.post], swarm),
            ("/services/{id}", [.get, .delete], swarm), ("/services/{id}/update", [.post], swarm),
            ("/services/{id}/logs", [.get], swarm),
            ("/tasks", [.get], swarm), ("/tasks/{id}", [.get], swarm), ("/tasks/{id}/logs", [.get], swarm),
            ("/secrets", [.get], swarm), ("/secrets/create", [.post], swarm),
            ("/secrets/{id}", [.get, .delete], swarm), ("/secrets/{id}/update", [.post], swarm),
            ("/configs", [.get], swarm), ("/configs/create", [.post], swarm),
            ("/configs/{id}", [.get, .delete], swarm), ("/configs/{id}/update", [.post], swarm),
            ("/plugins/privileges", [.get], plugins), ("/plugins/pull", [.post], plugins),
            ("/plugins/create", [.post], plugins), ("/plugins/{name...}/json", [.get], plugins),
            ("/plugins/{name...}/enable", [.post], plugins), ("/plugins/{name...}/disable", [.post], plugins),
            ("/plugins/{name...}/upgrade", [.post], plugins), ("/plugins/{name...}/push", [.post], plugins),
            ("/plugins/{name...}/set", [.post], plugins), ("/plugins/{name...}", [.delete], plugins),
            ("/build", [.post], build), ("/build/cancel", [.post], build),
            ("/session", [.post], build), ("/grpc", [.post], build),
            ("/containers/{id}/checkpoints", [.get, .post], checkpoints),
            ("/containers/{id}/checkpoints/{checkpoint}", [.delete], checkpoints),
        ].flatMap { (path: String, methods: [HTTPRequest.Method], why: String) in
            methods.map { method in
                DockerRoute(method, path, access: .read) { call in throw Self.refusal(call, why) }
            }
        } + [
            // Nothing is built, so nothing is left of it; `docker system prune` asks.
            DockerRoute(.post, "/build/prune", access: .operate) { _ in
                .json(bytes: Array(#"{"CachesDeleted":null,"SpaceReclaimed":0}"#.utf8))
            },
            DockerRoute(.get, "/plugins", access: .read) { _ in .json(bytes: Array("[]".utf8)) },
        ]
    }

    /// A client that looks for an object of any kind (`docker inspect`) asks here last, and wants to hear that there is
    /// none.
    private static func refusal(_ call: DockerCall, _ why: String) -> DockerError {
        guard call.request.method == .get, !call.id.isEmpty else { return .notImplemented(why) }
        return call.name("name").isEmpty
            ? DockerError(503, "This node is not a swarm manager. \(why)")
            : .notFound("plugin \"\(call.id)\" not found: \(why)")
    }
}
