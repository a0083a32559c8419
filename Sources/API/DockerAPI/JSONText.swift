import JSON
import NIOCore

/// Writes JSON as it goes along, without a value for every object: for lists that may be long.
struct JSONText: Sendable {
    private(set) var bytes: [UInt8] = []
    /// Something stands before in the same object or list.
    private var needsComma = false

    mutating func object(_ key: StaticString? = nil, _ members: (inout JSONText) -> Void) {
        enclosed(key, "{", "}", members)
    }

    mutating func list(_ key: StaticString? = nil, _ elements: (inout JSONText) -> Void) {
        enclosed(key, "[", "]", elements)
    }

    private mutating func enclosed(
        _ key: StaticString?, _ open: StaticString, _ close: StaticString, _ content: (inout JSONText) -> Void
    ) {
        begin(key)
        append(open)
        needsComma = false
        content(&self)
        append(close)
        needsComma = true
    }

    /// What is not closed within one call: a list that is written in parts.
    mutating func open() {
        append("[")
        needsComma = false
    }

    mutating func close() { append("]") }

    mutating func member(_ key: StaticString, _ value: String) {
        begin(key)
        string(value)
    }

    mutating func member(_ key: StaticString, _ value: Int64) {
        begin(key)
        bytes.append(contentsOf: String(value).utf8)
    }

    mutating func member(_ key: StaticString, _ value: Bool) {
        begin(key)
        append(value ? "true" : "false")
    }

    /// JSON that is at hand as bytes.
    mutating func member(_ key: StaticString, json: [UInt8]) {
        begin(key)
        bytes.append(contentsOf: json)
    }

    mutating func null(_ key: StaticString) {
        begin(key)
        append("null")
    }

    mutating func element(_ value: String) {
        begin(nil)
        string(value)
    }

    /// A member whose name comes from outside.
    mutating func member(named key: String, _ value: (inout JSONText) -> Void) {
        begin(nil)
        string(key)
        append(":")
        needsComma = false
        value(&self)
        needsComma = true
    }

    mutating func member(named key: String, _ value: String) { member(named: key) { $0.element(value) } }

    /// What was written since the last time.
    mutating func take() -> ByteBuffer {
        let buffer = ByteBuffer(bytes: bytes)
        bytes.removeAll(keepingCapacity: true)
        return buffer
    }

    private mutating func begin(_ key: StaticString?) {
        if needsComma { append(",") }
        needsComma = true
        guard let key else { return }
        append("\"")
        append(key)
        append("\":")
    }

    private mutating func string(_ value: String) { JSONSerializer.append(string: value, to: &bytes) }

    private mutating func append(_ text: StaticString) {
        text.withUTF8Buffer { bytes.append(contentsOf: $0) }
    }
}
