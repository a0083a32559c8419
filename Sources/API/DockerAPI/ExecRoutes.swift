import Client
import HTTPService
import Hummingbird
import JSON
import Master
import MasterCore
import Model
import NIOCore
import StreamFrames
import Wire

extension DockerAPI {
    var execRoutes: [DockerRoute] {
        [
            DockerRoute(.post, "/containers/{id}/exec", access: .work) { try await makeExec($0) },
            DockerRoute(.post, "/exec/{id}/start", access: .work) { try await startExec($0) },
            DockerRoute(.post, "/exec/{id}/resize", access: .work) { call in
                let size = try Self.size(call)
                try await exec(call.id).session.resize(columns: size.columns, rows: size.rows)
                return Response(status: .ok)
            },
            DockerRoute(.get, "/exec/{id}/json", access: .work) { call in
                try .docker(ExecView(await exec(call.id).session))
            },
        ]
    }

    private func makeExec(_ call: DockerCall) async throws -> Response {
        let body = try await call.body(ExecCreate.self)
        let request = try body.request()
        let keys = try DetachKeys(body.detachKeys ?? "")
        let view = try await container(call.id)
        try Self.requireRunning(view)
        try request.admit(by: .current)
        var random = SystemRandomNumberGenerator()
        let session = ExecSession(
            id: Identifier<ExecSession>.make(&random).text, container: view.id, request: request, keys: keys)
        try sessions.add(session)
        await note(view, "exec_create: \(request.command.joined(separator: " "))", ["execID": session.id])
        return try .docker(ExecCreated(id: session.id), status: .created)
    }

    private static func requireRunning(_ view: ContainerView) throws {
        switch view.summaryState {
        case .running: return
        case .paused:
            throw DockerError.conflict("Container \(view.id) is paused, unpause the container before exec")
        case .restarting:
            throw DockerError.conflict("Container \(view.id) is restarting, wait until the container is running")
        case .created, .exited, .removing, .dead: throw notRunning(view)
        }
    }

    /// An exec that the caller may know of, with its container.
    private func exec(_ id: String) async throws -> (session: ExecSession, view: ContainerView) {
        let unknown = DockerError.notFound("No such exec instance: \(id)")
        guard let session = sessions[id] else { throw unknown }
        do {
            return (session, try await container(session.container.text))
        } catch let error as DockerError where error.status == 404 {
            // It is another group's, or gone with all that was its.
            if Subject.current.confinement == nil { sessions.remove(id) }
            throw unknown
        }
    }

    private func startExec(_ call: DockerCall) async throws -> Response {
        let body = try await call.optionalBody(ExecStart.self) ?? ExecStart()
        let size = try body.size(call.version)
        // In a task of its own: what it needs for the look at the container is free again while the program runs.
        let place = try await call.context.untilPeerCloses { try await execPlace(call.id) }
        let session = place.session
        try session.claim(size: size)
        let run = { @Sendable (client: ExecClient?) in
            await session.run(place.streams, place.task, to: client) { action, attributes in
                await note(session.container, place.name, action, attributes)
            }
        }
        if body.isDetached {
            // It belongs to nobody's connection.
            Task { await run(nil) }
            await session.started.wait()
            if let failure = session.failure { throw DockerError.badRequest(failure) }
            return Response(status: .ok)
        }
        return try call.hijack(multiplexed: !(body.terminal ?? false)) { stream in
            let client = ExecClient(stream)
            // The program goes on when its client has gone, and so its exit code is known.
            Task { await run(client) }
            let left = Signal()
            let input = Task {
                let isDetached = await Self.input(of: stream, to: session)
                guard isDetached else { return }
                client.leave()
                left.fire()
                await note(session.container, place.name, "exec_detach", ["execID": session.id])
            }
            await withTaskGroup(of: Void.self) { group in
                group.addTask { await session.ended.wait() }
                group.addTask { await left.wait() }
                await group.next()
                group.cancelAll()
            }
            client.leave()
            // Whatever waits for the program to take it still gets there; after its end nothing does.
            if session.isOver { input.cancel() }
        }
    }

    private func execPlace(_ id: String) async throws -> ExecPlace {
        let (session, view) = try await exec(id)
        if session.phase.phase == .made { try Self.requireRunning(view) }
        let (streams, task) = try await streams(of: view)
        return ExecPlace(session: session, name: view.name, streams: streams, task: task)
    }

    /// Passes a client's input on.
    ///
    /// - Returns: whether its user has left by the keys.
    private static func input(of stream: DockerStream, to session: ExecSession) async -> Bool {
        await session.started.wait()
        var keys = session.keys
        let ended = try? await stream.read { piece in
            guard session.request.stdin else { return true }
            guard session.request.terminal else {
                try await session.send(.stdin(Array(buffer: piece)))
                return true
            }
            let (passed, left) = keys.pass(piece.readableBytesView)
            if !passed.isEmpty { try await session.send(.stdin(passed)) }
            return !left
        }
        if ended == false { return true }
        if session.request.stdin { try? await session.send(.end(0)) }
        return false
    }
}

/// An exec and the way to its container's agent.
private struct ExecPlace: Sendable {
    let session: ExecSession
    /// The container's.
    let name: String
    let streams: NodeStreams
    let task: TaskID
}

