/// Why a JSON text was refused, and where in it.
package struct JSONError: Error, Sendable, Equatable, CustomStringConvertible {
    /// What kind of mistake it is; faces choose their status from it.
    package enum Kind: Sendable, Equatable {
        /// Not JSON (RFC 8259), or a duplicate member.
        case syntax
        /// More bytes than the limits allow, as a whole or in one string or number.
        case tooLarge
        /// Nested deeper than the limits allow.
        case tooDeep
        /// Bytes or escapes that are not Unicode text.
        case invalidUTF8
        /// A value of another type, or out of the range of its type.
        case type
        /// A member that must be there is not.
        case missing
        /// A member that nobody asked for.
        case unknownField
    }

    /// The kind of mistake.
    package let kind: Kind
    /// One plain sentence without the path.
    package let message: String
    /// The way from the innermost element outwards: cheap to extend while an error travels up.
    private var reversed: [JSONPathElement]

    /// An error at `path`, outermost element first; the empty path is the whole text.
    package init(_ kind: Kind, _ message: String, at path: [JSONPathElement] = []) {
        self.kind = kind
        self.message = message
        reversed = path.reversed()
    }

    /// The place as text: `$.containers[0].memory`. `$` is the whole text.
    package var path: String { JSONPathElement.text(reversed.reversed()) }

    /// Path and message, as users read it.
    package var description: String { "\(path): \(message)" }

    /// The same error seen from one level further out.
    package consuming func inside(_ element: JSONPathElement) -> JSONError {
        reversed.append(element)
        return self
    }
}

/// One step into a JSON text.
package enum JSONPathElement: Sendable, Equatable {
    case key(String)
    case index(Int)

    /// A path as text, outermost element first. Keys that are not plain words are quoted, long ones are cut.
    package static func text(_ path: [JSONPathElement]) -> String {
        var text = "$"
        for element in path {
            switch element {
            case .index(let index): text += "[\(index)]"
            case .key(let key) where isWord(key): text += ".\(key)"
            case .key(let key): text += "[\(quoted(key))]"
            }
        }
        return text
    }

    /// A key between quotation marks, escaped and cut to 64 characters, safe to print.
    package static func quoted(_ key: String) -> String {
        var bytes: [UInt8] = []
        let cut = key.count > 64 ? String(key.prefix(61)) + "..." : key
        JSONSerializer.append(string: cut, to: &bytes)
        // JSON leaves these as they are, and to terminals some of them are commands.
        return String(decoding: bytes, as: UTF8.self).unicodeScalars.reduce(into: "") { text, scalar in
            guard (0x7F...0x9F).contains(scalar.value) else { return text.unicodeScalars.append(scalar) }
            text += "\\u00\(String(scalar.value, radix: 16))"
        }
    }

    private static func isWord(_ key: String) -> Bool {
        let bytes = key.utf8
        return !bytes.isEmpty && bytes.count <= 64
            && bytes.allSatisfy {
                switch $0 {
                case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
                    UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "_"), UInt8(ascii: "-"):
                    true
                default: false
                }
            }
    }
}

/// Bounds of what a reader accepts. What exceeds one is refused with the bound in the message.
package struct JSONLimits: Sendable, Equatable {
    /// Length of the whole text in bytes.
    package var bytes: Int
    /// Levels of arrays and objects within each other.
    package var depth: Int
    /// Length of one string or key, in bytes of UTF-8 after escapes are resolved.
    package var stringBytes: Int

    /// Bounds of one's own; what is left out is as in `standard`.
    package init(bytes: Int = 4 << 20, depth: Int = 64, stringBytes: Int = 2 << 20) {
        self.bytes = bytes
        self.depth = depth
        self.stringBytes = stringBytes
    }

    /// 4 MiB, 64 levels, strings of 2 MiB.
    package static let standard = JSONLimits()

    /// A number's text is never longer than this; the longest exact double needs about 800 digits.
    static let numberBytes = 1024
}
