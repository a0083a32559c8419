/// A signal as users write it: `SIGTERM`, `TERM`, `term` or `15`; see signal(7). Numbers are Linux's on x86-64 and arm64.
package struct SignalName: Sendable, Hashable, CustomStringConvertible {
    /// 1…64.
    package let number: Int

    package static let kill = SignalName(number: 9)
    package static let terminate = SignalName(number: 15)

    private init(number: Int) { self.number = number }

    private static let names: [String] = [
        "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM",
        "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF",
        "WINCH", "IO", "PWR", "SYS",
    ]
    private static let synonyms = ["IOT": 6, "CLD": 17, "POLL": 29]

    /// nil when there is no such signal.
    package init?(_ text: String) {
        if let number = Int(text) {
            guard (1...64).contains(number) else { return nil }
            self.number = number
            return
        }
        var name = text.uppercased()
        if name.hasPrefix("SIG") { name.removeFirst(3) }
        if let index = Self.names.firstIndex(of: name) {
            number = index + 1
        } else if let known = Self.synonyms[name] {
            number = known
        } else if let realTime = Self.realTime(name) {
            number = realTime
        } else {
            return nil
        }
    }

    /// `RTMIN`, `RTMIN+3`, `RTMAX-2`: glibc keeps 32 and 33 for itself.
    private static func realTime(_ name: String) -> Int? {
        let (base, direction) = name.hasPrefix("RTMIN") ? (34, 1) : (64, -1)
        guard name.hasPrefix("RTMIN") || name.hasPrefix("RTMAX") else { return nil }
        let rest = name.dropFirst(5)
        if rest.isEmpty { return base }
        guard rest.first == (direction == 1 ? "+" : "-"), let offset = Int(rest.dropFirst()), offset >= 0 else {
            return nil
        }
        let number = base + direction * offset
        return (34...64).contains(number) ? number : nil
    }

    /// `SIGTERM`; real-time ones as a number.
    package var description: String {
        number <= Self.names.count ? "SIG\(Self.names[number - 1])" : "\(number)"
    }
}
