import HTTPTypes
import Hummingbird

/// The media types in which a stream of JSON values is written.
enum JSONStreamType: String, Sendable {
    /// As streams were called before there was a name for them.
    case json = "application/json"
    case lines = "application/jsonl"
    case newlines = "application/x-ndjson"
    /// RFC 7464: a record separator stands before each value.
    case sequence = "application/json-seq"

    /// What `/events` is written in: of what the version knows, what the client names in its Accept header fields; a
    /// wildcard names nothing.
    ///
    /// - Parameter accept: the values of the fields.
    static func events(_ version: APIVersion, accept: [String]) -> JSONStreamType {
        guard version >= .v1_52 else { return .json }
        let known: [JSONStreamType] = version >= .v1_53 ? [.lines, .newlines, .sequence] : [.newlines, .sequence]
        var best: (type: JSONStreamType, weight: Double)?
        for part in accept.flatMap({ $0.split(separator: ",") }) {
            let words = part.split(separator: ";").map { $0.filter { !$0.isWhitespace }.lowercased() }
            guard let type = words.first.flatMap({ JSONStreamType(rawValue: $0) }), known.contains(type) else {
                continue
            }
            let weight = words.dropFirst().first { $0.hasPrefix("q=") }.map { Double($0.dropFirst(2)) ?? 0 } ?? 1
            if weight > best?.weight ?? 0 { best = (type, weight) }
        }
        return best?.type ?? known[0]
    }

    /// A value as it is sent, without the line feed at its end.
    func framed(_ value: [UInt8]) -> [UInt8] { self == .sequence ? [0x1E] + value : value }
}
