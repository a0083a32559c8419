/// The decoder of one value. In strict mode it remembers which members were asked for, and its children, so that
/// several containers over one object (a type decoded in two halves, or by trial) count together.
final class DecodingNode: Decoder {
    let value: JSONValue
    private let parent: DecodingNode?
    private let element: JSONPathElement?
    private let strict: Bool
    /// Strict only: a keyed container was made, so members nobody asked for are mistakes.
    private var isKeyed = false
    private var allKnown = false
    private var asked: Set<String> = []
    private var children: [JSONPathChild: DecodingNode] = [:]
    private var order: [DecodingNode] = []

    private enum JSONPathChild: Hashable {
        case key(String)
        case index(Int)
    }

    var userInfo: [CodingUserInfoKey: Any] { [:] }

    init(_ value: JSONValue, parent: DecodingNode?, element: JSONPathElement?, strict: Bool) {
        self.value = value
        self.parent = parent
        self.element = element
        self.strict = strict
    }

    var path: [JSONPathElement] {
        var reversed: [JSONPathElement] = []
        var node = self
        while let element = node.element, let parent = node.parent {
            reversed.append(element)
            node = parent
        }
        return reversed.reversed()
    }

    var codingPath: [any CodingKey] { path.map(\.codingKey) }

    func error(_ kind: JSONError.Kind, _ message: String) -> JSONError { JSONError(kind, message, at: path) }

    func mismatch(_ expected: String) -> JSONError {
        error(.type, "expected \(expected), found \(value.typeName)")
    }

    func child(_ key: String, _ value: JSONValue) -> DecodingNode {
        child(.key(key), .key(key), value)
    }

    func child(_ index: Int, _ value: JSONValue) -> DecodingNode {
        child(.index(index), .index(index), value)
    }

    private func child(_ place: JSONPathChild, _ element: JSONPathElement, _ value: JSONValue) -> DecodingNode {
        guard strict else { return DecodingNode(value, parent: self, element: element, strict: false) }
        if let known = children[place] { return known }
        let node = DecodingNode(value, parent: self, element: element, strict: true)
        children[place] = node
        order.append(node)
        return node
    }

    // MARK: Unknown members

    func knowAll() { allKnown = true }
    func ask(_ key: String) { if strict { asked.insert(key) } }

    /// The first member that no container asked for.
    func firstUnknown() -> JSONError? {
        if allKnown { return nil }
        if isKeyed, case .object(let object) = value {
            for member in object.members where !asked.contains(member.key) {
                return JSONError(.unknownField, "the field is not known", at: path + [.key(member.key)])
            }
        }
        for node in order {
            if let unknown = node.firstUnknown() { return unknown }
        }
        return nil
    }

    // MARK: Decoder

    func container<Key: CodingKey>(keyedBy _: Key.Type) throws -> KeyedDecodingContainer<Key> {
        guard case .object(let object) = value else { throw mismatch("an object") }
        isKeyed = true
        return KeyedDecodingContainer(KeyedReading<Key>(node: self, object: object))
    }

    func unkeyedContainer() throws -> any UnkeyedDecodingContainer {
        guard case .array(let elements) = value else { throw mismatch("an array") }
        return UnkeyedReading(node: self, elements: elements)
    }

    func singleValueContainer() throws -> any SingleValueDecodingContainer { SingleReading(node: self) }

    // MARK: Values

    func decode<T: Decodable>(_ type: T.Type) throws -> T {
        // The common leaves without the detour through their own init(from:).
        if type == String.self, let result = try string() as? T { return result }
        if type == Int.self, let result = try integer(Int.self) as? T { return result }
        if type == JSONValue.self, let result = value as? T {
            allKnown = true
            return result
        }
        return try T(from: self)
    }

    func string() throws -> String {
        guard case .string(let text) = value else { throw mismatch("a string") }
        return text
    }

    func bool() throws -> Bool {
        guard case .bool(let bool) = value else { throw mismatch("a boolean") }
        return bool
    }

    func double() throws -> Double {
        guard let number = value.doubleValue else { throw mismatch("a number") }
        return number
    }

