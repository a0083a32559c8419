import HTTPService
import HTTPTypes
import Hummingbird
import Kernel
import Model
import NIOCore

/// `_ping`, `version`.
extension DockerAPI {
    var systemRoutes: [DockerRoute] {
        [
            DockerRoute(.get, "/_ping", access: .read) { _ in Self.pong },
            DockerRoute(.head, "/_ping", access: .read) { _ in Self.pong },
        ]
    }

    /// Nothing is asked of anybody: it has to come whatever the cluster does.
    private static var pong: Response {
        Response(
            status: .ok,
            headers: [
                .contentType: "text/plain; charset=utf-8", .cacheControl: "no-cache, no-store, must-revalidate",
                .pragma: "no-cache", .builderVersion: "1", .swarm: "inactive",
            ], body: ResponseBody(byteBuffer: ByteBuffer(string: "OK")))
    }
}
