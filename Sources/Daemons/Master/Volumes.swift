import Client
import HTTPService
import JSON
import MasterCore
import Model
import NIOHTTP1
import Wire

/// Named volumes of all nodes: what every face does with them.
extension ClusterMaster {
    /// All of them, or those of one name, with the containers that use each as they are known here: a node reports its
    /// volumes now and then.
    package nonisolated func volumes(named name: String? = nil) async throws(APIProblem) -> [VolumeView] {
        guard case .volumes(var views) = try await query(.volumes) else { throw APIProblem.unexpected }
        var selection = ContainerSelection()
        if let name {
            views = views.filter { $0.name == name }
            selection.volumes = [name]
        }
        if views.isEmpty { return [] }
        var users: [VolumePlace: Set<String>] = [:]
        try await forEachContainer(selection) { container in
            for mount in container.spec.mounts {
                guard case .volume(let name) = mount.source, let node = container.node else { continue }
                users[VolumePlace(name: name, node: node), default: []].insert(container.name)
            }
        }
        return views.map { view in
            var view = view
            view.usedBy = (users[VolumePlace(name: view.name, node: view.node)] ?? []).sorted()
            return view
        }
    }

    private struct VolumePlace: Hashable {
        var name: String
        var node: NodeID
    }

    /// The one that is meant.
    ///
    /// - Parameter ref: its node; nil where only one node has one of the name.
    /// - Throws: `APIProblem` notFound, conflict.
    package nonisolated func volume(
        _ name: String, on ref: String? = nil
    ) async throws(APIProblem) -> (view: VolumeView, node: Node) {
        var found = try await volumes(named: name)
        if let ref {
            let id = try await node(ref).id
            found = found.filter { $0.node == id }
        }
        guard let view = found.first else {
            throw APIProblem(.notFound, "there is no volume '\(name)'; see `martlet volume ls`")
        }
        guard found.count == 1 else {
            throw APIProblem(
                .conflict, "the volume '\(name)' is on \(found.count) nodes: name one with node= (`--node`)")
        }
        return (view, try await node(view.node.text))
    }

    /// Makes a volume, or returns the one that is there.
    ///
    /// - Parameter ref: the node; nil: where it is, or else the ready one with the fewest volumes.
    /// - Throws: `APIProblem`; `APIError` 409 when one exists with other labels or options.
    package nonisolated func createVolume(
        _ wish: CreateVolume, on ref: String? = nil
    ) async throws -> (view: VolumeView, isNew: Bool) {
        var wish = wish
        try refuseHostPaths(wish)
        let node = try await place(of: wish.name, ref)
        _ = try await perform(.expectVolume(wish.name, on: node.id, group: wish.group))
        wish.group = nil
        let isNew = try await !volumes(named: wish.name).contains { $0.node == node.id }
        var view = try await streams(node).json(VolumeView.self, .POST, "/volumes", body: .json(wish))
        view.node = node.id
        try await refreshVolumes(of: node)
        if isNew { await note("volume", "create", wish.name, wish.name, ["driver": "local"]) }
        return (try await volumes(named: wish.name).first { $0.node == node.id } ?? view, isNew)
    }

    /// Who may not bind paths of nodes gets none by way of a volume either.
    private nonisolated func refuseHostPaths(_ wish: CreateVolume) throws(APIProblem) {
        let subject = Subject.current
        guard subject.confinement != nil, !wish.options.isEmpty, wish.options["type"] != "tmpfs" else { return }
        throw APIProblem(
            .forbidden,
            "$.options: \(subject.title) may not mount devices or paths of nodes as a volume, only type=tmpfs")
    }

    private nonisolated func place(of name: String, _ ref: String?) async throws(APIProblem) -> Node {
        if let ref { return try await node(ref) }
        let present = try await volumes()
        if let home = present.first(where: { $0.name == name }) { return try await node(home.node.text) }
        let ready = try await readyNodes()
        var counts: [NodeID: Int] = [:]
        for volume in present { counts[volume.node, default: 0] += 1 }
        let active = ready.filter { $0.availability == .active }
        guard
            let node = (active.isEmpty ? ready : active).min(by: { counts[$0.id] ?? 0 < counts[$1.id] ?? 0 })
        else { return try await node(nil) }
        return node
    }

    /// Removes a volume with what is in it.
    package nonisolated func removeVolume(_ view: VolumeView, on node: Node, force: Bool) async throws {
        try await streams(node).perform(
            .DELETE, "/volumes/\(PercentEncoding.encode(view.name))", query: "force=\(force)")
        try await refreshVolumes(of: node)
        await note("volume", "destroy", view.name, view.name, ["driver": "local"])
    }

    /// Asks a node what volumes it has, so that the core knows before the answer to who has changed them.
    package nonisolated func refreshVolumes(of node: Node) async throws {
        let volumes = try await streams(node).json([VolumeView].self, .GET, "/volumes")
        _ = try await perform(.inventory(node.id, images: nil, volumes: volumes))
    }

    /// What tasks and volumes take on the disk, asked of the nodes that are ready: those of others, and of one
    /// that does not answer, are left out.
    ///
    /// - Parameter tasks: by node.
    package nonisolated func sizes(
        of tasks: [NodeID: [TaskID]], volumes: Bool
    ) async throws -> [NodeID: MeasuredSizes] {
        let nodes = try await readyNodes().filter { volumes || tasks[$0.id] != nil }
        return try await withThrowingTaskGroup(of: (NodeID, MeasuredSizes)?.self) { group in
            for node in nodes {
                group.addTask {
                    let wish = MeasureSizes(tasks: tasks[node.id] ?? [], volumes: volumes)
                    do {
                        let sizes = try await self.streams(node).json(
                            MeasuredSizes.self, .POST, "/sizes", body: .json(wish))
                        return (node.id, sizes)
                    } catch let error as APIError where error.code == NodeStreams.unreachable {
                        return nil
                    }
                }
            }
            var sizes: [NodeID: MeasuredSizes] = [:]
            for try await case let (node, measured)? in group { sizes[node] = measured }
            return sizes
        }
    }
}
