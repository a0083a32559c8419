import JSON

/// A decoder that holds nothing, and notes what is asked of it.
final class SchemaNode: Decoder {
    enum Form {
        case unknown
        case object(JSONObject)
        case plain(JSONValue)
    }

    let codingPath: [any CodingKey] = []
    let userInfo: [CodingUserInfoKey: Any] = [:]
    let book: SchemaBook
    fileprivate(set) var form = Form.unknown

    init(book: SchemaBook) { self.book = book }

    func schema() throws -> JSONValue {
        switch form {
        case .unknown: throw SchemaError(description: "nothing was asked for")
        case .object(let members): .object(members)
        case .plain(let schema): schema
        }
    }

    func container<Key: CodingKey>(keyedBy type: Key.Type) throws -> KeyedDecodingContainer<Key> {
        // Every key fits a dictionary, so one made up here does.
        if Key(stringValue: KeyedRecorder<Key>.any) == nil, case .unknown = form {
            form = .object(["type": "object", "required": [], "properties": .object(JSONObject())])
        }
        return KeyedDecodingContainer(KeyedRecorder<Key>(node: self))
    }

    func unkeyedContainer() throws -> any UnkeyedDecodingContainer { ListRecorder(node: self) }
    func singleValueContainer() throws -> any SingleValueDecodingContainer { ValueRecorder(node: self) }

    /// Notes a member of the object.
    fileprivate func note(_ key: String, _ schema: JSONValue, required: Bool) {
        guard case .object(var object) = form else { return }
        var properties = object["properties"]?.objectValue ?? JSONObject()
        properties[key] = schema
        object["properties"] = .object(properties)
        if required { object["required"] = .array((object["required"]?.arrayValue ?? []) + [.string(key)]) }
        form = .object(object)
    }
}

private struct KeyedRecorder<Key: CodingKey>: KeyedDecodingContainerProtocol {
    static var any: String { "*" }

    let node: SchemaNode
    let codingPath: [any CodingKey] = []
    var allKeys: [Key] { [Key(stringValue: Self.any)].compactMap { $0 } }

    func contains(_ key: Key) -> Bool { true }
    func decodeNil(forKey key: Key) throws -> Bool { false }

    func decode<Value: Decodable>(_ type: Value.Type, forKey key: Key) throws -> Value {
        let (schema, value) = try node.book.record(type)
        if key.stringValue == Self.any {
            node.form = .plain(["type": "object", "additionalProperties": schema])
        } else {
            node.note(key.stringValue, schema, required: true)
        }
        return value
    }

    func decodeIfPresent<Value: Decodable>(_ type: Value.Type, forKey key: Key) throws -> Value? {
        node.note(key.stringValue, try node.book.record(type).schema, required: false)
        return nil
    }

    // The standard library has one of these for each plain type, which would not come here otherwise.
    func decodeIfPresent(_ type: Bool.Type, forKey key: Key) throws -> Bool? { try absent(type, key) }
    func decodeIfPresent(_ type: String.Type, forKey key: Key) throws -> String? { try absent(type, key) }
    func decodeIfPresent(_ type: Int.Type, forKey key: Key) throws -> Int? { try absent(type, key) }
    func decodeIfPresent(_ type: Int64.Type, forKey key: Key) throws -> Int64? { try absent(type, key) }
    func decodeIfPresent(_ type: UInt16.Type, forKey key: Key) throws -> UInt16? { try absent(type, key) }
    func decodeIfPresent(_ type: UInt32.Type, forKey key: Key) throws -> UInt32? { try absent(type, key) }
    func decodeIfPresent(_ type: UInt64.Type, forKey key: Key) throws -> UInt64? { try absent(type, key) }
    func decodeIfPresent(_ type: Double.Type, forKey key: Key) throws -> Double? { try absent(type, key) }

    private func absent<Value: Decodable>(_ type: Value.Type, _ key: Key) throws -> Value? {
        node.note(key.stringValue, try node.book.record(type).schema, required: false)
        return nil
    }

    func nestedContainer<NestedKey: CodingKey>(
        keyedBy type: NestedKey.Type, forKey key: Key
    ) throws -> KeyedDecodingContainer<NestedKey> {
        throw SchemaError(description: "the member \(key.stringValue) is read by hand")
    }

    func nestedUnkeyedContainer(forKey key: Key) throws -> any UnkeyedDecodingContainer {
        throw SchemaError(description: "the member \(key.stringValue) is read by hand")
    }

    func superDecoder() throws -> any Decoder { throw SchemaError(description: "it has a superclass") }
    func superDecoder(forKey key: Key) throws -> any Decoder { throw SchemaError(description: "it has a superclass") }
}

/// Has one element, so that its form is seen.
private struct ListRecorder: UnkeyedDecodingContainer {
    let node: SchemaNode
    let codingPath: [any CodingKey] = []
    let count: Int? = 1
    private(set) var currentIndex = 0
    var isAtEnd: Bool { currentIndex > 0 }

    mutating func decodeNil() throws -> Bool { false }

    mutating func decode<Value: Decodable>(_ type: Value.Type) throws -> Value {
        let (schema, value) = try node.book.record(type)
        node.form = .plain(["type": "array", "items": schema])
        currentIndex += 1
        return value
    }

    mutating func nestedContainer<NestedKey: CodingKey>(
        keyedBy type: NestedKey.Type
    ) throws -> KeyedDecodingContainer<NestedKey> {
        throw SchemaError(description: "its elements are read by hand")
    }

    mutating func nestedUnkeyedContainer() throws -> any UnkeyedDecodingContainer {
        throw SchemaError(description: "its elements are read by hand")
    }

    mutating func superDecoder() throws -> any Decoder { throw SchemaError(description: "it has a superclass") }
}

private struct ValueRecorder: SingleValueDecodingContainer {
    let node: SchemaNode
    let codingPath: [any CodingKey] = []

    func decodeNil() -> Bool { false }

    func decode(_ type: Bool.Type) throws -> Bool {
        node.form = .plain(["type": "boolean"])
        return false
    }

    func decode(_ type: String.Type) throws -> String {
        node.form = .plain(["type": "string"])
        return ""
    }

    func decode(_ type: Double.Type) throws -> Double { number("number") }
    func decode(_ type: Float.Type) throws -> Float { number("number") }
    func decode(_ type: Int.Type) throws -> Int { number("integer") }
    func decode(_ type: Int8.Type) throws -> Int8 { number("integer") }
    func decode(_ type: Int16.Type) throws -> Int16 { number("integer") }
    func decode(_ type: Int32.Type) throws -> Int32 { number("integer") }
    func decode(_ type: Int64.Type) throws -> Int64 { number("integer") }
    func decode(_ type: UInt.Type) throws -> UInt { number("integer") }
    func decode(_ type: UInt8.Type) throws -> UInt8 { number("integer") }
    func decode(_ type: UInt16.Type) throws -> UInt16 { number("integer") }
    func decode(_ type: UInt32.Type) throws -> UInt32 { number("integer") }
    func decode(_ type: UInt64.Type) throws -> UInt64 { number("integer") }

    private func number<Value: Numeric>(_ name: String) -> Value {
        node.form = .plain(["type": .string(name)])
        return 0
    }

    func decode<Value: Decodable>(_ type: Value.Type) throws -> Value {
        let (schema, value) = try node.book.record(type)
        node.form = .plain(schema)
        return value
    }
}
