import Glibc
import Hummingbird
import Logging
import NIOCore

@testable import Client
@testable import HTTPService

typealias ClientResponse = Client.Response
typealias ServerResponse = Hummingbird.Response

/// A server on a unix socket of its own and a client for it, for the length of `body`.
func withService<Result: Sendable>(
    limits: ServiceLimits = ServiceLimits(), role: ServerRole = .master, routes: (Router<ServiceContext>) -> Void,
    _ body: @Sendable (APIClient) async throws -> Result
) async throws -> Result {
    let directory = try makeDirectory()
    defer {
        unlink(directory + "/s.lock")
        rmdir(directory)
    }
    let router = makeRouter()
    routes(router)
    let server = try await HTTPServer.listen(
        on: [.unix(path: "\(directory)/s", group: nil)], router: router, limits: limits,
        logger: Logger(label: "test") { _ in SwiftLogNoOpLogHandler() })
    return try await withThrowingTaskGroup(of: Void.self) { group in
        group.addTask { try await server.run() }
        do {
            let result = try await body(APIClient(.unix(path: directory + "/s"), role: role))
            group.cancelAll()
            try await group.waitForAll()
            return result
        } catch {
            group.cancelAll()
            throw error
        }
    }
}

func makeDirectory() throws -> String {
    var name = Array("/tmp/martlet-client-XXXXXX".utf8CString)
    guard mkdtemp(&name) != nil else { throw ClientError(.badAddress, "mkdtemp failed") }
    return String(decoding: name.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
}
