import CKernel
import Glibc
import Kernel
import OCISpec

/// A caller that stays with its process: passes signals on, relays the terminal, reports how it ended.
struct Foreground: ~Copyable {
    private let signals: OwnedFD

    /// Takes all signals over; call it before the process is made, so that none is lost in between.
    init() throws {
        var all = sigset_t()
        sigfillset(&all)
        sigprocmask(SIG_BLOCK, &all, nil)
        // Orphans of a container without a pid namespace of its own come to us, to be reaped.
        try systemCall("prctl(PR_SET_CHILD_SUBREAPER)") { ck_prctl(36, 1, 0, 0, 0) }
        signals = OwnedFD(
            adopting: try systemCall("signalfd") {
                signalfd(-1, &all, Int32(SFD_CLOEXEC) | Int32(SFD_NONBLOCK))
            })
    }

    /// Waits for the end of `process`.
    ///
    /// - Parameter notify: tells the service manager that the container is ready; it goes on watching this process.
    func wait(
        _ process: borrowing ChildProcess, terminal: SharedFD?, notify: NotifyRelay? = nil
    ) throws -> ExitStatus {
        var notify = notify
        var relay = try terminal.map { try TerminalRelay($0) }
        defer { relay?.end() }
        while true {
            // Four at most, and the kernel passes over -1. Not an array: its type would be made at run time.
            var polls: InlineArray<4, pollfd> = [
                pollfd(fd: signals.raw, events: Int16(POLLIN), revents: 0), relay?.callersPoll ?? .none,
                relay?.containersPoll ?? .none,
                notify.map { pollfd(fd: $0.container.raw, events: Int16(POLLIN), revents: 0) } ?? .none,
            ]
            try systemCall("poll") {
                var span = polls.mutableSpan
                return span.withUnsafeMutableBufferPointer { poll($0.baseAddress, nfds_t($0.count), -1) }
            }
            if polls[0].revents != 0, let status = try handleSignals(process, relay) {
                relay?.drain()
                return status
            }
            try relay?.handle(caller: polls[1].revents, container: polls[2].revents)
            // A service manager that is gone is no reason to leave the container.
            if polls[3].revents != 0, (try? notify?.relay(main: getpid())) == true { notify = nil }
        }
    }

    private func handleSignals(_ process: borrowing ChildProcess, _ relay: TerminalRelay?) throws -> ExitStatus? {
        var info = signalfd_siginfo()
        while read(signals.raw, &info, MemoryLayout<signalfd_siginfo>.size) > 0 {
            switch Int32(info.ssi_signo) {
            case SIGCHLD:
                if let status = try process.poll() { return status }
                Self.reapOthers(than: process.pid)
            case SIGWINCH: relay?.copySize()
            // Ours alone: terminal job control, broken pipes, urgent data.
            case SIGURG, SIGPIPE, SIGTTOU, SIGTTIN: break
            case let number: try process.signal(number)
            }
        }
        return nil
    }

    /// Reaps orphans; the process itself is left for its pidfd.
    private static func reapOthers(than pid: pid_t) {
        var info = siginfo_t()
        while waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) == 0 {
            let ended = info._sifields._sigchld.si_pid
            if ended == 0 || ended == pid { return }
            var status: Int32 = 0
            waitpid(ended, &status, WNOHANG)
        }
    }
}

extension pollfd {
    /// Nothing to wait for.
    fileprivate static var none: pollfd { pollfd(fd: -1, events: 0, revents: 0) }
}

/// Copies between the caller's terminal (or whatever its standard input and output are) and the container's.
struct TerminalRelay {
    private let container: SharedFD
    private var input = Array<UInt8>()
    private var inputOpen = true
    private var containerOpen = true
    private var saved: Terminal.Saved?

    init(_ container: SharedFD) throws {
        self.container = container
        try systemCall("fcntl(F_SETFL)") { ck_fcntl(container.raw, F_SETFL, O_NONBLOCK) }
        if isatty(0) == 1 { saved = try Terminal.makeRaw(0) }
        copySize()
    }

    /// What to wait for of the caller: input.
    var callersPoll: pollfd { pollfd(fd: inputOpen && input.isEmpty ? 0 : -1, events: Int16(POLLIN), revents: 0) }

    /// What to wait for of the container's terminal.
    var containersPoll: pollfd {
        pollfd(
            fd: containerOpen ? container.raw : -1, events: Int16(POLLIN | (input.isEmpty ? 0 : POLLOUT)), revents: 0)
    }

    /// - Parameters: what poll(2) returned for each.
    mutating func handle(caller: Int16, container events: Int16) throws {
        if caller != 0 {
            var chunk = [UInt8](repeating: 0, count: 4096)
            let count = read(0, &chunk, chunk.count)
            if count > 0 { input = Array(chunk[..<count]) } else if count == 0 || errno != EINTR { inputOpen = false }
        }
        if !input.isEmpty {
            let count = write(container.raw, input, input.count)
            if count > 0 { input.removeFirst(count) } else if errno != EAGAIN { input = [] }
        }
        if events & Int16(POLLIN | POLLHUP | POLLERR) != 0 { containerOpen = copyOutput() }
    }

    /// One piece from the container to standard output; false at its end.
    private func copyOutput() -> Bool {
        var chunk = [UInt8](repeating: 0, count: 16384)
        let count = read(container.raw, &chunk, chunk.count)
        if count < 0 { return errno == EAGAIN || errno == EINTR }
        if count == 0 { return false }
        return (try? Descriptor.writeAll(1, Array(chunk[..<count]))) != nil
    }

    /// What the container had written when it ended.
    func drain() {
        if !containerOpen { return }
        var chunk = [UInt8](repeating: 0, count: 16384)
        while true {
            let count = read(container.raw, &chunk, chunk.count)
            guard count > 0, (try? Descriptor.writeAll(1, Array(chunk[..<count]))) != nil else { return }
        }
    }

    /// The container's terminal gets the size of the caller's.
    func copySize() {
        guard let size = Self.callersSize() else { return }
        try? Terminal.setSize(Terminal.Size(columns: size.width, rows: size.height), of: container.raw)
    }

    /// The size of the caller's terminal. A new terminal gets it before its program runs, which may ask at once.
    static func callersSize() -> ConsoleSize? {
        for number: Int32 in 0...2 {
            guard let size = try? Terminal.size(of: number) else { continue }
            return ConsoleSize(height: size.rows, width: size.columns)
        }
        return nil
    }

    /// Puts the caller's terminal right again.
    func end() {
        if let saved { try? Terminal.restore(0, saved) }
    }
}
