import HTTPTypes
import Hummingbird
import JSON
import NIOCore
import NIOHTTP1

/// An error as every face of the API understands it: a status, a word for programs, a sentence for people.
///
/// On the wire: `{"error":{"code":"not-found","message":"there is no service named web"}}`.
package struct APIError: Error, Sendable, Equatable, CustomStringConvertible {
    /// HTTP status, 400 to 599.
    package let status: Int
    /// A lower-case word with hyphens that programs may compare: `not-found`.
    package let code: String
    /// One sentence: what failed, on which object, why, what to do next.
    package let message: String
    /// Header fields beside the body, such as `Allow`.
    package let headers: HTTPFields

    package init(status: Int, code: String, message: String, headers: HTTPFields = [:]) {
        self.status = status
        self.code = code
        self.message = message
        self.headers = headers
    }

    package var description: String { "\(status) \(code): \(message)" }

    /// 400: the request says something that cannot be meant.
    package static func badRequest(_ message: String, code: String = "bad-request") -> APIError {
        APIError(status: 400, code: code, message: message)
    }

    /// 403: the caller may not do this.
    package static func forbidden(_ message: String) -> APIError {
        APIError(status: 403, code: "forbidden", message: message)
    }

    /// 404: the object named in the request does not exist.
    package static func notFound(_ message: String) -> APIError {
        APIError(status: 404, code: "not-found", message: message)
    }

    /// 408: the client was too slow to send its request.
    package static func requestTimeout(_ message: String) -> APIError {
        APIError(status: 408, code: "request-timeout", message: message)
    }

    /// 409: the object's present state does not allow this.
    package static func conflict(_ message: String, code: String = "conflict") -> APIError {
        APIError(status: 409, code: code, message: message)
    }

    /// 413: more bytes than allowed.
    package static func tooLarge(_ message: String) -> APIError {
        APIError(status: 413, code: "too-large", message: message)
    }

    /// 500: something here failed that the client can do nothing about.
    package static func internalError(_ message: String) -> APIError {
        APIError(status: 500, code: "internal", message: message)
    }

    /// 501: known, but not supported; the message names it.
    package static func unsupported(_ message: String) -> APIError {
        APIError(status: 501, code: "unsupported", message: message)
    }

    /// 503: not now; later may help.
    package static func unavailable(_ message: String, code: String = "unavailable") -> APIError {
        APIError(status: 503, code: code, message: message)
    }

    /// The answer to requests that are still waiting when the daemon stops.
    static let shuttingDown = APIError.unavailable(
        "the daemon is shutting down; repeat the request when it runs again", code: "shutting-down")
}

extension APIError {
    /// The last line of a stream that ends with it.
    package var line: [UInt8] {
        JSONValue.object(["error": .object(["code": .string(code), "message": .string(message)])]).serialized()
    }

    /// The body of an answer. What is refused before a face has the request (no credential, no HTTP) is told to clients
    /// of all faces: Docker's look for `message` beside `error`.
    package var body: [UInt8] {
        JSONValue.object([
            "error": .object(["code": .string(code), "message": .string(message)]), "message": .string(message),
        ]).serialized()
    }

    /// The whole response.
    package var response: Response {
        var fields = headers
        fields[.contentType] = "application/json"
        return Response(
            status: HTTPResponse.Status(code: status), headers: fields,
            body: ResponseBody(byteBuffer: ByteBuffer(bytes: body + [UInt8(ascii: "\n")])))
    }

    /// The API's view of any error. What is not known here becomes 500 with the error's own text.
    package init(_ error: any Error) {
        switch error {
        case let error as APIError: self = error
        case let error as JSONError: self = APIError(error)
        case let error as HTTPParserError: self = APIError(error)
        case let error as any HTTPResponseError:
            let status = Int(error.status.code)
            self = APIError(status: status, code: Self.code(of: status), message: Self.message(of: error))
        default: self = .internalError("\(error)")
        }
    }

    private init(_ error: JSONError) {
        let (status, code) =
            switch error.kind {
            case .tooLarge: (413, "too-large")
            case .syntax: (400, "invalid-json")
            case .tooDeep: (400, "too-deep")
            case .invalidUTF8: (400, "invalid-utf8")
            case .type: (400, "wrong-type")
            case .missing: (400, "missing-field")
            case .unknownField: (400, "unknown-field")
            }
        self.init(status: status, code: code, message: "the JSON body is not accepted: \(error)")
    }

    private init(_ error: HTTPParserError) {
        switch error {
        case .headerOverflow:
            self.init(
                status: 431, code: "headers-too-large", message: "the request's header fields are larger than allowed")
        case .invalidVersion:
            self.init(status: 505, code: "http-version", message: "only HTTP/1.0 and HTTP/1.1 are spoken here")
        default:
            self = .badRequest("the request is not valid HTTP/1.1: \(error)", code: "invalid-http")
        }
    }

    private static func message(of error: any HTTPResponseError) -> String {
        if let error = error as? HTTPError, let body = error.body { return body }
        return error.status.reasonPhrase
    }

    private static func code(of status: Int) -> String {
        switch status {
        case 401: "unauthorized"
        case 403: "forbidden"
        case 404: "not-found"
        case 405: "method-not-allowed"
        case 408: "request-timeout"
        case 409: "conflict"
        case 413: "too-large"
        case 415: "unsupported-media-type"
        case 503: "unavailable"
        case 500...: "internal"
        default: "bad-request"
        }
    }
}

/// The client has gone away; nobody is left to answer.
package struct ClientGone: Error, CustomStringConvertible {
    package init() {}
    package var description: String { "the client closed the connection" }
}
