/// One piece of a stream between client, master, agent and shim.
///
/// On the wire: kind (1 byte), flags (1 byte, 0), stream (2 bytes, 0), length of the payload (4 bytes), payload;
/// numbers are big-endian. Flags and stream are reserved: a reader refuses other values than 0. A stream ends with `exit` or
/// `error`; a connection that closes before one of them was cut off.
package enum Frame: Sendable, Equatable {
    /// Bytes for the process's standard input.
    case stdin([UInt8])
    /// Bytes of standard output, and of a terminal.
    case stdout([UInt8])
    case stderr([UInt8])
    /// The bytes of one kind (0, 1 or 2, as on the wire) are complete. From a client, `end(0)` is its half-close.
    case end(UInt8)
    /// The size of the client's terminal, in character cells.
    case resize(columns: UInt16, rows: UInt16)
    /// A signal's number for the process.
    case signal(UInt8)
    /// How the process ended: its code, or 128 and the signal. Nothing follows.
    case exit(Int32)
    /// Why the stream ends early, as a sentence. Nothing follows.
    case error(String)
    /// A JSON message.
    case control([UInt8])

    /// The first byte on the wire.
    package enum Kind: UInt8, Sendable {
        case stdin, stdout, stderr, end, resize, signal, exit, error, control
    }

    /// Bytes before the payload.
    package static let headerLength = 8
    /// Longest payload of any kind but `control`.
    package static let dataLimit = 64 << 10
    /// Longest payload of `control`.
    package static let controlLimit = 1 << 20

    /// The frame's bytes. Data longer than `dataLimit` becomes several frames; an error's text is cut to it. A control
    /// payload must not be longer than `controlLimit`: every reader refuses it.
    package func encoded() -> [UInt8] {
        var bytes: [UInt8] = []
        append(to: &bytes)
        return bytes
    }

    /// Appends the frame's bytes, as `encoded` has them.
    package func append(to bytes: inout [UInt8]) {
        switch self {
        case .stdin(let data): Self.append(data[...], as: .stdin, to: &bytes)
        case .stdout(let data): Self.append(data[...], as: .stdout, to: &bytes)
        case .stderr(let data): Self.append(data[...], as: .stderr, to: &bytes)
        case .end(let kind): Self.append(kind: .end, payload: CollectionOfOne(kind), to: &bytes)
        case .resize(let columns, let rows):
            Self.append(kind: .resize, payload: Self.bigEndian(columns) + Self.bigEndian(rows), to: &bytes)
        case .signal(let number): Self.append(kind: .signal, payload: CollectionOfOne(number), to: &bytes)
        case .exit(let code): Self.append(kind: .exit, payload: Self.bigEndian(code), to: &bytes)
        case .error(let text): Self.append(kind: .error, payload: Self.cut(text), to: &bytes)
        case .control(let json): Self.append(kind: .control, payload: json, to: &bytes)
        }
    }

    /// Appends data frames of one kind; no data makes one empty frame.
    package static func append(_ data: ArraySlice<UInt8>, as kind: Kind, to bytes: inout [UInt8]) {
        var rest = data
        bytes.reserveCapacity(bytes.count + data.count + headerLength * (1 + data.count / dataLimit))
        repeat {
            append(kind: kind, payload: rest.prefix(dataLimit), to: &bytes)
            rest = rest.dropFirst(dataLimit)
        } while !rest.isEmpty
    }

    private static func append(kind: Kind, payload: some Collection<UInt8>, to bytes: inout [UInt8]) {
        bytes.append(contentsOf: [kind.rawValue, 0, 0, 0])
        bytes.append(contentsOf: bigEndian(UInt32(payload.count)))
        bytes.append(contentsOf: payload)
    }

    private static func bigEndian<T: FixedWidthInteger>(_ number: T) -> [UInt8] {
        stride(from: T.bitWidth - 8, through: 0, by: -8).map { UInt8(truncatingIfNeeded: number >> $0) }
    }

    /// The text's bytes, cut between characters.
    private static func cut(_ text: String) -> ArraySlice<UInt8> {
        let bytes = Array(text.utf8)
        guard bytes.count > dataLimit else { return bytes[...] }
        var end = dataLimit
        while end > 0, bytes[end] & 0xC0 == 0x80 { end -= 1 }
        return bytes[..<end]
    }
}
