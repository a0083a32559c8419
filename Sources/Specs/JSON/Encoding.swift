/// The encoder of one value; children are linked in and resolved when the whole is read.
final class EncodingNode: Encoder {
    /// A part: complete, or a node that may still be written to.
    private enum Slot {
        case value(JSONValue)
        case node(EncodingNode)

        var result: JSONValue {
            switch self {
            case .value(let value): value
            case .node(let node): node.result
            }
        }
    }

    private enum Shape {
        case none, value, keyed, unkeyed
    }

    private indirect enum Place {
        case root
        case inside(Place, JSONPathElement)
    }

    private let place: Place
    private var shape = Shape.none
    private var value = JSONValue.null
    private var members: [(key: String, slot: Slot)] = []
    private var elements: [Slot] = []

    /// The encoder of a whole text.
    init() { place = .root }

    private init(_ place: Place) { self.place = place }

    var path: [JSONPathElement] {
        var reversed: [JSONPathElement] = []
        var place = place
        while case .inside(let outer, let element) = place {
            reversed.append(element)
            place = outer
        }
        return reversed.reversed()
    }

    var codingPath: [any CodingKey] { path.map(\.codingKey) }
    var userInfo: [CodingUserInfoKey: Any] { [:] }

    /// What was encoded; a value that encoded nothing is an empty object.
    var result: JSONValue {
        switch shape {
        case .none: return .object(JSONObject())
        case .value: return value
        case .keyed:
            var object = JSONObject()
            object.reserveCapacity(members.count)
            // The last one wins where a key is encoded twice.
            for member in members { object[member.key] = member.slot.result }
            return .object(object)
        case .unkeyed: return .array(elements.map(\.result))
        }
    }

    func set(_ value: JSONValue) {
        shape = .value
        self.value = value
    }

    func encode<T: Encodable>(_ value: T) throws {
        switch value {
        case let text as String: set(.string(text))
        case let json as JSONValue: set(json)
        default: try value.encode(to: self)
        }
    }

    /// - Throws: `JSONError` for a number that JSON has no form for.
    func number(_ value: Double, _ element: JSONPathElement? = nil) throws -> JSONValue {
        guard value.isFinite else {
            let path = path + (element.map { [$0] } ?? [])
            throw JSONError(.type, "\(value) has no form in JSON; only finite numbers have", at: path)
        }
        return .double(value)
    }

    func number(_ value: Float, _ element: JSONPathElement? = nil) throws -> JSONValue {
        // By the shortest text of the float, so that 0.1 stays 0.1.
        try number(Double(value.description) ?? Double(value), element)
    }

    func append(_ key: String, _ value: JSONValue) { members.append((key, .value(value))) }
    func append(_ value: JSONValue) { elements.append(.value(value)) }

    /// A node for a new member.
    func child(_ key: String) -> EncodingNode {
        let node = EncodingNode(.inside(place, .key(key)))
        members.append((key, .node(node)))
        return node
    }

    /// A node for a new element.
    func child() -> EncodingNode {
        let node = EncodingNode(.inside(place, .index(elements.count)))
        elements.append(.node(node))
        return node
    }

    var elementCount: Int { elements.count }

    func container<Key: CodingKey>(keyedBy _: Key.Type) -> KeyedEncodingContainer<Key> {
        shape = .keyed
        return KeyedEncodingContainer(KeyedWriting<Key>(node: self))
    }

    func unkeyedContainer() -> any UnkeyedEncodingContainer {
        shape = .unkeyed
        return UnkeyedWriting(node: self)
    }

    func singleValueContainer() -> any SingleValueEncodingContainer { SingleWriting(node: self) }
}

private struct KeyedWriting<Key: CodingKey>: KeyedEncodingContainerProtocol {
    let node: EncodingNode

    var codingPath: [any CodingKey] { node.codingPath }

    private func child(_ key: Key) -> EncodingNode { node.child(key.stringValue) }

