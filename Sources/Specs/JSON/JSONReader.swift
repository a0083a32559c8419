/// A value and its place, for decoding by hand with errors that name the place.
///
/// Members that are null count as absent, as the writers of OCI and CNI documents mean it. Strings with a NUL
/// character are refused: they end up in C strings, which would end early.
package struct JSONReader: Sendable {
    /// The value at this place.
    package let value: JSONValue
    private let place: Place

    /// A reader at the root of a document.
    package init(_ value: JSONValue) {
        self.value = value
        place = .root
    }

    private init(_ value: JSONValue, _ place: Place) {
        self.value = value
        self.place = place
    }

    private indirect enum Place: Sendable {
        case root
        case inside(Place, JSONPathElement)
    }

    /// The way here, outermost element first.
    package var path: [JSONPathElement] {
        var reversed: [JSONPathElement] = []
        var place = place
        while case .inside(let outer, let element) = place {
            reversed.append(element)
            place = outer
        }
        return reversed.reversed()
    }

    /// An error about this place.
    package func error(_ kind: JSONError.Kind, _ message: String) -> JSONError {
        JSONError(kind, message, at: path)
    }

    /// An error about a member of this object.
    package func error(_ kind: JSONError.Kind, _ key: String, _ message: String) -> JSONError {
        JSONError(kind, message, at: path + [.key(key)])
    }

    // MARK: The value here

    /// The string here.
    package func string() throws(JSONError) -> String {
        guard case .string(let text) = value else { throw mismatch("a string") }
        guard !text.utf8.contains(0) else { throw error(.type, "a NUL character is not allowed here") }
        return text
    }

    /// The boolean here.
    package func bool() throws(JSONError) -> Bool {
        guard case .bool(let bool) = value else { throw mismatch("a boolean") }
        return bool
    }

    /// The integer here; one that does not fit into the wanted type is an error.
    package func integer<T: FixedWidthInteger>(as _: T.Type = T.self) throws(JSONError) -> T {
        switch value.integer(as: T.self) {
        case .value(let number): return number
        case .outOfRange: throw error(.type, JSONValue.rangeMessage(T.self))
        case .otherType: throw mismatch("an integer")
        }
    }

    /// The number here; integers count.
    package func double() throws(JSONError) -> Double {
        guard let number = value.doubleValue else { throw mismatch("a number") }
        return number
    }

    /// The object here.
    package func members() throws(JSONError) -> JSONObject {
        guard case .object(let object) = value else { throw mismatch("an object") }
        return object
    }

    /// Readers of the elements of the array here.
    package func elements() throws(JSONError) -> [JSONReader] {
        guard case .array(let elements) = value else { throw mismatch("an array") }
        return elements.enumerated().map { JSONReader($1, .inside(place, .index($0))) }
    }

    private func mismatch(_ expected: String) -> JSONError {
        error(.type, "expected \(expected), found \(value.typeName)")
    }

    // MARK: Members of the object here

    /// A reader of a member, or nil when it is absent or null.
    package func optional(_ key: String) throws(JSONError) -> JSONReader? {
        guard let member = try members()[key], !member.isNull else { return nil }
        return JSONReader(member, .inside(place, .key(key)))
    }

    /// A reader of a member that must be there.
    package func required(_ key: String) throws(JSONError) -> JSONReader {
        guard let reader = try optional(key) else { throw error(.missing, key, "the member is missing") }
        return reader
    }

    /// A member that is a string.
    package func string(_ key: String) throws(JSONError) -> String { try required(key).string() }
    /// The same, nil when it is absent.
    package func optionalString(_ key: String) throws(JSONError) -> String? { try optional(key)?.string() }
    /// A member that is a boolean.
    package func bool(_ key: String) throws(JSONError) -> Bool { try required(key).bool() }
    /// The same, nil when it is absent.
    package func optionalBool(_ key: String) throws(JSONError) -> Bool? { try optional(key)?.bool() }
    /// A member that is a number.
    package func double(_ key: String) throws(JSONError) -> Double { try required(key).double() }
    /// The same, nil when it is absent.
    package func optionalDouble(_ key: String) throws(JSONError) -> Double? { try optional(key)?.double() }

    /// A member that is an integer within the range of its type.
    package func integer<T: FixedWidthInteger>(_ key: String, as _: T.Type = T.self) throws(JSONError) -> T {
        try required(key).integer()
    }
    /// The same, nil when it is absent.
    package func optionalInteger<T: FixedWidthInteger>(
        _ key: String, as _: T.Type = T.self
    ) throws(JSONError) -> T? {
        try optional(key)?.integer()
    }
    /// A member that is a signed 64-bit integer.
    package func int64(_ key: String) throws(JSONError) -> Int64 { try integer(key) }
    /// The same, nil when it is absent.
    package func optionalInt64(_ key: String) throws(JSONError) -> Int64? { try optionalInteger(key) }
    /// A member that is an unsigned 64-bit integer.
    package func uint64(_ key: String) throws(JSONError) -> UInt64 { try integer(key) }
    /// The same, nil when it is absent.
    package func optionalUInt64(_ key: String) throws(JSONError) -> UInt64? { try optionalInteger(key) }
    /// A member that is a signed 32-bit integer.
    package func int32(_ key: String) throws(JSONError) -> Int32 { try integer(key) }
    /// The same, nil when it is absent.
    package func optionalInt32(_ key: String) throws(JSONError) -> Int32? { try optionalInteger(key) }
    /// A member that is an unsigned 32-bit integer.
    package func uint32(_ key: String) throws(JSONError) -> UInt32 { try integer(key) }
    /// The same, nil when it is absent.
    package func optionalUInt32(_ key: String) throws(JSONError) -> UInt32? { try optionalInteger(key) }

    /// One of an enumeration's raw values; the error lists them all.
    package func choice<T: RawRepresentable & CaseIterable>(
        _ key: String, as _: T.Type = T.self
    ) throws(JSONError) -> T where T.RawValue == String {
        try required(key).choice()
    }

    /// The same for a member that may be absent.
    package func optionalChoice<T: RawRepresentable & CaseIterable>(
        _ key: String, as _: T.Type = T.self
    ) throws(JSONError) -> T? where T.RawValue == String {
        try optional(key)?.choice()
    }

    /// The string here as an enumeration's case.
    package func choice<T: RawRepresentable & CaseIterable>(
        as _: T.Type = T.self
    ) throws(JSONError) -> T where T.RawValue == String {
        let text = try string()
        guard let choice = T(rawValue: text) else {
            let known = T.allCases.map(\.rawValue).joined(separator: ", ")
            throw error(.type, "\(JSONPathElement.quoted(text)) is not one of \(known)")
        }
        return choice
    }

    /// A member that is an object.
    package func object(_ key: String) throws(JSONError) -> JSONReader {
        let reader = try required(key)
        _ = try reader.members()
        return reader
    }

    /// A member that is an object, or absent.
    package func optionalObject(_ key: String) throws(JSONError) -> JSONReader? {
        guard let reader = try optional(key) else { return nil }
        _ = try reader.members()
        return reader
    }

    /// Readers of the elements of a member that is an array.
    package func array(_ key: String) throws(JSONError) -> [JSONReader] { try required(key).elements() }
    /// The same, nil when it is absent.
    package func optionalArray(_ key: String) throws(JSONError) -> [JSONReader]? { try optional(key)?.elements() }

    /// Calls `body` for every element of an array; an absent one counts as empty.
    package func forEach(
        _ key: String, _ body: (JSONReader) throws(JSONError) -> Void
    ) throws(JSONError) {
        for element in try optionalArray(key) ?? [] { try body(element) }
    }

    /// `body` of every element of an array; an absent one counts as empty.
    package func map<T>(
        _ key: String, _ body: (JSONReader) throws(JSONError) -> T
    ) throws(JSONError) -> [T] {
        var result: [T] = []
        for element in try optionalArray(key) ?? [] { result.append(try body(element)) }
        return result
    }

    /// An array of strings.
    package func strings(_ key: String) throws(JSONError) -> [String] { try required(key).strings() }
    /// The same, nil when it is absent.
    package func optionalStrings(_ key: String) throws(JSONError) -> [String]? { try optional(key)?.strings() }

    /// The array of strings here.
    package func strings() throws(JSONError) -> [String] {
        var result: [String] = []
        for element in try elements() { result.append(try element.string()) }
        return result
    }

    /// A member that is an object of strings.
    package func stringMap(_ key: String) throws(JSONError) -> [String: String] { try required(key).stringMap() }
    /// The same, nil when it is absent.
    package func optionalStringMap(_ key: String) throws(JSONError) -> [String: String]? {
        try optional(key)?.stringMap()
    }

    /// The object of strings here.
    package func stringMap() throws(JSONError) -> [String: String] {
        var result: [String: String] = [:]
        for (key, reader) in try entries() { result[key] = try reader.string() }
        return result
    }

    /// The members of the object here with a reader each, in order; null members too.
    package func entries() throws(JSONError) -> [(key: String, reader: JSONReader)] {
        try members().members.map { ($0.key, JSONReader($0.value, .inside(place, .key($0.key)))) }
    }

    /// Refuses members that are not in `known`.
    package func rejectUnknown(known: Set<String>) throws(JSONError) {
        for member in try members().members where !known.contains(member.key) {
            throw error(.unknownField, member.key, "the member is not known")
        }
    }

    /// Refuses members that are not in `known`.
    package func rejectUnknown(known: [String]) throws(JSONError) { try rejectUnknown(known: Set(known)) }
}

extension JSONValue {
    enum IntegerResult<T> {
        case value(T)
        case outOfRange
        case otherType
    }

    /// This value as an integer type. A double counts when it is whole and small enough to be exact.
    func integer<T: FixedWidthInteger>(as _: T.Type) -> IntegerResult<T> {
        switch self {
        case .integer(let number): return T(exactly: number).map { .value($0) } ?? .outOfRange
        case .unsigned(let number): return T(exactly: number).map { .value($0) } ?? .outOfRange
        case .double(let number) where number.rounded() == number && number.magnitude <= 0x1p53:
            return T(exactly: number).map { .value($0) } ?? .outOfRange
        default: return .otherType
        }
    }

    static func rangeMessage<T: FixedWidthInteger>(_: T.Type) -> String {
        "the integer is out of range, \(T.min) to \(T.max) are allowed"
    }
}
