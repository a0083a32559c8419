import HTTPService
import HTTPTypes
import Hummingbird
import Kernel
import Logging
import Master
import MasterCore
import Model
import Wire

/// The Docker Engine API, 1.24 to 1.56, over all nodes as if they were one engine.
///
/// It follows the shapes and status codes of Moby's `api/swagger.yaml`. What is refused is refused by name:
/// docs/docker-api.md lists all commands with what works, differs or is refused.
package struct DockerAPI: Sendable {
    let master: ClusterMaster
    let sessions = ExecSessions()
    let configurations = ImageConfigurations()

    package init(_ master: ClusterMaster) { self.master = master }

    /// Adds the API to a master's listener.
    package static let face: MasterFace = { router, master in DockerAPI(master).add(to: router) }

    var routes: [DockerRoute] {
        [
            systemRoutes, eventRoutes, createRoutes, inspectRoutes, containerRoutes, streamRoutes, contentRoutes,
            imageRoutes, volumeRoutes, networkRoutes, refusedRoutes,
        ].flatMap(\.self)
    }

    private static let methods: [HTTPRequest.Method] = [.get, .head, .post, .put, .delete, .patch, .options]

    /// Adds all paths, with a version before them and without.
    package func add(to router: Router<ServiceContext>) {
        let table = DockerRouteTable(routes)
        // `/system/…` is another face's but for this.
        let roots = table.roots.filter { $0 != "system" }.flatMap { ["/\($0)", "/\($0)/**"] } + ["/system/df"]
        for path in roots + ["/v1.{version}/**"] {
            for method in Self.methods {
                router.on(RouterPath(path), method: method) { request, context in
                    await self.answer(request, context, table)
                }
            }
        }
    }

    private func answer(_ request: Request, _ context: ServiceContext, _ table: DockerRouteTable) async -> Response {
        var response: Response
        do {
            response = try await dispatch(request, context, table)
        } catch {
            let refusal = DockerError(error)
            if refusal.status >= 500, refusal.status != 501 {
                context.logger.error(
                    "a Docker request failed",
                    metadata: [
                        "method": "\(request.method.rawValue)", "path": "\(request.uri.path)", "error": "\(error)",
                    ]
                )
            }
            response = refusal.response
        }
        for field in Self.identity { response.headers[field.name] = field.value }
        return response
    }

    /// What clients learn about the server from every answer.
    private static let identity: HTTPFields = [
        .apiVersion: "\(APIVersion.newest)", .dockerExperimental: "false", .osType: "linux",
        .server: "Docker/\(Version.number) (linux)",
    ]

    private func dispatch(
        _ request: Request, _ context: ServiceContext, _ table: DockerRouteTable
    ) async throws -> Response {
        let target = (request.head.path ?? "/").split(separator: "?", maxSplits: 1, omittingEmptySubsequences: false)
        var path = try target[0].split(separator: "/").map { part in
            guard let text = PercentEncoding.decode(part) else {
                throw DockerError.badRequest("'\(part.prefix(80))' in the path is not percent-encoded UTF-8")
            }
            return text
        }
        let version = try Self.takeVersion(&path)
        switch table.find(request.method, path, in: version) {
        case .found(let route, let parameters):
            let subject = Subject.current
            guard subject.may(route.access) else {
                throw DockerError(
                    403, "\(subject.title) may not do this, which takes the right '\(route.access.rawValue)'")
            }
            let query = try DockerQuery(target.count == 2 ? target[1] : "")
            return try await route.handler(
                DockerCall(request: request, context: context, version: version, query: query, parameters: parameters))
        case .otherMethod(let others):
            let allowed = others.map(\.rawValue).sorted().joined(separator: ", ")
            var response = DockerError(
                405, "\(request.uri.path) does not know \(request.method.rawValue), only \(allowed)"
            )
            .response
            response.headers[.allow] = allowed
            return response
        case .none: throw DockerError.notFound("page not found")
        }
    }

    /// Takes `v1.41` from the path's front.
    private static func takeVersion(_ path: inout [String]) throws -> APIVersion {
        guard let first = path.first, first.hasPrefix("v1.") else { return .newest }
        guard let version = APIVersion(first.dropFirst()) else { throw DockerError.notFound("page not found") }
        guard version <= .newest else {
            throw DockerError.badRequest(
                "client version \(version) is too new. Maximum supported API version is \(APIVersion.newest)")
        }
        guard version >= .oldest else {
            throw DockerError.badRequest(
                "client version \(version) is too old. Minimum supported API version is \(APIVersion.oldest), please "
                    + "upgrade your client to a newer version")
        }
        path.removeFirst()
        return version
    }
}

extension HTTPField.Name {
    static let apiVersion = Self.known("Api-Version")
    static let dockerExperimental = Self.known("Docker-Experimental")
    static let osType = Self.known("Ostype")
    static let builderVersion = Self.known("Builder-Version")
    static let swarm = Self.known("Swarm")
    static let pragma = Self.known("Pragma")
    static let registryAuth = Self.known("X-Registry-Auth")
    static let pathStat = Self.known("X-Docker-Container-Path-Stat")

    /// A name that is a token of RFC 9110: none of ours is not.
    private static func known(_ name: String) -> HTTPField.Name {
        guard let name = HTTPField.Name(name) else { preconditionFailure("\(name) is no header field") }
        return name
    }
}
