import Client
import HTTPService
import JSON
import Master
import Model
import NIOCore
import StreamFrames
import Synchronization
import Wire

/// A further program in a container, from its making to some time after its end.
final class ExecSession: Sendable {
    enum Phase: Sendable, Equatable {
        case made
        /// Its node is being asked.
        case starting
        case running(pid: Int)
        case ended(code: Int32)
    }

    private struct State: Sendable {
        var phase = Phase.made
        var since = ContinuousClock.now
        var size: (columns: UInt16, rows: UInt16)?
        var connection: RawConnection?
        var failure: String?
    }

    let id: String
    let container: ContainerID
    let request: ExecRequest
    let keys: DetachKeys
    /// What it costs to remember it.
    let bytes: Int
    /// Fires when it runs or cannot.
    let started = Signal()
    let ended = Signal()
    private let state = Mutex(State())

    init(id: String, container: ContainerID, request: ExecRequest, keys: DetachKeys) {
        self.id = id
        self.container = container
        self.request = request
        self.keys = keys
        bytes = 512 + (request.command + request.environment).reduce(0) { $0 + $1.utf8.count + 32 }
    }

    var phase: (phase: Phase, since: ContinuousClock.Instant) { state.withLock { ($0.phase, $0.since) } }
    /// Why it could not be started, or its end is not known.
    var failure: String? { state.withLock { $0.failure } }
    var isOver: Bool { if case .ended = phase.phase { true } else { false } }

    /// The caller may start it.
    ///
    /// - Throws: `DockerError` 409 when it was started already.
    func claim(size: (columns: UInt16, rows: UInt16)?) throws(DockerError) {
        let before = state.withLock { state in
            defer {
                if state.phase == .made {
                    state.phase = .starting
                    state.since = .now
                    if let size { state.size = size }
                }
            }
            return state.phase
        }
        switch before {
        case .made: return
        case .starting, .running: throw .conflict("Error: Exec command \(id) is already running")
        case .ended: throw .conflict("Error: Exec command \(id) has already run")
        }
    }

    /// Sets the size of its terminal, now or at its start.
    ///
    /// - Throws: `DockerError` 409 when it does not run.
    func resize(columns: UInt16, rows: UInt16) async throws {
        let (connection, phase) = state.withLock { state in
            state.size = (columns, rows)
            return (state.connection, state.phase)
        }
        switch phase {
        case .starting: return
        case .running: break
        case .made, .ended:
            throw DockerError.conflict(
                "exec process \(id) is not running: only the terminal of one that runs has a size")
        }
        try await connection?.write(ByteBuffer(bytes: Frame.resize(columns: columns, rows: rows).encoded()))
    }

    /// Passes input on; a program that has ended takes none.
    func send(_ frame: Frame) async throws {
        let connection = state.withLock { $0.connection }
        try await connection?.write(ByteBuffer(bytes: frame.encoded()))
    }

    /// Runs it to its end, whether its client stays or goes.
    ///
    /// - Parameter tell: events, with attributes.
    func run(
        _ node: NodeStreams, _ task: TaskID, to client: ExecClient?,
        tell: @Sendable (_ action: String, _ attributes: [String: String]) async -> Void
    ) async {
        var request = request
        if let size = state.withLock({ $0.size }) { (request.columns, request.rows) = size }
        var failure: String?
        var code: Int32?
        do {
            let connection = try await node.frames(NodeStreams.path(task, "exec"), body: .json(request))
            defer { connection.close() }
            for try await frame in connection.frames {
                switch frame {
                case .control(let bytes):
                    began(try JSONCoding.decode(ExecStarted.self, from: bytes), connection)
                    await tell("exec_start: \(request.command.joined(separator: " "))", ["execID": id])
                    started.fire()
                case .stdout(let bytes): await client?.write(bytes, .stdout)
                case .stderr(let bytes): await client?.write(bytes, .stderr)
                case .error(let text): failure = text
                case .exit(let number): code = number
                case .stdin, .end, .resize, .signal: break
                }
                if code != nil { break }
            }
        } catch {
            failure = DockerError(error).message
        }
        let wasRunning = if case .running = phase.phase { true } else { false }
        if wasRunning {
            // Without a code its node has gone: nobody will ever know how it ended.
            let loss = code == nil ? "exec \(id) is lost: \(failure ?? "its node has closed the connection")" : nil
            end(code ?? 255, loss)
            if let loss { await client?.write(Array("\(loss)\r\n".utf8), .stderr) }
            await tell("exec_die", ["execID": id, "exitCode": "\(code ?? 255)"])
        } else {
            let text = Self.explain(failure ?? "its node has closed the connection", code, request)
            end(code ?? 126, text)
            await client?.write(Array("\(text)\r\n".utf8), .stdout)
        }
        started.fire()
        ended.fire()
    }

    private func began(_ start: ExecStarted, _ connection: RawConnection) {
        state.withLock { state in
            state.phase = .running(pid: start.pid)
            state.since = .now
            state.connection = connection
        }
    }

    private func end(_ code: Int32, _ failure: String?) {
        state.withLock { state in
            state.phase = .ended(code: code)
            state.since = .now
            state.connection = nil
            state.failure = failure
        }
    }

    /// Why a program could not be started, in the words in which clients look for the reason.
    private static func explain(_ failure: String, _ code: Int32?, _ request: ExecRequest) -> String {
        let program = "\"\(request.command.first ?? "")\""
        let why =
            switch code {
            case 127: "unable to start container process: exec: \(program): executable file not found in $PATH"
            case 126 where failure.lowercased().contains("permission denied"):
                "unable to start container process: exec: \(program): permission denied"
            default: failure
            }
        return "OCI runtime exec failed: exec failed: \(why): unknown"
    }
}

/// Where a program's output goes while somebody is there.
final class ExecClient: Sendable {
    private let stream: Mutex<DockerStream?>

    init(_ stream: DockerStream) { self.stream = Mutex(stream) }

    /// Waits while the client does not read; does nothing once it has gone.
    func write(_ bytes: [UInt8], _ output: DockerStream.Output) async {
        guard let stream = stream.withLock({ $0 }) else { return }
        do {
            try await stream.write(bytes, output)
        } catch {
            leave()
        }
    }

    func leave() { stream.withLock { $0 = nil } }
}
