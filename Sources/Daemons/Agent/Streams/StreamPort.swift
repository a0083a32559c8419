import AgentCore
import HTTPService
import Hummingbird
import JSON
import Kernel
import Logging
import Model
import Wire

/// The answer to `GET /node/v1/ping`.
package struct AgentPing: Sendable, Codable {
    package var node: NodeID
    package var version: String
    /// The master has been told everything and answers.
    package var inContact: Bool
}

/// The agent's stream port: what clients read and write of this node's tasks, images and volumes, by way of the master.
///
/// HTTP/1.1 on a unix socket 0600, and on the network with mutual TLS; everything under `/node/v1`; the routes are listed in the documentation.
struct StreamPort: Sendable {
    let table: TaskTable
    let executor: PodExecutor
    let transfers: Transfers
    let node: @Sendable () -> NodeID
    let cluster: @Sendable () -> String?
    let members: Members
    let inContact: @Sendable () -> Bool
    let inventoryChanged: @Sendable () -> Void
    let logger: Logger

    static let prefix = "/node/v1"
    /// How long a request waits for a task that is being prepared.
    static let patience = Duration.seconds(60)
    /// How long a request waits for a task that is not known here: the master may send a client on before the agent's
    /// watch has brought the assignment.
    static let arrival = Duration.seconds(5)

    func router() -> Router<ServiceContext> {
        let router = makeRouter()
        router.add(middleware: StreamAuthentication(cluster: cluster, members: members))
        let group = router.group(RouterPath(Self.prefix))
        group.get("ping") { _, _ in
            try Response.json(AgentPing(node: node(), version: Version.number, inContact: inContact()))
        }
        addSessions(to: group)
        addLogs(to: group)
        addStatistics(to: group)
        addArchive(to: group)
        addTransfers(to: group)
        addImages(to: group)
        addVolumes(to: group)
        addNetworks(to: group)
        addDevices(to: group)
        addContent(to: group)
        return router
    }

    /// The task that the path names.
    ///
    /// - Throws: `APIError` 404 when this node does not hold it.
    func record(_ context: ServiceContext) throws(APIError) -> TaskRecord {
        let id = TaskID(try context.pathParameter("task"))
        guard let record = table[id], !record.removed else { throw Self.unknown(id) }
        return record
    }

    static func unknown(_ task: TaskID) -> APIError { .notFound("this node holds no task \(task)") }

    /// Waits while the task is being prepared, or started when `live` asks for that.
    ///
    /// - Throws: `APIError` 404 when it goes or does not come; 409 with the reason when it will not come to that.
    func ready(_ context: ServiceContext, live: Bool) async throws -> TaskRecord {
        let task = TaskID(try context.pathParameter("task"))
        let found = try await context.untilPeerCloses {
            if table[task] == nil { _ = try await table.wait(task, atMost: Self.arrival) { $0 } }
            return try await table.wait(task, atMost: Self.patience) { record throws -> TaskRecord? in
                guard let record, !record.removed else { throw Self.unknown(task) }
                return try Self.isReady(record, live: live) ? record : nil
            }
        }
        guard let found else {
            throw APIError.conflict("container \(try record(context).assignment.instanceName) is still being prepared")
        }
        return found
    }

    private static func isReady(_ record: TaskRecord, live: Bool) throws(APIError) -> Bool {
        let name = record.assignment.instanceName
        if record.isLive { return true }
        let mayStart = record.restartAt != nil || record.startPending || record.generation == 0
        switch record.assignment.desired {
        case .running, .paused:
            if !live && record.prepared && record.container.state == .waiting { return true }
            if mayStart || record.assignment.generation > record.generation { return false }
        case .prepared:
            if live { break }
            if record.prepared { return true }
            if !record.failed { return false }
        case .stopped, .removed: break
        }
        let why = record.message.isEmpty ? "" : ": \(record.message)"
        throw APIError.conflict("container \(name) is not running\(why)")
    }
}
