import JSON

/// Builds a JSON object member by member; what is absent or empty is left out, as the OCI schemas mean it.
struct ObjectWriter {
    private(set) var object = JSONObject()

    var value: JSONValue { .object(object) }

    mutating func put(_ key: String, _ value: JSONValue?) { object[key] = value }

    mutating func put(_ key: String, _ text: String?) {
        if let text { object[key] = .string(text) }
    }

    mutating func put(_ key: String, _ flag: Bool?) {
        if let flag { object[key] = .bool(flag) }
    }

    mutating func put<Number: FixedWidthInteger & SignedInteger>(_ key: String, _ number: Number?) {
        if let number { object[key] = .integer(Int64(number)) }
    }

    mutating func put<Number: FixedWidthInteger & UnsignedInteger>(_ key: String, _ number: Number?) {
        if let number { object[key] = JSONValue(UInt64(number)) }
    }

    mutating func put(_ key: String, _ texts: [String]) {
        if !texts.isEmpty { object[key] = .array(texts.map { .string($0) }) }
    }

    mutating func put(_ key: String, _ map: [String: String]) {
        guard !map.isEmpty else { return }
        var inner = JSONObject()
        for key in map.keys.sorted() { inner[key] = map[key].map { .string($0) } }
        object[key] = .object(inner)
    }

    mutating func put(_ key: String, _ map: [String: JSONValue]) {
        guard !map.isEmpty else { return }
        var inner = JSONObject()
        for key in map.keys.sorted() { inner[key] = map[key] }
        object[key] = .object(inner)
    }

    mutating func put(_ key: String, _ values: [JSONValue]) {
        if !values.isEmpty { object[key] = .array(values) }
    }
}

/// A part of an OCI document: read by hand with errors that name the place, and written back.
///
/// Members that this code does not know are ignored on reading, as the specification asks.
package protocol OCIDocument: Sendable, Equatable {
    /// Reads the value at a place.
    init(_ reader: JSONReader) throws(JSONError)
    /// The value; absent and empty members are left out.
    var json: JSONValue { get }
}

extension OCIDocument {
    /// Parses and decodes a whole document.
    package init(parsing bytes: [UInt8], limits: JSONLimits = .standard) throws(JSONError) {
        try self.init(JSONReader(try JSONValue.parse(bytes, limits: limits)))
    }

    /// The document's text.
    package func encoded(pretty: Bool = false) -> [UInt8] { json.serialized(pretty: pretty) }
}

extension JSONReader {
    func documents<Document: OCIDocument>(_ key: String) throws(JSONError) -> [Document] {
        try map(key) { reader throws(JSONError) in try Document(reader) }
    }

    func document<Document: OCIDocument>(_ key: String) throws(JSONError) -> Document? {
        guard let reader = try optionalObject(key) else { return nil }
        return try Document(reader)
    }

    /// An object of objects; an absent one counts as empty.
    func documentTable<Document: OCIDocument>(_ key: String) throws(JSONError) -> [String: Document] {
        var result: [String: Document] = [:]
        guard let reader = try optionalObject(key) else { return result }
        for (key, reader) in try reader.entries() { result[key] = try Document(reader) }
        return result
    }

    func list(_ key: String) throws(JSONError) -> [String] { try optionalStrings(key) ?? [] }
    func table(_ key: String) throws(JSONError) -> [String: String] { try optionalStringMap(key) ?? [:] }
}
