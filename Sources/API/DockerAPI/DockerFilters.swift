import JSON
import Model

/// The query parameter `filters`: `{"label": ["a=b"], "status": ["running"]}`, or the older form with
/// `{"label": {"a=b": true}}`. Values of one key are alternatives unless a route says otherwise.
struct DockerFilters: Sendable {
    private let values: [String: [String]]

    /// - Parameters:
    ///   - text: nil or empty: no filters.
    ///   - allowed: keys that the route knows.
    /// - Throws: `DockerError` 400 for what is not such JSON, or a key that is not known.
    init(_ text: String?, allowed: Set<String>) throws {
        guard let text, !text.isEmpty else {
            values = [:]
            return
        }
        var values: [String: [String]] = [:]
        do {
            let object = JSONReader(try JSONValue.parse(text, limits: JSONLimits(bytes: 1 << 20, depth: 4)))
            for (key, reader) in try object.entries() {
                if case .object = reader.value {
                    values[key] = try reader.entries().compactMap { try $0.reader.bool() ? $0.key : nil }
                } else {
                    values[key] = try reader.strings()
                }
            }
        } catch {
            throw DockerError.badRequest(
                "invalid filter: filters in the query is no JSON as {\"label\":[\"a=b\"]}: \(error)")
        }
        for key in values.keys.sorted() where !allowed.contains(key) {
            throw DockerError.badRequest(
                "invalid filter '\(key.prefix(80))': this path knows \(allowed.sorted().joined(separator: ", "))")
        }
        self.values = values.filter { !$0.value.isEmpty }
    }

    var isEmpty: Bool { values.isEmpty }

    /// All values of a key; empty when it is not given.
    subscript(key: String) -> [String] { values[key] ?? [] }

    func has(_ key: String) -> Bool { values[key] != nil }

    /// A filter that is either true or false; nil when it is not given.
    ///
    /// - Throws: `DockerError` 400 for any other value, or for both.
    func flag(_ key: String) throws -> Bool? {
        guard let values = values[key] else { return nil }
        let truths = try Set(
            values.map { text -> Bool in
                switch text {
                case "1", "true", "True", "TRUE", "t", "T": return true
                case "0", "false", "False", "FALSE", "f", "F": return false
                default:
                    throw DockerError.badRequest("invalid filter '\(key)=[\(text.prefix(80))]': write true or false")
                }
            })
        guard truths.count == 1, let truth = truths.first else {
            throw DockerError.badRequest("invalid filter '\(key)': true and false exclude each other")
        }
        return truth
    }

    /// Moments, see `DockerTime`.
    ///
    /// - Throws: `DockerError` 400 for what is none.
    func moments(_ key: String) throws -> [Timestamp] {
        try self[key].map { text in
            guard let time = DockerTime.moment(text) else {
                throw DockerError.badRequest(
                    "invalid filter '\(key)=\(text.prefix(80))': it is no time: \(DockerTime.forms)")
            }
            return time
        }
    }

    /// The moment of a filter that can be given once; nil when it is not given.
    ///
    /// - Throws: `DockerError` 400 for what is none, and for several.
    func moment(_ key: String) throws -> Timestamp? {
        let moments = try moments(key)
        guard moments.count <= 1 else {
            throw DockerError.badRequest("invalid filter '\(key)': it is given \(moments.count) times, give one")
        }
        return moments.first
    }

    /// Whether the labels have every one of the key's `key` or `key=value`.
    func allow(labels: [String: String], key: String = "label") -> Bool {
        self[key].allSatisfy { LabelSelector($0).matches(labels) }
    }

    /// Whether one of the key's values is a part of one of the texts; true when the key is not given.
    func allow(_ key: String, within texts: [String]) -> Bool {
        guard let wanted = values[key] else { return true }
        return wanted.contains { part in texts.contains { $0.contains(part) } }
    }
}
