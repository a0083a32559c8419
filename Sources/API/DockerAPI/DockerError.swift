import HTTPService
import HTTPTypes
import Hummingbird
import JSON
import MasterCore
import Model
import NIOCore
import Wire

/// A refusal in Docker's form: a status and `{"message": …}`.
struct DockerError: Error, Sendable, CustomStringConvertible {
    let status: Int
    let message: String

    init(_ status: Int, _ message: String) {
        self.status = status
        self.message = message
    }

    var description: String { message }

    static func badRequest(_ message: String) -> DockerError { DockerError(400, message) }
    static func notFound(_ message: String) -> DockerError { DockerError(404, message) }
    static func conflict(_ message: String) -> DockerError { DockerError(409, message) }
    /// 501: the route is known, and not served yet.
    static func notImplemented(_ message: String) -> DockerError { DockerError(501, message) }
    /// 400: a field that is known and cannot be honoured.
    static func unsupported(_ field: String, _ why: String) -> DockerError {
        DockerError(400, "\(field) is not supported: \(why)")
    }

    /// Any error as a client of Docker's is told it.
    init(_ error: any Error) {
        switch error {
        case let error as DockerError: self = error
        case let problem as APIProblem: self.init(problem.code.status, problem.message)
        default:
            let known = APIError(error)
            self.init(known.status, known.message)
        }
    }

    /// The body on the wire.
    var body: [UInt8] { JSONValue.object(["message": .string(message)]).serialized() }

    /// What ends a stream whose head has left.
    var streamLine: [UInt8] {
        JSONValue.object([
            "errorDetail": .object(["message": .string(message)]), "error": .string(message),
        ]).serialized()
    }

    var response: Response {
        Response(
            status: HTTPResponse.Status(code: status), headers: [.contentType: "application/json"],
            body: ResponseBody(byteBuffer: ByteBuffer(bytes: body + [UInt8(ascii: "\n")])))
    }
}