    private func append(_ key: Key, _ value: JSONValue) { node.append(key.stringValue, value) }

    func encodeNil(forKey key: Key) throws { append(key, .null) }
    func encode<T: Encodable>(_ value: T, forKey key: Key) throws { try child(key).encode(value) }
    func encode(_ value: Bool, forKey key: Key) throws { append(key, .bool(value)) }
    func encode(_ value: String, forKey key: Key) throws { append(key, .string(value)) }
    func encode(_ value: Double, forKey key: Key) throws { append(key, try node.number(value, .key(key.stringValue))) }
    func encode(_ value: Float, forKey key: Key) throws { append(key, try node.number(value, .key(key.stringValue))) }
    func encode(_ value: Int, forKey key: Key) throws { append(key, .integer(Int64(value))) }
    func encode(_ value: Int8, forKey key: Key) throws { append(key, .integer(Int64(value))) }
    func encode(_ value: Int16, forKey key: Key) throws { append(key, .integer(Int64(value))) }
    func encode(_ value: Int32, forKey key: Key) throws { append(key, .integer(Int64(value))) }
    func encode(_ value: Int64, forKey key: Key) throws { append(key, .integer(value)) }
    func encode(_ value: UInt, forKey key: Key) throws { append(key, JSONValue(UInt64(value))) }
    func encode(_ value: UInt8, forKey key: Key) throws { append(key, .integer(Int64(value))) }
    func encode(_ value: UInt16, forKey key: Key) throws { append(key, .integer(Int64(value))) }
    func encode(_ value: UInt32, forKey key: Key) throws { append(key, .integer(Int64(value))) }
    func encode(_ value: UInt64, forKey key: Key) throws { append(key, JSONValue(value)) }

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
    var count: Int { node.elementCount }

    func encodeNil() throws { node.append(.null) }
    func encode<T: Encodable>(_ value: T) throws { try node.child().encode(value) }
    func encode(_ value: Bool) throws { node.append(.bool(value)) }
    func encode(_ value: String) throws { node.append(.string(value)) }
    func encode(_ value: Double) throws { node.append(try node.number(value, .index(count))) }
    func encode(_ value: Float) throws { node.append(try node.number(value, .index(count))) }
    func encode(_ value: Int) throws { node.append(.integer(Int64(value))) }
    func encode(_ value: Int8) throws { node.append(.integer(Int64(value))) }
    func encode(_ value: Int16) throws { node.append(.integer(Int64(value))) }
    func encode(_ value: Int32) throws { node.append(.integer(Int64(value))) }
    func encode(_ value: Int64) throws { node.append(.integer(value)) }
    func encode(_ value: UInt) throws { node.append(JSONValue(UInt64(value))) }
    func encode(_ value: UInt8) throws { node.append(.integer(Int64(value))) }
    func encode(_ value: UInt16) throws { node.append(.integer(Int64(value))) }
    func encode(_ value: UInt32) throws { node.append(.integer(Int64(value))) }
    func encode(_ value: UInt64) throws { node.append(JSONValue(value)) }

    func nestedContainer<NestedKey: CodingKey>(
        keyedBy type: NestedKey.Type
    ) -> KeyedEncodingContainer<NestedKey> {
        node.child().container(keyedBy: type)
    }

    func nestedUnkeyedContainer() -> any UnkeyedEncodingContainer { node.child().unkeyedContainer() }
    func superEncoder() -> any Encoder { node.child() }
}

private struct SingleWriting: SingleValueEncodingContainer {
    let node: EncodingNode

    var codingPath: [any CodingKey] { node.codingPath }

    func encodeNil() throws { node.set(.null) }
    func encode<T: Encodable>(_ value: T) throws { try node.encode(value) }
    func encode(_ value: Bool) throws { node.set(.bool(value)) }
    func encode(_ value: String) throws { node.set(.string(value)) }
    func encode(_ value: Double) throws { node.set(try node.number(value)) }
    func encode(_ value: Float) throws { node.set(try node.number(value)) }
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
