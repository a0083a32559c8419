import AgentCore
import HTTPService
import Hummingbird
import JSON
import Kernel
import Model
import StreamFrames
import Wire

extension StreamPort {
    /// attach, exec, signal.
    func addSessions(to group: RouterGroup<ServiceContext>) {
        group.post("tasks/{task}/attach") { request, context in
            let query = try Query(request, known: ["stdin", "stdout", "stderr"])
            let options = AttachOptions(
                stdin: try query.flag("stdin"), stdout: try query.flag("stdout", or: true),
                stderr: try query.flag("stderr", or: true))
            let record = try await ready(context, live: false)
            return try await takeOver(request, context) { () throws(ExecutorFailure) in
                try await executor.openAttach(record.assignment, options, isLive: record.isLive)
            }
        }
        group.post("tasks/{task}/exec") { request, context in
            let query = try Query(request, known: ["spec"])
            guard let spec = query["spec"] else { throw APIError.badRequest("the query parameter 'spec' is missing") }
            let exec = try JSONCoding.decode(ExecRequest.self, from: Array(spec.utf8), strict: true)
            try Self.check(exec)
            let record = try await ready(context, live: true)
            guard record.container.state != .paused else {
                throw APIError.conflict("container \(record.assignment.instanceName) is paused; unpause it first")
            }
            return try await takeOver(request, context) { () throws(ExecutorFailure) in
                try await executor.openExec(record.assignment, exec)
            }
        }
        group.post("tasks/{task}/signal") { request, context in
            let query = try Query(request, known: ["signal"])
            let record = try record(context)
            guard let name = query["signal"], SignalName(name) != nil else {
                throw APIError.badRequest(
                    "'\(query["signal"] ?? "")' is no signal; give a name such as SIGHUP or a number")
            }
            guard record.isLive else {
                throw APIError.conflict("container \(record.assignment.instanceName) is not running")
            }
            try await failing { () throws(ExecutorFailure) in
                try await executor.signal(record.assignment, signal: name)
            }
            return Response.empty
        }
    }

    /// Opens a session, answers 101 and runs it.
    private func takeOver(
        _ request: Request, _ context: ServiceContext, _ open: () async throws(ExecutorFailure) -> StreamSession
    ) async throws -> Response {
        let session = try await failing(open)
        return try context.takeOver(request, as: ClientStream.upgradeProtocol) { raw in
            let stream = ClientStream(raw)
            do {
                try await session.run(stream)
            } catch let error where !(error is CancellationError) {
                try await stream.send(.error("\(error)"))
            }
            raw.finish()
        }
    }

    /// Gives what an executor throws the API's shape.
    func failing<Result>(
        _ body: () async throws(ExecutorFailure) -> Result
    ) async throws(APIError) -> Result {
        do throws(ExecutorFailure) {
            return try await body()
        } catch {
            throw error.isTransient ? .unavailable(error.message) : .conflict(error.message)
        }
    }

    private static func check(_ exec: ExecRequest) throws(APIError) {
        guard let program = exec.command.first, !program.isEmpty else {
            throw .badRequest("no command to run is given")
        }
        let texts = exec.command + exec.environment + [exec.workingDirectory, exec.user]
        guard texts.count <= 8192, texts.allSatisfy({ $0.utf8.count <= 128 << 10 && !$0.utf8.contains(0) }) else {
            throw .badRequest("the command is too large or has a NUL in it")
        }
        guard exec.environment.allSatisfy({ $0.contains("=") && !$0.hasPrefix("=") }) else {
            throw .badRequest("an environment entry is not of the form KEY=value")
        }
        guard exec.workingDirectory.isEmpty || exec.workingDirectory.hasPrefix("/") else {
            throw .badRequest("working directory '\(exec.workingDirectory)' is not an absolute path")
        }
    }
}

extension Query {
    /// A flag with a default for when it is not given.
    func flag(_ key: String, or value: Bool) throws(APIError) -> Bool {
        self[key] == nil ? value : try flag(key)
    }
}
