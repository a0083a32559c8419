import Hummingbird
import NIOCore
import StreamFrames
import Synchronization
import Testing

@testable import Client
@testable import HTTPService

/// Upgraded connections, frames on them, and the master's relay between two of them.
@Suite(.timeLimit(.minutes(2))) struct RawConnectionTests {
    /// `/echo` sends back what it reads and then `bye`; `/flood` sends 20 MB; `/silent` waits for ever; `/brief` says
    /// `bye` and ends.
    static func routes(_ router: Router<ServiceContext>, cancelled: Signal = Signal()) {
        let name = RawConnection.framesProtocol
        router.post("echo") { request, context in
            try context.takeOver(request, as: name) { stream in
                for try await bytes in stream.inbound { try await stream.write(bytes) }
                try await stream.write(Array("bye".utf8))
            }
        }
        router.post("flood") { request, context in
            try context.takeOver(request, as: name) { stream in
                for _ in 0..<20 { try await stream.write(ByteBuffer(repeating: 7, count: 1_000_000)) }
            }
        }
        router.post("brief") { request, context in
            try context.takeOver(request, as: name) { stream in try await stream.write(Array("bye".utf8)) }
        }
        router.post("silent") { request, context in
            try context.takeOver(request, as: name) { stream in
                defer { cancelled.fire() }
                for try await _ in stream.inbound {}
                try await Task.sleep(for: .seconds(600))
            }
        }
        router.post("cat") { request, context in
            try context.takeOver(request, as: name) { stream in
                let frames = FrameStream(
                    reading: stream.inbound, write: { try await stream.write($0) }, finish: { stream.finish() })
                loop: for try await frame in frames {
                    switch frame {
                    case .stdin(let bytes): try await frames.send(.stdout(bytes))
                    case .end(0): break loop
                    default: try await frames.send(.error("unexpected"))
                    }
                }
                try await frames.send(.exit(3))
            }
        }
    }

    /// What a master does: every stream is one of the agent's.
    static func relays(to agent: APIClient) -> (Router<ServiceContext>) -> Void {
        { router in
            router.post("{name}") { request, context in
                let name = try context.pathParameter("name")
                let upstream = try await agent.upgrade("/\(name)")
                return try context.takeOver(request, as: RawConnection.framesProtocol) { stream in
                    try await upstream.relay(
                        from: stream.inbound, write: { try await stream.write($0) }, finish: { stream.finish() },
                        closed: { await stream.untilClosed() })
                }
            }
        }
    }

    /// Runs `body` with a client of an agent, or of a master that relays to one.
    func withStreams(
        relayed: Bool, cancelled: Signal = Signal(), _ body: @Sendable (APIClient) async throws -> Void
    ) async throws {
        try await withService(role: .agent, routes: { Self.routes($0, cancelled: cancelled) }) { agent in
            if relayed {
                try await withService(routes: Self.relays(to: agent)) { try await body($0) }
            } else {
                try await body(agent)
            }
        }
    }

    static func text(_ connection: RawConnection) async throws -> String {
        var text = ""
        for try await bytes in connection.inbound { text += String(buffer: bytes) }
        return text
    }

    @Test(arguments: [false, true])
    func bytesPassBothWaysAndHalfCloseIsPassedOn(relayed: Bool) async throws {
        try await withStreams(relayed: relayed) { client in
            let connection = try await client.upgrade("/echo")
            try await connection.write(ByteBuffer(string: "hello "))
            let iterator = connection.inbound.makeAsyncIterator()
            #expect(try await iterator.next().map { String(buffer: $0) } == "hello ")
            try await connection.write(ByteBuffer(string: "world "))
            connection.finish()
            var rest = ""
            while let bytes = try await iterator.next() { rest += String(buffer: bytes) }
            #expect(rest == "world bye")
        }
    }

    /// Answer, bytes and end often come to the client in one piece.
    @Test(arguments: [false, true])
    func nothingIsLostOfWhatEndsAtOnce(relayed: Bool) async throws {
        try await withStreams(relayed: relayed) { client in
            try await withThrowingTaskGroup(of: Void.self) { group in
                for _ in 0..<16 {
                    group.addTask {
                        for _ in 0..<25 {
                            let connection = try await client.upgrade("/brief")
                            #expect(try await Self.text(connection) == "bye")
                        }
                    }
                }
                try await group.waitForAll()
            }
        }
    }

    @Test(arguments: [false, true])
    func nothingIsLostOfMuch(relayed: Bool) async throws {
        try await withStreams(relayed: relayed) { client in
            let connection = try await client.upgrade("/flood")
            var count = 0
            for try await bytes in connection.inbound {
                count += bytes.readableBytes
                if count % 11 == 0 { try await Task.sleep(for: .milliseconds(2)) }
            }
            #expect(count == 20_000_000)
        }
    }

    @Test(arguments: [false, true])
    func muchInBothDirectionsAtOnce(relayed: Bool) async throws {
        try await withStreams(relayed: relayed) { client in
            let connection = try await client.upgrade("/echo")
            async let sent: Void = {
                for _ in 0..<100 { try await connection.write(ByteBuffer(repeating: 9, count: 100_000)) }
                connection.finish()
            }()
            var count = 0
            for try await bytes in connection.inbound { count += bytes.readableBytes }
            try await sent
            #expect(count == 10_000_003)
        }
    }

    @Test(arguments: [false, true])
    func aClientThatGoesEndsTheSession(relayed: Bool) async throws {
        let cancelled = Signal()
        try await withStreams(relayed: relayed, cancelled: cancelled) { client in
            let connection = try await client.upgrade("/silent")
            connection.close()
            await cancelled.wait()
        }
    }

    @Test(arguments: [false, true])
    func framesPassAndTheStreamEndsWithTheExitCode(relayed: Bool) async throws {
        try await withStreams(relayed: relayed) { client in
            let frames = try await client.upgrade("/cat").frames
            try await frames.send(.stdin(Array("abc".utf8)))
            try await frames.send(.stdin([UInt8](repeating: 1, count: 200_000)))
            try await frames.send(.end(0))
            var bytes: [UInt8] = []
            var code: Int32?
            for try await frame in frames {
                switch frame {
                case .stdout(let more): bytes += more
                case .exit(let number): code = number
                default: Issue.record("unexpected frame \(frame)")
                }
            }
            #expect(bytes == Array("abc".utf8) + [UInt8](repeating: 1, count: 200_000))
            #expect(code == 3)
        }
    }

    @Test func aStreamCutInsideAFrameIsAnError() async throws {
        try await withService { router in
            router.post("cut") { request, context in
                try context.takeOver(request, as: RawConnection.framesProtocol) { stream in
                    try await stream.write(Array(Frame.stdout([1, 2, 3]).encoded().dropLast()))
                }
            }
        } _: { client in
            let frames = try await client.upgrade("/cut").frames
            let error = await #expect(throws: ClientError.self) { for try await _ in frames {} }
            #expect(error?.kind == .disconnected)
        }
    }

    @Test func aRefusedUpgradeThrowsTheServersError() async throws {
        try await withService { router in
            router.post("no") { _, _ -> ServerResponse in throw APIError.conflict("the container is not running") }
            router.post("plain") { _, _ in ServerResponse.text("just text") }
        } _: { client in
            await #expect(
                throws: ClientError(
                    .refused, "the container is not running", status: 409, code: "conflict")
            ) {
                _ = try await client.upgrade("/no")
            }
            let error = await #expect(throws: ClientError.self) { _ = try await client.upgrade("/plain") }
            #expect(error?.kind == .badAnswer)
        }
    }

    @Test func aServerThatDoesNotReadHoldsTheWriterBack() async throws {
        try await withService { router in
            router.post("deaf") { request, context in
                try context.takeOver(request, as: RawConnection.framesProtocol) { _ in
                    try await Task.sleep(for: .seconds(600))
                }
            }
        } _: { client in
            let connection = try await client.upgrade("/deaf")
            let sent = Mutex(0)
            let task = Task {
                while true {
                    try await connection.write(ByteBuffer(repeating: 1, count: 64 << 10))
                    sent.withLock { $0 += 64 << 10 }
                }
            }
            var before = -1
            while sent.withLock({ $0 }) != before {
                before = sent.withLock { $0 }
                try await Task.sleep(for: .milliseconds(300))
            }
            #expect(before < 8 << 20)
            task.cancel()
            await #expect(throws: CancellationError.self) { try await task.value }
        }
    }
}
