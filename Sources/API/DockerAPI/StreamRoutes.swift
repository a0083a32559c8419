import HTTPService
import Hummingbird
import JSON
import Master
import MasterCore
import Model
import Wire

/// What lives on a container's node and is passed through in Docker's forms: its streams, programs, logs and files.
extension DockerAPI {
    var streamRoutes: [DockerRoute] { attachRoutes + execRoutes + logRoutes + archiveRoutes }

    /// Tells followers of events what happened to a container.
    func note(_ view: ContainerView, _ action: String, _ attributes: [String: String] = [:]) async {
        await note(view.id, view.name, action, attributes)
    }

    func note(
        _ container: ContainerID, _ name: String, _ action: String, _ attributes: [String: String] = [:]
    ) async {
        await master.note("container", action, container.text, name, attributes)
    }

    /// What `work` gives; nil when it takes longer.
    func within<Value: Sendable>(
        _ time: Duration, _ work: @escaping @Sendable () async throws -> Value
    ) async throws -> Value? {
        try await withThrowingTaskGroup(of: Value?.self) { group in
            defer { group.cancelAll() }
            group.addTask { try await work() }
            group.addTask {
                try await Task.sleep(for: time)
                return nil
            }
            return try await group.next() ?? nil
        }
    }

    /// The way to the container's agent; nobody waits for it longer than the client does.
    func streams(of view: ContainerView, _ call: DockerCall) async throws -> (streams: NodeStreams, task: TaskID) {
        try await call.context.untilPeerCloses { try await streams(of: view) }
    }

    /// Docker's `h` and `w`: a terminal's size in character cells.
    static func size(_ call: DockerCall) throws -> (columns: UInt16, rows: UInt16) {
        guard let rows = try call.query.integer("h", in: 0...65535),
            let columns = try call.query.integer("w", in: 0...65535)
        else { throw DockerError.badRequest("invalid resize: the query parameters h and w say the size") }
        return (UInt16(columns), UInt16(rows))
    }
}
