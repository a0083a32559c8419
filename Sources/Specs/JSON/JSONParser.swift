/// One pass over a JSON text. Lives only inside `JSONValue.parse`, while the buffer is valid.
struct JSONParser {
    private let bytes: UnsafeBufferPointer<UInt8>
    private let limits: JSONLimits
    private var position = 0
    private var depth = 0

    init(_ bytes: UnsafeBufferPointer<UInt8>, limits: JSONLimits) {
        self.bytes = bytes
        self.limits = limits
    }

    /// The whole text: one value and nothing after it.
    mutating func document() throws(JSONError) -> JSONValue {
        if bytes.starts(with: [0xEF, 0xBB, 0xBF]) {
            throw JSONError(.syntax, "the text starts with a byte order mark; write UTF-8 without one")
        }
        let value = try value()
        skipWhiteSpace()
        if position < bytes.count { throw unexpected("the end of the text") }
        return value
    }

    private mutating func value() throws(JSONError) -> JSONValue {
        skipWhiteSpace()
        guard position < bytes.count else { throw unexpected("a value") }
        switch bytes[position] {
        case UInt8(ascii: "{"): return .object(try object())
        case UInt8(ascii: "["): return .array(try array())
        case UInt8(ascii: "\""): return .string(try string())
        case UInt8(ascii: "-"), UInt8(ascii: "0")...UInt8(ascii: "9"): return try number()
        case UInt8(ascii: "t"): return try word("true", .bool(true))
        case UInt8(ascii: "f"): return try word("false", .bool(false))
        case UInt8(ascii: "n"): return try word("null", .null)
        default: throw unexpected("a value")
        }
    }

    private mutating func object() throws(JSONError) -> JSONObject {
        try enter()
        var object = JSONObject()
        skipWhiteSpace()
        if take(UInt8(ascii: "}")) {
            depth -= 1
            return object
        }
        object.reserveCapacity(4)
        while true {
            skipWhiteSpace()
            guard position < bytes.count, bytes[position] == UInt8(ascii: "\"") else {
                throw unexpected("a member's name in quotation marks")
            }
            let start = position
            let key = try string()
            skipWhiteSpace()
            guard take(UInt8(ascii: ":")) else { throw unexpected("':'").inside(.key(key)) }
            do throws(JSONError) {
                let member = try value()
                guard object.insertNew(key, member) else {
                    throw JSONError(.syntax, "the member is there twice, again at \(place(start))")
                }
            } catch {
                throw error.inside(.key(key))
            }
            skipWhiteSpace()
            if take(UInt8(ascii: ",")) { continue }
            guard take(UInt8(ascii: "}")) else { throw unexpected("',' or '}'") }
            depth -= 1
            return object
        }
    }

    private mutating func array() throws(JSONError) -> [JSONValue] {
        try enter()
        var elements: [JSONValue] = []
        skipWhiteSpace()
        if take(UInt8(ascii: "]")) {
            depth -= 1
            return elements
        }
        elements.reserveCapacity(4)
        while true {
            do throws(JSONError) {
                elements.append(try value())
            } catch {
                throw error.inside(.index(elements.count))
            }
            skipWhiteSpace()
            if take(UInt8(ascii: ",")) { continue }
            guard take(UInt8(ascii: "]")) else { throw unexpected("',' or ']'") }
            depth -= 1
            return elements
        }
    }

    /// Steps over the opening bracket.
    private mutating func enter() throws(JSONError) {
        guard depth < limits.depth else {
            throw JSONError(.tooDeep, "nested deeper than the \(limits.depth) levels allowed, at \(place(position))")
        }
        depth += 1
        position += 1
    }

    private mutating func word(_ word: StaticString, _ value: JSONValue) throws(JSONError) -> JSONValue {
        let end = position + word.utf8CodeUnitCount
        guard end <= bytes.count,
            // SAFETY: a StaticString of ASCII letters has a pointer of that length.
            bytes[position..<end].elementsEqual(
                UnsafeBufferPointer(start: word.utf8Start, count: word.utf8CodeUnitCount))
        else { throw unexpected("a value") }
        position = end
        return value
    }

    // MARK: Numbers

