import JSON

/// Forms in which Docker writes lists, maps, sets and times.
extension JSONValue {
    static func list(_ texts: some Sequence<String>) -> JSONValue { .array(texts.map { .string($0) }) }

    /// What Docker has as null when there is nothing in it.
    static func listOrNull(_ texts: [String]) -> JSONValue { texts.isEmpty ? .null : list(texts) }

    static func texts(_ values: [String: String]) -> JSONValue {
        var object = JSONObject()
        for (key, value) in values.sorted(by: { $0.key < $1.key }) { object[key] = .string(value) }
        return .object(object)
    }

    /// Keys alone, as Docker writes sets.
    static func set(_ keys: [String]) -> JSONValue {
        var object = JSONObject()
        for key in keys { object[key] = [:] }
        return .object(object)
    }

    static func time(_ time: Timestamp?) -> JSONValue { .string(time.map { "\($0)" } ?? "0001-01-01T00:00:00Z") }
}
