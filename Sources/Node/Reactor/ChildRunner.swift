import CKernel
import Glibc
import Kernel
import Synchronization

/// Runs programs for asynchronous callers: started on the blocking pool, watched by the reactor.
package struct ChildRunner: Sendable {
    private let reactor: Reactor
    private let pool: BlockingPool

    package init(reactor: Reactor, pool: BlockingPool) {
        self.reactor = reactor
        self.pool = pool
    }

    /// Runs `program` to its end and catches its output.
    ///
    /// Cancellation and the time-out kill its whole session; in either case it is reaped before this returns.
    ///
    /// - Throws: `ProgramError`, `BlockingPoolError`, `ReactorError`, `CancellationError`.
    package func run(_ program: Program) async throws -> ProgramResult {
        let running: Started
        do {
            running = try await pool.run { try Started(program.start()) }
        } catch let error as KernelError {
            throw ProgramError.kernel(error)
        }
        do {
            return try await withThrowingTaskGroup(of: Event.self) { group in
                try await watch(program, running, &group)
            }
        } catch {
            await running.killAndReap(pool)
            throw error
        }
    }

    private enum Event: Sendable {
        case output(BoundedOutput)
        case errors(BoundedOutput)
        case exit(ExitStatus)
        case timeout
    }

    private func watch(
        _ program: Program, _ running: Started, _ group: inout ThrowingTaskGroup<Event, any Error>
    ) async throws -> ProgramResult {
        // The readers end when the program has: a child it left behind may hold the pipes open for ever.
        let output = Task { try await read(running.output.raw, program.outputLimit, stopWhenFull: true, program.path) }
        let errors = Task { try await read(running.errors.raw, Program.errorLimit, stopWhenFull: false, program.path) }
        defer {
            output.cancel()
            errors.cancel()
        }
        group.addTask { .output(try await output.value) }
        group.addTask { .errors(try await errors.value) }
        group.addTask { .exit(try await running.waitExit(reactor)) }
        group.addTask {
            try await Task.sleep(for: .milliseconds(program.timeoutMilliseconds))
            return .timeout
        }
        var (caughtOutput, caughtErrors): (BoundedOutput?, BoundedOutput?) = (nil, nil)
        var status: ExitStatus?
        while let event = try await group.next() {
            switch event {
            case .output(let result):
                if result.overflowed {
                    throw ProgramError.outputTooLarge(path: program.path, limit: program.outputLimit)
                }
                caughtOutput = result
            case .errors(let result): caughtErrors = result
            case .exit(let result):
                status = result
                output.cancel()
                errors.cancel()
            case .timeout:
                throw ProgramError.timeout(path: program.path, milliseconds: program.timeoutMilliseconds)
            }
            if let status, let caughtOutput, let caughtErrors {
                group.cancelAll()
                return ProgramResult(status: status, output: caughtOutput.bytes, errors: caughtErrors.bytes)
            }
        }
        throw CancellationError()
    }

    private func read(
        _ fd: Int32, _ limit: Int, stopWhenFull: Bool, _ subject: String
    ) async throws -> BoundedOutput {
        var output = BoundedOutput(limit: limit)
        while !output.ended && !(stopWhenFull && output.overflowed) {
            try output.drain(fd, subject: subject)
            if output.ended { break }
            do {
                try await reactor.waitReadable(fd)
            } catch is CancellationError {
                try output.drain(fd, subject: subject)
                break
            }
        }
        return output
    }
}

// A started program that may be shared by the tasks that watch it. `reaped` guards the process number: once it is
// free, nothing may be killed by it.
private final class Started: Sendable {
    let output: SharedFD
    let errors: SharedFD
    private let pidfd: SharedFD
    private let pid: pid_t
    private let reaped = Mutex(false)

    init(_ running: consuming RunningProgram) throws(KernelError) {
        pid = running.process.pid
        pidfd = SharedFD(try running.process.pidfd.duplicate())
        output = running.output
        errors = running.errors
    }

    func waitExit(_ reactor: Reactor) async throws -> ExitStatus {
        while true {
            try await reactor.waitEnd(pidfd.raw)
            if let status = try reap(WNOHANG) { return status }
        }
    }

    private func reap(_ flags: Int32) throws(KernelError) -> ExitStatus? {
        try reaped.withLock { reaped throws(KernelError) -> ExitStatus? in
            var code: Int32 = 0
            var status: Int32 = 0
            let fd = pidfd.raw
            try systemCall("waitid", "process \(pid)") { ck_waitid_pidfd(fd, WEXITED | flags, &code, &status) }
            if code == 0 { return nil }
            reaped = true
            return ExitStatus(code: code, status: status)
        }
    }

    /// On the pool, whose threads may block; when it is full or closed, here, since SIGKILL takes no time.
    func killAndReap(_ pool: BlockingPool) async {
        let body: @Sendable () -> Void = {
            let running = self.reaped.withLock { reaped in
                if !reaped { kill(-self.pid, SIGKILL) }
                return !reaped
            }
            if running { _ = try? self.reap(0) }
        }
        // A task of its own: the caller is probably cancelled, and a cancelled task gets nothing from the pool.
        do { try await Task.detached { try await pool.run(body) }.value } catch { body() }
    }
}
