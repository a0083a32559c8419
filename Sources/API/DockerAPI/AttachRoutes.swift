import Client
import HTTPService
import Hummingbird
import Master
import MasterCore
import Model
import NIOCore
import NIOHTTP1
import StreamFrames
import Wire

extension DockerAPI {
    var attachRoutes: [DockerRoute] {
        [
            DockerRoute(.post, "/containers/{id}/attach", access: .work) { call in
                let attached = try await attach(call, AttachQuery(call))
                return try call.hijack(multiplexed: !attached.hasTerminal) { try await attached.run($0) }
            },
            DockerRoute(.get, "/containers/{id}/attach/ws", access: .work) { call in
                let key = try WebSocketReader.key(call)
                let attached = try await attach(call, AttachQuery(webSocket: call))
                return try call.takeWebSocket(key) { try await attached.run($0) }
            },
            DockerRoute(.post, "/containers/{id}/resize", access: .work) { call in
                let size = try Self.size(call)
                let view = try await container(call.id)
                guard [.running, .paused].contains(view.summaryState) else { throw Self.notRunning(view) }
                let (streams, task) = try await streams(of: view, call)
                try await streams.perform(
                    .POST, NodeStreams.path(task, "resize"), query: "columns=\(size.columns)&rows=\(size.rows)")
                await note(view, "resize", ["height": "\(size.rows)", "width": "\(size.columns)"])
                return Response(status: .ok)
            },
        ]
    }

    /// Takes a client's place at a container's streams; at those of its next start when it does not run.
    private func attach(_ call: DockerCall, _ query: AttachQuery) async throws -> Attached {
        // In a task of its own: what it needs for the look at the container is free again while the client stays.
        try await call.context.untilPeerCloses { try await attach(call.id, query) }
    }

    private func attach(_ ref: String, _ query: AttachQuery) async throws -> Attached {
        let view = try await container(ref)
        let state = view.summaryState
        guard state != .paused else {
            throw DockerError.conflict("container \(view.id) is paused, unpause the container before attach")
        }
        guard state != .restarting else {
            throw DockerError.conflict(
                "container \(view.id) is restarting, wait until the container is running before attach")
        }
        var attached = Attached(
            api: self, container: view.id, name: view.name, hasTerminal: view.spec.terminal,
            endsInput: view.spec.stdinOnce && !view.spec.terminal, wasRunning: state == .running,
            query: query)
        // One that is on no node has nothing to show yet: its client waits for it with the connection open.
        if view.task != nil {
            let (streams, task) = try await streams(of: view)
            attached.place = Attached.Place(streams: streams, task: task)
            if query.stream { attached.connection = try await query.join(streams, task) }
        }
        await note(view, "attach")
        return attached
    }
}

/// What a client wants of a container's streams.
struct AttachQuery: Sendable {
    var stream: Bool
    var logs: Bool
    var stdin: Bool
    var stdout: Bool
    var stderr: Bool
    var keys: DetachKeys

    init(_ call: DockerCall) throws {
        stream = call.query.flag("stream")
        logs = call.query.flag("logs")
        stdin = call.query.flag("stdin")
        stdout = call.query.flag("stdout")
        stderr = call.query.flag("stderr")
        keys = try DetachKeys(call.query["detachKeys"] ?? "")
    }

    /// Joins a container's streams, or those of its next start.
    fileprivate func join(_ streams: NodeStreams, _ task: TaskID) async throws -> RawConnection {
        try await streams.frames(
            NodeStreams.path(task, "attach"),
            query: "stdin=\(stdin)&stdout=\(stdout)&stderr=\(stderr)&next=true")
    }

    /// Older clients of the WebSocket get everything.
    init(webSocket call: DockerCall) throws {
        try self.init(call)
        if call.version < .v1_42 { (stdin, stdout, stderr) = (true, true, true) }
    }
}

