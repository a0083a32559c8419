import AgentCore
import HTTPService
import Hummingbird
import JSON
import Model
import Wire

extension StreamPort {
    /// stats, top and health.
    func addStatistics(to group: RouterGroup<ServiceContext>) {
        group.get("tasks/{task}/stats") { request, context in
            let query = try Query(request, known: ["stream", "interval"])
            let interval = try query.integer("interval", in: 1...60) ?? 1
            guard try query.flag("stream") else {
                return try Response.json(try await executor.stats(try live(context)))
            }
            let record = try await ready(context, live: true)
            let task = record.assignment.task
            return .lines(context) { lines in
                while let record = table[task], record.isLive {
                    try await lines.write(try await executor.stats(record))
                    try await Task.sleep(for: .seconds(interval))
                }
            }
        }
        group.get("tasks/{task}/health") { _, context in
            try Response.json(executor.probeLog[try record(context).assignment.task])
        }
        group.get("tasks/{task}/top") { request, context in
            let query = try Query(request, known: ["columns"])
            let columns = try query["columns"].map { text in
                try text.split(separator: ",").map { word in
                    guard let column = ProcessColumn(rawValue: String(word)) else {
                        throw APIError.badRequest("columns=\(word) in the query is no column of a process")
                    }
                    return column
                }
            }
            return try Response.json(try await executor.processes(try live(context), columns ?? ProcessColumn.usual))
        }
    }

    /// - Throws: `APIError` 404 or 409.
    private func live(_ context: ServiceContext) throws(APIError) -> TaskRecord {
        let record = try record(context)
        guard record.isLive else {
            throw .conflict("container \(record.assignment.instanceName) is not running")
        }
        return record
    }
}
