import CKernel
import Glibc

/// A program to run to its end, with its output caught and bounded.
package struct Program: Sendable {
    /// Absolute path.
    package var path: String
    /// Arguments after the program's name.
    package var arguments: [String]
    /// `KEY=value` entries; nothing is inherited.
    package var environment: [String]
    /// What it reads on standard input. It is a sealed memory file, so a program that does not read it does no harm.
    package var input: [UInt8]
    /// Longest run time in milliseconds; then the whole session is killed.
    package var timeoutMilliseconds: Int
    /// Most bytes of standard output; one that writes more is killed.
    package var outputLimit: Int
    /// A network namespace to run in, or -1.
    package var networkNamespace: Int32 = -1
    /// What it left behind in its process group is ended with it: a child that stays there is no daemon, but one that somebody
    /// forgot. What made a session of its own (setsid(2)) lives on.
    package var endsGroup = false

    /// How many bytes of standard error are kept; the rest is read and dropped.
    package static let errorLimit = 64 << 10

    package init(
        _ path: String, _ arguments: [String] = [], environment: [String] = [], input: [UInt8] = [],
        timeoutMilliseconds: Int = 30_000, outputLimit: Int = 1 << 20
    ) {
        self.path = path
        self.arguments = arguments
        self.environment = environment
        self.input = input
        self.timeoutMilliseconds = timeoutMilliseconds
        self.outputLimit = outputLimit
    }
}

/// What a program left behind.
package struct ProgramResult: Sendable, Equatable {
    package let status: ExitStatus
    package let output: [UInt8]
    /// At most `Program.errorLimit` bytes.
    package let errors: [UInt8]

    package init(status: ExitStatus, output: [UInt8], errors: [UInt8]) {
        self.status = status
        self.output = output
        self.errors = errors
    }

    /// Standard error as one line of at most 1000 characters, for messages.
    package var errorText: String {
        let text = String(decoding: errors.prefix(4000), as: UTF8.self)
        return String(text.split(whereSeparator: \.isNewline).joined(separator: "; ").prefix(1000))
    }
}

/// Why a program has no result.
package enum ProgramError: Error, Sendable, Equatable, CustomStringConvertible {
    /// It could not be started, or waiting for it failed.
    case kernel(KernelError)
    /// It ran longer than allowed and was killed with its whole session.
    case timeout(path: String, milliseconds: Int)
    /// It wrote more than allowed and was killed with its whole session.
    case outputTooLarge(path: String, limit: Int)

    package var description: String {
        switch self {
        case .kernel(let error): error.description
        case .timeout(let path, let milliseconds):
            "\(path) did not end within \(milliseconds) ms and was killed"
        case .outputTooLarge(let path, let limit):
            "\(path) wrote more than \(limit) bytes and was killed"
        }
    }
}

/// A started program with our ends of its pipes (non-blocking).
package struct RunningProgram: ~Copyable, Sendable {
    package let process: ChildProcess
    package let output: SharedFD
    package let errors: SharedFD

    init(process: consuming ChildProcess, output: SharedFD, errors: SharedFD) {
        self.process = process
        self.output = output
        self.errors = errors
    }

    /// SIGKILL to the program and all it started, unless they left its process group. Only before it is reaped: later
    /// the number may be another's.
    package borrowing func killGroup() { kill(-process.pid, SIGKILL) }
}

extension Program {
    /// Starts it in a session of its own.
    package func start() throws(KernelError) -> RunningProgram {
        let stdin = OwnedFD(
            adopting: try systemCall("memfd_create", path) { memfd_create("stdin", 1 /* MFD_CLOEXEC */) })
        try stdin.writeAll(input, subject: "the input of \(path)")
        let position = stdin.raw
        try systemCall("lseek", path) { lseek(position, 0, SEEK_SET) }
        let (output, childOutput) = try Program.pipe()
        let (errors, childErrors) = try Program.pipe()
        var spawn = Spawn(
            path, [path] + arguments, environment: environment,
            descriptors: [stdin.raw, childOutput.raw, childErrors.raw])
        spawn.newSession = true
        spawn.networkNamespace = networkNamespace
        let process = try spawn.start()
        return RunningProgram(process: process, output: output, errors: errors)
    }

