import AgentCore
import Confinement
import Images
import JSON
import Kernel
import Model
import OCISpec
import Reactor
import ShimProtocol
import StreamFrames
import Wire

extension PodExecutor {
    package func openAttach(
        _ assignment: TaskAssignment, _ options: AttachOptions, isLive: Bool
    ) async throws(ExecutorFailure) -> StreamSession {
        let container = try Self.container(of: assignment)
        let request = ShimRequest.attach(
            ShimAttach(
                container: container.text, stdin: options.stdin, stdout: options.stdout, stderr: options.stderr))
        let ticket = isLive ? nil : gate.enter(assignment.task)
        let shim = shim(of: assignment.task)
        return StreamSession { stream in
            if let ticket { for await _ in ticket.made {} }
            try Task.checkCancellation()
            try await shim.session(request) { _, connection in
                ticket?.joined()
                try await Self.relay(stream, connection, stdin: options.stdin)
            }
        }
    }

    package func openExec(
        _ assignment: TaskAssignment, _ request: ExecRequest
    ) async throws(ExecutorFailure) -> StreamSession {
        let exec = try await explaining("cannot run a command in container \(assignment.instanceName)") {
            try await self.exec(assignment, request)
        }
        let shim = shim(of: assignment.task)
        return StreamSession { stream in
            do {
                try await shim.session(.exec(exec)) { answer, connection in
                    failpoint("agent.during_exec")
                    if request.announced {
                        let started = ExecStarted(pid: Int(answer.exec?.pid ?? 0))
                        try await stream.send(.control(JSONCoding.encode(started)))
                    }
                    if request.terminal, request.columns > 0, request.rows > 0 {
                        try await connection.send(.resize(columns: request.columns, rows: request.rows))
                    }
                    try await Self.relay(
                        stream, connection, stdin: request.stdin, stdout: request.stdout, stderr: request.stderr)
                }
            } catch let error as ShimError where error.kind == .refused {
                let code = ExecutorFailure.shellCode(error.description)
                guard code != 125 else { return try await stream.send(.error(error.description)) }
                try await stream.send(.error(error.description))
                try await stream.send(.exit(Int32(code)))
            }
        }
    }

    /// A process like the container's own, with what the request changes.
    func exec(
        _ assignment: TaskAssignment, _ request: ExecRequest, deadline: Int? = nil
    ) async throws -> ShimExec {
        let task = paths.task(assignment.task)
        let process = try await pool.run { try self.process(request, task) }
        var random = SystemRandomNumberGenerator()
        return ShimExec(
            container: try Self.container(of: assignment).text,
            execID: Identifier<ShimExec>.make(&random).text, process: process.json, terminal: request.terminal,
            stdin: request.stdin, deadlineSeconds: deadline)
    }

    private func process(_ request: ExecRequest, _ task: TaskPaths) throws -> ProcessSpec {
        // The rest, of which the seccomp profile is the larger part, has nothing to say here.
        let config = JSONReader(try JSONValue.parse(File.read(task.config, limit: 16 << 20)))
        guard let reader = try config.optionalObject("process") else {
            throw AgentError("\(task.config) has no process")
        }
        var process = try ProcessSpec(reader)
        guard let program = request.command.first, !program.isEmpty else {
            throw ExecutorFailure("no command to run was given")
        }
        process.args = request.command
        process.terminal = request.terminal
        process.consoleSize =
            request.terminal && request.columns > 0 && request.rows > 0
            ? ConsoleSize(height: request.rows, width: request.columns) : nil
        if !request.workingDirectory.isEmpty { process.cwd = request.workingDirectory }
        var environment = process.env
        if !request.user.isEmpty {
            let user = try Images.resolveUser(request.user, root: task.rootfs)
            let bounding = process.capabilities?.bounding ?? []
            process.user = UserSpec(uid: user.uid, gid: user.gid, additionalGids: user.groups)
            process.capabilities?.effective = user.uid == 0 ? bounding : []
            process.capabilities?.permitted = user.uid == 0 ? bounding : []
            environment = SpecBuilder.merge(environment, ["HOME=\(user.home)"], home: user.home)
        }
        if request.privileged {
            process.capabilities = SpecBuilder.capabilities(
                try SpecBuilder.grantable(), isRoot: process.user.uid == 0)
        }
        if request.terminal, !environment.contains(where: { $0.hasPrefix("TERM=") }) {
            environment.append("TERM=xterm")
        }
        process.env = SpecBuilder.merge(environment, request.environment, home: "/")
        return process
    }

    /// Passes frames both ways until the process has ended or the client has gone.
    ///
    /// - Parameters:
    ///   - stdin: the client's input is the process's; otherwise it is dropped.
    ///   - stdout: output goes to the client; otherwise it is dropped.
    static func relay(
        _ stream: any ByteStream, _ connection: ShimConnection, stdin: Bool, stdout: Bool = true, stderr: Bool = true
    ) async throws {
        try await withThrowingTaskGroup(of: Bool.self) { group in
            defer { group.cancelAll() }
            group.addTask {
                while let frame = try await stream.receive() {
                    switch frame {
                    case .stdin, .end: if stdin { try await connection.send(frame) }
                    case .resize, .signal: try await connection.send(frame)
                    case .stdout, .stderr, .exit, .error, .control: break
                    }
                }
                // The client has closed its sending side: that is the end of standard input.
                if stdin { try await connection.send(.end(0)) }
                return false
            }
            group.addTask {
                while let frame = try await connection.next() {
                    switch frame {
                    case .stdout where !stdout, .stderr where !stderr: continue
                    default: try await stream.send(frame)
                    }
                    switch frame {
                    case .exit, .error: return true
                    default: break
                    }
                }
                return true
            }
            while let isOver = try await group.next() { if isOver { return } }
        }
    }
}
