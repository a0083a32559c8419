/// What is wrong with a peer's bytes. The connection cannot go on after it.
package struct FrameError: Error, Sendable, Equatable, CustomStringConvertible {
    /// One sentence.
    package let description: String

    init(_ description: String) { self.description = description }
}

/// Cuts a stream of bytes into frames.
///
/// Holds at most one frame beyond what was appended: a length over the limit is refused from the header alone. After an
/// error every further call fails in the same way.
package struct FrameDecoder: Sendable {
    private var buffer: [UInt8] = []
    private var start = 0
    private var failure: FrameError?

    /// A decoder at the start of a stream.
    package init() {}

    /// Bytes that are held and not yet part of a returned frame.
    package var bufferedBytes: Int { buffer.count - start }

    /// Takes the next bytes of the stream, any number of them.
    package mutating func append(_ bytes: some Sequence<UInt8>) {
        if start == buffer.count {
            buffer.removeAll(keepingCapacity: buffer.capacity <= Frame.dataLimit * 2)
            start = 0
        } else if start > Frame.dataLimit {
            buffer.removeSubrange(..<start)
            start = 0
        }
        buffer.append(contentsOf: bytes)
    }

    /// The next whole frame, or nil until more bytes are there.
    package mutating func next() throws(FrameError) -> Frame? {
        if let failure { throw failure }
        do {
            return try parse()
        } catch {
            failure = error
            buffer = []
            start = 0
            throw error
        }
    }

    private mutating func parse() throws(FrameError) -> Frame? {
        guard bufferedBytes >= 1 else { return nil }
        guard let kind = Frame.Kind(rawValue: buffer[start]) else {
            throw FrameError("frame kind \(buffer[start]) is not known; the peer speaks another protocol or version")
        }
        guard bufferedBytes >= Frame.headerLength else { return nil }
        guard buffer[start + 1] == 0 else { throw FrameError("frame flags \(buffer[start + 1]) are not known") }
        let stream = number(at: start + 2, bytes: 2)
        guard stream == 0 else { throw FrameError("frame stream \(stream) is not known") }
        let length = Int(number(at: start + 4, bytes: 4))
        try check(length, of: kind)
        guard bufferedBytes >= Frame.headerLength + length else { return nil }
        let payload = start + Frame.headerLength
        start = payload + length
        return try frame(kind, payload: payload..<payload + length)
    }

    private func check(_ length: Int, of kind: Frame.Kind) throws(FrameError) {
        let allowed: ClosedRange<Int> =
            switch kind {
            case .stdin, .stdout, .stderr, .error: 0...Frame.dataLimit
            case .end, .signal: 1...1
            case .resize, .exit: 4...4
            case .control: 0...Frame.controlLimit
            }
        guard allowed.contains(length) else {
            let text = allowed.count == 1 ? "\(allowed.lowerBound)" : "at most \(allowed.upperBound)"
            throw FrameError("a frame of kind \(kind) has \(length) bytes instead of \(text)")
        }
    }

    private func frame(_ kind: Frame.Kind, payload: Range<Int>) throws(FrameError) -> Frame {
        let first = payload.lowerBound
        switch kind {
        case .stdin: return .stdin(Array(buffer[payload]))
        case .stdout: return .stdout(Array(buffer[payload]))
        case .stderr: return .stderr(Array(buffer[payload]))
        case .end:
            guard buffer[first] <= Frame.Kind.stderr.rawValue else {
                throw FrameError("an end frame names kind \(buffer[first]), which carries no data")
            }
            return .end(buffer[first])
        case .resize:
            return .resize(
                columns: UInt16(number(at: first, bytes: 2)), rows: UInt16(number(at: first + 2, bytes: 2)))
        case .signal: return .signal(buffer[first])
        case .exit: return .exit(Int32(bitPattern: number(at: first, bytes: 4)))
        case .error: return .error(String(decoding: buffer[payload], as: UTF8.self))
        case .control: return .control(Array(buffer[payload]))
        }
    }

    private func number(at index: Int, bytes: Int) -> UInt32 {
        buffer[index..<index + bytes].reduce(0) { $0 << 8 | UInt32($1) }
    }
}