/// The body of `POST /containers/{id}/exec`.
private struct ExecCreate: Decodable, Sendable {
    var stdin: Bool?
    var stdout: Bool?
    var stderr: Bool?
    var terminal: Bool?
    var command: [String]?
    var environment: [String]?
    var workingDirectory: String?
    var user: String?
    var privileged: Bool?
    var detachKeys: String?
    /// Height and width.
    var consoleSize: [Int]?

    private enum CodingKeys: String, CodingKey {
        case stdin = "AttachStdin"
        case stdout = "AttachStdout"
        case stderr = "AttachStderr"
        case terminal = "Tty"
        case command = "Cmd"
        case environment = "Env"
        case workingDirectory = "WorkingDir"
        case user = "User"
        case privileged = "Privileged"
        case detachKeys = "DetachKeys"
        case consoleSize = "ConsoleSize"
    }

    /// Bytes of command and variables.
    private static let limit = 768 << 10

    func request() throws -> ExecRequest {
        guard let command, !command.isEmpty else { throw DockerError.badRequest("No exec command specified") }
        let environment = environment ?? []
        guard (command + environment).reduce(0, { $0 + $1.utf8.count }) <= Self.limit else {
            throw DockerError.badRequest("command and environment are larger than \(Self.limit) bytes")
        }
        // As Docker does: a variable without a value is one that is taken away, and there is none to take.
        var request = ExecRequest(
            command: command, environment: environment.filter { $0.contains("=") && !$0.hasPrefix("=") },
            workingDirectory: workingDirectory ?? "", user: user ?? "", terminal: terminal ?? false,
            stdin: stdin ?? false, privileged: privileged ?? false, stdout: stdout ?? false,
            stderr: stderr ?? false, announced: true)
        if let size = try ConsoleSize(consoleSize) { (request.columns, request.rows) = (size.columns, size.rows) }
        return request
    }
}

/// `[height, width]`.
private struct ConsoleSize {
    let columns: UInt16
    let rows: UInt16

    init?(_ pair: [Int]?) throws {
        guard let pair else { return nil }
        guard pair.count == 2, let rows = UInt16(exactly: pair[0]), let columns = UInt16(exactly: pair[1]) else {
            throw DockerError.badRequest("ConsoleSize is not a height and a width from 0 to 65535")
        }
        (self.rows, self.columns) = (rows, columns)
    }
}

private struct ExecCreated: Encodable {
    var id: String

    private enum CodingKeys: String, CodingKey { case id = "Id" }
}

/// The body of `POST /exec/{id}/start`.
private struct ExecStart: Decodable, Sendable {
    var detach: Bool?
    var terminal: Bool?
    var consoleSize: [Int]?

    private enum CodingKeys: String, CodingKey {
        case detach = "Detach"
        case terminal = "Tty"
        case consoleSize = "ConsoleSize"
    }

    init() {}

    var isDetached: Bool { detach ?? false }

    func size(_ version: APIVersion) throws -> (columns: UInt16, rows: UInt16)? {
        guard version >= .v1_42, !isDetached, let size = try ConsoleSize(consoleSize) else {
            return nil
        }
        guard terminal ?? false else {
            throw DockerError.badRequest("console size is only supported when TTY is enabled")
        }
        return (size.columns, size.rows)
    }
}

/// The answer to `GET /exec/{id}/json`.
private struct ExecView: Encodable {
    private struct Process: Encodable {
        var tty: Bool
        var entrypoint: String
        var arguments: [String]
        var privileged: Bool
        var user: String
    }

    private let id: String
    private let running: Bool
    private let exitCode: Int32?
    private let process: Process
    private let openStdin: Bool
    private let openStdout: Bool
    private let openStderr: Bool
    private let canRemove: Bool
    private let container: String
    private let detachKeys = ""
    private let pid: Int

    private enum CodingKeys: String, CodingKey {
        case id = "ID"
        case running = "Running"
        case exitCode = "ExitCode"
        case process = "ProcessConfig"
        case openStdin = "OpenStdin"
        case openStdout = "OpenStdout"
        case openStderr = "OpenStderr"
        case canRemove = "CanRemove"
        case container = "ContainerID"
        case detachKeys = "DetachKeys"
        case pid = "Pid"
    }

    init(_ session: ExecSession) {
        let request = session.request
        id = session.id
        container = session.container.text
        process = Process(
            tty: request.terminal, entrypoint: request.command.first ?? "",
            arguments: Array(request.command.dropFirst()), privileged: request.privileged, user: request.user)
        (openStdin, openStdout, openStderr) = (request.stdin, request.stdout, request.stderr)
        canRemove = session.isOver
        switch session.phase.phase {
        case .made: (running, exitCode, pid) = (false, nil, 0)
        case .starting: (running, exitCode, pid) = (true, nil, 0)
        case .running(let number): (running, exitCode, pid) = (true, nil, number)
        case .ended(let code): (running, exitCode, pid) = (false, code, 0)
        }
    }

    func encode(to encoder: any Encoder) throws {
        var values = encoder.container(keyedBy: CodingKeys.self)
        try values.encode(id, forKey: .id)
        try values.encode(running, forKey: .running)
        // null until it has ended.
        try values.encode(exitCode, forKey: .exitCode)
        try values.encode(process, forKey: .process)
        try values.encode(openStdin, forKey: .openStdin)
        try values.encode(openStdout, forKey: .openStdout)
        try values.encode(openStderr, forKey: .openStderr)
        try values.encode(canRemove, forKey: .canRemove)
        try values.encode(container, forKey: .container)
        try values.encode(detachKeys, forKey: .detachKeys)
        try values.encode(pid, forKey: .pid)
    }
}
