/// What a constraint's value may be: a text, a pattern for the whole value with `*` for anything, or `/…/`, a regular
/// expression that is looked for anywhere in the value.
package struct Pattern: Sendable {
    private enum Kind: Sendable {
        case text(String)
        /// What stands between the stars.
        case glob([[UInt8]])
        case expression(RegularExpression)
    }

    private let kind: Kind

    /// - Throws: `RegularExpression.Problem` for a regular expression that is none, or has what is not supported.
    package init(_ text: String) throws(RegularExpression.Problem) {
        if text.utf8.count >= 2, text.hasPrefix("/"), text.hasSuffix("/") {
            kind = .expression(try RegularExpression(String(text.dropFirst().dropLast())))
        } else if text.utf8.contains(UInt8(ascii: "*")) {
            kind = .glob(
                text.utf8.split(separator: UInt8(ascii: "*"), omittingEmptySubsequences: false).map { Array($0) })
        } else {
            kind = .text(text)
        }
    }

    /// A pattern for just this text.
    package init(literal text: String) { kind = .text(text) }

    package func matches(_ value: String) -> Bool {
        switch kind {
        case .text(let text): text == value
        case .glob(let pieces): Self.glob(pieces, matches: Array(value.utf8))
        case .expression(let expression): expression.matches(value)
        }
    }

    /// The first piece at the front, the last at the end, the others one after another, each as early as it comes.
    private static func glob(_ pieces: [[UInt8]], matches value: [UInt8]) -> Bool {
        guard let first = pieces.first, let last = pieces.last, value.count >= first.count + last.count,
            value.starts(with: first), value.suffix(last.count).elementsEqual(last)
        else { return false }
        var rest = value.dropFirst(first.count).dropLast(last.count)
        for piece in pieces.dropFirst().dropLast() where !piece.isEmpty {
            guard let found = rest.firstRange(of: piece) else { return false }
            rest = rest[found.upperBound...]
        }
        return true
    }
}
