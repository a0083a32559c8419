import CKernel
import Glibc
import Kernel

extension Program {
    /// Runs a plugin to its end like `run`, and ends with it what it left behind in its process group: a child that
    /// stays there is no daemon, but one that somebody forgot. What made a session of its own (setsid(2)) lives on.
    ///
    /// Blocks for at most the time-out. Output and errors are bounded, and a child that holds the pipes open does not
    /// keep us.
    func runGroup() throws(ProgramError) -> ProgramResult {
        do {
            let running = try start()
            return try collectGroup(running)
        } catch let error as KernelError {
            throw .kernel(error)
        } catch let error as ProgramError {
            throw error
        } catch {
            // Unreachable: the two above are all that is thrown.
            throw .kernel(KernelError("run", path, errno: EINVAL))
        }
    }

    private func collectGroup(_ running: borrowing RunningProgram) throws -> ProgramResult {
        let deadline = Self.clock() + Int64(timeoutMilliseconds)
        var output = BoundedOutput(limit: outputLimit)
        var errors = BoundedOutput(limit: Program.errorLimit)
        var failure: (any Error)?
        var ended = false
        while !ended {
            let left = deadline - Self.clock()
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
        running.killGroup()
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

    /// Milliseconds of a clock that only runs forward.
    private static func clock() -> Int64 {
        var time = timespec()
        clock_gettime(CLOCK_MONOTONIC, &time)
        return Int64(time.tv_sec) * 1000 + Int64(time.tv_nsec) / 1_000_000
    }
}
