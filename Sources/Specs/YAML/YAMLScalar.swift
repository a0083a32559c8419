import JSON

/// What a plain scalar stands for in the core schema of YAML 1.2, and whether 1.1 has it otherwise.
enum YAMLScalar: Equatable {
    case null
    case bool(Bool)
    case number(JSONValue)
    case text
    /// A number or a boolean in one version of YAML, and something else in another.
    case ambiguous

    init(_ text: String) {
        switch text {
        case "", "~", "null", "Null", "NULL": self = .null
        case "true", "True", "TRUE": self = .bool(true)
        case "false", "False", "FALSE": self = .bool(false)
        default:
            if Self.words.contains(text.lowercased()) {
                self = .ambiguous
            } else {
                self = Self.number(text)
            }
        }
    }

    /// Booleans of YAML 1.1, and the numbers that are none in JSON.
    private static let words: Set<String> = [
        "y", "n", "yes", "no", "on", "off", ".inf", "+.inf", "-.inf", ".nan",
    ]

    private static func number(_ text: String) -> YAMLScalar {
        let bytes = Array(text.utf8)
        let isSigned = bytes.first == UInt8(ascii: "-") || bytes.first == UInt8(ascii: "+")
        let digits = isSigned ? bytes.dropFirst() : bytes[...]
        let isNumeral = digits.first.map { isDigit($0) || $0 == UInt8(ascii: ".") } ?? false
        guard isNumeral, digits.contains(where: isDigit) else { return .text }
        let whole = String(decoding: digits, as: UTF8.self)
        if digits.allSatisfy(isDigit) {
            guard digits.count > 1, digits.first == UInt8(ascii: "0") else { return integer(text, radix: 10) }
            // 1.1 says octal, 1.2 says decimal: a mode is meant, or a mistake.
            return isSigned ? .ambiguous : integer(whole, radix: 8)
        }
        if !isSigned, whole.hasPrefix("0o") { return integer(String(whole.dropFirst(2)), radix: 8) }
        if !isSigned, whole.hasPrefix("0x") { return integer(String(whole.dropFirst(2)), radix: 16) }
        let shape = digits.filter { !isDigit($0) }
        // 1_000, 1:30, 0b11 and all forms of floating point; a version or an address has two points.
        let isFloat = Double(text) != nil || shape.allSatisfy { $0 == UInt8(ascii: "_") || $0 == UInt8(ascii: ":") }
        return isFloat || whole.hasPrefix("0b") ? .ambiguous : .text
    }

    private static func integer(_ digits: String, radix: Int) -> YAMLScalar {
        let isPlain = digits.utf8.first.map { isDigit($0) || $0 > UInt8(ascii: "9") } ?? false
        let sign = digits.utf8.first == UInt8(ascii: "-") || digits.utf8.first == UInt8(ascii: "+")
        guard isPlain || (sign && radix == 10) else { return .ambiguous }
        if let number = Int64(digits, radix: radix) { return .number(.integer(number)) }
        return UInt64(digits, radix: radix).map { .number(.unsigned($0)) } ?? .ambiguous
    }

    private static func isDigit(_ byte: UInt8) -> Bool { (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte) }
}
