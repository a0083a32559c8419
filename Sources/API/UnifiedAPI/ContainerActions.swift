import Client
import HTTPService
import HTTPTypes
import Hummingbird
import Master
import MasterCore
import Model
import NIOHTTP1
import Wire

extension UnifiedAPI {
    private static let path = "\(APIPaths.containers)/{container}"

    /// start, stop, restart, kill, pause, unpause; wait.
    var containerActions: [Operation] {
        ContainerAction.Verb.allCases.map { verb in
            Operation(
                .post, access: .work, "\(Self.path)/\(verb.rawValue)", Self.summary(verb),
                query: [.flag("wait", "Answer when the node has done it.")],
                body: .optionalJSON(ContainerAction.self), statuses: [204, 304, 404, 409, 504, 507]
            ) { call in
                try await act(verb, call)
            }
        } + [
            Operation(
                .post, access: .read, "\(Self.path)/wait",
                "Wait for a container; the head of the answer comes at once.",
                query: [
                    .text(
                        "condition",
                        "started, stopped (for good; the default), not-running, next-exit, paused, unpaused or removed."
                    )
                ],
                answer: .json(WaitResult.self), statuses: [200, 404, 409]
            ) { call in
                let text = call.query["condition"] ?? "stopped"
                guard let condition = WaitCondition(rawValue: text) else {
                    let known = WaitCondition.allCases.map(\.rawValue).joined(separator: ", ")
                    throw APIError.badRequest("condition=\(text) in the query is none of \(known)")
                }
                // A container that does not exist is said so before the head leaves.
                let id = try await containerView(call.name("container")).id
                return .lines(call.context) { writer in
                    let result = try await APIError.translating { try await waited(id, condition) }
                    try await writer.write(result)
                }
            },
            Operation(
                .patch, access: .work, Self.path,
                "Change a container's name, limits or restart policy: what is given changes, without a restart.",
                query: [.flag("wait", "Answer when the node has done it.")],
                body: .json(UpdateContainer.self), answer: .json(ContainerView.self),
                statuses: [200, 404, 409, 413, 504, 507]
            ) { call in
                try await update(call)
            },
        ]
    }

    private func update(_ call: Call) async throws -> Response {
        let wish = try await call.body(UpdateContainer.self)
        let reply = try await master.perform(.updateContainer(call.name("container"), wish))
        guard case .container(let view) = reply else { throw APIProblem.unexpected }
        guard try call.query.flag("wait") else { return try .json(view) }
        let failure = try await call.context.untilPeerCloses {
            try await within(.seconds(30)) { try await master.waitForUpdate(of: view) }
        }
        switch failure {
        case .success(let present)?: return try .json(present)
        case .failure(let problem)?: throw problem
        case nil:
            throw APIProblem(
                .timeout,
                "the node \(view.nodeName) has not done it yet; it goes on, see `martlet inspect \(view.name)`")
        }
    }

    private static func summary(_ verb: ContainerAction.Verb) -> String {
        switch verb {
        case .start: "Start a container that was prepared or has ended."
        case .stop: "Stop a container: its stop signal, and SIGKILL after the grace."
        case .restart: "Stop a container if it runs, and start it."
        case .kill: "Send a signal, SIGKILL unless the body names another."
        case .pause: "Freeze a container."
        case .unpause: "Let a frozen container go on."
        }
    }

    private func waited(_ id: ContainerID, _ condition: WaitCondition) async throws -> WaitResult {
        do {
            return try await master.wait(for: id.text, condition)
        } catch let problem as APIProblem where problem.code == .notFound {
            return WaitResult(exitCode: 0, message: condition == .removed ? "" : "the container was removed")
        }
    }

    private func act(_ verb: ContainerAction.Verb, _ call: Call) async throws -> Response {
        let action = try await call.request.optionalJSON(ContainerAction.self, call.context) ?? ContainerAction()
        let waits = try call.query.flag("wait")
        let before = try await containerView(call.name("container"))
        switch try await master.perform(.act(before.id.text, verb, action)) {
        // What was asked for before may still be under way.
        case .alreadySo where !waits || verb != .stop && verb != .start: return Response(status: .notModified)
        case .passThrough(let location, let signal):
            guard let task = location.task else {
                throw APIProblem(.conflict, "the container \(location.name) is not running")
            }
            try await master.streams(location).perform(
                .POST, NodeStreams.path(task, "signal"), query: "signal=\(signal)")
            return Response.empty
        default: break
        }
        guard waits else { return Response.empty }
        let patience = Duration.seconds((action.grace ?? before.spec.stopGrace) + 60)
        let done = try await call.context.untilPeerCloses {
            try await within(patience) { try await finish(verb, before) }
        }
        guard done == true else {
            throw APIProblem(
                .timeout,
                "the node \(before.nodeName) has not done it yet; it goes on, see `martlet inspect \(before.name)`")
        }
        return Response.empty
    }

    /// Waits until the node has done what the verb asks for.
    ///
    /// - Throws: `APIProblem` 409 when it could not be started.
    private func finish(_ verb: ContainerAction.Verb, _ before: ContainerView) async throws -> Bool {
        let id = before.id.text
        do {
            switch verb {
            case .start, .restart:
                let result = try await master.wait(for: id, .started)
                guard result.exitCode == 0 else {
                    throw APIProblem(.conflict, "the container \(before.name) could not be started: \(result.message)")
                }
            case .stop, .kill: _ = try await master.wait(for: id, .stopped)
            case .pause: _ = try await master.wait(for: id, .paused)
            case .unpause: _ = try await master.wait(for: id, .unpaused)
            }
        } catch let problem as APIProblem where problem.code == .notFound {
            // It was removed meanwhile: what was asked for can only have ended with it.
        }
        return true
    }
}
