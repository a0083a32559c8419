/// A container's id: it becomes a file name and a cgroup name, so it is checked wherever one comes in.
struct ContainerID: Sendable, Hashable, CustomStringConvertible {
    let description: String
    static let maximumBytes = 255

    /// - Throws: `RuntimeError` unless it is `[A-Za-z0-9_+-][A-Za-z0-9_+.-]*` with at most 255 bytes.
    init(_ text: String) throws {
        let bytes = text.utf8
        guard let first = bytes.first, bytes.count <= Self.maximumBytes, Self.isName(first),
            bytes.allSatisfy({ Self.isName($0) || $0 == UInt8(ascii: ".") })
        else {
            throw RuntimeError(
                "invalid container id format: '\(text.prefix(64))': use letters, digits, '_', '+', '-' and '.' "
                    + "(not first), at most \(Self.maximumBytes)")
        }
        description = text
    }

    private static func isName(_ byte: UInt8) -> Bool {
        switch byte {
        case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
            UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "_"), UInt8(ascii: "+"), UInt8(ascii: "-"):
            true
        default: false
        }
    }
}
