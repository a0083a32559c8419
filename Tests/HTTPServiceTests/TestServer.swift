import Glibc
import HTTPTypes
import Hummingbird
import Kernel
import Logging
import NIOCore
import NIOPosix
import ServiceLifecycle

@testable import HTTPService

/// A server on a unix socket of its own, for the length of `body`.
func withServer<Result: Sendable>(
    limits: ServiceLimits = ServiceLimits(), routes: (Router<ServiceContext>) -> Void,
    _ body: @Sendable (TestServer) async throws -> Result
) async throws -> Result {
    let directory = try makeDirectory()
    defer { _ = try? Tree.remove(directory) }
    let router = makeRouter()
    routes(router)
    let server = try await HTTPServer.listen(
        on: [.unix(path: "\(directory)/s", group: nil)], router: router,
        limits: limits, logger: quiet)
    return try await withThrowingTaskGroup(of: Void.self) { group in
        group.addTask { try await server.run() }
        defer { group.cancelAll() }
        return try await body(TestServer(server: server, path: "\(directory)/s"))
    }
}

let quiet = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }

func makeDirectory() throws -> String {
    var name = Array("/tmp/martlet-http-XXXXXX".utf8CString)
    guard mkdtemp(&name) != nil else { throw KernelError("mkdtemp", "/tmp", errno: errno) }
    return String(decoding: name.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
}

struct TestServer: Sendable {
    let server: HTTPServer
    let path: String

    /// Sends text as it stands, closes the sending side when asked to, and reads until the server closes.
    func exchange(_ text: String, finish: Bool = false) async throws -> String {
        try await connect { client in
            if !text.isEmpty { try await client.send(text) }
            if finish { client.finish() }
            return try await client.rest()
        }
    }

    /// A raw connection for the length of `body`.
    func connect<Result: Sendable>(
        _ body: @Sendable (RawClient) async throws -> Result
    ) async throws -> Result {
        let channel = try await ClientBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .channelOption(.allowRemoteHalfClosure, value: true)
            .connect(unixDomainSocketPath: path) { channel in
                channel.eventLoop.makeCompletedFuture {
                    try NIOAsyncChannel<ByteBuffer, ByteBuffer>(wrappingChannelSynchronously: channel)
                }
            }
        return try await channel.executeThenClose { inbound, _ in
            try await body(RawClient(channel: channel.channel, inbound: inbound.makeAsyncIterator()))
        }
    }

    /// Runs curl on the unix socket; returns what it printed.
    func curl(_ arguments: String...) async throws -> (code: Int32, output: String) {
        try await run("/usr/bin/curl", ["-sS", "--unix-socket", path, "--max-time", "60"] + arguments)
    }
}

/// Runs a program on a thread of its own and reads its standard output and error together.
func run(_ program: String, _ arguments: [String]) async throws -> (code: Int32, output: String) {
    try await NIOThreadPool.singleton.runIfActive {
        var ends: [Int32] = [0, 0]
        guard pipe(&ends) == 0 else { throw KernelError("pipe", errno: errno) }
        let reader = OwnedFD(adopting: ends[0])
        let writer = OwnedFD(adopting: ends[1])
        let spawn = Spawn(program, [program] + arguments, descriptors: [-1, writer.raw, writer.raw])
        let child = try spawn.start()
        close(writer.release())
        let output = try reader.readAll(limit: 64 << 20)
        return (try child.wait().shellCode, String(decoding: output, as: UTF8.self))
    }
}

/// A connection that speaks no protocol. Used by one task.
final class RawClient: @unchecked Sendable {
    let channel: any Channel
    private var inbound: NIOAsyncChannelInboundStream<ByteBuffer>.AsyncIterator
    private var text = ""

    init(channel: any Channel, inbound: NIOAsyncChannelInboundStream<ByteBuffer>.AsyncIterator) {
        self.channel = channel
        self.inbound = inbound
    }

    /// Returns when the kernel has taken all of it.
    func send(_ text: String) async throws {
        try await send(bytes: Array(text.utf8))
    }

    func send(bytes: [UInt8]) async throws {
        try await channel.writeAndFlush(ByteBuffer(bytes: bytes))
    }

    func finish() {
        channel.close(mode: .output, promise: nil)
    }

    func nextBytes() async throws -> ByteBuffer? { try await inbound.next() }

    /// Reads until `end` has come, and returns all up to and with it; what follows is kept.
    func read(until end: String) async throws -> String {
        while true {
            if let range = text.firstRange(of: end) {
                let result = String(text[..<range.upperBound])
                text = String(text[range.upperBound...])
                return result
            }
            guard let bytes = try await inbound.next() else { throw ChannelError.eof }
            text += String(buffer: bytes)
        }
    }

    /// Reads until the server closes its side.
    func rest() async throws -> String {
        while let bytes = try await inbound.next() { text += String(buffer: bytes) }
        defer { text = "" }
        return text
    }
}

/// Runs a server in a service group for the length of `body`, which gets a function that begins a graceful shutdown.
func withGracefulService(
    _ server: HTTPServer, _ body: @Sendable (_ shutdown: @escaping @Sendable () -> Void) async throws -> Void
) async throws {
    let services = ServiceGroup(configuration: .init(services: [server], logger: quiet))
    try await withThrowingTaskGroup(of: Void.self) { group in
        group.addTask { try await services.run() }
        try await body { Task { await services.triggerGracefulShutdown() } }
        try await group.waitForAll()
    }
}
