/// What can be told of a process, in the words of ps(1).
package enum ProcessColumn: String, Sendable, Codable, CaseIterable {
    /// `root`, or the number of another user.
    case user
    case uid, pid, ppid
    /// Per cent of one processor over its life, whole and with a digit.
    case c, pcpu
    /// Per cent of the machine's memory.
    case pmem
    /// KiB.
    case vsz, rss
    case tty
    /// `R`, `S`, `D`, `Z`, …
    case stat
    /// When it was started, UTC.
    case stime
    /// Processor time it has had.
    case time
    /// Since when it lives.
    case etime
    case nlwp
    case comm
    case args

    /// The heading.
    package var title: String {
        switch self {
        case .pcpu: "%CPU"
        case .pmem: "%MEM"
        case .comm: "COMMAND"
        case .args: "CMD"
        case .etime: "ELAPSED"
        default: rawValue.uppercased()
        }
    }

    /// Those that are shown to whoever asks for none.
    package static let usual: [ProcessColumn] = [.uid, .pid, .ppid, .stat, .time, .args]
}
