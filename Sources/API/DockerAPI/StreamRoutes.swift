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
        let event = Event(
            time: .now(), kind: "container", action: action, id: container.text, name: name, attributes: attributes)
        // It is told for information: what it tells of has been done already.
        _ = try? await master.perform(.note(event))
    }

    /// The way to the container's agent; nobody waits for it longer than the client does.
    func found(
        _ call: DockerCall, _ view: ContainerView
    ) async throws -> (view: ContainerView, streams: NodeStreams, task: TaskID) {
        try await call.context.untilPeerCloses { try await streams(view.id.text) }
    }

    /// Docker's `h` and `w`: a terminal's size in character cells.
    static func size(_ call: DockerCall) throws -> (columns: UInt16, rows: UInt16) {
        guard let rows = try call.query.integer("h", in: 0...65535),
            let columns = try call.query.integer("w", in: 0...65535)
        else { throw DockerError.badRequest("invalid resize: the query parameters h and w say the size") }
        return (UInt16(columns), UInt16(rows))
    }
}

extension ContainerView {
    /// It has ended, and is about to be started again by its restart policy.
    var isRestarting: Bool { [.exited, .failed].contains(status.phase) && status.restartAt != nil }
}
