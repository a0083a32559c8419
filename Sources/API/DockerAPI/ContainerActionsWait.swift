import HTTPService
import Hummingbird
import Master
import MasterCore
import Model
import Wire

/// `POST /containers/{id}/wait`: the head leaves at once, since clients start the container only when they have it.
extension DockerAPI {
    func wait(_ call: DockerCall) async throws -> Response {
        let condition: WaitCondition
        switch call.query.text("condition") ?? "not-running" {
        case "not-running": condition = .notRunning
        case "next-exit": condition = .nextExit
        case "removed": condition = .removed
        case let other: throw DockerError.badRequest("invalid condition: \"\(other.prefix(40))\"")
        }
        let view = try await container(call.id)
        // From before the head on: what the client does when it has it may be over in a moment.
        let wait = try await master.beginWait(for: view.id.text, condition)
        return .dockerLines(call.context) { writer in
            var text = JSONText()
            do {
                let result = try await wait.result()
                text.object { $0.member("StatusCode", Int64(result.exitCode)) }
            } catch let problem as APIProblem {
                text.object { text in
                    text.member("StatusCode", Int64(125))
                    text.object("Error") { $0.member("Message", problem.message) }
                }
            }
            try await writer.write(bytes: text.bytes)
        }
    }
}
