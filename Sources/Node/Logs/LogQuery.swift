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
    private let timestamps: Bool
    /// Streams in the middle of a line.
    private var unfinished: Set<LogRecord.Stream> = []

    package init(timestamps: Bool) { self.timestamps = timestamps }

    /// The bytes of a record; of a record that ends a line with the line break.
    package mutating func output(of record: LogRecord) -> [UInt8] {
        var output: [UInt8] = []
        if timestamps && !unfinished.contains(record.stream) {
            record.time.append(to: &output)
            output.append(UInt8(ascii: " "))
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
