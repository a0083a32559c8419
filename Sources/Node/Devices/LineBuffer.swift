import NVMLReport

/// Cuts what comes from a pipe into lines of bounded length.
struct LineBuffer {
    private var bytes: [UInt8] = []
    private var start = 0

    /// Adds what was read.
    mutating func append(_ more: [UInt8]) {
        if start > 0 {
            bytes.removeFirst(start)
            start = 0
        }
        bytes += more
    }

    /// The next whole line without its line break; `.tooLong` for one that cannot be any; nil: there is none yet.
    mutating func next() -> HelperRun.Step? {
        let rest = bytes[start...]
        guard let end = rest.prefix(NVMLLine.limit).firstIndex(of: UInt8(ascii: "\n")) else {
            return rest.count >= NVMLLine.limit ? .tooLong : nil
        }
        start = end + 1
        return .line(Array(rest[..<end]))
    }
}
