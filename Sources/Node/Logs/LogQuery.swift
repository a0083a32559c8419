import JSON
import ShimProtocol

/// Which records of a container's log are wanted.
package struct LogQuery: Sendable, Equatable {
    /// Only the last so many lines; nil for all. A line that was cut into pieces is one.
    package var tail: Int?
    /// Only records of this time or later.
    package var since: Timestamp?
    /// Only records of this time or earlier.
    package var until: Timestamp?
    package var stdout = true
    package var stderr = true
    /// Go on with what is written later.
    package var follow = false

    package init() {}

    func accepts(_ stream: LogRecord.Stream) -> Bool { stream == .stdout ? stdout : stderr }

    func accepts(_ record: LogRecord) -> Bool {
        guard accepts(record.stream) else { return false }
        if let since, record.time < since { return false }
        if let until, record.time > until { return false }
        return true
    }
}

/// Turns records back into the output that they were, with the time before each line if wanted.
package struct LogFormatter: Sendable {
    /// What stands before a line.
    package enum Prefix: Sendable {
        case nothing
        /// The record's time and a space; with `isFixed`, always with nine digits of a fraction.
        case time(isFixed: Bool)
    }

    private let prefix: Prefix
    private let indent: [UInt8]
    /// Streams in the middle of a line.
    private var unfinished: Set<LogRecord.Stream> = []

    /// - Parameter indent: what stands between the prefix and the line.
    package init(prefix: Prefix, indent: String = "") {
        self.prefix = prefix
        self.indent = Array(indent.utf8)
    }

    /// Fills up the fraction of `…:15.25Z`, or of `…:15Z`, to nine digits.
    private static func widen(_ time: inout [UInt8]) {
        time.removeLast()
        let point = UInt8(ascii: ".")
        if !time.contains(point) { time.append(point) }
        let digits = time.lastIndex(of: point).map { time.count - $0 - 1 } ?? 0
        time.append(contentsOf: repeatElement(UInt8(ascii: "0"), count: max(0, 9 - digits)))
        time.append(UInt8(ascii: "Z"))
    }

    /// The bytes of a record; of a record that ends a line with the line break.
    package mutating func output(of record: LogRecord) -> [UInt8] {
        var output: [UInt8] = []
        if !unfinished.contains(record.stream) {
            if case .time(let isFixed) = prefix {
                record.time.append(to: &output)
                if isFixed { Self.widen(&output) }
                output.append(UInt8(ascii: " "))
            }
            output.append(contentsOf: indent)
        }
        output.append(contentsOf: record.bytes)
        if record.isPartial {
            unfinished.insert(record.stream)
        } else {
            unfinished.remove(record.stream)
            output.append(UInt8(ascii: "\n"))
        }
        return output
    }
}
