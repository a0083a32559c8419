import Glibc
import HTTPTypes
import Hummingbird
import NIOCore
import NIOHTTP1
import NIOPosix
import Synchronization
import Testing

@testable import Client
@testable import HTTPService

/// Requests, answers and what the user reads when one fails.
@Suite(.timeLimit(.minutes(2))) struct APIClientTests {
    struct Thing: Codable, Sendable, Equatable {
        var name: String
    }

    static func routes(_ router: Router<ServiceContext>) {
        router.post("things") { request, context in
            try ServerResponse.json(try await request.json(Thing.self, context), status: .created)
        }
        router.get("things/{name}") { request, context -> ServerResponse in
            let query = try Query(request, known: ["q"])
            return try ServerResponse.json(Thing(name: try context.pathParameter("name") + (query["q"] ?? "")))
        }
        router.get("missing") { _, _ -> ServerResponse in throw APIError.notFound("there is no thing named z") }
        router.get("text") { _, _ in ServerResponse.text("no JSON here") }
    }

    @Test func sendsAndReadsJSON() async throws {
        try await withService(routes: Self.routes) { client in
            let made: Thing = try await client.json(.POST, "/things", body: .json(Thing(name: "x")))
            #expect(made == Thing(name: "x"))
            let path = "/things/" + PercentEncoding.encode("a/b ü")
            let found: Thing = try await client.json(.GET, path, query: ["q": "&= ü"])
            #expect(found == Thing(name: "a/b ü&= ü"))
        }
    }

    @Test func theServersErrorIsThrownWithItsSentence() async throws {
        try await withService(routes: Self.routes) { client in
            await #expect(throws: ClientError(.refused, "there is no thing named z", status: 404, code: "not-found")) {
                let _: Thing = try await client.json(.GET, "/missing")
            }
            await #expect(throws: ClientError(.refused, "there is no GET /nowhere", status: 404, code: "not-found")) {
                try await client.send(.GET, "/nowhere")
            }
            let answer = try await client.request(.GET, "/missing")
            #expect(answer.status == 404)
        }
    }

    @Test func anAnswerOfAnotherShapeIsAnError() async throws {
        try await withService(routes: Self.routes) { client in
            let error = await #expect(throws: ClientError.self) { let _: Thing = try await client.json(.GET, "/text") }
            #expect(error?.kind == .badAnswer)
            #expect(error?.message.hasPrefix("the answer of the master to GET /text is not understood: ") == true)
        }
    }

    @Test func anAbsentServerIsExplained() async throws {
        let directory = try makeDirectory()
        defer { rmdir(directory) }
        let client = APIClient(.unix(path: directory + "/s"))
        await #expect(
            throws: ClientError(
                .unreachable, "no master is listening on unix:\(directory)/s: start one with `martlet up`")
        ) {
            try await client.send(.GET, "/")
        }
        let tls = ClientTLS(try ClientIdentity()) { _ in }
        let agent = APIClient(.tls(host: "127.0.0.1", port: 1), role: .agent, tls: tls)
        await #expect(
            throws: ClientError(
                .unreachable, "no agent is listening on https://127.0.0.1:1: start one with `martlet agent`")
        ) {
            try await agent.send(.GET, "/")
        }
    }

    @Test func aForbiddenSocketIsExplained() {
        let error = ClientError(
            connecting: IOError(errnoCode: EACCES, reason: "connect"), to: .unix(path: "/s"), role: .master)
        #expect(error.kind == .permission)
        #expect(error.message.contains("group martlet"))
    }

    @Test(arguments: [
        ("unix:/run/martlet/martlet.sock", ServerAddress.unix(path: "/run/martlet/martlet.sock")),
        ("unix:///run/m.sock", .unix(path: "/run/m.sock")), ("https://localhost:80", .tls(host: "localhost", port: 80)),
        ("https://[::1]:8080/", .tls(host: "::1", port: 8080)), ("https://master", .tls(host: "master", port: 7070)),
        ("https://[::1]", .tls(host: "::1", port: 7070)),
    ])
    func addressesAreRead(text: String, address: ServerAddress) throws {
        #expect(try ServerAddress(text) == address)
    }

    @Test(arguments: [
        "", "unix:", "unix:relative", "unix://host/path", "https://", "https://host:0", "https://host:99999",
        "https://::1:80", "https://a b:80", "http://host:1", "tcp://host:1", "https://host:1/path",
    ])
    func otherAddressesAreRefused(text: String) {
        #expect(throws: ClientError.self) { try ServerAddress(text) }
    }

    @Test func pathsThatWouldSplitTheRequestAreRefused() async throws {
        let client = APIClient(.unix(path: "/nowhere"))
        for path in ["/a b", "/a\r\nX: 1", "a", "/ü"] {
            let error = await #expect(throws: ClientError.self) { try await client.send(.GET, path) }
            #expect(error?.kind == .badAddress)
        }
    }

    @Test func aStreamIsUploadedWithoutItsLength() async throws {
        let count = try await withService { router in
            router.post("upload") { request, _ in
                var count = 0
                for try await piece in request.body { count += piece.readableBytes }
                return ServerResponse.text("\(count)")
            }
        } _: { client in
            let pieces = AsyncStream { continuation in
                for _ in 0..<300 { continuation.yield(ByteBuffer(repeating: 1, count: 100_000)) }
                continuation.finish()
            }
            let answer = try await client.request(.POST, "/upload", body: .stream(pieces))
            return String(decoding: try await answer.bytes(), as: UTF8.self)
        }
        #expect(count == "30000000")
    }

    @Test func anUploadThatIsRefusedEarlyStillGetsTheReason() async throws {
        try await withService { router in
            router.post("upload") { _, _ -> ServerResponse in throw APIError.conflict("this image is being imported") }
        } _: { client in
            let endless = AsyncStream { ByteBuffer(repeating: 1, count: 100_000) }
            await #expect(
                throws: ClientError(
                    .refused, "this image is being imported", status: 409, code: "conflict")
            ) {
                try await client.send(.POST, "/upload", body: .stream(endless))
            }
        }
    }

    @Test func aFailingUploadThrowsItsOwnError() async throws {
        struct DiskError: Error {}
        let seen = Signal()
        try await withService { router in
            router.post("upload") { request, _ -> ServerResponse in
                do {
                    for try await _ in request.body {}
                } catch {
                    seen.fire()
                    throw error
                }
                return ServerResponse.empty
            }
        } _: { client in
            let pieces = AsyncThrowingStream<ByteBuffer, any Error> { throw DiskError() }
            await #expect(throws: DiskError.self) { try await client.send(.POST, "/upload", body: .stream(pieces)) }
            await seen.wait()
        }
    }

    @Test func linesComeOneByOne() async throws {
        let turn = BoundedQueue<Int>(bound: 8)
        try await withService { router in
            router.get("lines") { _, context in
                ServerResponse.lines(context) { lines in
                    while let number = try await turn.next().first { try await lines.write(["n": number]) }
                    throw APIError.conflict("that was all")
                }
            }
        } _: { client in
            turn.offer(0)
            var lines = try await client.lines(.GET, "/lines").decoded(as: [String: Int].self).makeAsyncIterator()
            for number in 0..<5 {
                #expect(try await lines.next() == ["n": number])
                turn.offer(number + 1)
            }
            turn.finish()
            #expect(try await lines.next() == ["n": 5])
            let error = await #expect(throws: ClientError.self) { try await lines.next() }
            #expect(error == ClientError(.refused, "that was all", code: "conflict"))
        }
    }

    @Test func linesThatAreCutShortAreAnError() async throws {
        struct Crash: Error {}
        try await withService { router in
            router.get("lines") { _, _ in
                ServerResponse(
                    status: .ok,
                    body: .init { writer in
                        try await writer.write(ByteBuffer(string: "{\"n\":1}\n{\"n\""))
                        throw Crash()
                    })
            }
        } _: { client in
            var lines = try await client.lines(.GET, "/lines").makeAsyncIterator()
            #expect(try await lines.next() == Array(#"{"n":1}"#.utf8))
            let error = await #expect(throws: ClientError.self) { try await lines.next() }
            #expect(error?.kind == .disconnected)
        }
    }

    @Test func anAnswerThatIsNotReadHoldsTheServerBack() async throws {
        let written = Mutex(0)
        try await withService { router in
            router.get("flood") { _, _ in
                ServerResponse(
                    status: .ok,
                    body: .init { writer in
                        for _ in 0..<64 {
                            try await writer.write(ByteBuffer(repeating: 1, count: 1 << 20))
                            written.withLock { $0 += 1 << 20 }
                        }
                        try await writer.finish(nil)
                    })
            }
        } _: { client in
            let answer = try await client.request(.GET, "/flood")
            var before = -1
            while written.withLock({ $0 }) != before {
                before = written.withLock { $0 }
                try await Task.sleep(for: .milliseconds(300))
            }
            #expect(before < 16 << 20)
            var count = 0
            for try await piece in answer.body { count += piece.readableBytes }
            #expect(count == 64 << 20)
        }
    }

    @Test func cancellingClosesTheConnection() async throws {
        let gone = Signal()
        let begun = Signal()
        try await withService { router in
            router.get("wait") { _, context in
                try await context.untilPeerCloses {
                    begun.fire()
                    defer { gone.fire() }
                    try await Task.sleep(for: .seconds(600))
                    return ServerResponse.empty
                }
            }
        } _: { client in
            let task = Task { try await client.send(.GET, "/wait") }
            await begun.wait()
            task.cancel()
            await #expect(throws: CancellationError.self) { try await task.value }
            await gone.wait()
        }
    }

    @Test func anAnswerNobodyHoldsClosesTheConnection() async throws {
        let gone = Signal()
        try await withService { router in
            router.get("lines") { _, context in
                ServerResponse.lines(context) { lines in
                    defer { gone.fire() }
                    try await lines.write(["n": 1])
                    try await Task.sleep(for: .seconds(600))
                }
            }
        } _: { client in
            _ = try await client.lines(.GET, "/lines")
            await gone.wait()
        }
    }
}
