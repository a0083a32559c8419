/// Why a list of numbers cannot be understood.
package struct NumberSetError: Error, Sendable, Equatable, CustomStringConvertible {
    /// The whole sentence's end: `'0-x' is not a list such as 0-3,7`.
    package let description: String
}

/// A set of processors or memory nodes, written as cpuset(7) writes lists: `0-3,7`.
package struct NumberSet: Sendable, Equatable {
    /// Bit n % 64 of word n / 64 stands for n; the last word is not 0.
    package private(set) var words: [UInt64] = []

    /// An empty set.
    package init() {}

    /// Numbers and ranges between commas; blanks around them and empty places are passed over, as other runtimes do.
    ///
    /// - Parameter bound: the first number that is too large.
    /// - Throws: `NumberSetError` for what is no number, for a range whose end comes before its start, for a number out
    ///   of bounds, and for a list without any number.
    package init(list: String, below bound: Int) throws(NumberSetError) {
        var rest = Substring(list)
        while !rest.isEmpty {
            let comma = rest.firstIndex(of: ",") ?? rest.endIndex
            let part = Self.trimmed(rest[..<comma])
            rest = comma < rest.endIndex ? rest[rest.index(after: comma)...] : ""
            if part.isEmpty { continue }
            let ends = part.split(separator: "-", omittingEmptySubsequences: false)
            guard let first = ends.first.flatMap({ Self.number($0) }),
                let last = ends.last.flatMap({ Self.number($0) }),
                ends.count <= 2
            else { throw NumberSetError(description: "'\(list.prefix(64))' is not a list such as 0-3,7") }
            guard first <= last else {
                throw NumberSetError(description: "the range \(first)-\(last) ends before it begins")
            }
            guard last < bound else {
                throw NumberSetError(description: "\(last) is too large: numbers go up to \(bound - 1)")
            }
            for number in first...last { insert(number) }
        }
        if words.isEmpty { throw NumberSetError(description: "'\(list.prefix(64))' names no number") }
    }

    private mutating func insert(_ number: Int) {
        while words.count <= number / 64 { words.append(0) }
        words[number / 64] |= 1 << UInt64(number % 64)
    }

    private static func trimmed(_ text: Substring) -> Substring {
        var text = text.drop { $0 == " " || $0 == "\t" }
        while text.last == " " || text.last == "\t" { text.removeLast() }
        return text
    }

    /// Decimal digits only: no sign, at most nine of them.
    private static func number(_ text: Substring) -> Int? {
        let digits = text.utf8
        guard (1...9).contains(digits.count), digits.allSatisfy({ (48...57).contains($0) }) else { return nil }
        return Int(text)
    }
}
