import Hummingbird
import NIOCore
import Synchronization
import Testing

@testable import HTTPService

/// A connection that a route takes over after 101 carries raw bytes both ways, with nothing lost at the change.
@Suite(.timeLimit(.minutes(2))) struct TakeoverTests {
    let ask = "POST /echo HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n"

    /// `/echo` sends back what it reads, in brackets, and `bye` after the client's half-close.
    static func echo(_ router: Router<ServiceContext>) {
        router.post("echo") { request, context in
            let body = try await request.jsonBytes(context)
            return try context.takeOver(request, as: "tcp", contentType: "application/x-echo") { stream in
                if !body.isEmpty { try await stream.write(Array("body(".utf8) + body + Array(")".utf8)) }
                for try await bytes in stream.inbound {
                    try await stream.write(ByteBuffer(string: "[\(String(buffer: bytes))]"))
                }
                try await stream.write(Array("bye".utf8))
            }
        }
        router.get("plain") { _, _ in Response.text("plain") }
    }

    @Test func answers101AndEchoes() async throws {
        let text = try await withServer(routes: Self.echo) { server in
            try await server.connect { client in
                try await client.send(ask + "\r\n")
                let head = try await client.read(until: "\r\n\r\n")
                #expect(head.hasPrefix("HTTP/1.1 101 Switching Protocols\r\n"))
                #expect(head.lowercased().contains("upgrade: tcp\r\n"))
                #expect(head.lowercased().contains("content-type: application/x-echo\r\n"))
                #expect(!head.lowercased().contains("content-length"))
                #expect(!head.lowercased().contains("transfer-encoding"))
                try await client.send("one")
                #expect(try await client.read(until: "]") == "[one]")
                try await client.send("two")
                client.finish()
                return try await client.rest()
            }
        }
        #expect(text == "[two]bye")
    }

    @Test func bytesInTheSegmentOfTheRequestAreTheFirstRead() async throws {
        let text = try await withServer(routes: Self.echo) { server in
            try await server.connect { client in
                try await client.send(ask + "\r\nearly")
                let head = try await client.read(until: "\r\n\r\n")
                #expect(head.hasPrefix("HTTP/1.1 101"))
                #expect(try await client.read(until: "]") == "[early]")
                client.finish()
                return try await client.rest()
            }
        }
        #expect(text == "bye")
    }

    @Test func endOfInputInTheSegmentOfTheRequestArrivesAfterItsBytes() async throws {
        let text = try await withServer(routes: Self.echo) { server in
            try await server.exchange(ask + "\r\nearly", finish: true)
        }
        #expect(text.hasSuffix("\r\n\r\n[early]bye"))
    }

    @Test func aRequestBodyOfDeclaredLengthComesBeforeTheRawBytes() async throws {
        let text = try await withServer(routes: Self.echo) { server in
            try await server.exchange(ask + "Content-Length: 4\r\n\r\n{\"a\"raw", finish: true)
        }
        #expect(text.hasSuffix("\r\n\r\nbody({\"a\")[raw]bye"))
    }

    @Test func aChunkedRequestBodyInPiecesComesBeforeTheRawBytes() async throws {
        let text = try await withServer(routes: Self.echo) { server in
            try await server.connect { client in
                for piece in [
                    ask + "Transfer-Encoding: chunked\r\n", "\r\n3\r\nab", "c\r\n2\r\nde\r\n", "0\r\n\r\nraw",
                ] {
                    try await client.send(piece)
                    try await Task.sleep(for: .milliseconds(20))
                }
                client.finish()
                return try await client.rest()
            }
        }
        #expect(text.hasSuffix("\r\n\r\nbody(abcde)[raw]bye"))
    }

    @Test func anUpgradeOfAnUnknownPathIs404AndTheEnd() async throws {
        let text = try await withServer(routes: Self.echo) { server in
            try await server.exchange(ask.replacing("/echo", with: "/nowhere") + "\r\nraw bytes that nobody wants")
        }
        #expect(text.hasPrefix("HTTP/1.1 404 "))
        #expect(text.lowercased().contains("connection: close\r\n"))
        #expect(text.contains(#""code":"not-found""#))
    }

    @Test func withoutUpgradeHeadersTheAnswerIs426() async throws {
        let text = try await withServer(routes: Self.echo) { server in
            try await server.exchange("POST /echo HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        }
        #expect(text.hasPrefix("HTTP/1.1 426 "))
    }

    @Test func aConnectionServesRequestsBeforeItIsTakenOver() async throws {
        let text = try await withServer(routes: Self.echo) { server in
            let plain = "GET /plain HTTP/1.1\r\nHost: x\r\n\r\n"
            return try await server.exchange(plain + plain + ask + "\r\nraw", finish: true)
        }
        #expect(text.components("HTTP/1.1 200 OK") == 2)
        #expect(text.hasSuffix("[raw]bye"))
    }

    @Test(arguments: [false, true])
    func allBytesReachASlowReader(halfClosed: Bool) async throws {
        let total = 20 << 20
        let received = try await withServer { router in
            router.post("flood") { request, context in
                try context.takeOver(request, as: "tcp") { stream in
                    let piece = ByteBuffer(repeating: 120, count: 1 << 20)
                    for _ in 0..<19 { try await stream.write(piece) }
                    // The last is in no kernel's buffer when the session returns.
                    try await stream.write(piece)
                }
            }
        } _: { server in
            try await server.connect { client in
                try await client.send(ask.replacing("/echo", with: "/flood") + "\r\n")
                if halfClosed { client.finish() }
                _ = try await client.read(until: "\r\n\r\n")
                var count = 0
                while let bytes = try await client.nextBytes() {
                    count += bytes.readableBytes
                    if count % 7 == 0 { try await Task.sleep(for: .milliseconds(5)) }
                }
                return count
            }
        }
        // `read(until:)` may have kept some of the bytes that came with the head.
        #expect(received > total - (1 << 20) && received <= total)
    }

    @Test func aWriterWaitsForAReaderThatDoesNotRead() async throws {
        let written = Mutex(0)
        try await withServer { router in
            router.post("flood") { request, context in
                try context.takeOver(request, as: "tcp") { stream in
                    while true {
                        try await stream.write(ByteBuffer(repeating: 120, count: 64 << 10))
                        written.withLock { $0 += 64 << 10 }
                    }
                }
            }
        } _: { server in
            try await server.connect { client in
                try await client.channel.setOption(.autoRead, value: false).get()
                try await client.send(ask.replacing("/echo", with: "/flood") + "\r\n")
                var before = -1
                while written.withLock({ $0 }) != before {
                    before = written.withLock { $0 }
                    try await Task.sleep(for: .milliseconds(300))
                }
                #expect(before < 3 << 20)
            }
        }
    }

    @Test func aSessionIsCancelledWhenTheClientGoes() async throws {
        let cancelled = Signal()
        try await withServer { router in
            router.post("sleep") { request, context in
                try context.takeOver(request, as: "tcp") { stream in
                    for try await _ in stream.inbound {}
                    try? await Task.sleep(for: .seconds(600))
                    cancelled.fire()
                }
            }
        } _: { server in
            try await server.connect { client in
                try await client.send(ask.replacing("/echo", with: "/sleep") + "\r\n")
                _ = try await client.read(until: "\r\n\r\n")
            }
            await cancelled.wait()
        }
    }

    @Test func bothSidesMayHalfClose() async throws {
        let text = try await withServer { router in
            router.post("first") { request, context in
                try context.takeOver(request, as: "tcp") { stream in
                    try await stream.write(Array("done".utf8))
                    stream.finish()
                    var rest = ""
                    for try await bytes in stream.inbound { rest += String(buffer: bytes) }
                    #expect(rest == "and more")
                }
            }
        } _: { server in
            try await server.connect { client in
                try await client.send(ask.replacing("/echo", with: "/first") + "\r\n")
                let text = try await client.rest()
                try await client.send("and more")
                client.finish()
                return text
            }
        }
        #expect(text.hasSuffix("\r\n\r\ndone"))
    }
}

extension String {
    /// How often `part` occurs.
    func components(_ part: String) -> Int { ranges(of: part).count }
}
