/// A part of a regular expression.
indirect enum ExpressionPart {
    case character(CharacterSet)
    case assert(RegularExpression.Assertion)
    case sequence([ExpressionPart])
    case either([ExpressionPart])
    /// `most` nil: as often as it comes.
    case repeated(ExpressionPart, least: Int, most: Int?)
}

/// Reads a regular expression.
struct ExpressionParser {
    private var rest: Substring.UnicodeScalarView
    private var ignoresCase = false
    private var depth = 0

    private typealias Problem = RegularExpression.Problem

    init(_ text: String) { rest = text[...].unicodeScalars }

    mutating func parse() throws(RegularExpression.Problem) -> ExpressionPart {
        let part = try alternatives()
        if rest.first != nil { throw Problem("a ')' closes nothing") }
        return part
    }

    private mutating func take(_ character: Unicode.Scalar) -> Bool {
        guard rest.first == character else { return false }
        rest.removeFirst()
        return true
    }

    private mutating func alternatives() throws(RegularExpression.Problem) -> ExpressionPart {
        depth += 1
        defer { depth -= 1 }
        guard depth <= 32 else { throw Problem("its groups are nested more than 32 deep") }
        var parts = [try sequence()]
        while take("|") { parts.append(try sequence()) }
        return parts.count == 1 ? parts[0] : .either(parts)
    }

    private mutating func sequence() throws(RegularExpression.Problem) -> ExpressionPart {
        var parts: [ExpressionPart] = []
        while let next = rest.first, next != "|", next != ")" {
            rest.removeFirst()
            let part = try single(next)
            parts.append(try repetition(of: part))
        }
        return .sequence(parts)
    }

    private mutating func single(_ character: Unicode.Scalar) throws(RegularExpression.Problem) -> ExpressionPart {
        switch character {
        case "(": return try group()
        case "[": return .character(try characterClass())
        case ".": return .character(.any)
        case "^": return .assert(.start)
        case "$": return .assert(.end)
        case "\\": return try escape()
        case "*", "+", "?": throw Problem("nothing stands before '\(character)'")
        default: return .character(literal(character))
        }
    }

    private func literal(_ character: Unicode.Scalar) -> CharacterSet {
        CharacterSet(ranges: [character.value...character.value], ignoresCase: ignoresCase)
    }

    // MARK: Groups

    private mutating func group() throws(RegularExpression.Problem) -> ExpressionPart {
        let outer = ignoresCase
        if take("?") {
            var flags = ""
            while let next = rest.first, next != ":", next != ")" {
                rest.removeFirst()
                flags.unicodeScalars.append(next)
                if flags.unicodeScalars.count > 8 { break }
            }
            switch flags {
            case "": break
            case "i": ignoresCase = true
            case "-i": ignoresCase = false
            default: throw Problem("'(?\(flags)' is not supported: of groups with '?' only (?:…), (?i) and (?i:…) are")
            }
            // `(?i)` holds to the end of the group around it.
            if take(")") {
                guard !flags.isEmpty else { throw Problem("'(?)' means nothing") }
                return .sequence([])
            }
            guard take(":") else { throw Problem("a '(' is not closed") }
        }
        let part = try alternatives()
        guard take(")") else { throw Problem("a '(' is not closed") }
        ignoresCase = outer
        return part
    }

    // MARK: Repetition

    private mutating func repetition(of part: ExpressionPart) throws(RegularExpression.Problem) -> ExpressionPart {
        guard let (least, most) = try bounds() else { return part }
        // Whether as much or as little as possible is taken makes no difference for whether it is found.
        _ = take("?")
        if let next = rest.first, "*+?".unicodeScalars.contains(next) {
            throw Problem("one repetition follows another at '\(next)': put what is repeated into a group")
        }
        return .repeated(part, least: least, most: most)
    }

