/// A regular expression with all its ways worked out in advance, for many short texts of ASCII: one look into a table for
/// each character.
package struct ExpressionTable: Sendable {
    /// More is left to the expression itself, so that no expression is expensive before it is used.
    private static let mostStates = 128
    /// Steps of the expression that are followed while the table is made.
    private static let mostVisits = 100_000

    private static let found = -1

    private let expression: RegularExpression
    /// By ASCII character: which column it has; characters that no step tells apart share one.
    private let columns: [Int]
    private let width: Int
    /// By state and column: the next state, or `found`. The first state is that before the first character.
    private var next: [Int] = []
    /// By state: whether the end of the text makes it a match.
    private var endsWell: [Bool] = []
    private var findsAll = false

    /// - Returns: nil for one that has too many states, or looks at the boundaries of words.
    package init?(_ expression: RegularExpression) {
        self.expression = expression
        var sets: [CharacterSet: Int] = [:]
        for step in expression.steps {
            switch step {
            case .character(let set): sets[set] = sets[set] ?? sets.count
            case .assert(.wordBoundary), .assert(.noWordBoundary): return nil
            case .assert, .split, .jump, .accept: break
            }
        }
        var columnOf: [[Bool]: Int] = [:]
        var members: [[Bool]] = []
        let kinds = sets.sorted { $0.value < $1.value }.map(\.key)
        columns = (0..<0x80).map { value in
            let memberships = kinds.map { $0.contains(Unicode.Scalar(UInt8(value))) }
            if let column = columnOf[memberships] { return column }
            columnOf[memberships] = members.count
            members.append(memberships)
            return members.count - 1
        }
        width = members.count
        guard fill(members, sets) else { return nil }
    }

    /// - Returns: whether it fits.
    private mutating func fill(_ members: [[Bool]], _ sets: [CharacterSet: Int]) -> Bool {
        var walk = Walk(steps: expression.steps)
        guard let first = walk.closure(of: [0], atStart: true) else {
            findsAll = true
            return true
        }
        // The first state is no other's: only there the text begins.
        var numbers: [[Int]: Int] = [:]
        var states = [first]
        endsWell = [walk.endsWell(first, atStart: true)]
        var state = 0
        while state < states.count {
            for column in 0..<width {
                guard walk.visits < Self.mostVisits else { return false }
                let after = states[state].filter { step in
                    guard case .character(let set) = expression.steps[step], let kind = sets[set] else { return false }
                    return members[column][kind]
                }
                // A match may begin at every place.
                guard let target = walk.closure(of: after.map { $0 + 1 } + [0], atStart: false) else {
                    next.append(Self.found)
                    continue
                }
                if let known = numbers[target] {
                    next.append(known)
                    continue
                }
                guard states.count < Self.mostStates else { return false }
                numbers[target] = states.count
                next.append(states.count)
                states.append(target)
                endsWell.append(walk.endsWell(target, atStart: false))
            }
            state += 1
        }
        return true
    }

    /// Whether the expression is found anywhere in the text.
    ///
    /// - Parameter prefix: an ASCII character that stands before the text.
    package func matches(_ text: String, after prefix: UInt8? = nil) -> Bool {
        guard text.utf8.count < RegularExpression.longestValue else { return byItself(text, prefix) }
        if findsAll { return true }
        var state = 0
        if let prefix {
            state = next[columns[Int(prefix)]]
            if state == Self.found { return true }
        }
        let found =
            text.utf8.withContiguousStorageIfAvailable { scan($0, from: state) }
            ?? Array(text.utf8).withUnsafeBufferPointer { scan($0, from: state) }
        return found ?? byItself(text, prefix)
    }

    /// - Returns: nil for a text that is not ASCII.
    private func scan(_ bytes: UnsafeBufferPointer<UInt8>, from first: Int) -> Bool? {
        // SAFETY: only indexes that `fill` has made lead into the table, and a byte below 0x80 has a column.
        next.withUnsafeBufferPointer { next in
            columns.withUnsafeBufferPointer { columns in
                var state = first
                for byte in bytes {
                    guard byte < 0x80 else { return nil }
                    state = next[state * width + columns[Int(byte)]]
                    if state == Self.found { return true }
                }
                return endsWell[state]
            }
        }
    }

    private func byItself(_ text: String, _ prefix: UInt8?) -> Bool {
        expression.matches(prefix.map { "\(Unicode.Scalar($0))\(text)" } ?? text)
    }

    /// Follows the steps that read nothing.
    private struct Walk {
        let steps: [RegularExpression.Step]
        var visits = 0

        /// The steps that wait for a character, or for the end; nil: the expression is found.
        mutating func closure(of first: [Int], atStart: Bool, atEnd: Bool = false) -> [Int]? {
            var entered: Set<Int> = []
            var waiting: [Int] = []
            var open = first
            while let step = open.popLast() {
                guard entered.insert(step).inserted else { continue }
                visits += 1
                switch steps[step] {
                case .character: waiting.append(step)
                case .split(let one, let other): open += [one, other]
                case .jump(let target): open.append(target)
                case .assert(.start): if atStart { open.append(step + 1) }
                case .assert(.end): if atEnd { open.append(step + 1) } else { waiting.append(step) }
                case .assert: break
                case .accept: return nil
                }
            }
            return waiting.sorted()
        }

        mutating func endsWell(_ state: [Int], atStart: Bool) -> Bool {
            closure(of: state, atStart: atStart, atEnd: true) == nil
        }
    }
}
