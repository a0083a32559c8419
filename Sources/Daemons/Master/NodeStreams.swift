import Client
import HTTPService
import HTTPTypes
import Hummingbird
import JSON
import Kernel
import MasterCore
import Model
import NIOCore
import NIOHTTP1
import Wire

/// Passes requests on to the agent that has what they are about: logs, sessions, archives, images, volumes.
///
/// Bodies flow in both directions only as fast as their reader takes them.
package struct NodeStreams: Sendable {
    package typealias Method = HTTPMethod

    /// All routes of an agent's stream port are below it.
    package static let prefix = "/node/v1"

    /// The code of the error that an agent cannot be reached.
    static let unreachable = "node-unreachable"

    private let client: APIClient
    /// For errors.
    private let nodeName: String

    init(_ client: APIClient, nodeName: String) {
        self.client = client
        self.nodeName = nodeName
    }

    /// The agent's path of something about a task.
    package static func path(_ task: TaskID, _ what: String) -> String {
        "/tasks/\(PercentEncoding.encode(task.text))/\(what)"
    }

    /// Passes a request on and its answer back, both as streams.
    ///
    /// - Parameters:
    ///   - path: below the prefix, percent-encoded.
    ///   - query: percent-encoded, without `?`.
    ///   - upload: the request's body goes along; otherwise it has none.
    package func relay(
        _ request: Request, _ method: HTTPMethod, _ path: String, query: String = "", upload: Bool = false
    ) async throws -> Hummingbird.Response {
        let answer = try await send(
            method, path, query, body: upload ? .stream(request.body, contentType: "application/x-tar") : .none)
        var headers: HTTPFields = [:]
        for name in Self.passedOn {
            if let field = HTTPField.Name(name), let value = answer.headers.first(name: name) { headers[field] = value }
        }
        let status = HTTPResponse.Status(code: answer.status)
        if method == .HEAD || answer.status == 204 { return Hummingbird.Response(status: status, headers: headers) }
        let body = answer.body
        return Hummingbird.Response(
            status: status, headers: headers,
            body: ResponseBody { writer in
                for try await piece in body { try await writer.write(piece) }
                try await writer.finish(nil)
            })
    }

    /// What of an answer's head is the client's business.
    private static let passedOn = ["content-type", PathStat.header]

    /// Asks for a body that is read as it comes.
    ///
    /// - Throws: `APIError` with the agent's refusal.
    package func open(_ method: HTTPMethod, _ path: String, query: String = "") async throws -> Client.Response {
        do {
            return try await client.request(method, target(path, query)).checked()
        } catch let error as ClientError {
            throw problem(error)
        }
    }

    private func send(
        _ method: HTTPMethod, _ path: String, _ query: String, body: APIClient.Body
    ) async throws -> Client.Response {
        do {
            return try await client.request(method, target(path, query), body: body)
        } catch let error as ClientError {
            throw problem(error)
        }
    }

    private func target(_ path: String, _ query: String) -> String {
        Self.prefix + path + (query.isEmpty ? "" : "?\(query)")
    }

    /// Joins the client's connection with one to the agent: bytes in both directions, each end passed on.
    package func join(
        _ request: Request, _ context: ServiceContext, _ path: String, query: String = ""
    ) async throws -> Hummingbird.Response {
        let agent: RawConnection
        do {
            agent = try await client.upgrade(.POST, target(path, query))
        } catch let error as ClientError {
            throw problem(error)
        }
        do {
            return try context.takeOver(request, as: RawConnection.framesProtocol) { stream in
                failpoint("master.during_session")
                try await agent.relay(
                    from: stream.inbound, write: { try await stream.write($0) }, finish: { stream.finish() },
                    closed: { await stream.untilClosed() })
            }
        } catch {
            agent.close()
            throw error
        }
    }

    /// A connection of frames with the agent: a session, or the place in one that is to begin.
    ///
    /// - Parameter body: what goes along that is too long for a query.
    /// - Throws: `APIError` with the agent's refusal.
    package func frames(
        _ path: String, query: String = "", body: APIClient.Body = .none
    ) async throws -> RawConnection {
        do {
            return try await client.upgrade(.POST, target(path, query), body: body)
        } catch let error as ClientError {
            throw problem(error)
        }
    }

    /// Sends a request's body on, and returns when the agent has done what it is for.
    ///
    /// - Throws: `APIError` with the agent's refusal.
    package func upload(
        _ request: Request, _ method: HTTPMethod, _ path: String, query: String = ""
    ) async throws {
        do {
            let answer = try await client.request(
                method, target(path, query), body: .stream(request.body, contentType: "application/x-tar"))
            _ = try await answer.checked().bytes()
        } catch let error as ClientError {
            throw problem(error)
        }
    }

    /// Asks the agent for a JSON value.
    package func json<Value: Decodable>(
        _ type: Value.Type, _ method: HTTPMethod, _ path: String, query: String = "", body: APIClient.Body = .none
    ) async throws -> Value {
        do {
            return try await client.json(method, target(path, query), body: body, as: type)
        } catch let error as ClientError {
            throw problem(error)
        }
    }

    /// Asks for a stream of JSON lines.
    package func lines(_ method: HTTPMethod, _ path: String, body: APIClient.Body = .none) async throws -> LineSequence
    {
        do {
            return try await client.lines(method, target(path, ""), body: body)
        } catch let error as ClientError {
            throw problem(error)
        }
    }

    /// Has the agent do something whose answer says nothing.
    package func perform(
        _ method: HTTPMethod, _ path: String, query: String = "", body: APIClient.Body = .none
    ) async throws {
        do {
            try await client.send(method, target(path, query), body: body)
        } catch let error as ClientError {
            throw problem(error)
        }
    }

    /// The agent's refusal is the client's answer; that it cannot be reached is 503.
    private func problem(_ error: ClientError) -> APIError {
        if let status = error.status, (400...599).contains(status) {
            return APIError(status: status, code: error.code ?? "node-error", message: error.message)
        }
        return .unavailable("the node \(nodeName) does not answer: \(error.message)", code: Self.unreachable)
    }
}