    func float() throws -> Float {
        let number = Float(try double())
        guard number.isFinite else { throw error(.type, "the number is out of the range of 32 bits") }
        return number
    }

    func integer<T: FixedWidthInteger>(_: T.Type) throws -> T {
        switch value.integer(as: T.self) {
        case .value(let number): return number
        case .outOfRange: throw error(.type, JSONValue.rangeMessage(T.self))
        case .otherType: throw mismatch("an integer")
        }
    }
}

private struct KeyedReading<Key: CodingKey>: KeyedDecodingContainerProtocol {
    let node: DecodingNode
    let object: JSONObject

    var codingPath: [any CodingKey] { node.codingPath }

    var allKeys: [Key] {
        object.keys.compactMap { text in
            guard let key = Key(stringValue: text) else { return nil }
            node.ask(text)
            return key
        }
    }

    func contains(_ key: Key) -> Bool {
        node.ask(key.stringValue)
        return object[key.stringValue] != nil
    }

    func decodeNil(forKey key: Key) throws -> Bool { try value(key).isNull }

    private func value(_ key: Key) throws -> JSONValue {
        node.ask(key.stringValue)
        guard let value = object[key.stringValue] else {
            throw JSONError(.missing, "the member is missing", at: node.path + [.key(key.stringValue)])
        }
        return value
    }

    private func child(_ key: Key) throws -> DecodingNode { node.child(key.stringValue, try value(key)) }

    func decode<T: Decodable>(_ type: T.Type, forKey key: Key) throws -> T { try child(key).decode(type) }
    func decode(_ type: Bool.Type, forKey key: Key) throws -> Bool { try child(key).bool() }
    func decode(_ type: String.Type, forKey key: Key) throws -> String { try child(key).string() }
    func decode(_ type: Double.Type, forKey key: Key) throws -> Double { try child(key).double() }
    func decode(_ type: Float.Type, forKey key: Key) throws -> Float { try child(key).float() }
    func decode(_ type: Int.Type, forKey key: Key) throws -> Int { try child(key).integer(type) }
    func decode(_ type: Int8.Type, forKey key: Key) throws -> Int8 { try child(key).integer(type) }
    func decode(_ type: Int16.Type, forKey key: Key) throws -> Int16 { try child(key).integer(type) }
    func decode(_ type: Int32.Type, forKey key: Key) throws -> Int32 { try child(key).integer(type) }
    func decode(_ type: Int64.Type, forKey key: Key) throws -> Int64 { try child(key).integer(type) }
    func decode(_ type: UInt.Type, forKey key: Key) throws -> UInt { try child(key).integer(type) }
    func decode(_ type: UInt8.Type, forKey key: Key) throws -> UInt8 { try child(key).integer(type) }
    func decode(_ type: UInt16.Type, forKey key: Key) throws -> UInt16 { try child(key).integer(type) }
    func decode(_ type: UInt32.Type, forKey key: Key) throws -> UInt32 { try child(key).integer(type) }
    func decode(_ type: UInt64.Type, forKey key: Key) throws -> UInt64 { try child(key).integer(type) }

    func nestedContainer<NestedKey: CodingKey>(
        keyedBy type: NestedKey.Type, forKey key: Key
    ) throws -> KeyedDecodingContainer<NestedKey> {
        try child(key).container(keyedBy: type)
    }

    func nestedUnkeyedContainer(forKey key: Key) throws -> any UnkeyedDecodingContainer {
        try child(key).unkeyedContainer()
    }

    func superDecoder() throws -> any Decoder {
        node.ask(AnyKey.super.stringValue)
        return node.child(AnyKey.super.stringValue, object[AnyKey.super.stringValue] ?? .null)
    }

    func superDecoder(forKey key: Key) throws -> any Decoder {
        node.ask(key.stringValue)
        return node.child(key.stringValue, object[key.stringValue] ?? .null)
    }
}

private struct UnkeyedReading: UnkeyedDecodingContainer {
    let node: DecodingNode
    let elements: [JSONValue]
    var currentIndex = 0

    var codingPath: [any CodingKey] { node.codingPath }
    var count: Int? { elements.count }
    var isAtEnd: Bool { currentIndex >= elements.count }

