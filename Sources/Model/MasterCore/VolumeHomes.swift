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
            let group = owner(ofVolume: name) ?? Group.root
            var record = state.volumes[key] ?? VolumeRecord(name: name, node: task.node, createdAt: now, group: group)
            record.isExpected = false
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
        for volume in present.prefix(Self.mostVolumes) where Admission.isVolumeName(volume.name) {
            let key = VolumeKey(node: node, name: volume.name)
            if var known = state.volumes[key] {
                guard known.isExpected else { continue }
                known.isExpected = false
                state.put(.volume(known))
                continue
            }
            state.put(
                .volume(
                    VolumeRecord(
                        name: volume.name, node: node, createdAt: now,
                        group: owner(ofVolume: volume.name) ?? Group.root,
                        isHome: home(of: volume.name) == nil)))
        }
        let gone = (state.indexes.volumesByNode[node] ?? []).subtracting(names)
            .map { VolumeKey(node: node, name: $0) }.filter { key in
                guard let record = state.volumes[key] else { return false }
                return !record.isExpected || record.createdAt.adding(seconds: Self.expectation) <= now
            }
        guard !gone.isEmpty else { return }
        let mounted = Set(state.tasks(on: node).flatMap { state.pod(of: $0)?.volumes ?? [] })
        for key in gone where !mounted.contains(key.name) {
            state.delete(.volume(key))
            capacityChanged = true
        }
    }

    /// Forgets anonymous volumes that went with a task: its node has told already that it has them no more.
    mutating func forgetVolumes(of task: NodeTask) {
        guard let pod = state.pod(of: task), let present = memory[task.node]?.volumes else { return }
        var names: Set<String> = []
        for mount in pod.containers.flatMap(\.mounts) where mount.isAnonymous {
            if case .volume(let name) = mount.source { names.insert(name) }
        }
        names.subtract(present.map(\.name))
        guard !names.isEmpty else { return }
        for name in names where !isMounted(name, besideBy: task) {
            state.delete(.volume(VolumeKey(node: task.node, name: name)))
        }
    }

    /// Whether another task of the same node has the volume.
    private func isMounted(_ volume: String, besideBy task: NodeTask) -> Bool {
        let revisions = state.indexes.revisionsByVolume[volume] ?? []
        return Set(revisions.map(\.workload)).contains { workload in
            state.tasks(of: workload).contains { other in
                other.id != task.id && other.node == task.node
                    && revisions.contains(RevisionKey(workload: workload, number: other.revision))
            }
        }
    }

    /// Volumes of one node that are kept in the store.
    private static let mostVolumes = 100_000
    /// Seconds that a volume which was promised is waited for.
    private static let expectation: Int64 = 60

    // MARK: Groups

    /// Whose a volume of the name is: that of its record, or, while no node has it, that of the workload that was the
    /// first to name it; nil: nobody's.
    private func owner(ofVolume name: String) -> String? {
        let nodes = state.indexes.volumeNodes[name] ?? []
        if let node = nodes.min(), let record = state.volumes[VolumeKey(node: node, name: name)] { return record.group }
        let users = (state.indexes.revisionsByVolume[name] ?? []).compactMap { state.workloads[$0.workload] }
        return users.min { ($0.createdAt, $0.id) < ($1.createdAt, $1.id) }?.group
    }

    /// Refuses a pod that names a volume which the present caller does not reach.
    func requireVolumes(of pod: PodSpec) throws(APIProblem) {
        guard acting.confinement != nil else { return }
        for name in pod.volumes {
            guard let group = owner(ofVolume: name), !acting.reaches(group: group) else { continue }
            throw APIProblem(
                .forbidden,
                "the volume \(name) is another group's, and \(acting.title) may not use it: choose another name")
        }
    }

    /// Notes whose a volume is that somebody is about to make on a node; one that is there already has to be the caller's.
    mutating func expectVolume(
        _ name: String, on node: NodeID, group asked: String?, now: Timestamp
    ) throws(APIProblem) -> PendingReply {
        try admit { () throws(AdmissionError) in try admission.volumeName(name) }
        let group = try group(asked)
        if let owner = owner(ofVolume: name) {
            guard acting.reaches(group: owner) else {
                throw APIProblem(.conflict, "the name \(name) is taken by another volume: choose another name")
            }
            if let asked, asked != owner {
                throw APIProblem(.conflict, "the volume \(name) belongs to the group \(owner): choose another name")
            }
        }
        let key = VolumeKey(node: node, name: name)
        guard state.volumes[key] == nil else { return .done }
        state.put(
            .volume(
                VolumeRecord(
                    name: name, node: node, createdAt: now, group: owner(ofVolume: name) ?? group, isExpected: true,
                    isHome: home(of: name) == nil)))
        return .done
    }

    /// The volumes of all nodes; those of nodes that are not there as they were last known.
    func volumeViews(now: Timestamp) -> [VolumeView] {
        var views: [VolumeKey: VolumeView] = [:]
        for (key, record) in state.volumes where !record.isExpected {
            views[key] = VolumeView(
                name: record.name, node: record.node, path: "", labels: [:], createdAt: record.createdAt)
        }
        for (node, memory) in memory {
            for volume in memory.volumes { views[VolumeKey(node: node, name: volume.name)] = volume }
        }
        for key in views.keys { views[key]?.group = state.volumes[key]?.group ?? Group.root }
        if acting.confinement != nil {
            views = views.filter { acting.reaches(group: $0.value.group ?? Group.root) }
        }
        var since: [NodeID: Timestamp] = [:]
        for node in state.nodes.keys { since[node] = silentSince(node, now: now) }
        return views.values.map { view in
            var view = view
            view.unreachableSince = since[view.node]
            view.nodeName = state.nodes[view.node]?.name
            return view
        }.sorted { ($0.name, $0.node) < ($1.name, $1.node) }
    }
}
