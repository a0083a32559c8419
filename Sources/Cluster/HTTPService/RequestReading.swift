import HTTPTypes
import Hummingbird
import JSON
import NIOCore

extension Request {
    /// The body as one JSON value of this type, read strictly: an unknown field is an error that names it.
    ///
    /// - Throws: `APIError` 413 above the limit (declared or chunked), 408 when it takes too long, 400 for an empty
    ///   body; `JSONError` for what is not accepted, which is answered 400 or 413.
    package func json<T: Decodable & Sendable>(_ type: T.Type, _ context: ServiceContext) async throws -> T {
        let bytes = try await jsonBytes(context)
        guard !bytes.isEmpty else { throw APIError.badRequest("a JSON body is expected and there is none") }
        return try JSONCoding.decode(type, from: bytes, strict: true, limits: JSONLimits(bytes: bytes.count))
    }

    /// The same for a body that may be absent.
    package func optionalJSON<T: Decodable & Sendable>(_ type: T.Type, _ context: ServiceContext) async throws -> T? {
        let bytes = try await jsonBytes(context)
        if bytes.isEmpty { return nil }
        return try JSONCoding.decode(type, from: bytes, strict: true, limits: JSONLimits(bytes: bytes.count))
    }

    /// The body's bytes within the bounds for JSON.
    ///
    /// Uploads without bound are read from `body` piece by piece instead: no more is taken from the connection than the
    /// route reads.
    package func jsonBytes(_ context: ServiceContext) async throws -> [UInt8] {
        let limits = context.connection.limits
        if let declared = headers[.contentLength].flatMap({ Int($0) }), declared > limits.jsonBody {
            throw Self.tooLarge(limits)
        }
        let overdue = Signal()
        let timer = context.connection.channel.eventLoop.scheduleTask(in: TimeAmount(limits.jsonBodyTimeout)) {
            overdue.fire()
        }
        defer { timer.cancel() }
        do {
            let bytes = try await Signal.cancelling(at: overdue, or: overdue) { try await collect(limits) }
            // What is cancelled may have ended before the body did.
            if !overdue.isFired { return bytes }
        } catch {
            if !overdue.isFired { throw error }
        }
        let seconds = limits.jsonBodyTimeout.components.seconds
        throw APIError.requestTimeout("the request's body was not complete within \(seconds) s")
    }

    private func collect(_ limits: ServiceLimits) async throws -> [UInt8] {
        var bytes: [UInt8] = []
        for try await piece in body {
            guard bytes.count + piece.readableBytes <= limits.jsonBody else { throw Self.tooLarge(limits) }
            bytes.append(contentsOf: piece.readableBytesView)
        }
        return bytes
    }

    private static func tooLarge(_ limits: ServiceLimits) -> APIError {
        .tooLarge("the body is larger than the \(limits.jsonBody) bytes allowed")
    }
}

/// The query of a request, `?a=1&b=2`, decoded once and strictly.
package struct Query: Sendable {
    private let values: [String: [String]]

    /// - Parameters:
    ///   - known: the keys that the route understands; any other is an error that names it.
    ///   - lists: those of them that may be given several times.
    /// - Throws: `APIError` 400 for an unknown or repeated key or a broken escape.
    package init(_ request: Request, known: Set<String>, lists: Set<String> = []) throws(APIError) {
        var values: [String: [String]] = [:]
        for element in (request.uri.query ?? "").split(separator: "&") {
            let pair = element.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
            guard let key = PercentEncoding.decode(pair[0]),
                let value = PercentEncoding.decode(pair.count == 2 ? pair[1] : "")
            else {
                throw .badRequest("'\(element)' in the query is not percent-encoded UTF-8")
            }
            guard known.contains(key) else {
                throw .badRequest("the query parameter '\(key)' is not known here", code: "unknown-field")
            }
            guard values[key] == nil || lists.contains(key) else {
                throw .badRequest("the query parameter '\(key)' is given twice")
            }
            values[key, default: []].append(value)
        }
        self.values = values
    }

    /// The value, decoded; nil when it is not given.
    package subscript(key: String) -> String? { values[key]?.first }

    /// All values of a key that may be given several times.
    package func list(_ key: String) -> [String] { values[key] ?? [] }

    /// Whether a flag is set: `?key`, `=1` and `=true` are yes, absence, `=0` and `=false` no.
    package func flag(_ key: String) throws(APIError) -> Bool {
        switch self[key] {
        case nil, "0", "false": false
        case "", "1", "true": true
        case .some(let other): throw .badRequest("\(key)=\(other) in the query is neither true nor false")
        }
    }

    /// An integer in bounds; nil when it is not given.
    package func integer(_ key: String, in range: ClosedRange<Int64>) throws(APIError) -> Int64? {
        guard let text = self[key] else { return nil }
        guard let value = Int64(text), range.contains(value) else {
            throw .badRequest(
                "\(key)=\(text) in the query is not an integer from \(range.lowerBound) to \(range.upperBound)")
        }
        return value
    }
}
