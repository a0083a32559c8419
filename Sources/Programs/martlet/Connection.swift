import ArgumentParser
import Client
import Glibc
import JSON
import Model
import NIOCore
import StreamFrames
import Wire

/// Which cluster.
struct ConnectionOptions: ParsableArguments {
    @Option(
        name: [.customShort("H"), .long],
        help:
            "unix:/path or https://host:port (MARTLET_HOST; unix:/run/martlet/martlet.sock), the latter with MARTLET_TOKEN."
    )
    var host: String?

    var cluster: ClusterAPI {
        func variable(_ name: String) -> String? {
            getenv(name).map { String(cString: $0) }.flatMap { $0.isEmpty ? nil : $0 }
        }
        return ClusterAPI(
            host: host ?? variable("MARTLET_HOST") ?? "unix:/run/martlet/martlet.sock",
            token: variable("MARTLET_TOKEN"))
    }
}

extension ClusterAPI {
    func version() async throws -> VersionInfo { try await get(APIPaths.version) }

    /// A list without a table of its own keys: order and repetition matter to the server.
    func act(_ container: String, _ verb: ContainerAction.Verb, _ action: ContainerAction) async throws {
        try await perform(
            "POST", "\(APIPaths.containers)/\(escaped(container))/\(verb.rawValue)", query: [("wait", "true")],
            body: action)
    }

    func delete(_ root: String, _ name: String, query: [(String, String)] = []) async throws {
        try await perform("DELETE", "\(root)/\(escaped(name))", query: query)
    }

    func wait(_ container: String) async throws -> WaitResult {
        try await send("POST", "\(APIPaths.containers)/\(escaped(container))/wait")
    }
}

/// One path segment.
func escaped(_ text: String) -> String { PercentEncoding.encode(text) }
