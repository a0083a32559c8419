import HTTPService
import HTTPTypes
import Hummingbird
import JSON
import Model
import Wire

/// One route of the API, with what the OpenAPI document says about it: both are made from the same table.
struct Operation: Sendable {
    typealias Handler = @Sendable (Call) async throws -> Response

    /// What a body consists of.
    enum Content: Sendable {
        case none
        case json(any (Decodable & SendableMetatype).Type)
        /// The same, but it may be left out.
        case optionalJSON(any (Decodable & SendableMetatype).Type)
        /// One JSON value a line.
        case lines(any (Decodable & SendableMetatype).Type)
        /// Bytes of this media type.
        case bytes(String)
        /// The connection is given over to frames in both directions.
        case frames
    }

    struct Parameter: Sendable {
        enum Kind: Sendable { case flag, text, integer, list }
        var name: String
        var kind: Kind
        var summary: String

        static func flag(_ name: String, _ summary: String) -> Parameter {
            .init(name: name, kind: .flag, summary: summary)
        }
        static func text(_ name: String, _ summary: String) -> Parameter {
            .init(name: name, kind: .text, summary: summary)
        }
        static func integer(_ name: String, _ summary: String) -> Parameter {
            .init(name: name, kind: .integer, summary: summary)
        }
        /// May be given several times.
        static func list(_ name: String, _ summary: String) -> Parameter {
            .init(name: name, kind: .list, summary: summary)
        }
    }

    var method: HTTPRequest.Method
    /// What the caller has to be allowed.
    var access: Access
    /// `/api/v1/containers/{container}`.
    var path: String
    var summary: String
    var query: [Parameter]
    var body: Content
    /// What comes with the first of the statuses.
    var answer: Content
    /// All that the route answers itself, the usual first; every route may answer 400, 500 and 503 besides.
    var statuses: [Int]
    var handler: Handler

    init(
        _ method: HTTPRequest.Method, access: Access, _ path: String, _ summary: String, query: [Parameter] = [],
        body: Content = .none, answer: Content = .none, statuses: [Int], handler: @escaping Handler
    ) {
        self.method = method
        self.access = access
        self.path = path
        self.summary = summary
        self.query = query
        self.body = body
        self.answer = answer
        self.statuses = statuses
        self.handler = handler
    }

    /// - Throws: `APIError` 403.
    private static func require(_ access: Access, _ context: ServiceContext) throws(APIError) {
        let subject = Subject.current
        let node = context.parameters.get("node") == nil ? nil : NodeID(try context.pathParameter("node"))
        guard !subject.may(access, node: node) else { return }
        throw .forbidden("\(subject.title) may not do this, which takes the right '\(access.rawValue)'")
    }

    /// The first segment below the root: what the route is about.
    var subject: String {
        let segments = path.split(separator: "/")
        return path.hasPrefix(APIPaths.root) && segments.count > 2 ? String(segments[2]) : "system"
    }

    func add(to router: Router<ServiceContext>) {
        let known = Set(query.map(\.name))
        let lists = Set(query.filter { $0.kind == .list }.map(\.name))
        let (handler, access) = (handler, access)
        router.on(RouterPath(path), method: method) { request, context in
            try Self.require(access, context)
            let query = try HTTPService.Query(request, known: known, lists: lists)
            return try await APIError.translating {
                try await handler(Call(request: request, context: context, query: query))
            }
        }
    }
}

/// A request at its route.
struct Call: Sendable {
    let request: Request
    let context: ServiceContext
    let query: HTTPService.Query

    /// A segment of the path.
    func name(_ parameter: String) throws(APIError) -> String { try context.pathParameter(parameter) }

    func body<Value: Decodable & Sendable>(_ type: Value.Type) async throws -> Value {
        try await request.json(type, context)
    }

    /// A flag that is on unless the client turns it off.
    func flag(_ name: String, default value: Bool) throws(APIError) -> Bool {
        query[name] == nil ? value : try query.flag(name)
    }

    /// A time: RFC 3339, or seconds since 1970 with or without a fraction.
    func time(_ name: String) throws(APIError) -> Timestamp? {
        guard let text = query[name] else { return nil }
        if let time = Timestamp(rfc3339: text) { return time }
        guard let seconds = Double(text), seconds.isFinite, abs(seconds) < 9e9 else {
            throw .badRequest(
                "\(name)=\(text) in the query is neither a time as 2026-01-31T12:00:00Z nor seconds since 1970")
        }
        return Timestamp(nanoseconds: Int64(seconds * 1e9))
    }

    /// The query as it came, without the parameters that are the master's own.
    func rawQuery(without own: Set<String> = []) -> String {
        (request.uri.query ?? "").split(separator: "&").filter { element in
            let key = element.prefix { $0 != "=" }
            return !own.contains(PercentEncoding.decode(key) ?? "")
        }.joined(separator: "&")
    }
}

extension APIError {
    init(_ problem: APIProblem) {
        self.init(status: problem.code.status, code: problem.code.rawValue, message: problem.message)
    }

    /// Does something in which the core may refuse, and gives its refusal HTTP's form.
    static func translating<Value>(_ work: () async throws -> Value) async throws -> Value {
        do {
            return try await work()
        } catch let problem as APIProblem {
            throw APIError(problem)
        }
    }
}
