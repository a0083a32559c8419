/// The encoder of one value; children are linked in and resolved when the whole is read.
final class EncodingNode: Encoder {
    private enum Content {
        case none
        case value(JSONValue)
        case keyed(keys: [String], children: [String: EncodingNode])
        case unkeyed([EncodingNode])
    }

    private var content = Content.none
    let path: [JSONPathElement]

    init(path: [JSONPathElement]) { self.path = path }

    var codingPath: [any CodingKey] { path.map(\.codingKey) }
    var userInfo: [CodingUserInfoKey: Any] { [:] }

    /// What was encoded; a value that encoded nothing is an empty object.
    var result: JSONValue {
        switch content {
        case .none: return .object(JSONObject())
        case .value(let value): return value
        case .keyed(let keys, let children):
            var object = JSONObject()
            for key in keys { object[key] = children[key]?.result }
            return .object(object)
        case .unkeyed(let children): return .array(children.map(\.result))
        }
    }

    func set(_ value: JSONValue) { content = .value(value) }

    func encode<T: Encodable>(_ value: T) throws {
        switch value {
        case let text as String: set(.string(text))
        case let json as JSONValue: set(json)
        default: try value.encode(to: self)
        }
    }

    func set(double value: Double) throws {
        guard value.isFinite else {
            throw JSONError(.type, "\(value) has no form in JSON; only finite numbers have", at: path)
        }
        set(.double(value))
    }

    func set(float value: Float) throws {
        // The shortest text of the float, so that 0.1 stays 0.1.
        try set(double: Double(value.description) ?? Double(value))
    }

    /// A new member's node; the last one wins where a key is encoded twice.
    func child(_ key: String) -> EncodingNode {
        let node = EncodingNode(path: path + [.key(key)])
        guard case .keyed(var keys, var children) = content else {
            content = .keyed(keys: [key], children: [key: node])
            return node
        }
        content = .none
        if children.updateValue(node, forKey: key) == nil { keys.append(key) }
        content = .keyed(keys: keys, children: children)
        return node
    }

    func appendChild() -> EncodingNode {
        guard case .unkeyed(var children) = content else {
            let node = EncodingNode(path: path + [.index(0)])
            content = .unkeyed([node])
            return node
        }
        content = .none
        let node = EncodingNode(path: path + [.index(children.count)])
        children.append(node)
        content = .unkeyed(children)
        return node
    }

    var childCount: Int { if case .unkeyed(let children) = content { children.count } else { 0 } }

    func container<Key: CodingKey>(keyedBy _: Key.Type) -> KeyedEncodingContainer<Key> {
        makeKeyed()
        return KeyedEncodingContainer(KeyedWriting<Key>(node: self))
    }

    func unkeyedContainer() -> any UnkeyedEncodingContainer {
        makeUnkeyed()
        return UnkeyedWriting(node: self)
    }

    func singleValueContainer() -> any SingleValueEncodingContainer { SingleWriting(node: self) }

    private func makeKeyed() {
        if case .keyed = content { return }
        content = .keyed(keys: [], children: [:])
    }

    private func makeUnkeyed() {
        if case .unkeyed = content { return }
        content = .unkeyed([])
    }
}

private struct KeyedWriting<Key: CodingKey>: KeyedEncodingContainerProtocol {
    let node: EncodingNode

    var codingPath: [any CodingKey] { node.codingPath }

    private func child(_ key: Key) -> EncodingNode { node.child(key.stringValue) }

    func encodeNil(forKey key: Key) throws { child(key).set(.null) }
    func encode<T: Encodable>(_ value: T, forKey key: Key) throws { try child(key).encode(value) }
    func encode(_ value: Bool, forKey key: Key) throws { child(key).set(.bool(value)) }
    func encode(_ value: String, forKey key: Key) throws { child(key).set(.string(value)) }
    func encode(_ value: Double, forKey key: Key) throws { try child(key).set(double: value) }
    func encode(_ value: Float, forKey key: Key) throws { try child(key).set(float: value) }
    func encode(_ value: Int, forKey key: Key) throws { child(key).set(.integer(Int64(value))) }
    func encode(_ value: Int8, forKey key: Key) throws { child(key).set(.integer(Int64(value))) }
    func encode(_ value: Int16, forKey key: Key) throws { child(key).set(.integer(Int64(value))) }
    func encode(_ value: Int32, forKey key: Key) throws { child(key).set(.integer(Int64(value))) }
    func encode(_ value: Int64, forKey key: Key) throws { child(key).set(.integer(value)) }
    func encode(_ value: UInt, forKey key: Key) throws { child(key).set(JSONValue(UInt64(value))) }
    func encode(_ value: UInt8, forKey key: Key) throws { child(key).set(.integer(Int64(value))) }
    func encode(_ value: UInt16, forKey key: Key) throws { child(key).set(.integer(Int64(value))) }
    func encode(_ value: UInt32, forKey key: Key) throws { child(key).set(.integer(Int64(value))) }
    func encode(_ value: UInt64, forKey key: Key) throws { child(key).set(JSONValue(value)) }

