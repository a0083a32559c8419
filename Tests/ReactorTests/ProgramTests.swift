import Glibc
import Kernel
import Reactor
import Testing

/// The synchronous and the asynchronous way to run a program keep the same promises.
enum Way: CaseIterable {
    case blocking
    case asynchronous

    func run(_ program: Program) async throws -> ProgramResult {
        let pool = try BlockingPool(threads: 1)
        switch self {
        case .blocking: return try await pool.run { try program.run() }
        case .asynchronous: return try await ChildRunner(reactor: Reactor(), pool: pool).run(program)
        }
    }
}

@Suite(.timeLimit(.minutes(1))) struct ProgramTests {
    private func shell(_ script: String, timeout: Int = 30_000, limit: Int = 1 << 20) -> Program {
        Program(
            "/bin/sh", ["-c", script], environment: ["PATH=/usr/bin:/bin", "WORD=hello"], input: Array("in".utf8),
            timeoutMilliseconds: timeout, outputLimit: limit)
    }

    /// The children of this process and their processes' names, to find what was left behind.
    private func alive(_ pid: String) -> Bool { File.exists("/proc/\(pid)") }

    @Test(arguments: Way.allCases)
    func `input, environment, both outputs and the exit code pass through`(way: Way) async throws {
        let result = try await way.run(shell("cat; echo $WORD; echo oops >&2; exit 3"))
        #expect(result.status == .exited(3))
        #expect(String(decoding: result.output, as: UTF8.self) == "inhello\n")
        #expect(result.errorText == "oops")
    }

    @Test(arguments: Way.allCases)
    func `a program that hangs is killed with its children`(way: Way) async throws {
        let file = "/tmp/martlet-test-\(getpid())-\(way)"
        defer { unlink(file) }
        await #expect(throws: ProgramError.timeout(path: "/bin/sh", milliseconds: 300)) {
            try await way.run(shell("sleep 1000 & echo $! > \(file); wait", timeout: 300))
        }
        let child = try File.text(file)
        // The orphan is a zombie until init reaps it; only a living one may not remain.
        while alive(child), try !File.text("/proc/\(child)/stat").contains(") Z ") {
            try await Task.sleep(for: .milliseconds(1))
        }
    }

    @Test(arguments: Way.allCases)
    func `a program that writes without end is killed at the limit`(way: Way) async throws {
        await #expect(throws: ProgramError.outputTooLarge(path: "/bin/sh", limit: 1000)) {
            try await way.run(shell("while :; do echo xxxxxxxxxxxxxxxxxxxxxxxxxxxx; done", limit: 1000))
        }
    }

    @Test(arguments: Way.allCases)
    func `endless errors are cut, not fatal`(way: Way) async throws {
        let result = try await way.run(shell("head -c 1000000 /dev/zero >&2; echo done"))
        #expect(result.errors.count == Program.errorLimit)
        #expect(String(decoding: result.output, as: UTF8.self) == "done\n")
    }

    @Test(arguments: Way.allCases)
    func `output of exactly the limit is whole`(way: Way) async throws {
        let result = try await way.run(shell("head -c 100000 /dev/zero", limit: 100_000))
        #expect(result.output.count == 100_000)
        #expect(result.status == .exited(0))
    }

    @Test(arguments: Way.allCases)
    func `a child left behind with the pipes open does not keep us`(way: Way) async throws {
        let result = try await way.run(shell("sleep 30 & echo $!"))
        let child = try #require(Int32(String(decoding: result.output, as: UTF8.self).dropLast()))
        kill(child, SIGKILL)
        #expect(result.status == .exited(0))
    }

    @Test(arguments: Way.allCases)
    func `a missing program is an error with its name`(way: Way) async throws {
        let error = await #expect(throws: ProgramError.self) { try await way.run(Program("/nonexistent/program")) }
        #expect(error?.description == "execve /nonexistent/program: No such file or directory")
    }

    @Test func `a step before the program's own that fails is named`() {
        var spawn = Spawn("/bin/true", ["true"])
        spawn.workingDirectory = "/nonexistent"
        let error = #expect(throws: KernelError.self) { _ = try spawn.start() }
        #expect(error?.operation == "chdir")
        #expect(error?.errno == ENOENT)
    }

    @Test func `an open program is executed in place of what is at its path`() throws {
        let file = try File.open("/bin/true", O_RDONLY)
        var spawn = Spawn("/nonexistent", ["true"])
        spawn.file = file.raw
        #expect(try spawn.start().wait() == .exited(0))
    }

    @Test(arguments: Way.allCases)
    func `a program gets no descriptor but the first three`(way: Way) async throws {
        let result = try await way.run(shell("ls /proc/self/fd"))
        // Number 3 is the directory that ls reads.
        #expect(String(decoding: result.output, as: UTF8.self) == "0\n1\n2\n3\n")
    }

    @Test func `cancellation kills and reaps`() async throws {
        let file = "/tmp/martlet-test-\(getpid())-cancel"
        defer { unlink(file) }
        let runner = try ChildRunner(reactor: Reactor(), pool: BlockingPool(threads: 1))
        let program = shell("echo $$ > \(file).new; mv \(file).new \(file); exec sleep 1000")
        let task = Task { try await runner.run(program) }
        while !File.exists(file) { try await Task.sleep(for: .milliseconds(1)) }
        let pid = try File.text(file)
        task.cancel()
        await #expect(throws: CancellationError.self) { try await task.value }
        #expect(!alive(pid))
    }

    @Test func `a hundred programs at once run on two threads`() async throws {
        let runner = try ChildRunner(reactor: Reactor(), pool: BlockingPool(threads: 2))
        let results = try await withThrowingTaskGroup(of: ProgramResult.self) { group in
            for number in 0..<100 { group.addTask { try await runner.run(shell("exit \(number)")) } }
            return try await group.reduce(into: Set<Int32>()) { $0.insert($1.status.shellCode) }
        }
        #expect(results == Set(0..<100))
    }
}