    private mutating func number() throws(JSONError) -> JSONValue {
        let start = position
        let negative = take(UInt8(ascii: "-"))
        let firstDigit = position
        var magnitude: UInt64 = 0
        var overflow = false
        while position < bytes.count, let digit = digit(at: position) {
            let (product, tooBig) = magnitude.multipliedReportingOverflow(by: 10)
            let (sum, stillTooBig) = product.addingReportingOverflow(UInt64(digit))
            overflow = overflow || tooBig || stillTooBig
            magnitude = sum
            position += 1
        }
        let digits = position - firstDigit
        guard digits > 0 else { throw unexpected("a digit") }
        if digits > 1 && bytes[firstDigit] == UInt8(ascii: "0") {
            throw JSONError(.syntax, "a number has a leading zero at \(place(start))")
        }
        let isInteger = try !fractionAndExponent()
        guard position - start <= JSONLimits.numberBytes else {
            throw JSONError(
                .tooLarge, "a number of \(position - start) bytes, \(JSONLimits.numberBytes) are allowed")
        }
        if isInteger { return try integer(negative, magnitude, overflow, start) }
        let text = String(decoding: UnsafeBufferPointer(rebasing: bytes[start..<position]), as: UTF8.self)
        guard let double = Double(text), double.isFinite else {
            throw JSONError(.type, "a number beyond the range of a 64-bit floating point number at \(place(start))")
        }
        return .double(double)
    }

    private func integer(
        _ negative: Bool, _ magnitude: UInt64, _ overflow: Bool, _ start: Int
    ) throws(JSONError) -> JSONValue {
        if !overflow {
            if !negative { return JSONValue(magnitude) }
            if magnitude <= UInt64(Int64.max) + 1 { return .integer(Int64(truncatingIfNeeded: 0 &- magnitude)) }
        }
        throw JSONError(.type, "an integer that does not fit into 64 bits at \(place(start))")
    }

    /// Steps over `.5`, `e+3`; true when there was one.
    private mutating func fractionAndExponent() throws(JSONError) -> Bool {
        var found = false
        if take(UInt8(ascii: ".")) {
            found = true
            try requireDigits()
        }
        if take(UInt8(ascii: "e")) || take(UInt8(ascii: "E")) {
            found = true
            if !take(UInt8(ascii: "+")) { _ = take(UInt8(ascii: "-")) }
            try requireDigits()
        }
        return found
    }

    private mutating func requireDigits() throws(JSONError) {
        let start = position
        while position < bytes.count, digit(at: position) != nil { position += 1 }
        if position == start { throw unexpected("a digit") }
    }

    private func digit(at position: Int) -> UInt8? {
        let value = bytes[position] &- UInt8(ascii: "0")
        return value <= 9 ? value : nil
    }

    // MARK: Strings

    private mutating func string() throws(JSONError) -> String {
        let start = position
        position += 1
        let content = position
        var all: UInt8 = 0
        while position < bytes.count {
            let byte = bytes[position]
            if byte == UInt8(ascii: "\"") {
                let buffer = UnsafeBufferPointer(rebasing: bytes[content..<position])
                position += 1
                // Nothing in ASCII is to be validated.
                if all < 0x80, buffer.count <= limits.stringBytes { return String(decoding: buffer, as: UTF8.self) }
                return try text(buffer, start)
            }
            if byte == UInt8(ascii: "\\") { return try escapedString(from: content, start) }
            if byte < 0x20 { throw controlCharacter(byte) }
            all |= byte
            position += 1
        }
        throw JSONError(.syntax, "the string that starts at \(place(start)) has no end")
    }

    /// Goes on with a string from its first backslash.
    private mutating func escapedString(from content: Int, _ start: Int) throws(JSONError) -> String {
        var result = [UInt8](bytes[content..<position])
        while position < bytes.count {
            let byte = bytes[position]
            switch byte {
            case UInt8(ascii: "\""):
                position += 1
                return try result.withUnsafeBufferPointer { (buffer) throws(JSONError) -> String in
                    try text(buffer, start)
                }
            case UInt8(ascii: "\\"):
                position += 1
                try escape(into: &result)
            case 0..<0x20:
                throw controlCharacter(byte)
            default:
                result.append(byte)
                position += 1
            }
        }
        throw JSONError(.syntax, "the string that starts at \(place(start)) has no end")
    }