    func nestedContainer<NestedKey: CodingKey>(
        keyedBy type: NestedKey.Type, forKey key: Key
    ) -> KeyedEncodingContainer<NestedKey> {
        child(key).container(keyedBy: type)
    }

    func nestedUnkeyedContainer(forKey key: Key) -> any UnkeyedEncodingContainer {
        child(key).unkeyedContainer()
    }

    func superEncoder() -> any Encoder { node.child(AnyKey.super.stringValue) }
    func superEncoder(forKey key: Key) -> any Encoder { child(key) }
}

private struct UnkeyedWriting: UnkeyedEncodingContainer {
    let node: EncodingNode

    var codingPath: [any CodingKey] { node.codingPath }
    var count: Int { node.childCount }

    func encodeNil() throws { node.appendChild().set(.null) }
    func encode<T: Encodable>(_ value: T) throws { try node.appendChild().encode(value) }
    func encode(_ value: Bool) throws { node.appendChild().set(.bool(value)) }
    func encode(_ value: String) throws { node.appendChild().set(.string(value)) }
    func encode(_ value: Double) throws { try node.appendChild().set(double: value) }
    func encode(_ value: Float) throws { try node.appendChild().set(float: value) }
    func encode(_ value: Int) throws { node.appendChild().set(.integer(Int64(value))) }
    func encode(_ value: Int8) throws { node.appendChild().set(.integer(Int64(value))) }
    func encode(_ value: Int16) throws { node.appendChild().set(.integer(Int64(value))) }
    func encode(_ value: Int32) throws { node.appendChild().set(.integer(Int64(value))) }
    func encode(_ value: Int64) throws { node.appendChild().set(.integer(value)) }
    func encode(_ value: UInt) throws { node.appendChild().set(JSONValue(UInt64(value))) }
    func encode(_ value: UInt8) throws { node.appendChild().set(.integer(Int64(value))) }
    func encode(_ value: UInt16) throws { node.appendChild().set(.integer(Int64(value))) }
    func encode(_ value: UInt32) throws { node.appendChild().set(.integer(Int64(value))) }
    func encode(_ value: UInt64) throws { node.appendChild().set(JSONValue(value)) }

    func nestedContainer<NestedKey: CodingKey>(
        keyedBy type: NestedKey.Type
    ) -> KeyedEncodingContainer<NestedKey> {
        node.appendChild().container(keyedBy: type)
    }

    func nestedUnkeyedContainer() -> any UnkeyedEncodingContainer { node.appendChild().unkeyedContainer() }
    func superEncoder() -> any Encoder { node.appendChild() }
}

private struct SingleWriting: SingleValueEncodingContainer {
    let node: EncodingNode

    var codingPath: [any CodingKey] { node.codingPath }

    func encodeNil() throws { node.set(.null) }
    func encode<T: Encodable>(_ value: T) throws { try node.encode(value) }
    func encode(_ value: Bool) throws { node.set(.bool(value)) }
    func encode(_ value: String) throws { node.set(.string(value)) }
    func encode(_ value: Double) throws { try node.set(double: value) }
    func encode(_ value: Float) throws { try node.set(float: value) }
    func encode(_ value: Int) throws { node.set(.integer(Int64(value))) }
    func encode(_ value: Int8) throws { node.set(.integer(Int64(value))) }
    func encode(_ value: Int16) throws { node.set(.integer(Int64(value))) }
    func encode(_ value: Int32) throws { node.set(.integer(Int64(value))) }
    func encode(_ value: Int64) throws { node.set(.integer(value)) }
    func encode(_ value: UInt) throws { node.set(JSONValue(UInt64(value))) }
    func encode(_ value: UInt8) throws { node.set(.integer(Int64(value))) }
    func encode(_ value: UInt16) throws { node.set(.integer(Int64(value))) }
    func encode(_ value: UInt32) throws { node.set(.integer(Int64(value))) }
    func encode(_ value: UInt64) throws { node.set(JSONValue(value)) }
}
