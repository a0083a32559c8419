package import JSON

/// One line of a container's log file.
///
/// `<RFC 3339 time> <stdout|stderr> <F|P> <bytes>\n`. `F` is a whole line, whose own line break is the record's. `P` is
/// a piece without a line break: a line longer than `pieceLimit` is cut into such pieces, and output that ends without
/// a line break ends with one. So the bytes of a stream's records, with a line break after every `F`, are the output.
package struct LogRecord: Sendable, Equatable {
    /// Where output came from; of a terminal, always stdout.
    package enum Stream: String, Sendable, CaseIterable {
        case stdout, stderr
    }

    /// When the shim read the output.
    package var time: Timestamp
    /// Where it came from.
    package var stream: Stream
    /// Marked `P`: no line break follows these bytes.
    package var isPartial: Bool
    /// What was written, without a line break.
    package var bytes: ArraySlice<UInt8>

    /// Most bytes of output in one record.
    package static let pieceLimit = 16 << 10
    /// Most bytes of a record before its output bytes.
    package static let prefixLimit = 48

    package init(time: Timestamp, stream: Stream, isPartial: Bool, bytes: ArraySlice<UInt8>) {
        self.time = time
        self.stream = stream
        self.isPartial = isPartial
        self.bytes = bytes
    }

    /// Appends the record's text with its line break.
    package func append(to output: inout [UInt8]) {
        Self.append(time: time, stream: stream, isPartial: isPartial, bytes, to: &output)
    }

    /// Appends a record's text with its line break.
    package static func append(
        time: Timestamp, stream: Stream, isPartial: Bool, _ bytes: ArraySlice<UInt8>, to output: inout [UInt8]
    ) {
        time.append(to: &output)
        output.append(UInt8(ascii: " "))
        output.append(contentsOf: stream.rawValue.utf8)
        output.append(contentsOf: (isPartial ? " P " : " F ").utf8)
        output.append(contentsOf: bytes)
        output.append(UInt8(ascii: "\n"))
    }

    /// Reads a record's text, without its line break.
    ///
    /// - Returns: nil when it is none: a line torn by a crash, say.
    package init?(line: ArraySlice<UInt8>) {
        let space = UInt8(ascii: " ")
        guard let timeEnd = line.prefix(Self.prefixLimit).firstIndex(of: space),
            let time = Timestamp(rfc3339: String(decoding: line[..<timeEnd], as: UTF8.self))
        else { return nil }
        let afterTime = line[(timeEnd + 1)...]
        guard let streamEnd = afterTime.prefix(8).firstIndex(of: space),
            let stream = Stream(rawValue: String(decoding: afterTime[..<streamEnd], as: UTF8.self))
        else { return nil }
        let rest = line[(streamEnd + 1)...]
        guard rest.count >= 2, rest[rest.startIndex + 1] == space else { return nil }
        switch rest[rest.startIndex] {
        case UInt8(ascii: "F"): isPartial = false
        case UInt8(ascii: "P"): isPartial = true
        default: return nil
        }
        self.time = time
        self.stream = stream
        bytes = rest.dropFirst(2)
    }
}