    /// Runs it and waits, blocking the calling thread for at most the time-out.
    ///
    /// Returns when the program itself has ended, with what was written until then: a child it left behind that holds
    /// the pipes open does not keep us.
    package func run() throws(ProgramError) -> ProgramResult {
        do {
            let running = try start()
            return try collect(running)
        } catch let error as KernelError {
            throw .kernel(error)
        } catch let error as ProgramError {
            throw error
        } catch {
            // Unreachable: the two above are all that is thrown.
            throw .kernel(KernelError("run", path, errno: EINVAL))
        }
    }

    private func collect(_ running: borrowing RunningProgram) throws -> ProgramResult {
        let deadline = Program.now() + Int64(timeoutMilliseconds)
        var output = BoundedOutput(limit: outputLimit)
        var errors = BoundedOutput(limit: Program.errorLimit)
        var failure: (any Error)?
        var ended = false
        while !ended {
            let left = deadline - Program.now()
            if left <= 0 { failure = ProgramError.timeout(path: path, milliseconds: timeoutMilliseconds) }
            if output.overflowed { failure = ProgramError.outputTooLarge(path: path, limit: outputLimit) }
            if failure != nil { break }
            var polls = [
                pollfd(fd: running.process.pidfd.raw, events: Int16(POLLIN), revents: 0),
                pollfd(fd: output.ended ? -1 : running.output.raw, events: Int16(POLLIN), revents: 0),
                pollfd(fd: errors.ended ? -1 : running.errors.raw, events: Int16(POLLIN), revents: 0),
            ]
            let timeout = Int32(min(left, 60_000))
            do {
                _ = try systemCall("poll", path) { poll(&polls, 3, timeout) }
                ended = polls[0].revents != 0
                if polls[1].revents != 0 { try output.drain(running.output.raw, subject: path) }
                if polls[2].revents != 0 { try errors.drain(running.errors.raw, subject: path) }
            } catch {
                failure = error
                break
            }
        }
        // Before it is reaped its number, which is its group's too, cannot be another's.
        if endsGroup || failure != nil { running.killGroup() }
        if failure == nil {
            do {
                try output.drain(running.output.raw, subject: path)
                try errors.drain(running.errors.raw, subject: path)
            } catch {
                failure = error
            }
        }
        let status = try running.process.wait()
        if let failure { throw failure }
        if output.overflowed { throw ProgramError.outputTooLarge(path: path, limit: outputLimit) }
        return ProgramResult(status: status, output: output.bytes, errors: errors.bytes)
    }

    private static func pipe() throws(KernelError) -> (read: SharedFD, write: SharedFD) {
        var ends: [Int32] = [-1, -1]
        try systemCall("pipe2") { pipe2(&ends, O_CLOEXEC) }
        let (read, write) = (SharedFD(OwnedFD(adopting: ends[0])), SharedFD(OwnedFD(adopting: ends[1])))
        try systemCall("fcntl(F_SETFL)") { ck_fcntl(read.raw, F_SETFL, O_NONBLOCK) }
        return (read, write)
    }

    /// Milliseconds of a clock that only runs forward.
    private static func now() -> Int64 {
        var time = timespec()
        clock_gettime(CLOCK_MONOTONIC, &time)
        return Int64(time.tv_sec) * 1000 + Int64(time.tv_nsec) / 1_000_000
    }
}

/// Bytes read from a non-blocking descriptor, at most `limit` of them; what is more is dropped and noted.
package struct BoundedOutput: Sendable {
    package let limit: Int
    package private(set) var bytes: [UInt8] = []
    /// More than `limit` bytes came.
    package private(set) var overflowed = false
    /// End of file was seen.
    package private(set) var ended = false

    package init(limit: Int) { self.limit = limit }

    /// Reads what is there now, at most 1 MiB a call, so that an endless writer does not keep the caller.
    package mutating func drain(_ fd: Int32, subject: String) throws(KernelError) {
        var chunk = [UInt8](repeating: 0, count: 16384)
        for _ in 0..<64 where !ended {
            let count = chunk.withUnsafeMutableBytes { Glibc.read(fd, $0.baseAddress, $0.count) }
            if count < 0 {
                if errno == EINTR { continue }
                if errno == EAGAIN { return }
                throw KernelError("read", "the output of \(subject)", errno: errno)
            }
            if count == 0 { ended = true }
            let kept = min(count, limit - bytes.count)
            bytes.append(contentsOf: chunk[..<kept])
            if kept < count { overflowed = true }
        }
    }
}
