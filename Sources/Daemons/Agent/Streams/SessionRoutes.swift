import AgentCore
import HTTPService
import Hummingbird
import JSON
import Kernel
import Model
import StreamFrames
import Wire

extension StreamPort {
    /// attach, exec, resize, signal.
    func addSessions(to group: RouterGroup<ServiceContext>) {
        group.post("tasks/{task}/attach") { request, context in
            let query = try Query(request, known: ["stdin", "stdout", "stderr", "next"])
            let options = AttachOptions(
                stdin: try query.flag("stdin"), stdout: try query.flag("stdout", or: true),
                stderr: try query.flag("stderr", or: true))
            // A container that has ended may be started again: whoever asks for `next` joins that start.
            let record = try await query.flag("next") ? startable(context) : ready(context, live: false)
            return try await takeOver(request, context) { () throws(ExecutorFailure) in
                let session = try await executor.openAttach(record.assignment, options, isLive: record.isLive)
                return record.isLive ? session : watching(session, from: record)
            }
        }
        group.post("tasks/{task}/resize") { request, context in
            let query = try Query(request, known: ["columns", "rows"])
            guard let columns = try query.integer("columns", in: 0...65535),
                let rows = try query.integer("rows", in: 0...65535)
            else { throw APIError.badRequest("columns and rows are missing in the query") }
            let record = try record(context)
            guard record.isLive else {
                throw APIError.conflict("container \(record.assignment.instanceName) is not running")
            }
            try await failing { () throws(ExecutorFailure) in
                try await executor.resize(record.assignment, columns: UInt16(columns), rows: UInt16(rows))
            }
            return Response.empty
        }
        group.post("tasks/{task}/exec") { request, context in
            let query = try Query(request, known: ["spec"])
            // What is too long for a query comes as the body.
            var spec = query["spec"].map { Array($0.utf8) } ?? []
            if spec.isEmpty { spec = try await request.jsonBytes(context) }
            guard !spec.isEmpty else { throw APIError.badRequest("the query parameter 'spec' is missing") }
            let exec = try JSONCoding.decode(
                ExecRequest.self, from: spec, strict: true, limits: JSONLimits(bytes: spec.count))
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

    /// The task, of which a start runs or may come: one that was made is waited for, whether it can be prepared or not.
    ///
    /// - Throws: `APIError` 404 when it is not here; 409 when its start has failed already.
    private func startable(_ context: ServiceContext) async throws -> TaskRecord {
        let task = TaskID(try context.pathParameter("task"))
        let found = try await context.untilPeerCloses {
            try await table.wait(task, atMost: Self.arrival) { record in record }
        }
        guard let record = found, !record.removed else { throw Self.unknown(task) }
        let isWanted = record.assignment.desired == .running || record.assignment.desired == .paused
        if isWanted, record.hasFailedForGood {
            throw APIError.conflict("container \(record.assignment.instanceName) is not running: \(record.message)")
        }
        return record
    }

    /// Waits until the task is prepared, whether its container has ended meanwhile or not.
    func prepared(_ context: ServiceContext) async throws -> TaskRecord {
        let task = TaskID(try context.pathParameter("task"))
        let found = try await context.untilPeerCloses {
            if table[task] == nil { _ = try await table.wait(task, atMost: Self.arrival) { $0 } }
            return try await table.wait(task, atMost: Self.patience) { record throws -> TaskRecord? in
                guard let record, !record.removed else { throw Self.unknown(task) }
                guard !record.failed || record.prepared || record.restartAt != nil else {
                    throw APIError.conflict(
                        "container \(record.assignment.instanceName) cannot be prepared: \(record.message)")
                }
                return record.prepared || record.isLive ? record : nil
            }
        }
        guard let found else {
            throw APIError.conflict("container \(try record(context).assignment.instanceName) is still being prepared")
        }
        return found
    }

    /// A session that waits for a start: it ends when the start fails or the task goes.
    private func watching(_ session: StreamSession, from record: TaskRecord) -> StreamSession {
        StreamSession { stream in
            try await withThrowingTaskGroup(of: Bool.self) { group in
                defer { group.cancelAll() }
                group.addTask {
                    try await session.run(stream)
                    return true
                }
                group.addTask {
                    guard let why = await neverStarts(record) else { return false }
                    try await stream.send(.error(why))
                    return true
                }
                while let isOver = try await group.next() { if isOver { return } }
            }
        }
    }

    /// Returns why the start that is waited for does not come; nil when it has come.
    private func neverStarts(_ before: TaskRecord) async -> String? {
        let (task, name) = (before.assignment.task, before.assignment.instanceName)
        for await _ in table.changes(task) {
            guard let record = table[task], !record.removed else { return "container \(name) was removed" }
            if record.isLive || record.start > before.start && !record.startPending && !record.failed {
                // It was made between the look at it and the taking of the place.
                executor.gate.release(task)
                return nil
            }
            // One that is made only tries again, by itself or when it is started.
            guard record.hasFailedForGood, record.assignment.desired != .prepared else { continue }
            if record.generation > before.generation || !before.hasFailedForGood { return record.message }
        }
        return nil
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
        guard exec.workingDirectory.isEmpty || exec.workingDirectory.isAbsolutePath else {
            throw .badRequest("working directory '\(exec.workingDirectory)' is not an absolute path")
        }
    }
}

extension TaskRecord {
    /// The newest start, or the preparation for it, has failed, and nobody tries again without being asked.
    fileprivate var hasFailedForGood: Bool {
        failed && restartAt == nil && !startPending && generation >= assignment.generation
    }
}

extension Query {
    /// A flag with a default for when it is not given.
    func flag(_ key: String, or value: Bool) throws(APIError) -> Bool {
        self[key] == nil ? value : try flag(key)
    }
}
