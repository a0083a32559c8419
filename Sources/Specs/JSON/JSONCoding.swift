/// `Codable` on our own reader and writer: no Foundation, errors with a path, unknown fields found.
package enum JSONCoding {
    /// Decodes one JSON text.
    ///
    /// - Parameter strict: refuse members that the type never asks for, with the path of the first one. Members read
    ///   into a dictionary or a `JSONValue` are all known.
    /// - Throws: `JSONError`; what a type's own `init(from:)` throws other than that and `DecodingError` goes through
    ///   unchanged.
    package static func decode<T: Decodable>(
        _ type: T.Type, from bytes: [UInt8], strict: Bool = false, limits: JSONLimits = .standard
    ) throws -> T {
        try decode(type, from: JSONValue.parse(bytes, limits: limits), strict: strict)
    }

    /// Decodes a value that is parsed already.
    package static func decode<T: Decodable>(
        _ type: T.Type, from value: JSONValue, strict: Bool = false
    ) throws -> T {
        let root = DecodingNode(value, parent: nil, element: nil, strict: strict)
        defer { root.release() }
        let result: T
        do {
            result = try root.decode(type)
        } catch let error as DecodingError {
            throw JSONError(error)
        }
        if strict, let unknown = root.firstUnknown() { throw unknown }
        return result
    }

    /// Encodes to text; see `JSONValue.serialized` for the parameters.
    ///
    /// - Throws: `JSONError` for a number that is not finite; what a type's own `encode(to:)` throws goes through.
    package static func encode<T: Encodable>(
        _ value: T, pretty: Bool = false, sortedKeys: Bool = false
    ) throws -> [UInt8] {
        try Self.value(value).serialized(pretty: pretty, sortedKeys: sortedKeys)
    }

    /// Encodes to a value.
    package static func value<T: Encodable>(_ value: T) throws -> JSONValue {
        let node = EncodingNode()
        do {
            try node.encode(value)
        } catch let error as EncodingError {
            throw JSONError(error)
        }
        return node.result
    }
}

/// A key made from text or from an array's index.
struct AnyKey: CodingKey {
    let stringValue: String
    let intValue: Int?

    init(stringValue: String) {
        self.stringValue = stringValue
        intValue = nil
    }

    init(intValue: Int) {
        stringValue = String(intValue)
        self.intValue = intValue
    }

    static let `super` = AnyKey(stringValue: "super")
}

extension JSONError {
    /// The same as the standard library's error, in our words.
    init(_ error: DecodingError) {
        switch error {
        case .keyNotFound(let key, let context):
            self.init(
                .missing, "the member is missing", at: Self.path(context.codingPath) + [.key(key.stringValue)])
        case .typeMismatch(_, let context):
            self.init(.type, context.debugDescription, at: Self.path(context.codingPath))
        case .valueNotFound(_, let context):
            self.init(.type, context.debugDescription, at: Self.path(context.codingPath))
        case .dataCorrupted(let context):
            self.init(.type, context.debugDescription, at: Self.path(context.codingPath))
        @unknown default:
            self.init(.type, "\(error)")
        }
    }

    init(_ error: EncodingError) {
        switch error {
        case .invalidValue(_, let context):
            self.init(.type, context.debugDescription, at: Self.path(context.codingPath))
        @unknown default:
            self.init(.type, "\(error)")
        }
    }

    static func path(_ keys: [any CodingKey]) -> [JSONPathElement] {
        keys.map { key in key.intValue.map { .index($0) } ?? .key(key.stringValue) }
    }
}

extension JSONPathElement {
    var codingKey: AnyKey {
        switch self {
        case .key(let key): AnyKey(stringValue: key)
        case .index(let index): AnyKey(intValue: index)
        }
    }
}

/// Any JSON as it is: through `JSONCoding` without a detour, through other coders by trial.
extension JSONValue: Codable {
    package init(from decoder: any Decoder) throws {
        if let node = decoder as? DecodingNode {
            node.knowAll()
            self = node.value
            return
        }
        if let container = try? decoder.container(keyedBy: AnyKey.self) {
            var object = JSONObject()
            for key in container.allKeys {
                object[key.stringValue] = try container.decode(JSONValue.self, forKey: key)
            }
            self = .object(object)
        } else if var container = try? decoder.unkeyedContainer() {
            var elements: [JSONValue] = []
            while !container.isAtEnd { elements.append(try container.decode(JSONValue.self)) }
            self = .array(elements)
        } else {
            self = try Self.scalar(decoder.singleValueContainer())
        }
    }

    private static func scalar(_ container: any SingleValueDecodingContainer) throws -> JSONValue {
        if container.decodeNil() { return .null }
        if let value = try? container.decode(Bool.self) { return .bool(value) }
        if let value = try? container.decode(Int64.self) { return .integer(value) }
        if let value = try? container.decode(UInt64.self) { return .unsigned(value) }
        if let value = try? container.decode(Double.self) { return .double(value) }
        return .string(try container.decode(String.self))
    }

    package func encode(to encoder: any Encoder) throws {
        if let node = encoder as? EncodingNode {
            node.set(self)
            return
        }
        switch self {
        case .object(let object):
            var container = encoder.container(keyedBy: AnyKey.self)
            for member in object.members {
                try container.encode(member.value, forKey: AnyKey(stringValue: member.key))
            }
        case .array(let elements):
            var container = encoder.unkeyedContainer()
            for element in elements { try container.encode(element) }
        default:
            var container = encoder.singleValueContainer()
            switch self {
            case .bool(let value): try container.encode(value)
            case .integer(let value): try container.encode(value)
            case .unsigned(let value): try container.encode(value)
            case .double(let value): try container.encode(value)
            case .string(let value): try container.encode(value)
            default: try container.encodeNil()
            }
        }
    }
}
