import Glibc
import Hummingbird
import Kernel
import NIOCore
import Synchronization
import Testing

@testable import HTTPService

/// Where a server listens, with which rights, and how it stops.
@Suite(.timeLimit(.minutes(2))) struct ListenerTests {
    static func listen(_ endpoint: Endpoint, limits: ServiceLimits = ServiceLimits()) async throws -> HTTPServer {
        let router = makeRouter()
        router.get("ping") { _, _ in Response.text("pong") }
        return try await HTTPServer.listen(on: [endpoint], router: router, limits: limits, logger: quiet)
    }

    static func mode(_ path: String) -> mode_t? {
        var info = stat()
        return lstat(path, &info) == 0 ? info.st_mode & 0o7777 : nil
    }

    static func stop(_ server: HTTPServer) async throws {
        let running = Task { try await server.run() }
        running.cancel()
        try await running.value
    }

    @Test func theSocketIsOnlyForItsOwnerOrTheGroup() async throws {
        let directory = try makeDirectory()
        defer { _ = try? Tree.remove(directory) }
        let alone = try await Self.listen(.unix(path: directory + "/alone", group: "no-such-group-here"))
        #expect(Self.mode(directory + "/alone") == 0o600)
        // Group 0 exists everywhere and may be given away by root and by its members.
        let shared = try await Self.listen(.unix(path: directory + "/shared", group: getuid() == 0 ? "root" : nil))
        #expect(Self.mode(directory + "/shared") == (getuid() == 0 ? 0o660 : 0o600))
        // Nothing of the way there is left but the locks.
        #expect(try File.list(directory).sorted() == ["alone", "alone.lock", "shared", "shared.lock"])
        try await Self.stop(alone)
        try await Self.stop(shared)
        #expect(!File.exists(directory + "/alone"))
    }

    @Test func locksGoWithTheirOwnersAndOneOfManyGetsThePath() async throws {
        let directory = try makeDirectory()
        defer { _ = try? Tree.remove(directory) }
        let path = directory + "/s"
        // Each takes the path, says so in a file that must not be there, and lets it go again, against the others.
        await withTaskGroup(of: Int.self) { group in
            for _ in 0..<8 {
                group.addTask {
                    var taken = 0
                    for _ in 0..<200 {
                        guard let listener = try? UnixListener(path: path, group: nil, role: "test") else { continue }
                        taken += 1
                        let mark = open(directory + "/owner", O_CREAT | O_EXCL | O_CLOEXEC, 0o600)
                        #expect(mark >= 0, "two have the path at once")
                        unlink(directory + "/owner")
                        if mark >= 0 { close(mark) }
                        listener.remove()
                    }
                    return taken
                }
            }
            #expect(await group.reduce(0, +) > 0)
        }
        #expect(try File.list(directory).isEmpty)
    }

    @Test func aLiveSocketIsRefusedAndUnharmed() async throws {
        let directory = try makeDirectory()
        defer { _ = try? Tree.remove(directory) }
        let path = directory + "/s"
        try await withThrowingTaskGroup(of: Void.self) { group in
            let first = try await Self.listen(.unix(path: path, group: nil))
            group.addTask { try await first.run() }
            await #expect(
                throws: ListenError(
                    description: "another master is listening on unix:\(path): use that one, or stop it first")
            ) {
                _ = try await Self.listen(.unix(path: path, group: nil))
            }
            let (_, output) = try await run("/usr/bin/curl", ["-sS", "--unix-socket", path, "http://x/ping"])
            #expect(output == "pong")
            group.cancelAll()
        }
    }

    @Test func aForeignListenerIsRefusedToo() async throws {
        let directory = try makeDirectory()
        defer { _ = try? Tree.remove(directory) }
        let path = directory + "/s"
        let first = try await Self.listen(.unix(path: path, group: nil))
        // Without its lock it is a process that knows nothing of locks.
        unlink(path + ".lock")
        await #expect(throws: ListenError.self) { _ = try await Self.listen(.unix(path: path, group: nil)) }
        try await Self.stop(first)
    }

    @Test func theSocketFileOfADeadProcessIsReplaced() async throws {
        let directory = try makeDirectory()
        defer { _ = try? Tree.remove(directory) }
        let path = directory + "/s"
        let dead = try await run(
            "/usr/bin/python3",
            ["-c", "import socket; s = socket.socket(socket.AF_UNIX); s.bind('\(path)'); s.listen()"])
        try #require(dead.code == 0 && File.exists(path))
        try await withThrowingTaskGroup(of: Void.self) { group in
            let server = try await Self.listen(.unix(path: path, group: nil))
            group.addTask { try await server.run() }
            let (_, output) = try await run("/usr/bin/curl", ["-sS", "--unix-socket", path, "http://x/ping"])
            #expect(output == "pong")
            group.cancelAll()
        }
    }

    @Test func aFileThatIsNoSocketIsLeftAlone() async throws {
        let directory = try makeDirectory()
        defer { _ = try? Tree.remove(directory) }
        try File.replace(directory + "/s", with: [1])
        await #expect(throws: ListenError.self) { _ = try await Self.listen(.unix(path: directory + "/s", group: nil)) }
        #expect(try File.read(directory + "/s") == [1])
    }

    @Test func aPathThatIsTooLongIsRefused() async throws {
        let path = "/tmp/" + String(repeating: "x", count: 104)
        await #expect(throws: ListenError.self) { _ = try await Self.listen(.unix(path: path, group: nil)) }
    }

    @Test func aShutdownFinishesRequestsAndEndsLineStreams() async throws {
        let begun = Signal()
        let release = Signal()
        let directory = try makeDirectory()
        defer { _ = try? Tree.remove(directory) }
        let router = makeRouter()
        router.get("slow") { _, _ in
            begun.fire()
            await release.wait()
            return Response.text("finished")
        }
        router.get("lines") { _, context in
            Response.lines(context) { lines in
                try await lines.write(["n": 1])
                try await Task.sleep(for: .seconds(600))
            }
        }
        let server = try await HTTPServer.listen(
            on: [.unix(path: directory + "/s", group: nil)], router: router, logger: quiet)
        let test = TestServer(server: server, path: directory + "/s")
        try await withGracefulService(server) { shutdown in
            try await test.connect { slow in
                try await test.connect { lines in
                    try await slow.send("GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
                    await begun.wait()
                    try await lines.send("GET /lines HTTP/1.1\r\nHost: x\r\n\r\n")
                    _ = try await lines.read(until: "}\n")
                    shutdown()
                    let answer1 = try await lines.rest()
                    #expect(answer1.hasSuffix("0\r\n\r\n"))
                    release.fire()
                    let text = try await slow.rest()
                    #expect(text.lowercased().contains("connection: close\r\n"))
                    #expect(text.hasSuffix("finished"))
                }
            }
        }
        #expect(!File.exists(directory + "/s"))
    }

    @Test func aShutdownCutsWhatDoesNotEnd() async throws {
        var limits = ServiceLimits()
        limits.shutdownTimeout = .milliseconds(300)
        let directory = try makeDirectory()
        defer { _ = try? Tree.remove(directory) }
        let router = makeRouter()
        let cancelled = Signal()
        router.get("stuck") { request, context in
            try context.takeOver(request, as: "tcp") { _ in
                try? await Task.sleep(for: .seconds(600))
                cancelled.fire()
            }
        }
        let server = try await HTTPServer.listen(
            on: [.unix(path: directory + "/s", group: nil)], router: router, limits: limits, logger: quiet)
        let test = TestServer(server: server, path: directory + "/s")
        try await withGracefulService(server) { shutdown in
            try await test.connect { client in
                try await client.send("GET /stuck HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n")
                _ = try await client.read(until: "\r\n\r\n")
                shutdown()
                _ = try? await client.rest()
                await cancelled.wait()
            }
        }
    }
}
