import Glibc
import JSON
import Kernel
import Wire

/// One process as the node sees it, from procfs.
struct ProcessRow {
    private let pid: pid_t
    private let stat: ProcessStat
    private let status: [String: String]
    private let arguments: String

    /// Blocks; nil when it has ended meanwhile.
    init?(_ pid: pid_t) {
        guard let stat = try? Proc.stat(pid), let status = try? Proc.status(pid) else { return nil }
        self.pid = pid
        self.stat = stat
        self.status = status
        let command = (try? File.read("/proc/\(pid)/cmdline", limit: 1 << 20)) ?? []
        let text = command.split(separator: 0).map { String(decoding: $0, as: UTF8.self) }.joined(separator: " ")
        arguments = text.isEmpty ? "[\(stat.command)]" : text
    }

    func values(_ columns: [ProcessColumn]) -> [String] { columns.map(value) }

    private func value(_ column: ProcessColumn) -> String {
        switch column {
        case .user: uid == "0" ? "root" : uid
        case .uid: uid
        case .pid: "\(pid)"
        case .ppid: "\(stat.parent)"
        case .c: "\(min(99, perMille / 10))"
        case .pcpu: "\(perMille / 10).\(perMille % 10)"
        case .pmem: share(of: kibibytes("VmRSS"), in: Self.memory)
        case .vsz: "\(kibibytes("VmSize"))"
        case .rss: "\(kibibytes("VmRSS"))"
        // Terminals of containers have no name on the node.
        case .tty: "?"
        case .stat: String(stat.state)
        case .stime: started
        case .time: Self.clock(processorSeconds)
        case .etime: elapsed
        case .nlwp: "\(stat.threads)"
        case .comm: stat.command
        case .args: arguments
        }
    }

    private var uid: String { status["Uid"]?.split(whereSeparator: \.isWhitespace).first.map(String.init) ?? "?" }

    private func kibibytes(_ field: String) -> Int64 {
        status[field]?.split(separator: " ").first.flatMap { Int64($0) } ?? 0
    }

    private static let ticks = Int64(max(1, sysconf(Int32(_SC_CLK_TCK))))
    private static let memory = Int64(sysconf(Int32(_SC_PHYS_PAGES))) * Int64(sysconf(Int32(_SC_PAGESIZE))) / 1024

    private var processorSeconds: Int64 { Int64(clamping: stat.userTicks &+ stat.systemTicks) / Self.ticks }

    private var age: Int64 {
        max(0, Proc.uptimeNanoseconds() / 1_000_000_000 - Int64(clamping: stat.startTime) / Self.ticks)
    }

    private var perMille: Int64 {
        age == 0 ? 0 : Int64(clamping: stat.userTicks &+ stat.systemTicks) * 1000 / Self.ticks / age
    }

    private func share(of part: Int64, in whole: Int64) -> String {
        let perMille = whole > 0 ? part * 1000 / whole : 0
        return "\(perMille / 10).\(perMille % 10)"
    }

    /// `14:05`, or the day when that was not today.
    private var started: String {
        let now = Timestamp.now()
        let text = "\(now.adding(seconds: -age))"
        return "\(now)".prefix(10) == text.prefix(10) ? String(text.dropFirst(11).prefix(5)) : String(text.prefix(10))
    }

    private var elapsed: String { age < 86_400 ? Self.clock(age) : "\(age / 86_400)-\(Self.clock(age % 86_400))" }

    private static func clock(_ seconds: Int64) -> String {
        func two(_ number: Int64) -> String { number < 10 ? "0\(number)" : "\(number)" }
        return "\(two(seconds / 3600)):\(two(seconds / 60 % 60)):\(two(seconds % 60))"
    }
}
