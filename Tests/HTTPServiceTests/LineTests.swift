import Glibc
import Hummingbird
import Kernel
import NIOCore
import Synchronization
import Testing

@testable import HTTPService

/// A line stream sends every line when it is written, and ends in an orderly way.
@Suite(.timeLimit(.minutes(2))) struct LineTests {
    let ask = "GET /lines HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"

    @Test func theHeadAndEveryLineLeaveAtOnce() async throws {
        let turn = BoundedQueue<Int>(bound: 8)
        try await withServer { router in
            router.get("lines") { _, context in
                Response.lines(context) { lines in
                    while let number = try await turn.next().first { try await lines.write(["n": number]) }
                }
            }
        } _: { server in
            try await server.connect { client in
                try await client.send(ask)
                let head = try await client.read(until: "\r\n\r\n").lowercased()
                #expect(head.contains("content-type: application/x-ndjson\r\n"))
                for number in 0..<5 {
                    turn.offer(number)
                    let answer1 = try await client.read(until: "}\n")
                    #expect(answer1.hasSuffix("{\"n\":\(number)}\n"))
                }
                turn.finish()
                let answer2 = try await client.rest()
                #expect(answer2.hasSuffix("0\r\n\r\n"))
            }
        }
    }

    @Test func anErrorIsTheLastLine() async throws {
        let text = try await withServer { router in
            router.get("lines") { _, context in
                Response.lines(context) { lines in
                    try await lines.write(["n": 1])
                    throw APIError.conflict("the log is gone")
                }
            }
        } _: {
            try await $0.exchange(ask)
        }
        #expect(
            text.contains(#"{"error":{"code":"conflict","message":"the log is gone"}}"#))
        #expect(text.hasSuffix("0\r\n\r\n"))
    }

    @Test func theProducerIsCancelledWhenTheClientGoes() async throws {
        let cancelled = Signal()
        try await withServer { router in
            router.get("lines") { _, context in
                Response.lines(context) { lines in
                    try await lines.write(["n": 1])
                    defer { cancelled.fire() }
                    try await Task.sleep(for: .seconds(600))
                }
            }
        } _: { server in
            try await server.connect { client in
                try await client.send(ask)
                _ = try await client.read(until: "}\n")
            }
            await cancelled.wait()
        }
    }

    @Test func aKilledCurlCancelsAHandlerThatWaits() async throws {
        let waiting = Signal()
        let cancelled = Signal()
        try await withServer { router in
            router.get("wait") { _, context in
                try await context.untilPeerCloses {
                    waiting.fire()
                    defer { cancelled.fire() }
                    try await Task.sleep(for: .seconds(600))
                    return Response.empty
                }
            }
        } _: { server in
            let curl = try Spawn("/usr/bin/curl", ["curl", "-sS", "--unix-socket", server.path, "http://x/wait"])
                .start()
            await waiting.wait()
            try curl.signal(SIGKILL)
            await cancelled.wait()
            while try curl.poll() == nil { try await Task.sleep(for: .milliseconds(5)) }
        }
    }

    @Test func aConnectionMayWaitTwice() async throws {
        let text = try await withServer { router in
            router.get("wait") { _, context in
                try await context.untilPeerCloses {
                    try await Task.sleep(for: .milliseconds(10))
                    return Response.text("waited")
                }
            }
        } _: { server in
            try await server.exchange("GET /wait HTTP/1.1\r\nHost: x\r\n\r\n" + ask.replacing("lines", with: "wait"))
        }
        #expect(text.components("waited") == 2)
    }

    @Test func aReaderThatTakesNothingIsCutOff() async throws {
        var limits = ServiceLimits()
        limits.slowReaderTimeout = .milliseconds(400)
        let ended = Signal()
        try await withServer(limits: limits) { router in
            router.get("lines") { _, context in
                Response.lines(context) { lines in
                    defer { ended.fire() }
                    while true { try await lines.write(["text": String(repeating: "x", count: 10_000)]) }
                }
            }
        } _: { server in
            try await server.connect { client in
                try await client.channel.setOption(.autoRead, value: false).get()
                try await client.send(ask)
                await ended.wait()
            }
        }
    }

    @Test func aQueueDropsAReaderThatFallsBehind() async throws {
        let queue = BoundedQueue<Int>(bound: 3)
        for number in 0..<3 { #expect(queue.offer(number)) }
        #expect(!queue.offer(3))
        #expect(!queue.offer(4))
        await #expect(throws: BoundedQueue<Int>.Lagged.self) { try await queue.next() }
    }

    @Test func aQueueHandsOutAllThatWaitsAndThenEnds() async throws {
        let queue = BoundedQueue<Int>(bound: 3)
        queue.offer(1)
        queue.offer(2)
        #expect(try await queue.next() == [1, 2])
        async let later = queue.next()
        queue.offer(3)
        #expect(try await later == [3])
        queue.finish()
        #expect(try await queue.next() == [])
    }
}
