import Glibc
import Kernel
import Synchronization

/// A helper that runs: its lines, its end, and its killing within a time. One thread at a time.
final class HelperRun: Sendable {
    enum Step: Sendable {
        case line([UInt8])
        case ended(ExitStatus)
        /// A line is longer than any of its protocol.
        case tooLong
        case late
        /// The descriptor to be woken by is readable.
        case woken
        case failed(KernelError)
    }

    private struct State {
        var lines = LineBuffer()
        var errors = BoundedOutput(limit: Program.errorLimit)
        var outputEnded = false
        /// Set once it was reaped; its number may be another's from then on.
        var status: ExitStatus?
    }

    private let running: RunningProgram
    private let name: String
    private let state = Mutex(State())

    init(_ running: consuming RunningProgram, name: String) {
        self.running = running
        self.name = name
    }

    var pid: pid_t { running.process.pid }

    /// What it wrote on standard error, as one line.
    var errorText: String {
        state.withLock { ProgramResult(status: .exited(0), output: [], errors: $0.errors.bytes).errorText }
    }

    /// Milliseconds of a clock that only runs forward.
    static func now() -> Int64 {
        var time = timespec()
        clock_gettime(CLOCK_MONOTONIC, &time)
        return Int64(time.tv_sec) * 1000 + Int64(time.tv_nsec) / 1_000_000
    }

    /// The next line, or what else comes first; what it wrote before its end comes before the end.
    ///
    /// - Parameters:
    ///   - deadline: as `now` counts.
    ///   - waker: a descriptor to be woken by, or -1.
    func next(until deadline: Int64, waker: Int32 = -1) -> Step {
        do throws(KernelError) {
            while true {
                if let step = state.withLock({ $0.lines.next() }) { return step }
                if let status = state.withLock({ $0.status }) { return .ended(status) }
                let left = deadline - Self.now()
                guard left > 0 else { return .late }
                let outputEnded = state.withLock { $0.outputEnded }
                var polls = [
                    pollfd(fd: running.process.pidfd.raw, events: Int16(POLLIN), revents: 0),
                    pollfd(fd: outputEnded ? -1 : running.output.raw, events: Int16(POLLIN), revents: 0),
                    pollfd(fd: running.errors.raw, events: Int16(POLLIN), revents: 0),
                    pollfd(fd: waker, events: Int16(POLLIN), revents: 0),
                ]
                if state.withLock({ $0.errors.ended }) { polls[2].fd = -1 }
                _ = try systemCall("poll", name) { poll(&polls, 4, Int32(min(left, 60_000))) }
                if polls[3].revents != 0 { return .woken }
                let hasEnded = polls[0].revents != 0
                if polls[1].revents != 0 || hasEnded { try readOutput() }
                if polls[2].revents != 0 || hasEnded { try readErrors() }
                if hasEnded { try reap() }
            }
        } catch {
            return .failed(error)
        }
    }

    /// Kills it with all it started, and waits for its end.
    ///
    /// - Returns: whether it has ended.
    func end(within milliseconds: Int) -> Bool {
        if state.withLock({ $0.status != nil }) { return true }
        running.killGroup()
        let deadline = Self.now() + Int64(milliseconds)
        while true {
            do throws(KernelError) {
                try reap()
            } catch {
                // Not our child any more: there is nothing left to wait for.
                return true
            }
            if state.withLock({ $0.status != nil }) { return true }
            let left = deadline - Self.now()
            guard left > 0 else { return false }
            var wait = pollfd(fd: running.process.pidfd.raw, events: Int16(POLLIN), revents: 0)
            _ = poll(&wait, 1, Int32(min(left, 60_000)))
        }
    }

    private func reap() throws(KernelError) {
        let status = try running.process.poll()
        if let status { state.withLock { $0.status = status } }
    }

    /// At most a mebibyte a call, so that one that never stops writing meets its deadline.
    private func readOutput() throws(KernelError) {
        var output = BoundedOutput(limit: 1 << 20)
        try output.drain(running.output.raw, subject: name)
        state.withLock {
            $0.lines.append(output.bytes)
            $0.outputEnded = output.ended
        }
    }

    private func readErrors() throws(KernelError) {
        var errors = state.withLock { $0.errors }
        try errors.drain(running.errors.raw, subject: name)
        state.withLock { $0.errors = errors }
    }
}