    private mutating func bounds() throws(RegularExpression.Problem) -> (least: Int, most: Int?)? {
        if take("*") { return (0, nil) }
        if take("+") { return (1, nil) }
        if take("?") { return (0, 1) }
        guard rest.first == "{", let end = rest.firstIndex(of: "}") else { return nil }
        let text = String(rest[rest.index(after: rest.startIndex)..<end])
        let numbers = text.split(separator: ",", maxSplits: 1, omittingEmptySubsequences: false)
        // What is no repetition is taken literally, as in RE2.
        guard let first = numbers.first, let least = Self.number(first) else { return nil }
        var most: Int? = least
        if numbers.count == 2 {
            most = nil
            if !numbers[1].isEmpty {
                guard let number = Self.number(numbers[1]) else { return nil }
                most = number
            }
        }
        guard (most ?? least) <= 1000, least <= (most ?? least) else {
            throw Problem("'{\(text)}' is no repetition: two numbers up to 1000, the first not above the second")
        }
        rest = rest[rest.index(after: end)...]
        return (least, most)
    }

    private static func number(_ text: Substring) -> Int? {
        let isNumber = (1...4).contains(text.utf8.count) && text.utf8.allSatisfy { (48...57).contains($0) }
        return isNumber ? Int(text) : nil
    }

    // MARK: Escapes and classes

    private mutating func escape() throws(RegularExpression.Problem) -> ExpressionPart {
        guard let next = rest.popFirst() else { throw Problem("it ends with '\\'") }
        switch next {
        case "b": return .assert(.wordBoundary)
        case "B": return .assert(.noWordBoundary)
        case "A": return .assert(.start)
        case "z": return .assert(.end)
        default: break
        }
        if let set = Self.named(next) { return .character(set) }
        return .character(literal(try escaped(next)))
    }

    private static func named(_ letter: Unicode.Scalar) -> CharacterSet? {
        var set: CharacterSet
        switch letter {
        case "d", "D": set = .digit
        case "w", "W": set = .word
        case "s", "S": set = .space
        default: return nil
        }
        set.isInverted = letter.properties.isUppercase
        return set
    }

    /// The character that `\` and this one stand for.
    private mutating func escaped(_ letter: Unicode.Scalar) throws(RegularExpression.Problem) -> Unicode.Scalar {
        switch letter {
        case "n": return "\n"
        case "t": return "\t"
        case "r": return "\r"
        case "f": return "\u{0C}"
        case "v": return "\u{0B}"
        case "x":
            let digits = String(rest.prefix(2))
            guard digits.utf8.count == 2, let value = UInt8(digits, radix: 16), !digits.hasPrefix("+") else {
                throw Problem("after '\\x' come two hexadecimal digits")
            }
            rest = rest.dropFirst(2)
            return Unicode.Scalar(value)
        default:
            let isLetterOrDigit = letter.properties.isAlphabetic || letter.properties.numericType != nil
            guard !isLetterOrDigit else { throw Problem("'\\\(letter)' is not supported") }
            return letter
        }
    }

    private mutating func characterClass() throws(RegularExpression.Problem) -> CharacterSet {
        var set = CharacterSet(ranges: [], ignoresCase: ignoresCase)
        set.isInverted = take("^")
        var isFirst = true
        while let next = rest.popFirst() {
            // A ']' right at the front is one of the characters.
            if next == "]", !isFirst { return set }
            isFirst = false
            if next == "[", rest.first == ":" { throw Problem("'[:…:]' is not supported: write the ranges") }
            if next == "\\", let letter = rest.first, let named = Self.named(letter) {
                rest.removeFirst()
                set.ranges += named.positive
                continue
            }
            let low = try member(next)
            var high = low
            if rest.first == "-", let after = rest.dropFirst().first, after != "]" {
                rest.removeFirst(2)
                if after == "\\", let letter = rest.first, Self.named(letter) != nil {
                    throw Problem("'\\\(letter)' is no end of a range")
                }
                high = try member(after)
            }
            guard low <= high else { throw Problem("the range '\(low)-\(high)' is the wrong way round") }
            set.ranges.append(low.value...high.value)
        }
        throw Problem("a '[' is not closed")
    }

    private mutating func member(_ character: Unicode.Scalar) throws(RegularExpression.Problem) -> Unicode.Scalar {
        guard character == "\\" else { return character }
        guard let letter = rest.popFirst() else { throw Problem("it ends with '\\'") }
        return try escaped(letter)
    }
}
