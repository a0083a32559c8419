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
    /// By position of the member.
    private var asked: [Bool] = []
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

    /// Lets go of the children, which hold their parent: without this, a strictly read value would never be freed.
    func release() {
        for node in order { node.release() }
        order = []
        children = [:]
    }

    // MARK: Unknown members

    func knowAll() { allKnown = true }

    /// The member of `object`, which is this node's value, noted as asked for.
    func member(_ key: String, of object: JSONObject) -> JSONValue? {
        guard let position = object.position(of: key) else { return nil }
        ask(position, of: object)
        return object.members[position].value
    }

    func ask(_ position: Int, of object: JSONObject) {
        guard strict else { return }
        if asked.isEmpty { asked = [Bool](repeating: false, count: object.count) }
        asked[position] = true
    }

    /// The first member that no container asked for.
    func firstUnknown() -> JSONError? {
        if allKnown { return nil }
        if isKeyed, case .object(let object) = value {
            for (position, member) in object.members.enumerated() where asked.isEmpty || !asked[position] {
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
        if type == String.self, let result = try value.string(path) as? T { return result }
        if type == Int.self, let result = try value.integer(Int.self, path) as? T { return result }
        if type == JSONValue.self, let result = value as? T {
            allKnown = true
            return result
        }
        return try T(from: self)
    }
}

/// The leaves; `path` is only made when there is an error.
extension JSONValue {
    typealias Path = [JSONPathElement]

    private func mismatch(_ expected: String, _ path: Path) -> JSONError {
        JSONError(.type, "expected \(expected), found \(typeName)", at: path)
    }

    fileprivate func string(_ path: @autoclosure () -> Path) throws -> String {
        guard case .string(let text) = self else { throw mismatch("a string", path()) }
        return text
    }

    fileprivate func bool(_ path: @autoclosure () -> Path) throws -> Bool {
        guard case .bool(let bool) = self else { throw mismatch("a boolean", path()) }
        return bool
    }

    fileprivate func double(_ path: @autoclosure () -> Path) throws -> Double {
        guard let number = doubleValue else { throw mismatch("a number", path()) }
        return number
    }

    fileprivate func float(_ path: @autoclosure () -> Path) throws -> Float {
        let number = Float(try double(path()))
        guard number.isFinite else {
            throw JSONError(.type, "the number is out of the range of 32 bits", at: path())
        }
        return number
    }

    fileprivate func integer<T: FixedWidthInteger>(_: T.Type, _ path: @autoclosure () -> Path) throws -> T {
        switch integer(as: T.self) {
        case .value(let number): return number
        case .outOfRange: throw JSONError(.type, JSONValue.rangeMessage(T.self), at: path())
        case .otherType: throw mismatch("an integer", path())
        }
    }
}

private struct KeyedReading<Key: CodingKey>: KeyedDecodingContainerProtocol {
    let node: DecodingNode
    let object: JSONObject

    var codingPath: [any CodingKey] { node.codingPath }

    var allKeys: [Key] {
        object.members.enumerated().compactMap { position, member in
            guard let key = Key(stringValue: member.key) else { return nil }
            node.ask(position, of: object)
            return key
        }
    }

    func contains(_ key: Key) -> Bool { node.member(key.stringValue, of: object) != nil }

    func decodeNil(forKey key: Key) throws -> Bool { try value(key).isNull }

    private func value(_ key: Key) throws -> JSONValue {
        guard let value = node.member(key.stringValue, of: object) else {
            throw JSONError(.missing, "the member is missing", at: path(key))
        }
        return value
    }

    private func path(_ key: Key) -> [JSONPathElement] { node.path + [.key(key.stringValue)] }

    private func child(_ key: Key) throws -> DecodingNode { node.child(key.stringValue, try value(key)) }

    func decode<T: Decodable>(_ type: T.Type, forKey key: Key) throws -> T { try child(key).decode(type) }
    func decode(_ type: Bool.Type, forKey key: Key) throws -> Bool { try value(key).bool(path(key)) }
    func decode(_ type: String.Type, forKey key: Key) throws -> String { try value(key).string(path(key)) }
    func decode(_ type: Double.Type, forKey key: Key) throws -> Double { try value(key).double(path(key)) }
    func decode(_ type: Float.Type, forKey key: Key) throws -> Float { try value(key).float(path(key)) }
    func decode(_ type: Int.Type, forKey key: Key) throws -> Int { try value(key).integer(type, path(key)) }
    func decode(_ type: Int8.Type, forKey key: Key) throws -> Int8 { try value(key).integer(type, path(key)) }
    func decode(_ type: Int16.Type, forKey key: Key) throws -> Int16 { try value(key).integer(type, path(key)) }
    func decode(_ type: Int32.Type, forKey key: Key) throws -> Int32 { try value(key).integer(type, path(key)) }
    func decode(_ type: Int64.Type, forKey key: Key) throws -> Int64 { try value(key).integer(type, path(key)) }
    func decode(_ type: UInt.Type, forKey key: Key) throws -> UInt { try value(key).integer(type, path(key)) }
    func decode(_ type: UInt8.Type, forKey key: Key) throws -> UInt8 { try value(key).integer(type, path(key)) }
    func decode(_ type: UInt16.Type, forKey key: Key) throws -> UInt16 { try value(key).integer(type, path(key)) }
    func decode(_ type: UInt32.Type, forKey key: Key) throws -> UInt32 { try value(key).integer(type, path(key)) }
    func decode(_ type: UInt64.Type, forKey key: Key) throws -> UInt64 { try value(key).integer(type, path(key)) }

    func nestedContainer<NestedKey: CodingKey>(
        keyedBy type: NestedKey.Type, forKey key: Key
    ) throws -> KeyedDecodingContainer<NestedKey> {
        try child(key).container(keyedBy: type)
    }

    func nestedUnkeyedContainer(forKey key: Key) throws -> any UnkeyedDecodingContainer {
        try child(key).unkeyedContainer()
    }

    func superDecoder() throws -> any Decoder { superDecoder(of: AnyKey.super.stringValue) }
    func superDecoder(forKey key: Key) throws -> any Decoder { superDecoder(of: key.stringValue) }

    private func superDecoder(of key: String) -> any Decoder {
        node.child(key, node.member(key, of: object) ?? .null)
    }
}

private struct UnkeyedReading: UnkeyedDecodingContainer {
    let node: DecodingNode
    let elements: [JSONValue]
    var currentIndex = 0

    var codingPath: [any CodingKey] { node.codingPath }
    var count: Int? { elements.count }
    var isAtEnd: Bool { currentIndex >= elements.count }

    private func value() throws -> JSONValue {
        guard !isAtEnd else {
            throw JSONError(
                .missing, "the array has only \(elements.count) elements", at: node.path + [.index(currentIndex)])
        }
        return elements[currentIndex]
    }

    /// Steps on only when `body` succeeds.
    private mutating func next<T>(_ body: (DecodingNode) throws -> T) throws -> T {
        let result = try body(node.child(currentIndex, try value()))
        currentIndex += 1
        return result
    }

    /// The same for a value without parts; `body` also gets a way to its path.
    private mutating func leaf<T>(_ body: (JSONValue, () -> [JSONPathElement]) throws -> T) throws -> T {
        let (node, index) = (node, currentIndex)
        let result = try body(try value()) { node.path + [.index(index)] }
        currentIndex += 1
        return result
    }

    mutating func decodeNil() throws -> Bool {
        guard try value().isNull else { return false }
        currentIndex += 1
        return true
    }

    mutating func decode<T: Decodable>(_ type: T.Type) throws -> T { try next { try $0.decode(type) } }
    mutating func decode(_ type: Bool.Type) throws -> Bool { try leaf { try $0.bool($1()) } }
    mutating func decode(_ type: String.Type) throws -> String { try leaf { try $0.string($1()) } }
    mutating func decode(_ type: Double.Type) throws -> Double { try leaf { try $0.double($1()) } }
    mutating func decode(_ type: Float.Type) throws -> Float { try leaf { try $0.float($1()) } }
    mutating func decode(_ type: Int.Type) throws -> Int { try leaf { try $0.integer(type, $1()) } }
    mutating func decode(_ type: Int8.Type) throws -> Int8 { try leaf { try $0.integer(type, $1()) } }
    mutating func decode(_ type: Int16.Type) throws -> Int16 { try leaf { try $0.integer(type, $1()) } }
    mutating func decode(_ type: Int32.Type) throws -> Int32 { try leaf { try $0.integer(type, $1()) } }
    mutating func decode(_ type: Int64.Type) throws -> Int64 { try leaf { try $0.integer(type, $1()) } }
    mutating func decode(_ type: UInt.Type) throws -> UInt { try leaf { try $0.integer(type, $1()) } }
    mutating func decode(_ type: UInt8.Type) throws -> UInt8 { try leaf { try $0.integer(type, $1()) } }
    mutating func decode(_ type: UInt16.Type) throws -> UInt16 { try leaf { try $0.integer(type, $1()) } }
    mutating func decode(_ type: UInt32.Type) throws -> UInt32 { try leaf { try $0.integer(type, $1()) } }
    mutating func decode(_ type: UInt64.Type) throws -> UInt64 { try leaf { try $0.integer(type, $1()) } }

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
    func decode(_ type: Bool.Type) throws -> Bool { try node.value.bool(node.path) }
    func decode(_ type: String.Type) throws -> String { try node.value.string(node.path) }
    func decode(_ type: Double.Type) throws -> Double { try node.value.double(node.path) }
    func decode(_ type: Float.Type) throws -> Float { try node.value.float(node.path) }
    func decode(_ type: Int.Type) throws -> Int { try node.value.integer(type, node.path) }
    func decode(_ type: Int8.Type) throws -> Int8 { try node.value.integer(type, node.path) }
    func decode(_ type: Int16.Type) throws -> Int16 { try node.value.integer(type, node.path) }
    func decode(_ type: Int32.Type) throws -> Int32 { try node.value.integer(type, node.path) }
    func decode(_ type: Int64.Type) throws -> Int64 { try node.value.integer(type, node.path) }
    func decode(_ type: UInt.Type) throws -> UInt { try node.value.integer(type, node.path) }
    func decode(_ type: UInt8.Type) throws -> UInt8 { try node.value.integer(type, node.path) }
    func decode(_ type: UInt16.Type) throws -> UInt16 { try node.value.integer(type, node.path) }
    func decode(_ type: UInt32.Type) throws -> UInt32 { try node.value.integer(type, node.path) }
    func decode(_ type: UInt64.Type) throws -> UInt64 { try node.value.integer(type, node.path) }
}
