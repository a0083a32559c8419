import HTTPService
import HTTPTypes
import Hummingbird
import JSON
import Kernel
import Model
import NIOCore

/// A request at its route.
struct DockerCall: Sendable {
    let request: Request
    let context: ServiceContext
    let version: APIVersion
    let query: DockerQuery
    fileprivate let parameters: [String: String]

    init(
        request: Request, context: ServiceContext, version: APIVersion, query: DockerQuery, parameters: [String: String]
    ) {
        self.request = request
        self.context = context
        self.version = version
        self.query = query
        self.parameters = parameters
    }

    /// A part of the path, percent-decoded.
    func name(_ parameter: String) -> String { parameters[parameter] ?? "" }

    /// The container, image, network … that `{id}` or `{name}` stands for.
    var id: String { parameters["id"] ?? parameters["name"] ?? "" }

    func filters(_ allowed: Set<String>) throws -> DockerFilters {
        try DockerFilters(query["filters"], allowed: allowed)
    }

    /// The body as JSON; members that are not known are ignored, as dockerd does.
    ///
    /// - Throws: `DockerError` 400 for no body, another media type, or JSON of another shape.
    func body<Value: Decodable & Sendable>(_ type: Value.Type) async throws -> Value {
        guard let value = try await optionalBody(type) else {
            throw DockerError.badRequest("invalid JSON: got EOF while reading request body")
        }
        return value
    }

    /// - Throws: `DockerError` 400 for JSON of another shape.
    static func decode<Value: Decodable>(_ type: Value.Type, from body: JSONValue) throws -> Value {
        do {
            return try JSONCoding.decode(type, from: body)
        } catch let error as JSONError {
            throw DockerError.badRequest("invalid JSON: \(error)")
        }
    }

    /// The same for a body that may be left out.
    func optionalBody<Value: Decodable & Sendable>(_ type: Value.Type) async throws -> Value? {
        let bytes = try await request.jsonBytes(context)
        guard !bytes.isEmpty else { return nil }
        let media = request.headers[.contentType].map { $0.prefix { $0 != ";" }.lowercased() } ?? ""
        guard media == "application/json" else {
            throw DockerError.badRequest("unsupported Content-Type header (\(media)): must be 'application/json'")
        }
        do {
            return try JSONCoding.decode(type, from: bytes, limits: JSONLimits(bytes: bytes.count))
        } catch let error as JSONError {
            throw DockerError.badRequest("invalid JSON: \(error)")
        }
    }
}

/// The query of a request. What a route does not ask for is ignored, as dockerd does; of what is given twice, the first
/// counts.
struct DockerQuery: Sendable {
    private let values: [String: [String]]

    /// - Throws: `DockerError` 400 for a broken escape.
    init(_ text: Substring) throws {
        var values: [String: [String]] = [:]
        for element in text.split(separator: "&") {
            let pair = element.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
            func decoded(_ part: Substring) -> String? { PercentEncoding.decode(part.replacing("+", with: " ")) }
            guard let key = decoded(pair[0]), let value = decoded(pair.count == 2 ? pair[1] : "") else {
                throw DockerError.badRequest("'\(element.prefix(80))' in the query is not percent-encoded UTF-8")
            }
            values[key, default: []].append(value)
        }
        self.values = values
    }

    /// The first value, decoded; nil when it is not given.
    subscript(key: String) -> String? { values[key]?.first }

    /// The same, nil also when it is empty.
    func text(_ key: String) -> String? { self[key].flatMap { $0.isEmpty ? nil : $0 } }

    func list(_ key: String) -> [String] { values[key] ?? [] }

    /// Docker's truth: absent, empty, `0`, `no`, `false` and `none` are false, everything else is true.
    func flag(_ key: String, or value: Bool = false) -> Bool {
        guard let text = self[key] else { return value }
        switch text.lowercased() {
        case "", "0", "no", "false", "none": return false
        default: return true
        }
    }

    /// - Throws: `DockerError` 400 when it is given and no such integer.
    func integer(_ key: String, in range: ClosedRange<Int>) throws -> Int? {
        guard let text = text(key) else { return nil }
        guard let value = Int(text), range.contains(value) else {
            throw DockerError.badRequest(
                "\(key)=\(text.prefix(40)) is not an integer from \(range.lowerBound) to \(range.upperBound)")
        }
        return value
    }

    /// A moment, see `DockerTime`; nil when it is not given.
    ///
    /// - Throws: `DockerError` 400 when it is given and none.
    func time(_ key: String) throws -> Timestamp? {
        guard let text = text(key) else { return nil }
        guard let time = DockerTime.moment(text) else {
            throw DockerError.badRequest("\(key)=\(text.prefix(40)) in the query is no time: \(DockerTime.forms)")
        }
        return time
    }
}

extension Response {
    /// A value as JSON.
    static func docker(_ value: some Encodable, status: HTTPResponse.Status = .ok) throws -> Response {
        try .json(value, status: status)
    }

    /// 204.
    static var noContent: Response { Response(status: .noContent) }

    /// JSON values, each sent as soon as it is written; the head leaves at once. An error becomes the last of them.
    static func dockerLines(
        _ context: ServiceContext, as type: JSONStreamType = .json,
        produce: @escaping @Sendable (LineWriter) async throws -> Void
    ) -> Response {
        var response = Response.lines(context) { writer in
            do {
                try await produce(writer)
            } catch let error where !(error is ClientGone) && !(error is CancellationError) {
                try await writer.write(bytes: type.framed(DockerError(error).streamLine))
            }
        }
        response.headers[.contentType] = type.rawValue
        return response
    }
}
