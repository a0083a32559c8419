import HTTPTypes
import Hummingbird
import Model

/// Images: one view over the nodes. Who may do what is the same as in Martlet's own API: docs/api.md.
extension DockerAPI {
    var imageRoutes: [DockerRoute] {
        [
            DockerRoute(.get, "/images/json", access: .read) { try await listImages($0) },
            DockerRoute(.get, "/images/search", access: .work) { try await searchImages($0) },
            DockerRoute(.get, "/images/get", access: .work) { try await saveImages($0, $0.query.list("names")) },
            DockerRoute(.post, "/images/create", access: .work) { call in
                call.query.text("fromImage") == nil ? try await importImage(call) : try await pullImage(call)
            },
            // The names in an archive, which may be other groups', are known only when it has been loaded.
            DockerRoute(.post, "/images/load", access: .operate) { try await loadImages($0) },
            DockerRoute(.post, "/images/prune", access: .operate) { try await pruneImages($0) },
            DockerRoute(.get, "/images/{name...}/json", access: .read) { try await inspectImage($0) },
            DockerRoute(.get, "/images/{name...}/attestations", access: .read, since: .v1_55) {
                try await attestations($0)
            },
            DockerRoute(.get, "/images/{name...}/history", access: .read) { try await imageHistory($0) },
            DockerRoute(.get, "/images/{name...}/get", access: .work) { try await saveImages($0, [$0.id]) },
            DockerRoute(.post, "/images/{name...}/push", access: .work) { try await pushImage($0) },
            DockerRoute(.post, "/images/{name...}/tag", access: .work) { try await tagImage($0) },
            DockerRoute(.delete, "/images/{name...}", access: .operate) { try await removeImage($0) },
            DockerRoute(.get, "/distribution/{name...}/json", access: .work) { try await describeDistribution($0) },
            DockerRoute(.post, "/auth", access: .work) { try await checkAuth($0) },
            DockerRoute(.get, "/system/df", access: .read) { try await diskUsage($0) },
        ]
    }
}
