/// A demand on the node, `zone==b`, `disk!=slow`, `node.name==n1`, or on what else is there: `image==redis*`.
///
/// A value `/…/` is a regular expression, one with `*` a pattern for the whole value. With `~` after the relation
/// (`zone==~b`) it is a wish: a node that does not meet it will do when no other is left.
package struct Constraint: Sendable, Hashable, Codable, CustomStringConvertible {
    package enum Relation: String, Sendable, Hashable, Codable {
        case equal = "=="
        case notEqual = "!="
    }

    package var label: String
    package var relation: Relation
    package var value: String
    package var isSoft: Bool

    package init(label: String, relation: Relation, value: String, isSoft: Bool = false) {
        self.label = label
        self.relation = relation
        self.value = value
        self.isSoft = isSoft
    }

    package init(from decoder: any Decoder) throws {
        let values = try decoder.container(keyedBy: CodingKeys.self)
        label = try values.decode(String.self, forKey: .label)
        relation = try values.decode(Relation.self, forKey: .relation)
        value = try values.decode(String.self, forKey: .value)
        isSoft = try values.decode(.isSoft, or: false)
    }

    /// Reads `label==value` or `label!=value`, each with `~` before the value for a wish; nil when it is neither.
    package init?(_ text: String) {
        let bytes = Array(text.utf8)
        let found = bytes.indices.dropFirst().first { index in
            bytes[index...].starts(with: "==".utf8) || bytes[index...].starts(with: "!=".utf8)
        }
        guard let found else { return nil }
        label = String(decoding: bytes[..<found], as: UTF8.self).trimmed
        relation = bytes[found] == UInt8(ascii: "=") ? .equal : .notEqual
        var rest = bytes[(found + 2)...]
        isSoft = rest.first == UInt8(ascii: "~")
        if isSoft { rest = rest.dropFirst() }
        value = String(decoding: rest, as: UTF8.self).trimmed
        if label.isEmpty || value.hasPrefix("=") { return nil }
    }

    /// What the value means. One that was stored before it was checked may be no pattern: it means itself.
    package var pattern: Pattern { (try? Pattern(value)) ?? Pattern(literal: value) }

    /// Whether something with this value of the label (nil: it has no such label) meets the demand.
    package func matches(_ value: String?) -> Bool {
        let equal = value.map(pattern.matches) ?? false
        return relation == .equal ? equal : !equal
    }

    package var description: String { "\(label)\(relation.rawValue)\(isSoft ? "~" : "")\(value)" }
}

extension String {
    fileprivate var trimmed: String {
        var text = self[...]
        while text.first == " " { text.removeFirst() }
        while text.last == " " { text.removeLast() }
        return String(text)
    }
}
