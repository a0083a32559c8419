import Glibc
import HTTPTypes
import Hummingbird
import NIOCore
import Synchronization
import Testing

@testable import HTTPService

/// What is wrong with a request is answered with the right status and one sentence, in one shape.
@Suite(.timeLimit(.minutes(2))) struct RequestTests {
    struct Thing: Codable, Sendable, Equatable {
        var name: String
        var count: Int?
    }

    static func routes(_ router: Router<ServiceContext>) {
        router.post("things") { request, context in
            try Response.json(try await request.json(Thing.self, context), status: .created)
        }
        router.get("things/{name}") { _, context in
            let name = try context.pathParameter("name")
            guard name == "a/b" else { throw APIError.notFound("there is no thing named \(name)") }
            return try Response.json(Thing(name: name))
        }
        router.get("query") { request, _ in
            let query = try Query(request, known: ["a", "all", "tail"])
            let tail = try query.integer("tail", in: 0...100) ?? -1
            return Response.text("\(query["a"] ?? "none") \(try query.flag("all")) \(tail)")
        }
        router.get("crash") { _, _ -> Response in throw Broken() }
        router.get("peer") { _, context in Response.text("\(context.connection.peer)") }
    }

    struct Broken: Error, CustomStringConvertible {
        var description: String { "the disk is on fire" }
    }

    func post(_ body: String) -> String {
        "POST /things HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: \(body.utf8.count)\r\n\r\n\(body)"
    }

    func get(_ path: String, _ method: String = "GET") -> String {
        "\(method) \(path) HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    }

    @Test func aValidBodyIsDecodedAndAnswered() async throws {
        let text = try await withServer(routes: Self.routes) { try await $0.exchange(post(#"{"name":"x","count":3}"#)) }
        #expect(text.hasPrefix("HTTP/1.1 201 Created\r\n"))
        #expect(text.hasSuffix("\r\n\r\n{\"name\":\"x\",\"count\":3}\n"))
    }

    @Test(arguments: [
        (#"{"name":"x","colour":1}"#, 400, "unknown-field", "$.colour"),
        (#"{"name":7}"#, 400, "wrong-type", "$.name"),
        (#"{}"#, 400, "missing-field", "name"),
        (#"{"name":"x""#, 400, "invalid-json", "$"),
        ("", 400, "bad-request", "JSON body"),
        (String(repeating: "[", count: 70), 400, "too-deep", "64"),
    ])
    func aBodyThatIsNotAcceptedIs400(body: String, status: Int, code: String, words: String) async throws {
        let text = try await withServer(routes: Self.routes) { try await $0.exchange(post(body)) }
        #expect(text.hasPrefix("HTTP/1.1 \(status) "))
        #expect(text.contains(#"{"error":{"code":"\#(code)","message":""#))
        #expect(text.contains(words))
    }

    @Test func invalidUTF8Is400() async throws {
        let head = "POST /things HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 12\r\n\r\n"
        let text = try await withServer(routes: Self.routes) { server in
            try await server.connect { client in
                try await client.send(bytes: Array(head.utf8) + Array(#"{"name":""#.utf8) + [0xFF] + Array(#""}"#.utf8))
                return try await client.rest()
            }
        }
        #expect(text.hasPrefix("HTTP/1.1 400 "))
        #expect(text.contains(#""code":"invalid-utf8""#))
    }

    @Test func anAnswerBeforeABodyThatIsStillReadIsNoEndOfTheServer() async throws {
        let turnedAway = Signal()
        let text = try await withServer { router in
            router.post("early") { request, _ in
                // As a relay whose other end has refused: it answers while a task of its still reads.
                let body = request.body
                let begun = Signal()
                Task {
                    begun.fire()
                    do {
                        for try await _ in body {}
                    } catch {
                        turnedAway.fire()
                    }
                }
                await begun.wait()
                try await Task.sleep(for: .milliseconds(20))
                return Response(status: .conflict)
            }
            Self.routes(router)
        } _: { server in
            try await server.connect { client in
                try await client.send("POST /early HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nabc")
                let answer = try await client.read(until: "\r\n\r\n")
                #expect(answer.hasPrefix("HTTP/1.1 409 "))
                try await client.send("defghi")
                _ = try await client.rest()
            }
            await turnedAway.wait()
            return try await server.exchange(get("/things/a%2Fb"))
        }
        #expect(text.hasPrefix("HTTP/1.1 200 "))
    }

    @Test func aDeclaredLengthAboveTheLimitIs413WithoutReading() async throws {
        let head = "POST /things HTTP/1.1\r\nHost: x\r\nContent-Length: \(4 << 20 | 1)\r\n\r\n"
        let text = try await withServer(routes: Self.routes) { try await $0.exchange(head) }
        #expect(text.hasPrefix("HTTP/1.1 413 "))
        #expect(text.lowercased().contains("connection: close\r\n"))
        #expect(text.contains(#""code":"too-large""#))
    }

    @Test func chunksAboveTheLimitAre413() async throws {
        let text = try await withServer(routes: Self.routes) { server in
            try await server.connect { client in
                try await client.send("POST /things HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
                let chunk = "10000\r\n" + String(repeating: " ", count: 0x10000) + "\r\n"
                for _ in 0..<65 { try await client.send(chunk) }
                return try await client.rest()
            }
        }
        #expect(text.hasPrefix("HTTP/1.1 413 "))
    }

    @Test(
        "a body in a coding that is not known is refused, and nothing behind it is taken for a request",
        arguments: ["gzip, chunked", "identity", "xchunked", "\"chunked\"", "chunked, identity"])
    func coding(_ coding: String) async throws {
        let head = "POST /things HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: \(coding)\r\n\r\n0\r\n\r\n"
        let text = try await withServer(routes: Self.routes) { try await $0.exchange(head + get("/query")) }
        #expect(text.hasPrefix("HTTP/1.1 501 ") || text.hasPrefix("HTTP/1.1 400 "))
        #expect(!text.contains("HTTP/1.1 200 "))
    }

    @Test("who is refused while sending may send to the end, and reads the refusal afterwards")
    func refusedWhileSending() async throws {
        try await withServer(routes: { $0.put("refused") { _, _ in Response(status: .conflict) } }) { server in
            for _ in 0..<10 {
                try await server.connect { client in
                    try await client.send("PUT /refused HTTP/1.1\r\nHost: x\r\nContent-Length: \(2 << 20)\r\n\r\n")
                    let piece = [UInt8](repeating: 0x61, count: 1 << 18)
                    for _ in 0..<8 { try await client.send(bytes: piece) }
                    let answer = try await client.rest()
                    #expect(answer.hasPrefix("HTTP/1.1 409 "))
                    #expect(answer.lowercased().contains("connection: close\r\n"))
                }
            }
        }
    }

    @Test("a refused request whose small body has come is no end of the connection")
    func refusedWithItsBody() async throws {
        let text = try await withServer(routes: { $0.put("refused") { _, _ in Response(status: .conflict) } }) {
            server in
            let refused = "PUT /refused HTTP/1.1\r\nHost: x\r\nContent-Length: 8\r\n\r\nabcdefgh"
            return try await server.exchange(refused + refused + self.get("/nothing"))
        }
        #expect(text.ranges(of: "HTTP/1.1 409 ").count == 2)
        #expect(text.contains("HTTP/1.1 404 "))
    }

    @Test("what comes behind a request that was answered with the connection's end is not carried out")
    func behindTheEnd() async throws {
        let calls = Mutex(0)
        let routes: (Router<ServiceContext>) -> Void = { router in
            router.post("last") { _, _ in Response(status: .unauthorized, headers: [.connection: "close"]) }
            router.post("early") { _, _ in Response(status: .conflict) }
            router.get("next") { _, _ in
                calls.withLock { $0 += 1 }
                return Response.empty
            }
        }
        try await withServer(routes: routes) { server in
            for _ in 0..<50 {
                _ = try await server.exchange("POST /last HTTP/1.1\r\nHost: x\r\n\r\n" + get("/next"))
                try await server.connect { client in
                    // Answered before the body has come.
                    try await client.send("POST /early HTTP/1.1\r\nHost: x\r\nContent-Length: 6\r\n\r\nabc")
                    _ = try await client.read(until: "\r\n\r\n")
                    try await client.send("def" + get("/next"))
                    _ = try await client.rest()
                }
            }
        }
        #expect(calls.withLock { $0 } == 0)
    }

    @Test func curlThatStillSendsGetsThe413() async throws {
        let (_, output) = try await withServer(routes: Self.routes) { server in
            let body = server.path + ".body"
            try #require(try await run("/usr/bin/truncate", ["-s", "64M", body]).code == 0)
            // With an empty "Expect" curl sends at once instead of asking first.
            return try await server.curl(
                "-H", "Expect:", "-T", body, "-X", "POST", "-w", "%{http_code}", "http://x/things")
        }
        #expect(output.contains("413"))
        #expect(output.contains("too-large"))
    }

    @Test func aClientThatAsksBeforeSendingIsToldToGoOn() async throws {
        let text = try await withServer(routes: Self.routes) { server in
            try await server.connect { client in
                let head = "POST /things HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
                try await client.send(head + "Expect: 100-continue\r\nContent-Length: 12\r\n\r\n")
                #expect(try await client.read(until: "\r\n\r\n") == "HTTP/1.1 100 Continue\r\n\r\n")
                try await client.send(#"{"name":"x"}"#)
                return try await client.rest()
            }
        }
        #expect(text.hasPrefix("HTTP/1.1 201 "))
    }

    @Test func unknownPathsAndMethodsAreNamed() async throws {
        try await withServer(routes: Self.routes) { server in
            let unknown = try await server.exchange(get("/nothing"))
            #expect(unknown.hasPrefix("HTTP/1.1 404 "))
            #expect(
                unknown.contains(
                    #"{"error":{"code":"not-found","message":"there is no GET /nothing"},"message":"there is no GET /nothing"}"#
                ))
            let method = try await server.exchange(get("/things", "DELETE"))
            #expect(method.hasPrefix("HTTP/1.1 405 "))
            #expect(method.lowercased().contains("allow: post\r\n"))
            #expect(method.contains("DELETE"))
            let thing = try await server.exchange(get("/things/z"))
            #expect(
                thing.contains(
                    #"{"error":{"code":"not-found","message":"there is no thing named z"},"message":"there is no thing named z"}"#
                ))
            let strange = try await server.exchange(get("/things", "BREW"))
            #expect(strange.hasPrefix("HTTP/1.1 400 ") || strange.hasPrefix("HTTP/1.1 404 "))
        }
    }

    @Test func anUnexpectedErrorIs500WithItsText() async throws {
        let text = try await withServer(routes: Self.routes) { try await $0.exchange(get("/crash")) }
        #expect(text.hasPrefix("HTTP/1.1 500 "))
        #expect(
            text.contains(
                #"{"error":{"code":"internal","message":"the disk is on fire"},"message":"the disk is on fire"}"#))
    }

    @Test func pathParametersArePercentDecoded() async throws {
        let text = try await withServer(routes: Self.routes) { try await $0.exchange(get("/things/a%2Fb")) }
        #expect(text.hasSuffix("{\"name\":\"a/b\"}\n"))
    }

    @Test(arguments: [
        ("/query?a=x%20y&all&tail=5", 200, "x y true 5"), ("/query", 200, "none false -1"),
        ("/query?b=1", 400, "'b' is not known"), ("/query?a=1&a=2", 400, "twice"),
        ("/query?all=maybe", 400, "all=maybe"),
        ("/query?tail=101", 400, "tail=101"), ("/query?a=%ff", 400, "percent-encoded"),
    ])
    func queriesAreReadStrictly(path: String, status: Int, words: String) async throws {
        let text = try await withServer(routes: Self.routes) { try await $0.exchange(get(path)) }
        #expect(text.hasPrefix("HTTP/1.1 \(status) "))
        #expect(text.contains(words))
    }

    @Test func HEADHasTheHeadersOfGETAndNoBody() async throws {
        let text = try await withServer { router in
            router.get("text") { _, _ in Response.text("12345") }
            router.get("endless") { _, context in
                Response.lines(context) { lines in
                    while true { try await lines.write(["a": 1]) }
                }
            }
        } _: { server in
            let request = "HEAD /text HTTP/1.1\r\nHost: x\r\n\r\nHEAD /endless HTTP/1.1\r\nHost: x\r\n\r\n"
            return try await server.exchange(request + get("/text", "HEAD"))
        }
        #expect(text.components("HTTP/1.1 200 OK") == 3)
        #expect(text.lowercased().components("content-length: 5\r\n") == 2)
        #expect(!text.contains("12345"))
        #expect(!text.contains("\r\n0\r\n"))
        #expect(text.hasSuffix("\r\n\r\n"))
    }

    @Test func pipelinedRequestsAreAnsweredInOrder() async throws {
        let text = try await withServer(routes: Self.routes) { server in
            let request = (0..<50).map { "GET /query?a=n\($0) HTTP/1.1\r\nHost: x\r\n\r\n" }.joined()
            return try await server.exchange(request, finish: true)
        }
        let order = text.split(separator: "\r\n").filter { $0.hasPrefix("n") }
        // The last body is followed by nothing, the others by the next status line.
        #expect(text.components("HTTP/1.1 200 OK") == 50)
        #expect(order.count == 50 && order.first?.hasPrefix("n0 ") == true && order.last?.hasPrefix("n49 ") == true)
    }

    @Test func aRequestOfHTTP10GetsNoChunksAndTheEnd() async throws {
        let text = try await withServer { router in
            router.get("lines") { _, context in
                Response.lines(context) { lines in try await lines.write(["a": 1]) }
            }
        } _: { server in
            try await server.exchange("GET /lines HTTP/1.0\r\n\r\n")
        }
        #expect(text.hasPrefix("HTTP/1.0 200 OK\r\n"))
        #expect(text.hasSuffix("\r\n\r\n{\"a\":1}\n"))
    }

    @Test(arguments: [
        "garbage\r\n\r\n", "GET / HTTP/1.1\r\nBad Header\r\n\r\n", "GET / HTTP/1.1\r\nContent-Length: x\r\n\r\n",
    ])
    func whatIsNotHTTPIs400AndTheEnd(request: String) async throws {
        let text = try await withServer(routes: Self.routes) { try await $0.exchange(request) }
        #expect(text.hasPrefix("HTTP/1.1 400 "))
        #expect(text.contains(#""code":"invalid-http""#))
    }

    @Test func headersAboveTheLimitAre431() async throws {
        try await withServer(routes: Self.routes) { server in
            let long = "GET / HTTP/1.1\r\nHost: x\r\nX: \(String(repeating: "a", count: 70_000))\r\n\r\n"
            let answer1 = try await server.exchange(long)
            #expect(answer1.hasPrefix("HTTP/1.1 431 "))
            let path = "GET /\(String(repeating: "a", count: 200_000)) HTTP/1.1\r\nHost: x\r\n\r\n"
            let answer2 = try await server.exchange(path)
            #expect(answer2.hasPrefix("HTTP/1.1 431 "))
            let many = "GET / HTTP/1.1\r\n" + (0..<200).map { "X\($0): 1\r\n" }.joined() + "\r\n"
            let answer3 = try await server.exchange(many)
            #expect(answer3.hasPrefix("HTTP/1.1 431 "))
        }
    }

    @Test func aHeaderThatIsNotCompletedIs408() async throws {
        var limits = ServiceLimits()
        limits.headTimeout = .seconds(8)
        let text = try await withServer(limits: limits, routes: Self.routes) { server in
            try await server.exchange("GET / HTTP/1.1\r\nHost:")
        }
        #expect(text.hasPrefix("HTTP/1.1 408 "))
    }

    @Test func aJSONBodyThatDoesNotComeIs408() async throws {
        var limits = ServiceLimits()
        limits.jsonBodyTimeout = .milliseconds(500)
        let text = try await withServer(limits: limits, routes: Self.routes) { server in
            try await server.exchange("POST /things HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n{")
        }
        #expect(text.hasPrefix("HTTP/1.1 408 "))
    }

    @Test func anIdleConnectionIsClosed() async throws {
        var limits = ServiceLimits()
        limits.headTimeout = .seconds(3)
        limits.idleTimeout = .milliseconds(200)
        try await withServer(limits: limits, routes: Self.routes) { server in
            #expect(try await server.exchange("") == "")
            let text = try await server.exchange("GET /query HTTP/1.1\r\nHost: x\r\n\r\n")
            #expect(text.hasSuffix("none false -1"))
        }
    }

    @Test func handlersKnowTheProcessAtTheOtherEnd() async throws {
        let text = try await withServer(routes: Self.routes) { try await $0.exchange(get("/peer")) }
        #expect(text.hasSuffix("\r\n\r\nuid \(getuid()) gid \(getgid()) pid \(getpid())"))
    }

    @Test func anUploadIsHeldBackUntilItIsRead() async throws {
        let go = Signal()
        let seen = Mutex(0)
        try await withServer { router in
            router.post("upload") { request, _ in
                await go.wait()
                for try await piece in request.body { seen.withLock { $0 += piece.readableBytes } }
                return Response.text("\(seen.withLock { $0 })")
            }
        } _: { server in
            try await server.connect { client in
                let size = 32 << 20
                try await client.send(
                    "POST /upload HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: \(size)\r\n\r\n")
                let sent = Mutex(0)
                async let sending: Void = {
                    let piece = String(repeating: "x", count: 1 << 20)
                    for _ in 0..<32 {
                        try await client.send(piece)
                        sent.withLock { $0 += 1 << 20 }
                    }
                }()
                var before = -1
                while sent.withLock({ $0 }) != before {
                    before = sent.withLock { $0 }
                    try await Task.sleep(for: .milliseconds(300))
                }
                #expect(before < 8 << 20)
                go.fire()
                try await sending
                let answer4 = try await client.rest()
                #expect(answer4.hasSuffix("\r\n\r\n\(size)"))
            }
        }
    }

    @Test func oneConnectionTooManyIsRefused() async throws {
        var limits = ServiceLimits()
        limits.connections = 2
        try await withServer(limits: limits, routes: Self.routes) { server in
            try await server.connect { first in
                try await first.send("GET /query HTTP/1.1\r\nHost: x\r\n\r\n")
                _ = try await first.read(until: "-1")
                try await server.connect { second in
                    try await second.send("GET /query HTTP/1.1\r\nHost: x\r\n\r\n")
                    _ = try await second.read(until: "-1")
                    let third = try await server.exchange("")
                    #expect(third.hasPrefix("HTTP/1.1 503 "))
                    #expect(third.contains(#""code":"too-many-connections""#))
                }
            }
            // Room again once one has gone.
            var answer = ""
            while !answer.hasPrefix("HTTP/1.1 200 ") {
                answer = (try? await server.exchange(get("/query"))) ?? ""
            }
        }
    }
}
