import JSON
import Model
import Wire

/// Which nodes are there, by a clock that never says more than what has passed.
extension MasterCore {
    /// Nanoseconds that count at most between two steps. Ticks come every second: what is longer was a clock that was
    /// set, or a master that did not run and heard nobody.
    private static let longestGap: Int64 = 2_000_000_000

    /// Moves the steady clock on. Silence of nodes is measured by it, so that no jump of the time of day, and no pause of
    /// this process, makes a node seem silent for longer than it was.
    mutating func passTime(to now: Timestamp) {
        defer { lastStep = now }
        guard let lastStep else { return }
        if now < lastStep {
            // What waits for a time of day looks at the new one.
            dirty.formUnion(wakes.keys)
        }
        steady += min(max(0, now - lastStep), Self.longestGap)
    }

    /// Nodes that have said nothing for too long are not ready any more.
    mutating func loseSilentNodes(now: Timestamp) {
        for node in memory.filter({ $0.value.ready && $0.value.isSilent(at: steady) }).keys.sorted() {
            memory[node]?.set(ready: false, now: now, steady: steady)
            livenessChanged(node)
            note(kind: "node", action: "unreachable", id: node.text, name: state.nodes[node]?.name ?? "", now: now)
        }
    }

    /// Looks anew at everything that has a task on the node, and tells how it looks now.
    mutating func livenessChanged(_ node: NodeID) {
        outbox.nodes.insert(node)
        replication.isDue = true
        balance.isDue = true
        for id in state.indexes.tasksByNode[node] ?? [] {
            guard let task = state.tasks[id] else { continue }
            dirty.insert(task.workload)
            touch(task.instance)
        }
    }

    /// Since when a node that is not ready has been silent; nil: it is ready.
    func notReadySince(_ node: NodeID, now: Timestamp) -> Timestamp? {
        guard let memory = memory[node] else { return now }
        return memory.ready ? nil : memory.silentSince(now: now, steady: steady)
    }

    /// Refuses to give up what may still run and must not run twice.
    func requireNoLease(_ tasks: [NodeTask], on node: Node, now: Timestamp) throws(APIProblem) {
        guard let since = notReadySince(node.id, now: now) else { return }
        for task in tasks {
            // Whatever was last wanted of it, it may not have heard of that; what is removed with all its workload is not
            // followed by another.
            guard let pod = state.pod(of: task), let stop = pod.loss?.stopAfter, task.status.phase != .removed,
                let workload = state.workloads[task.workload], workload.desired != .removed
            else { continue }
            let grace = pod.containers.map(\.stopGrace).max() ?? 0
            let over = since.adding(seconds: Int64(LossPolicy.leastReplaceAfter(stopAfter: stop, grace: grace)))
            guard over > now else { continue }
            throw APIProblem(
                .conflict,
                "\(state.instances[task.instance]?.name ?? "a container") must not run twice, and ends by itself on the node "
                    + "\(node.name) at \(over) at the latest: repeat then")
        }
    }
}
