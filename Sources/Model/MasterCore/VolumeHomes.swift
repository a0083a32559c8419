import JSON
import Model
import Wire

/// Named volumes live on one node each; those of global services on each of theirs.
extension MasterCore {
    /// The node that a volume lives on; nil: nowhere yet.
    func home(of volume: String) -> NodeID? {
        func rank(_ record: VolumeRecord) -> (Int, Timestamp, NodeID) {
            (record.isHome ? 0 : 1, record.createdAt, record.node)
        }
        return (state.indexes.volumeNodes[volume] ?? [])
            .compactMap { state.volumes[VolumeKey(node: $0, name: volume)] }
            .min { rank($0) < rank($1) }?.node
    }

    /// Notes, with the task's placement, that the volumes of its pod live on its node, and who has them.
    mutating func claimVolumes(of pod: PodSpec, for task: NodeTask, isGlobal: Bool, now: Timestamp) {
        for name in pod.volumes {
            let key = VolumeKey(node: task.node, name: name)
            var record = state.volumes[key] ?? VolumeRecord(name: name, node: task.node, createdAt: now)
            record.instance = task.instance
            record.epoch = task.epoch
            if !isGlobal { record.isHome = true }
            state.put(.volume(record))
        }
    }

    /// Brings the records in line with what a node has told of its volumes: what it has is noted, and what it has not and
    /// none of its tasks will make is gone.
    mutating func recordVolumes(of node: NodeID, now: Timestamp) {
        guard state.nodes[node] != nil, let present = memory[node]?.volumes else { return }
        let names = Set(present.map(\.name))
        for volume in present.prefix(Self.mostVolumes) where Admission.isName(volume.name) {
            let key = VolumeKey(node: node, name: volume.name)
            guard state.volumes[key] == nil else { continue }
            state.put(
                .volume(
                    VolumeRecord(name: volume.name, node: node, createdAt: now, isHome: home(of: volume.name) == nil)))
        }
        let gone = state.volumes.keys.filter { $0.node == node && !names.contains($0.name) }
        guard !gone.isEmpty else { return }
        let mounted = Set(state.tasks(on: node).flatMap { state.pod(of: $0)?.volumes ?? [] })
        for key in gone where !mounted.contains(key.name) {
            state.delete(.volume(key))
            capacityChanged = true
        }
    }

    /// Volumes of one node that are kept in the store.
    private static let mostVolumes = 100_000

    /// The volumes of all nodes; those of nodes that are not there as they were last known.
    func volumeViews(now: Timestamp) -> [VolumeView] {
        var views: [VolumeKey: VolumeView] = [:]
        for (key, record) in state.volumes {
            views[key] = VolumeView(
                name: record.name, node: record.node, path: "", labels: [:], createdAt: record.createdAt)
        }
        for (node, memory) in memory {
            for volume in memory.volumes { views[VolumeKey(node: node, name: volume.name)] = volume }
        }
        var since: [NodeID: Timestamp] = [:]
        for node in state.nodes.keys { since[node] = unreachableSince(node, now: now) }
        return views.values.map { view in
            var view = view
            view.unreachableSince = since[view.node]
            return view
        }.sorted { ($0.name, $0.node) < ($1.name, $1.node) }
    }
}
