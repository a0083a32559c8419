import HTTPTypes
import Hummingbird
import Logging

/// A router for all faces, whose errors are `APIError`s on the wire. Add routes, then give it to `HTTPServer.listen`.
package func makeRouter() -> Router<ServiceContext> {
    let router = Router(context: ServiceContext.self)
    router.add(middleware: ErrorMiddleware())
    return router
}

/// Turns whatever a route throws into the one shape of errors.
private struct ErrorMiddleware: RouterMiddleware {
    func handle(
        _ request: Request, context: ServiceContext, next: (Request, ServiceContext) async throws -> Response
    ) async throws -> Response {
        do {
            return try await next(request, context)
        } catch let error as HTTPError where error.status == .notFound && error.body == nil {
            return APIError.notFound("there is no \(request.method.rawValue) \(request.uri.path)").response
        } catch {
            let known = APIError(error)
            if known.status == 500 {
                context.logger.error(
                    "request failed",
                    metadata: [
                        "method": "\(request.method.rawValue)", "path": "\(request.uri.path)", "error": "\(error)",
                    ])
            }
            return known.response
        }
    }
}

extension HTTPServer {
    /// Completes a router: HEAD for every GET, 405 for the methods that a known path lacks.
    static func responder(for router: Router<ServiceContext>) -> ConnectionLoop.Responder {
        let given = router.buildResponder()
        var routes: [String: (path: RouterPath, methods: Set<HTTPRequest.Method>)] = [:]
        for route in router.routes {
            routes[route.path.description, default: (route.path, [])].methods.insert(route.method)
        }
        for (path, methods) in routes.values {
            var known = methods
            if methods.contains(.get), !methods.contains(.head) {
                known.insert(.head)
                router.on(path, method: .head) { request, context in
                    var head = request.head
                    head.method = .get
                    return try await given.respond(to: Request(head: head, body: request.body), context: context)
                }
            }
            let allowed = known.map(\.rawValue).sorted().joined(separator: ", ")
            let all: [HTTPRequest.Method] = [.get, .head, .post, .put, .patch, .delete, .options, .trace]
            for method in all where !known.contains(method) {
                router.on(path, method: method) { request, _ -> Response in
                    throw APIError(
                        status: 405, code: "method-not-allowed",
                        message: "\(request.uri.path) does not know \(method.rawValue), only \(allowed)",
                        headers: [.allow: allowed])
                }
            }
        }
        let complete = router.buildResponder()
        return { request, context in try await complete.respond(to: request, context: context) }
    }
}