    private func current() throws -> DecodingNode {
        guard !isAtEnd else {
            throw JSONError(
                .missing, "the array has only \(elements.count) elements", at: node.path + [.index(currentIndex)])
        }
        return node.child(currentIndex, elements[currentIndex])
    }

    /// Steps on only when `body` succeeds.
    private mutating func next<T>(_ body: (DecodingNode) throws -> T) throws -> T {
        let result = try body(try current())
        currentIndex += 1
        return result
    }

    mutating func decodeNil() throws -> Bool {
        guard try current().value.isNull else { return false }
        currentIndex += 1
        return true
    }

    mutating func decode<T: Decodable>(_ type: T.Type) throws -> T { try next { try $0.decode(type) } }
    mutating func decode(_ type: Bool.Type) throws -> Bool { try next { try $0.bool() } }
    mutating func decode(_ type: String.Type) throws -> String { try next { try $0.string() } }
    mutating func decode(_ type: Double.Type) throws -> Double { try next { try $0.double() } }
    mutating func decode(_ type: Float.Type) throws -> Float { try next { try $0.float() } }
    mutating func decode(_ type: Int.Type) throws -> Int { try next { try $0.integer(type) } }
    mutating func decode(_ type: Int8.Type) throws -> Int8 { try next { try $0.integer(type) } }
    mutating func decode(_ type: Int16.Type) throws -> Int16 { try next { try $0.integer(type) } }
    mutating func decode(_ type: Int32.Type) throws -> Int32 { try next { try $0.integer(type) } }
    mutating func decode(_ type: Int64.Type) throws -> Int64 { try next { try $0.integer(type) } }
    mutating func decode(_ type: UInt.Type) throws -> UInt { try next { try $0.integer(type) } }
    mutating func decode(_ type: UInt8.Type) throws -> UInt8 { try next { try $0.integer(type) } }
    mutating func decode(_ type: UInt16.Type) throws -> UInt16 { try next { try $0.integer(type) } }
    mutating func decode(_ type: UInt32.Type) throws -> UInt32 { try next { try $0.integer(type) } }
    mutating func decode(_ type: UInt64.Type) throws -> UInt64 { try next { try $0.integer(type) } }

    mutating func nestedContainer<NestedKey: CodingKey>(
        keyedBy type: NestedKey.Type
    ) throws -> KeyedDecodingContainer<NestedKey> {
        try next { try $0.container(keyedBy: type) }
    }

    mutating func nestedUnkeyedContainer() throws -> any UnkeyedDecodingContainer {
        try next { try $0.unkeyedContainer() }
    }

    mutating func superDecoder() throws -> any Decoder { try next { $0 } }
}

private struct SingleReading: SingleValueDecodingContainer {
    let node: DecodingNode

    var codingPath: [any CodingKey] { node.codingPath }

    func decodeNil() -> Bool { node.value.isNull }
    func decode<T: Decodable>(_ type: T.Type) throws -> T { try node.decode(type) }
    func decode(_ type: Bool.Type) throws -> Bool { try node.bool() }
    func decode(_ type: String.Type) throws -> String { try node.string() }
    func decode(_ type: Double.Type) throws -> Double { try node.double() }
    func decode(_ type: Float.Type) throws -> Float { try node.float() }
    func decode(_ type: Int.Type) throws -> Int { try node.integer(type) }
    func decode(_ type: Int8.Type) throws -> Int8 { try node.integer(type) }
    func decode(_ type: Int16.Type) throws -> Int16 { try node.integer(type) }
    func decode(_ type: Int32.Type) throws -> Int32 { try node.integer(type) }
    func decode(_ type: Int64.Type) throws -> Int64 { try node.integer(type) }
    func decode(_ type: UInt.Type) throws -> UInt { try node.integer(type) }
    func decode(_ type: UInt8.Type) throws -> UInt8 { try node.integer(type) }
    func decode(_ type: UInt16.Type) throws -> UInt16 { try node.integer(type) }
    func decode(_ type: UInt32.Type) throws -> UInt32 { try node.integer(type) }
    func decode(_ type: UInt64.Type) throws -> UInt64 { try node.integer(type) }
}
