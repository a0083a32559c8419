import Client
import HTTPService
import HTTPTypes
import Hummingbird
import Logging
import Master
import MasterCore
import Model
import NIOHTTP1
import Wire

/// start, stop, restart, kill, pause, unpause: each answers when the container's node has done it.
extension DockerAPI {
    func start(_ call: DockerCall) async throws -> Response {
        guard call.query.text("checkpoint") == nil else {
            throw DockerError.notImplemented("checkpoints are not served")
        }
        let view = try await container(call.id)
        switch view.desired {
        case .paused: throw DockerError.conflict("cannot start a paused container, try unpause instead")
        case .removed:
            throw DockerError.conflict("container is marked for removal and cannot be started: \(view.id)")
        case .prepared, .running, .stopped: break
        }
        let wasSo = try await begin(.start, view, call)
        return wasSo ? Response(status: .notModified) : .noContent
    }

    func restart(_ call: DockerCall) async throws -> Response {
        let view = try await container(call.id)
        _ = try await begin(.restart, view, call, try Self.stopOrder(call))
        return .noContent
    }

    func stop(_ call: DockerCall) async throws -> Response {
        let view = try await container(call.id)
        if try await act(.stop, on: view, try Self.stopOrder(call)) { return Response(status: .notModified) }
        try await reach(.stopped, view, call)
        return .noContent
    }

    func kill(_ call: DockerCall) async throws -> Response {
        var text = call.query.text("signal") ?? "KILL"
        if Int(text) == 0 { text = "KILL" }
        guard let signal = SignalName(text) else { throw DockerError.badRequest("Invalid signal: \(text.prefix(40))") }
        let view = try await container(call.id)
        guard view.summaryState.isActive else { throw Self.notRunning(view) }
        // Users of Docker's kill do not ask for what follows on a stop.
        let action = ContainerAction(signal: signal.description, grace: signal == .kill ? nil : Self.longestGrace)
        do {
            switch try await master.perform(.act(view.id.text, .kill, action)) {
            case .passThrough(let location, let signal):
                guard let task = location.task else { throw Self.notRunning(view) }
                try await master.streams(location).perform(
                    .POST, NodeStreams.path(task, "signal"), query: "signal=\(signal)")
            default: if signal == .kill { try await reach(.stopped, view, call) }
            }
        } catch let problem as APIProblem where problem.code == .conflict {
            // It has ended since it was looked at.
            throw Self.notRunning(view)
        }
        return .noContent
    }

    func pause(_ call: DockerCall) async throws -> Response {
        let view = try await container(call.id)
        guard view.desired != .paused else { throw DockerError.conflict("Container \(view.id) is already paused") }
        guard view.summaryState == .running else { throw Self.notRunning(view) }
        _ = try await act(.pause, on: view)
        try await reach(.paused, view, call)
        return .noContent
    }

    func unpause(_ call: DockerCall) async throws -> Response {
        let view = try await container(call.id)
        guard view.desired == .paused else { throw DockerError.conflict("Container \(view.id) is not paused") }
        _ = try await act(.unpause, on: view)
        try await reach(.unpaused, view, call)
        return .noContent
    }

    // MARK: What they share

    /// Seconds: a day, which is for ever to whom waits.
    private static let longestGrace = 86_400

    static func notRunning(_ view: ContainerView) -> DockerError { .conflict("Container \(view.id) is not running") }

    /// `t` (seconds; -1: for ever) and `signal`.
    private static func stopOrder(_ call: DockerCall) throws -> ContainerAction {
        let seconds = try call.query.integer("t", in: -1...longestGrace)
        if let text = call.query.text("signal"), SignalName(text) == nil {
            throw DockerError.badRequest("Invalid signal: \(text.prefix(40))")
        }
        return ContainerAction(
            signal: call.query.text("signal"), grace: seconds.map { $0 < 0 ? longestGrace : $0 })
    }

    /// - Returns: whether it was so already.
    private func act(
        _ verb: ContainerAction.Verb, on view: ContainerView, _ action: ContainerAction = ContainerAction()
    ) async throws -> Bool {
        if case .alreadySo = try await master.perform(.act(view.id.text, verb, action)) { true } else { false }
    }

    /// Waits until it is so, as long as the client does.
    @discardableResult
    private func reach(_ condition: WaitCondition, _ view: ContainerView, _ call: DockerCall) async throws -> WaitResult
    {
        let id = view.id.text
        return try await call.context.untilPeerCloses {
            do {
                return try await master.wait(for: id, condition)
            } catch let problem as APIProblem where problem.code == .notFound {
                // It was removed meanwhile: what was asked for can only have ended with it.
                return WaitResult(exitCode: 0)
            }
        }
    }

    /// Starts it, and returns when it runs. One that does not, and is removed when it ends, has ended with that.
    ///
    /// - Returns: whether it ran already.
    /// - Throws: `DockerError` with the reason why it does not run.
    private func begin(
        _ verb: ContainerAction.Verb, _ view: ContainerView, _ call: DockerCall,
        _ action: ContainerAction = ContainerAction()
    ) async throws -> Bool {
        do {
            let wasSo = try await act(verb, on: view, action)
            try await awaitStart(of: view, call)
            return wasSo
        } catch let error where error is APIProblem || error is DockerError {
            // Whoever hears of the failure finds nothing of it any more.
            if view.removeOnExit {
                await trying("remove after a start that failed", view, call) {
                    try await remove(
                        view, force: true, volumes: true, call, until: .now + Self.removalPatience)
                }
            }
            throw error
        }
    }

    /// Does what follows on a failure that the client is told of: that it cannot be done either is logged.
    @discardableResult
    private func trying<Value>(
        _ what: String, _ view: ContainerView, _ call: DockerCall, _ work: () async throws -> Value
    ) async -> Value? {
        do {
            return try await work()
        } catch {
            call.context.logger.warning(
                "what follows on a failed start was not done",
                metadata: ["operation": "\(what)", "container": "\(view.name)", "error": "\(error)"])
            return nil
        }
    }

    /// - Throws: `DockerError` with the reason why it does not run; clients find in its words whether the program is
    ///   missing (and end with 127) or may not be executed (126).
    private func awaitStart(of view: ContainerView, _ call: DockerCall) async throws {
        let result = try await reach(.started, view, call)
        guard result.exitCode != 0 else { return }
        let now = await trying("look at after a start that failed", view, call) { try await container(view.id.text) }
        // It stays as it is: whoever was told of the failure does not expect it to run some time later.
        _ = await trying("stop after a start that failed", view, call) { try await act(.stop, on: view) }
        if let now, now.task == nil, let unschedulable = now.unschedulable {
            throw DockerError.conflict("cannot start container \(view.name): no node fits: \(unschedulable.message)")
        }
        let isUsersMistake = result.exitCode == 126 || result.exitCode == 127
        throw isUsersMistake
            ? DockerError(400, "\(result.message): unknown") : DockerError(500, result.message)
    }
}

extension ContainerView {
    /// What it does, in the words of Docker's lists.
    var summaryState: ContainerState { ContainerState(task: task == nil ? nil : status, desired: desired) }
}
