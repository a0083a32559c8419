import AgentCore
import HTTPService
import Hummingbird
import JSON
import Logs
import Model
import NIOCore
import ShimProtocol
import StreamFrames
import Wire

extension StreamPort {
    /// A container's output as its shim has logged it.
    func addLogs(to group: RouterGroup<ServiceContext>) {
        group.get("tasks/{task}/logs") { request, context in
            let query = try Query(
                request,
                known: ["follow", "tail", "since", "until", "timestamps", "stdout", "stderr", "padded", "indented"])
            let wanted = try LogQuery(query)
            let formatter = LogFormatter(
                prefix: try query.flag("timestamps") ? .time(isFixed: try query.flag("padded")) : .nothing,
                indent: try query.flag("indented") ? " " : "")
            // In a task of its own: what it needs for the look at the task is free again while the log is followed.
            let (log, task) = try await context.untilPeerCloses { try await source(wanted, context) }
            return Response(
                status: .ok, headers: [.contentType: "application/vnd.martlet.frames"],
                body: body(log, formatter, task, context))
        }
    }

    private func source(_ wanted: LogQuery, _ context: ServiceContext) async throws -> (LogSequence, TaskID) {
        let record = wanted.follow ? try await ready(orOver: context) : try await arrived(context)
        let task = executor.paths.task(record.assignment.task)
        let log = try await LogSequence(
            path: task.log(record.container.id), query: wanted, reactor: executor.reactor, pool: transfers.logs)
        return (log, record.assignment.task)
    }

    /// The task, also when a client is here before the agent's watch has brought it.
    func arrived(_ context: ServiceContext) async throws -> TaskRecord {
        let task = TaskID(try context.pathParameter("task"))
        if table[task] == nil { _ = try await table.wait(task, atMost: Self.arrival) { $0 } }
        return try record(context)
    }

    /// Waits while the task is being prepared; one that has ended has logs too.
    private func ready(orOver context: ServiceContext) async throws -> TaskRecord {
        let record = try await arrived(context)
        return Self.isOver(record) ? record : try await ready(context, live: false)
    }

    private func isOver(_ task: TaskID) -> Bool { Self.isOver(table[task]) }

    /// Its container has ended for good: nothing will be added to its log.
    private static func isOver(_ record: TaskRecord?) -> Bool {
        guard let record, !record.removed else { return true }
        let isResting = !record.isLive && record.restartAt == nil && !record.startPending
        let isWanted = record.assignment.desired == .running || record.assignment.desired == .paused
        let startsAgain = isWanted && record.assignment.generation > record.generation
        return isResting && !startsAgain && (record.container.state == .exited || record.failed)
    }

    private func body(
        _ log: LogSequence, _ formatter: LogFormatter, _ task: TaskID, _ context: ServiceContext
    ) -> ResponseBody {
        let connection = context.connection
        return ResponseBody { writer in
            var formatter = formatter
            let finish = { @Sendable in log.finish() }
            let places = (connection.peerClosed.whenFired(finish), connection.draining.whenFired(finish))
            let watch = table.watch(task) { if isOver(task) { log.finish() } }
            defer {
                connection.peerClosed.forget(places.0)
                connection.draining.forget(places.1)
                table.forget(watch)
            }
            for try await records in log {
                try await writer.write(Self.frames(of: records, &formatter))
            }
            try await writer.finish(nil)
        }
    }
}

extension StreamPort {
    /// Not inlined into the frame of a task that may follow a log for days.
    @inline(never)
    fileprivate static func frames(of records: [LogRecord], _ formatter: inout LogFormatter) -> ByteBuffer {
        var bytes: [UInt8] = []
        for record in records {
            let output = formatter.output(of: record)
            Frame.append(output[...], as: record.stream == .stdout ? .stdout : .stderr, to: &bytes)
        }
        return ByteBuffer(bytes: bytes)
    }
}

extension LogQuery {
    /// Reads the query of a request for logs.
    fileprivate init(_ query: Query) throws(APIError) {
        self.init()
        follow = try query.flag("follow")
        stdout = try query.flag("stdout", or: true)
        stderr = try query.flag("stderr", or: true)
        guard stdout || stderr else { throw .badRequest("neither stdout nor stderr is asked for") }
        if let text = query["tail"], text != "all" {
            guard let count = Int(text), count >= 0 else {
                throw .badRequest("tail=\(text) in the query is neither a number of lines nor 'all'")
            }
            tail = count
        }
        since = try Self.time(query, "since")
        until = try Self.time(query, "until")
    }

    /// RFC 3339, or Unix seconds with a fraction.
    private static func time(_ query: Query, _ key: String) throws(APIError) -> Timestamp? {
        guard let text = query[key] else { return nil }
        if let time = Timestamp(rfc3339: text) { return time }
        let parts = text.split(separator: ".", maxSplits: 1, omittingEmptySubsequences: false)
        let fraction = parts.count == 2 ? String((parts[1] + "000000000").prefix(9)) : "0"
        guard let seconds = Int64(parts[0]), (0...9_000_000_000).contains(seconds), let nanoseconds = Int64(fraction),
            nanoseconds >= 0
        else { throw .badRequest("\(key)=\(text) in the query is neither an RFC 3339 time nor Unix seconds") }
        return Timestamp(nanoseconds: seconds * 1_000_000_000 + nanoseconds)
    }
}
