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
            var polls = [pollfd(fd: signals.raw, events: Int16(POLLIN), revents: 0)]
            if let relay { polls += relay.polls }
            if let notify { polls.append(pollfd(fd: notify.container.raw, events: Int16(POLLIN), revents: 0)) }
            try systemCall("poll") { poll(&polls, nfds_t(polls.count), -1) }
            if polls[0].revents != 0, let status = try handleSignals(process, relay) {
                relay?.drain()
                return status
            }
            if relay != nil { try relay?.handle(polls[1...2]) }
            // A service manager that is gone is no reason to leave the container.
            if polls[polls.count - 1].revents != 0, (try? notify?.relay(main: getpid())) == true { notify = nil }
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

    /// What to wait for: the caller's input, the container's terminal.
    var polls: [pollfd] {
        let wantsInput = inputOpen && input.isEmpty
        let events = POLLIN | (input.isEmpty ? 0 : POLLOUT)
        return [
            pollfd(fd: wantsInput ? 0 : -1, events: Int16(POLLIN), revents: 0),
            pollfd(fd: containerOpen ? container.raw : -1, events: Int16(events), revents: 0),
        ]
    }

    mutating func handle(_ polls: ArraySlice<pollfd>) throws {
        guard let first = polls.first, let second = polls.last else { return }
        if first.revents != 0 {
            var chunk = [UInt8](repeating: 0, count: 4096)
            let count = read(0, &chunk, chunk.count)
            if count > 0 { input = Array(chunk[..<count]) } else if count == 0 || errno != EINTR { inputOpen = false }
        }
        if !input.isEmpty {
            let count = write(container.raw, input, input.count)
            if count > 0 { input.removeFirst(count) } else if errno != EAGAIN { input = [] }
        }
        if second.revents & Int16(POLLIN | POLLHUP | POLLERR) != 0 { containerOpen = copyOutput() }
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
