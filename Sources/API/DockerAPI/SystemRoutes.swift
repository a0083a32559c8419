import HTTPService
import HTTPTypes
import Hummingbird
import JSON
import Kernel
import Master
import MasterCore
import Model
import NIOCore
import Wire

/// `_ping`, `version`, `info`.
extension DockerAPI {
    var systemRoutes: [DockerRoute] {
        [
            DockerRoute(.get, "/_ping", access: .read) { _ in Self.pong },
            DockerRoute(.get, "/version", access: .read) { _ in try .docker(Self.versions) },
            DockerRoute(.get, "/info", access: .read) { call in try await info(call) },
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

    private func info(_ call: DockerCall) async throws -> Response {
        guard case .cluster(let cluster) = try await master.query(.cluster),
            case .counts(let counts) = try await master.query(.counts),
            case .nodes(let nodes) = try await master.query(.nodes)
        else { throw APIProblem.unexpected }
        let info = SystemInfo(
            cluster: cluster, counts: counts, nodes: nodes, listeners: master.eventListeners, version: call.version)
        return .json(bytes: info.json.serialized())
    }

    private static var versions: JSONValue {
        let machine = Machine()
        let details: JSONObject = [
            "ApiVersion": .string("\(APIVersion.newest)"), "MinAPIVersion": .string("\(APIVersion.oldest)"),
            "Os": "linux", "Arch": .string(machine.platform), "KernelVersion": .string(machine.release),
            "Experimental": "false", "GitCommit": "", "GoVersion": "", "BuildTime": "",
        ]
        var members: JSONObject = [
            "Platform": .object(["Name": "Martlet"]), "Version": .string(Version.number),
            "Components": [
                .object(["Name": "Engine", "Version": .string(Version.number), "Details": .object(details)])
            ],
        ]
        for key in ["ApiVersion", "MinAPIVersion", "GitCommit", "GoVersion", "Os", "Arch", "KernelVersion"] {
            members[key] = details[key]
        }
        return .object(members)
    }
}
