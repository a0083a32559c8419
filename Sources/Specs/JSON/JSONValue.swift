/// A JSON value (RFC 8259). Integers keep their full 64 bits.
package enum JSONValue: Sendable, Equatable {
    case null
    case bool(Bool)
    /// A number without fraction and exponent that fits.
    case integer(Int64)
    /// An integer above Int64's largest; smaller ones are always `.integer`.
    case unsigned(UInt64)
    /// A number written with a fraction or an exponent.
    case double(Double)
    case string(String)
    case array([JSONValue])
    case object(JSONObject)
}

extension JSONValue {
    /// Reads one JSON text that fills `bytes`, white space around it aside.
    ///
    /// Strict: UTF-8 without byte order mark, no comments, no duplicate members, no lone surrogates, no integer beyond
    /// 64 bits, no number beyond a double's range.
    package static func parse(
        _ bytes: [UInt8], limits: JSONLimits = .standard
    ) throws(JSONError) -> JSONValue {
        try bytes.withUnsafeBufferPointer { (buffer) throws(JSONError) -> JSONValue in
            try parse(buffer, limits: limits)
        }
    }

    /// The same, for text that is at hand as a string.
    package static func parse(_ text: String, limits: JSONLimits = .standard) throws(JSONError) -> JSONValue {
        try parse(Array(text.utf8), limits: limits)
    }

    private static func parse(
        _ buffer: UnsafeBufferPointer<UInt8>, limits: JSONLimits
    ) throws(JSONError) -> JSONValue {
        guard buffer.count <= limits.bytes else {
            throw JSONError(.tooLarge, "\(buffer.count) bytes are more than the \(limits.bytes) allowed")
        }
        // SAFETY: the parser lives only inside this call, in which the buffer is valid.
        var parser = JSONParser(buffer, limits: limits)
        return try parser.document()
    }

    /// The value as UTF-8 text.
    ///
    /// - Parameters:
    ///   - pretty: one member a line, two spaces a level, no line break at the end.
    ///   - sortedKeys: members by key instead of in their own order.
    ///
    /// A double that is not finite has no JSON form and is written as null; `JSONCoding.encode` refuses it instead.
    package func serialized(pretty: Bool = false, sortedKeys: Bool = false) -> [UInt8] {
        var serializer = JSONSerializer(pretty: pretty, sortedKeys: sortedKeys)
        serializer.append(self, level: 0)
        return serializer.bytes
    }

    /// `.integer` or, above Int64's largest, `.unsigned`.
    package init(_ value: UInt64) {
        self = Int64(exactly: value).map { .integer($0) } ?? .unsigned(value)
    }
}

extension JSONValue {
    /// The string, or nil for another type.
    package var stringValue: String? { if case .string(let value) = self { value } else { nil } }
    /// The boolean, or nil for another type.
    package var boolValue: Bool? { if case .bool(let value) = self { value } else { nil } }
    /// The integer, or nil for another type or one above Int64's largest.
    package var intValue: Int64? { if case .integer(let value) = self { value } else { nil } }
    /// The integer, or nil for another type or a negative one.
    package var uintValue: UInt64? {
        switch self {
        case .integer(let value): UInt64(exactly: value)
        case .unsigned(let value): value
        default: nil
        }
    }
    /// The number as a double (an integer may lose low bits), or nil for another type.
    package var doubleValue: Double? {
        switch self {
        case .integer(let value): Double(value)
        case .unsigned(let value): Double(value)
        case .double(let value): value
        default: nil
        }
    }
    /// The elements, or nil for another type.
    package var arrayValue: [JSONValue]? { if case .array(let value) = self { value } else { nil } }
    /// The members, or nil for another type.
    package var objectValue: JSONObject? { if case .object(let value) = self { value } else { nil } }
    /// Whether this is null.
    package var isNull: Bool { if case .null = self { true } else { false } }

    /// A member of an object; nil when this is no object or has no such member.
    package subscript(key: String) -> JSONValue? { objectValue?[key] }

    /// What an error message calls this value.
    package var typeName: String {
        switch self {
        case .null: "null"
        case .bool: "a boolean"
        case .integer, .unsigned: "an integer"
        case .double: "a number"
        case .string: "a string"
        case .array: "an array"
        case .object: "an object"
        }
    }
}

extension JSONValue: ExpressibleByStringLiteral, ExpressibleByIntegerLiteral, ExpressibleByBooleanLiteral,
    ExpressibleByFloatLiteral, ExpressibleByArrayLiteral, ExpressibleByDictionaryLiteral, ExpressibleByNilLiteral
{
    package init(stringLiteral value: String) { self = .string(value) }
    package init(integerLiteral value: Int64) { self = .integer(value) }
    package init(booleanLiteral value: Bool) { self = .bool(value) }
    package init(floatLiteral value: Double) { self = .double(value) }
    package init(arrayLiteral elements: JSONValue...) { self = .array(elements) }
    package init(nilLiteral: ()) { self = .null }

    /// The last value wins where a key is given twice.
    package init(dictionaryLiteral elements: (String, JSONValue)...) {
        var object = JSONObject()
        for (key, value) in elements { object[key] = value }
        self = .object(object)
    }
}
