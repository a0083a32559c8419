import ClusterSecurity
import Hummingbird
import JSON
import Kernel
import NIOCore
import NIOPosix
import Testing

@testable import HTTPService

/// Those who show no credential get little room and little time.
@Suite(.timeLimit(.minutes(2))) struct StrangerTests {
    private static func withServer(
        _ change: (inout ServiceLimits) -> Void, _ isHere: Signal = Signal(), _ mayGo: Signal = Signal(),
        _ body: @Sendable (Int) async throws -> Void
    ) async throws {
        let directory = try makeDirectory()
        defer { _ = try? Tree.remove(directory) }
        let authority = try CertificateAuthority(directory: "\(directory)/ca", cluster: "c1", now: .now())
        let master = try authority.issueMaster(hosts: ["127.0.0.1"], life: 3600, now: .now())
        let identity = try TLSIdentity(certificate: master.certificate, key: master.key, authority: master.authority)
        let router = makeRouter()
        router.get("known") { _, context in
            context.connection.recognize()
            return Response.text("known")
        }
        router.get("stay") { _, context in
            context.connection.recognize()
            isHere.fire()
            await mayGo.wait()
            return Response.text("stayed")
        }
        router.get("unknown") { _, _ in Response.text("unknown") }
        var limits = ServiceLimits()
        change(&limits)
        let server = try await HTTPServer.listen(
            on: [.tls(host: "127.0.0.1", port: 0, identity)], router: router, limits: limits, logger: quiet)
        guard case .tls(_, let port, _)? = server.endpoints.first else { throw ChannelError.unknownLocalAddress }
        let running = Task { try await server.run() }
        defer { running.cancel() }
        try await body(port)
        running.cancel()
        try await running.value
    }

    /// A connection that says nothing; ends when `body` does.
    private static func silently(_ port: Int, _ body: (RawClient) async throws -> Void) async throws {
        let channel = try await ClientBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .connect(host: "127.0.0.1", port: port) { channel in
                channel.eventLoop.makeCompletedFuture {
                    try NIOAsyncChannel<ByteBuffer, ByteBuffer>(wrappingChannelSynchronously: channel)
                }
            }
        try await channel.executeThenClose { inbound, _ in
            try await body(RawClient(channel: channel.channel, inbound: inbound.makeAsyncIterator()))
        }
    }

    private static func curl(_ port: Int, _ path: String) async throws -> String {
        try await run("/usr/bin/curl", ["-sk", "--max-time", "60", "https://127.0.0.1:\(port)/\(path)"]).output
    }

    @Test func whoBeginsNoHandshakeIsCut() async throws {
        try await Self.withServer({ $0.headTimeout = .milliseconds(200) }) { port async throws in
            try await Self.silently(port) { client async throws in
                #expect(try await client.rest().isEmpty)
            }
        }
    }

    @Test func anAddressHasRoomForSoManyStrangers() async throws {
        try await Self.withServer({ ($0.strangers, $0.headTimeout) = (2, .seconds(60)) }) { port async throws in
            try await Self.silently(port) { _ async throws in
                // Connections that are recognized, and those that are over, do not count.
                for _ in 0..<5 { #expect(try await Self.curl(port, "known") == "known") }
                try await Self.silently(port) { _ async throws in
                    #expect(try await Self.curl(port, "unknown").isEmpty)
                }
                while try await Self.curl(port, "unknown") != "unknown" { try await Task.sleep(for: .milliseconds(20)) }
            }
        }
    }

    @Test func whoIsRecognizedMakesRoom() async throws {
        let (isHere, mayGo) = (Signal(), Signal())
        try await Self.withServer({ ($0.strangers, $0.headTimeout) = (1, .seconds(60)) }, isHere, mayGo) {
            port async throws in
            async let first = Self.curl(port, "stay")
            await isHere.wait()
            #expect(try await Self.curl(port, "known") == "known")
            mayGo.fire()
            #expect(try await first == "stayed")
        }
    }
}
