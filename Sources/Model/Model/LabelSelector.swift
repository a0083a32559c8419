/// What is asked of labels: that there is a key, or a key with one value. Read once, for many to be compared.
package struct LabelSelector: Sendable, Hashable, ExpressibleByStringLiteral {
    package let key: String
    /// nil: any.
    package let value: String?

    /// - Parameter text: `key` or `key=value`.
    package init(_ text: String) {
        guard let equals = text.firstIndex(of: "=") else {
            (key, value) = (text, nil)
            return
        }
        (key, value) = (String(text[..<equals]), String(text[text.index(after: equals)...]))
    }

    package init(stringLiteral text: String) { self.init(text) }

    package func matches(_ labels: [String: String]) -> Bool {
        guard let found = labels[key] else { return false }
        return value.map { $0 == found } ?? true
    }
}
