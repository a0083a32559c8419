import HTTPTypes
import Model

/// What lists containers, and has them do something.
extension DockerAPI {
    var containerRoutes: [DockerRoute] {
        [
            DockerRoute(.get, "/containers/json", access: .read) { call in try await listContainers(call) },
            // Old clients ask so.
            DockerRoute(.get, "/containers/ps", access: .read) { call in try await listContainers(call) },
            DockerRoute(.post, "/containers/prune", access: .work) { call in try await pruneContainers(call) },
            DockerRoute(.post, "/containers/{id}/start", access: .work) { call in try await start(call) },
            DockerRoute(.post, "/containers/{id}/stop", access: .work) { call in try await stop(call) },
            DockerRoute(.post, "/containers/{id}/restart", access: .work) { call in try await restart(call) },
            DockerRoute(.post, "/containers/{id}/kill", access: .work) { call in try await kill(call) },
            DockerRoute(.post, "/containers/{id}/pause", access: .work) { call in try await pause(call) },
            DockerRoute(.post, "/containers/{id}/unpause", access: .work) { call in try await unpause(call) },
            DockerRoute(.post, "/containers/{id}/rename", access: .work) { call in try await rename(call) },
            DockerRoute(.post, "/containers/{id}/update", access: .work) { call in try await update(call) },
            DockerRoute(.post, "/containers/{id}/wait", access: .read) { call in try await wait(call) },
            DockerRoute(.get, "/containers/{id}/top", access: .read) { call in try await top(call) },
            DockerRoute(.get, "/containers/{id}/stats", access: .read) { call in try await stats(call) },
            DockerRoute(.delete, "/containers/{id}", access: .work) { call in try await remove(call) },
        ]
    }
}
