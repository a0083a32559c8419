import HTTPService
import HTTPTypes
import Hummingbird
import Model

/// One operation of Docker's API.
struct DockerRoute: Sendable {
    typealias Handler = @Sendable (DockerCall) async throws -> Response

    let method: HTTPRequest.Method
    /// What the caller has to be allowed.
    let access: Access
    /// Before it there was no such route.
    let since: APIVersion
    let pattern: [Part]
    let handler: Handler

    /// A part of the path between slashes.
    enum Part: Sendable, Hashable {
        case word(String)
        case parameter(String)
        /// One or more parts: names of images have slashes.
        case parts(String)
    }

    /// - Parameter path: `/containers/{id}/json`; `{name...}` is one or more parts.
    init(
        _ method: HTTPRequest.Method, _ path: String, access: Access, since: APIVersion = .oldest,
        handler: @escaping Handler
    ) {
        self.method = method
        self.access = access
        self.since = since
        self.handler = handler
        pattern = path.split(separator: "/").map { part in
            guard part.hasPrefix("{"), part.hasSuffix("}") else { return .word(String(part)) }
            let name = part.dropFirst().dropLast()
            return name.hasSuffix("...") ? .parts(String(name.dropLast(3))) : .parameter(String(name))
        }
    }

    /// What the path's parts are, percent-decoded; nil when it is another route's.
    func match(_ path: [String]) -> [String: String]? {
        var found: [String: String] = [:]
        var rest = path[...]
        for (index, part) in pattern.enumerated() {
            guard let first = rest.first else { return nil }
            switch part {
            case .word(let word):
                guard first == word else { return nil }
                rest = rest.dropFirst()
            case .parameter(let name):
                guard !first.isEmpty else { return nil }
                found[name] = first
                rest = rest.dropFirst()
            case .parts(let name):
                let count = rest.count - (pattern.count - index - 1)
                guard count >= 1 else { return nil }
                found[name] = rest.prefix(count).joined(separator: "/")
                rest = rest.dropFirst(count)
            }
        }
        return rest.isEmpty ? found : nil
    }
}

/// Finds the route of a request. Those that begin with the same word are tried one after another, in their order.
struct DockerRouteTable: Sendable {
    private let routes: [String: [DockerRoute]]

    init(_ routes: [DockerRoute]) {
        self.routes = Dictionary(grouping: routes) { route in
            if case .word(let word)? = route.pattern.first { word } else { "" }
        }
    }

    /// The first words of all paths.
    var roots: [String] { routes.keys.sorted() }

    enum Outcome {
        case found(DockerRoute, [String: String])
        /// The path has other methods.
        case otherMethod([HTTPRequest.Method])
        case none
    }

    /// - Parameter path: without the version, percent-decoded.
    func find(_ method: HTTPRequest.Method, _ path: [String], in version: APIVersion) -> Outcome {
        var others: [HTTPRequest.Method] = []
        for route in path.first.flatMap({ routes[$0] }) ?? [] where version >= route.since {
            guard let parameters = route.match(path) else { continue }
            if route.method == method || route.method == .get && method == .head { return .found(route, parameters) }
            others.append(route.method)
        }
        return others.isEmpty ? .none : .otherMethod(others)
    }
}
