import Model

/// A regular expression for names, `web`, `^/db$`, `^app.1$`, which is looked for in the name with a slash before it and
/// without. Those without repetitions and choices, as nearly all are, are compared as bytes.
package struct NamePattern: Sendable {
    private enum Kind: Sendable {
        /// nil is any character.
        case text([UInt8?], atStart: Bool, atEnd: Bool)
        /// Whether the slash before a name may matter to it.
        case expression(RegularExpression, ExpressionTable?, seesSlash: Bool)
    }

    private let kind: Kind

    /// - Throws: `RegularExpression.Problem`.
    package init(_ text: String) throws(RegularExpression.Problem) {
        if let plain = Self.plain(text) {
            kind = plain
        } else {
            let seesSlash = ["/", ".", "\\", "[^"].contains { text.contains($0) }
            let expression = try RegularExpression(text)
            kind = .expression(expression, ExpressionTable(expression), seesSlash: seesSlash)
        }
    }

    private static func plain(_ text: String) -> Kind? {
        guard text.utf8.allSatisfy({ $0 < 0x80 }), text.utf8.count <= 512 else { return nil }
        var rest = text[...]
        var atStart = rest.hasPrefix("^")
        if atStart { rest = rest.dropFirst() }
        let atEnd = rest.hasSuffix("$") && !rest.hasSuffix("\\$")
        if atEnd { rest = rest.dropLast() }
        // Only the slash before a name is one.
        if rest.hasPrefix("/?") {
            guard atStart else { return nil }
            rest = rest.dropFirst(2)
        } else if rest.hasPrefix("/") {
            atStart = true
            rest = rest.dropFirst()
        }
        var bytes: [UInt8?] = []
        var isEscaped = false
        for byte in rest.utf8 {
            switch byte {
            case _ where isEscaped:
                // `\d`, `\w` and the like mean something else than their letter.
                guard !("0"..."9" ~= byte || "a"..."z" ~= byte || "A"..."Z" ~= byte) else { return nil }
                bytes.append(byte)
                isEscaped = false
            case UInt8(ascii: "\\"): isEscaped = true
            case UInt8(ascii: "."): bytes.append(nil)
            default:
                guard !"+*?()|[]{}^$/".utf8.contains(byte) else { return nil }
                bytes.append(byte)
            }
        }
        // A character that may be any may be the slash.
        if case .some(nil) = bytes.first { return nil }
        return isEscaped ? nil : .text(bytes, atStart: atStart, atEnd: atEnd)
    }

    /// - Parameter name: without a slash before it.
    package func matches(_ name: String) -> Bool {
        switch kind {
        case .expression(_, let table?, let seesSlash):
            table.matches(name) || seesSlash && table.matches(name, after: UInt8(ascii: "/"))
        case .expression(let expression, nil, let seesSlash):
            expression.matches(name) || seesSlash && expression.matches("/" + name)
        case .text(let text, let atStart, let atEnd):
            name.utf8.withContiguousStorageIfAvailable { Self.matches($0, text, atStart, atEnd) }
                ?? Array(name.utf8).withUnsafeBufferPointer { Self.matches($0, text, atStart, atEnd) }
        }
    }

    private static func matches(
        _ name: UnsafeBufferPointer<UInt8>, _ text: [UInt8?], _ atStart: Bool, _ atEnd: Bool
    ) -> Bool {
        let last = name.count - text.count
        guard last >= 0 else { return false }
        if atStart, atEnd, last != 0 { return false }
        for start in (atEnd ? last : 0)...(atStart ? 0 : last) {
            var index = 0
            while index < text.count, text[index].map({ $0 == name[start + index] }) ?? true { index += 1 }
            if index == text.count { return true }
        }
        return false
    }
}

/// Compares a byte with the characters between.
private func ~= (range: ClosedRange<Unicode.Scalar>, byte: UInt8) -> Bool { range.contains(Unicode.Scalar(byte)) }
