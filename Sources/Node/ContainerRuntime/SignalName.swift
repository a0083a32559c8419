import Glibc

/// Signals as users write them.
enum SignalName {
    private static let names: [String: Int32] = [
        "HUP": SIGHUP, "INT": SIGINT, "QUIT": SIGQUIT, "ILL": SIGILL, "TRAP": SIGTRAP, "ABRT": SIGABRT, "IOT": SIGABRT,
        "BUS": SIGBUS, "FPE": SIGFPE, "KILL": SIGKILL, "USR1": SIGUSR1, "SEGV": SIGSEGV, "USR2": SIGUSR2,
        "PIPE": SIGPIPE, "ALRM": SIGALRM, "TERM": SIGTERM, "STKFLT": 16, "CHLD": SIGCHLD, "CLD": SIGCHLD,
        "CONT": SIGCONT, "STOP": SIGSTOP, "TSTP": SIGTSTP, "TTIN": SIGTTIN, "TTOU": SIGTTOU, "URG": SIGURG,
        "XCPU": SIGXCPU, "XFSZ": SIGXFSZ, "VTALRM": SIGVTALRM, "PROF": SIGPROF, "WINCH": SIGWINCH, "IO": SIGIO,
        "POLL": SIGIO, "PWR": 30, "SYS": SIGSYS, "RTMIN": 34, "RTMAX": 64,
    ]

    /// A number from 1 to 64, or a name with or without `SIG`, `RTMIN+3` and `RTMAX-2` included.
    static func number(of text: String) throws -> Int32 {
        if let number = Int32(text) {
            if (1...64).contains(number) { return number }
        } else if text.utf8.allSatisfy({ $0 < 0x80 }) {
            // Some letters beyond ASCII have capitals in it.
            var name = text.uppercased()
            if name.hasPrefix("SIG") { name.removeFirst(3) }
            if let number = names[name] { return number }
            if name.hasPrefix("RTMIN+"), let offset = Int32(name.dropFirst(6)), (0...30).contains(offset) {
                return 34 + offset
            }
            if name.hasPrefix("RTMAX-"), let offset = Int32(name.dropFirst(6)), (0...30).contains(offset) {
                return 64 - offset
            }
        }
        throw RuntimeError("unknown signal '\(text)'")
    }
}