/// A client at a container's streams.
struct Attached: Sendable {
    let api: DockerAPI
    let container: ContainerID
    let name: String
    let hasTerminal: Bool
    /// The end of this client's input is the end of the container's.
    let endsInput: Bool
    /// That a start fails is told to whoever starts it.
    let wasRunning: Bool
    let query: AttachQuery
    /// Where its streams are; nil: it is on no node as yet.
    var place: Place?
    /// nil: only the logs are wanted, or it is on no node.
    var connection: RawConnection?

    struct Place: Sendable {
        let streams: NodeStreams
        let task: TaskID
    }

    private enum End { case over, detached }

    func run(_ stream: DockerStream) async throws {
        if query.logs, let place { try await replay(from: place, to: stream) }
        guard query.stream, let connection = try await connectionOfStart(for: stream) else { return }
        defer { connection.close() }
        let end = try await withThrowingTaskGroup(of: End?.self) { group in
            defer { group.cancelAll() }
            group.addTask {
                try await output(of: connection, to: stream)
                return .over
            }
            group.addTask { try await input(of: stream, to: connection) }
            while let end = try await group.next() { if let end { return end } }
            return .over
        }
        if end == .detached { await api.note(container, name, "detach") }
    }

    /// The connection with its node, which it may have to get first; nil when it is not started, or the client goes.
    private func connectionOfStart(for stream: DockerStream) async throws -> RawConnection? {
        if let connection { return connection }
        return try await withThrowingTaskGroup(of: RawConnection?.self) { group in
            defer { group.cancelAll() }
            group.addTask {
                guard let location = try await api.master.locateNextStart(of: container.text),
                    let task = location.task
                else { return nil }
                return try await query.join(try api.master.streams(location), task)
            }
            if let closed = stream.closed {
                group.addTask {
                    await closed()
                    return nil
                }
            }
            return try await group.next() ?? nil
        }
    }

    private func replay(from place: Place, to stream: DockerStream) async throws {
        guard query.stdout || query.stderr else { return }
        let answer = try await place.streams.open(
            .GET, NodeStreams.path(place.task, "logs"), query: "stdout=\(query.stdout)&stderr=\(query.stderr)")
        var decoder = FrameDecoder()
        for try await piece in answer.body {
            decoder.append(piece.readableBytesView)
            while let frame = try decoder.next() {
                switch frame {
                case .stdout(let bytes): try await stream.write(bytes, .stdout)
                case .stderr(let bytes): try await stream.write(bytes, .stderr)
                default: break
                }
            }
        }
    }

    private func output(of connection: RawConnection, to stream: DockerStream) async throws {
        for try await frame in connection.frames {
            switch frame {
            case .stdout(let bytes): try await stream.write(bytes, .stdout)
            case .stderr(let bytes): try await stream.write(bytes, .stderr)
            case .exit: return
            case .error(let text):
                if wasRunning { try await stream.write(Array("\(text)\r\n".utf8), .stderr) }
                return
            case .stdin, .end, .resize, .signal, .control: break
            }
        }
    }

    /// Passes input on; what a client sends that has not attached it is dropped.
    ///
    /// - Returns: nil when the client goes on with its output.
    private func input(of stream: DockerStream, to connection: RawConnection) async throws -> End? {
        var keys = query.keys
        let ended = try await stream.read { piece in
            guard query.stdin else { return true }
            // Only at a terminal do keys mean anything.
            guard hasTerminal else {
                try await connection.write(ByteBuffer(bytes: Frame.stdin(Array(buffer: piece)).encoded()))
                return true
            }
            let (passed, left) = keys.pass(piece.readableBytesView)
            if !passed.isEmpty { try await connection.write(ByteBuffer(bytes: Frame.stdin(passed).encoded())) }
            return !left
        }
        guard ended else { return .detached }
        guard query.stdin else { return nil }
        if case .none = stream.input { return nil }
        // Where the container's input outlives this client, or cannot be ended, there is nothing more to do here.
        guard endsInput else { return .over }
        try await connection.write(ByteBuffer(bytes: Frame.end(0).encoded()))
        return nil
    }
}
