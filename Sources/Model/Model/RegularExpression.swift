/// A regular expression that is matched in time proportional to the text: all ways through it are followed at once, none
/// is tried twice.
///
/// It knows what users of RE2 write: literals, `.`, `[…]`, groups, `|`, `* + ? {m,n}`, `^ $ \b \B`, `\d \w \s` and their
/// opposites, and `(?i)`. Everything else, back references say, is refused by name.
package struct RegularExpression: Sendable {
    /// Why a text is no regular expression.
    package struct Problem: Error, Sendable, Hashable, CustomStringConvertible {
        package var description: String
        init(_ description: String) { self.description = description }
    }

    /// Bytes of an expression.
    static let longest = 512
    /// Steps of a compiled expression: with `longestValue` they bound what one match costs.
    static let mostSteps = 512
    /// Characters of a text; a longer one never matches.
    static let longestValue = 4096

    enum Step: Sendable {
        case character(CharacterSet)
        /// Goes on at both.
        case split(Int, Int)
        case jump(Int)
        case assert(Assertion)
        case accept
    }

    enum Assertion: Sendable { case start, end, wordBoundary, noWordBoundary }

    let steps: [Step]

    /// - Throws: `Problem`.
    package init(_ text: String) throws(Problem) {
        guard text.utf8.count <= Self.longest else {
            throw Problem("it has \(text.utf8.count) bytes, more than the \(Self.longest) allowed")
        }
        var parser = ExpressionParser(text)
        var compiler = ExpressionCompiler()
        try compiler.add(try parser.parse())
        steps = compiler.steps + [.accept]
    }

    /// Whether it is found anywhere in the text.
    package func matches(_ text: String) -> Bool {
        let characters = Array(text.unicodeScalars.prefix(Self.longestValue + 1))
        guard characters.count <= Self.longestValue else { return false }
        var walk = Walk(steps)
        for index in 0...characters.count {
            // A match may begin at every place.
            if walk.enter(0, at: index, in: characters) { return true }
            guard index < characters.count else { return false }
            if walk.advance(over: characters[index], to: index + 1, in: characters) { return true }
        }
        return false
    }

    /// The steps at which all ways through the expression are at one place of the text.
    private struct Walk {
        let steps: [Step]
        var present: [Int] = []
        /// By step: the place, plus one, at which it was last entered.
        var entered: [Int]

        init(_ steps: [Step]) {
            self.steps = steps
            entered = Array(repeating: 0, count: steps.count)
        }

        /// - Returns: whether the end was reached.
        mutating func enter(_ first: Int, at index: Int, in text: [Unicode.Scalar]) -> Bool {
            var open = [first]
            while let step = open.popLast() {
                guard entered[step] != index + 1 else { continue }
                entered[step] = index + 1
                switch steps[step] {
                case .character: present.append(step)
                case .split(let one, let other): open += [other, one]
                case .jump(let target): open.append(target)
                case .assert(let assertion): if assertion.holds(at: index, in: text) { open.append(step + 1) }
                case .accept: return true
                }
            }
            return false
        }

        mutating func advance(over character: Unicode.Scalar, to index: Int, in text: [Unicode.Scalar]) -> Bool {
            let before = present
            present = []
            for step in before {
                guard case .character(let set) = steps[step], set.contains(character) else { continue }
                if enter(step + 1, at: index, in: text) { return true }
            }
            return false
        }
    }
}

extension RegularExpression.Assertion {
    func holds(at index: Int, in text: [Unicode.Scalar]) -> Bool {
        func isWord(_ index: Int) -> Bool { text.indices.contains(index) && CharacterSet.word.contains(text[index]) }
        return switch self {
        case .start: index == 0
        case .end: index == text.count
        case .wordBoundary: isWord(index - 1) != isWord(index)
        case .noWordBoundary: isWord(index - 1) == isWord(index)
        }
    }
}

/// Characters by ranges.
struct CharacterSet: Sendable, Hashable {
    var ranges: [ClosedRange<UInt32>]
    var isInverted = false
    var ignoresCase = false

    func contains(_ character: Unicode.Scalar) -> Bool {
        func isIn(_ value: UInt32) -> Bool { ranges.contains { $0.contains(value) } }
        var found = isIn(character.value)
        if !found, ignoresCase {
            let properties = character.properties
            for other in [properties.lowercaseMapping, properties.uppercaseMapping] where !found {
                let scalars = other.unicodeScalars
                if scalars.count == 1, let scalar = scalars.first { found = isIn(scalar.value) }
            }
        }
        return found != isInverted
    }

    private static func ascii(_ pairs: [(Character, Character)]) -> CharacterSet {
        CharacterSet(
            ranges: pairs.map { UInt32($0.asciiValue ?? 0)...UInt32($1.asciiValue ?? 0) })
    }

    static let digit = ascii([("0", "9")])
    static let word = ascii([("0", "9"), ("A", "Z"), ("_", "_"), ("a", "z")])
    static let space = CharacterSet(ranges: [9...10, 12...13, 32...32])
    /// All but the end of a line.
    static let any = CharacterSet(ranges: [10...10], isInverted: true)

    /// The ranges, with the inversion carried out.
    var positive: [ClosedRange<UInt32>] {
        guard isInverted else { return ranges }
        var result: [ClosedRange<UInt32>] = []
        var next: UInt32 = 0
        for range in ranges.sorted(by: { $0.lowerBound < $1.lowerBound }) {
            if range.lowerBound > next { result.append(next...(range.lowerBound - 1)) }
            next = max(next, range.upperBound + 1)
        }
        return result + [next...0x10_FFFF]
    }
}

/// Turns the tree of an expression into steps.
private struct ExpressionCompiler {
    private(set) var steps: [RegularExpression.Step] = []
    /// Parts visited: repetitions of nothing make no steps, but cost time too.
    private var visits = 0

    mutating func add(_ part: ExpressionPart) throws(RegularExpression.Problem) {
        visits += 1
        guard max(visits, steps.count) <= RegularExpression.mostSteps else {
            throw RegularExpression.Problem("it is too large with its repetitions written out")
        }
        switch part {
        case .character(let set): steps.append(.character(set))
        case .assert(let assertion): steps.append(.assert(assertion))
        case .sequence(let parts): for part in parts { try add(part) }
        case .either(let parts): try add(either: parts[...])
        case .repeated(let part, let least, let most): try add(part, least: least, most: most)
        }
    }

    private mutating func add(either parts: ArraySlice<ExpressionPart>) throws(RegularExpression.Problem) {
        guard let first = parts.first else { return }
        guard parts.count > 1 else { return try add(first) }
        let split = reserve()
        try add(first)
        let jump = reserve()
        steps[split] = .split(split + 1, steps.count)
        try add(either: parts.dropFirst())
        steps[jump] = .jump(steps.count)
    }

    private mutating func add(
        _ part: ExpressionPart, least: Int, most: Int?
    ) throws(RegularExpression.Problem) {
        for _ in 0..<least { try add(part) }
        guard let most else {
            let split = reserve()
            try add(part)
            steps.append(.jump(split))
            steps[split] = .split(split + 1, steps.count)
            return
        }
        var splits: [Int] = []
        for _ in least..<most {
            splits.append(reserve())
            try add(part)
        }
        for split in splits { steps[split] = .split(split + 1, steps.count) }
    }

    private mutating func reserve() -> Int {
        steps.append(.jump(0))
        return steps.count - 1
    }
}