    private func text(_ buffer: UnsafeBufferPointer<UInt8>, _ start: Int) throws(JSONError) -> String {
        guard buffer.count <= limits.stringBytes else {
            throw JSONError(.tooLarge, "a string of \(buffer.count) bytes, \(limits.stringBytes) are allowed")
        }
        guard let text = String(validating: buffer, as: UTF8.self) else {
            throw JSONError(.invalidUTF8, "the string at \(place(start)) is not valid UTF-8")
        }
        return text
    }

    /// Steps over what follows a backslash.
    private mutating func escape(into result: inout [UInt8]) throws(JSONError) {
        guard position < bytes.count else { throw unexpected("an escape") }
        let byte = bytes[position]
        switch byte {
        case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"): result.append(byte)
        case UInt8(ascii: "b"): result.append(8)
        case UInt8(ascii: "f"): result.append(12)
        case UInt8(ascii: "n"): result.append(10)
        case UInt8(ascii: "r"): result.append(13)
        case UInt8(ascii: "t"): result.append(9)
        case UInt8(ascii: "u"):
            let start = position - 1
            position += 1
            let scalar = try unicodeEscape(start)
            result.append(contentsOf: String(scalar).utf8)
            return
        default: throw unexpected("one of \" \\ / b f n r t u after a backslash")
        }
        position += 1
    }

    /// The scalar of `\uXXXX` or of a surrogate pair; the position is behind the first `\u`.
    private mutating func unicodeEscape(_ start: Int) throws(JSONError) -> Unicode.Scalar {
        let first = try hexadecimal()
        if let scalar = Unicode.Scalar(first) { return scalar }
        let isHigh = first < 0xDC00
        if isHigh, position + 1 < bytes.count, bytes[position] == UInt8(ascii: "\\"),
            bytes[position + 1] == UInt8(ascii: "u")
        {
            position += 2
            let second = try hexadecimal()
            if (0xDC00...0xDFFF).contains(second),
                let scalar = Unicode.Scalar(0x10000 + (first - 0xD800) << 10 + (second - 0xDC00))
            {
                return scalar
            }
        }
        throw JSONError(.invalidUTF8, "half of a surrogate pair at \(place(start))")
    }

    private mutating func hexadecimal() throws(JSONError) -> UInt32 {
        var value: UInt32 = 0
        for _ in 0..<4 {
            guard position < bytes.count else { throw unexpected("four hexadecimal digits") }
            let byte = bytes[position]
            let digit: UInt8
            switch byte {
            case UInt8(ascii: "0")...UInt8(ascii: "9"): digit = byte - UInt8(ascii: "0")
            case UInt8(ascii: "a")...UInt8(ascii: "f"): digit = byte - UInt8(ascii: "a") + 10
            case UInt8(ascii: "A")...UInt8(ascii: "F"): digit = byte - UInt8(ascii: "A") + 10
            default: throw unexpected("four hexadecimal digits")
            }
            value = value << 4 | UInt32(digit)
            position += 1
        }
        return value
    }

    // MARK: Places

    private mutating func skipWhiteSpace() {
        while position < bytes.count {
            switch bytes[position] {
            case 0x20, 0x0A, 0x0D, 0x09: position += 1
            default: return
            }
        }
    }

    private mutating func take(_ byte: UInt8) -> Bool {
        guard position < bytes.count, bytes[position] == byte else { return false }
        position += 1
        return true
    }

    private func controlCharacter(_ byte: UInt8) -> JSONError {
        JSONError(.syntax, "a raw control character \(Self.name(byte)) in a string at \(place(position))")
    }

    private func unexpected(_ expected: String) -> JSONError {
        guard position < bytes.count else {
            return JSONError(.syntax, "expected \(expected), found the end of the text")
        }
        return JSONError(.syntax, "expected \(expected), found \(Self.name(bytes[position])) at \(place(position))")
    }

    private static func name(_ byte: UInt8) -> String {
        if (0x21...0x7E).contains(byte) { return "'\(Unicode.Scalar(byte))'" }
        let digits = String(byte, radix: 16, uppercase: true)
        return "byte 0x\(digits.utf8.count == 1 ? "0" : "")\(digits)"
    }

    /// `line 3, column 7`, counted in bytes from 1.
    private func place(_ position: Int) -> String {
        let before = bytes[..<position]
        let line = before.count { $0 == 0x0A } + 1
        let column = position - (before.lastIndex(of: 0x0A).map { $0 + 1 } ?? 0) + 1
        return "line \(line), column \(column)"
    }
}
