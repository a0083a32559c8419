import JSON
import Model

/// Tasks that are replaced while they may still be on their nodes.
extension MasterCore {
    /// Displaced tasks of one instance that are kept track of; what is more is given up, the newest that waits first.
    private static let mostDisplaced = 8

    /// The instance waits for another task; what it has may go on meanwhile.
    mutating func displace(_ id: TaskID, of instanceID: InstanceID, _ cause: Displaced.Cause, now: Timestamp) {
        guard var instance = state.instances[instanceID], instance.task == id else { return }
        if instance.displaced.count >= Self.mostDisplaced, let last = instance.displaced.last {
            giveUp(last.task, now: now)
            instance.displaced = state.instances[instanceID]?.displaced ?? []
        }
        instance.task = nil
        instance.displaced.append(Displaced(id, cause, since: now))
        state.put(.instance(instance))
        dirty.insert(instance.workload)
    }

    /// The task counts again; what has taken its place goes.
    mutating func restore(_ id: TaskID, of instanceID: InstanceID, now: Timestamp) {
        guard var instance = state.instances[instanceID], var task = state.tasks[id],
            let entry = instance.displaced.first(where: { $0.task == id })
        else { return }
        instance.displaced.removeAll { $0.task == id }
        if var current = state.task(of: instance) {
            current.desired = .removed
            state.put(.task(current))
            instance.displaced.append(Displaced(current.id, entry.cause, since: now))
        }
        if let workload = state.workloads[instance.workload], workload.kind == .container {
            // A container changes in place, see `changeInPlace`: also one that was out of reach then.
            task.revision = workload.revision
            if let pod = state.pod(of: task) { setAddresses(of: &task, for: pod, instance) }
            state.put(.task(task))
            if let pod = state.pod(of: task) { claimNetworks(of: pod, for: task) }
            forgetRevisions(of: workload.id)
        } else if let pod = state.pod(of: task), lacksAddress(task, pod) {
            setAddresses(of: &task, for: pod, instance)
            state.put(.task(task))
        }
        instance.task = id
        if entry.cause == .unhealthy { instance.deviceMoves = instance.deviceMoves?.withoutLast }
        instance.unschedulable = nil
        waiting.remove(instanceID)
        state.put(.instance(instance))
        releaseClaims(of: instance)
        dirty.insert(instance.workload)
        if entry.cause == .rebalanced { balance.retryAt[instance.workload] = steady + Self.retryDelay }
        if entry.cause == .lost { note("returned", instance, on: task.node, now: now) }
    }

    /// The task's node was silent for too long, or somebody will not wait for it: the task is forgotten, and removed by
    /// its node should that come back.
    mutating func giveUp(_ id: TaskID, now: Timestamp) {
        guard let task = state.tasks[id] else { return }
        forget(task)
        if let instance = state.instances[task.instance] { note("lost", instance, on: task.node, now: now) }
    }

    /// Gives up what a workload has on nodes that are not heard of.
    mutating func giveUpUnreachable(of workload: WorkloadID, now: Timestamp) {
        for instance in state.instances(of: workload) {
            for id in instance.tasks {
                guard let node = state.tasks[id]?.node, memory[node]?.ready != true,
                    memory[node]?.isSilent(at: steady) ?? true
                else { continue }
                giveUp(id, now: now)
            }
        }
    }

    /// Takes a task out of the records. Its instance keeps its claims for the task that follows it, unless one has
    /// already.
    mutating func forget(_ task: NodeTask) {
        state.delete(.task(task.id))
        serving[task.id] = nil
        capacityChanged = true
        // What waited for it, another move of a drain say, may begin.
        dirty.insert(task.workload)
        if let workload = state.workloads[task.workload], workload.kind == .container,
            workload.revision != task.revision
        {
            forgetRevisions(of: workload.id)
        }
        guard var instance = state.instances[task.instance], instance.tasks.contains(task.id) else { return }
        let wasDisplaced = instance.task != task.id
        if !wasDisplaced { instance.task = nil }
        instance.displaced.removeAll { $0.task == task.id }
        state.put(.instance(instance))
        if wasDisplaced { releaseClaims(of: instance) }
    }

    /// Gives back what none of the instance's tasks has; while the next one is still to come, it keeps those of the last.
    mutating func releaseClaims(of instance: Instance) {
        var kept = Set(instance.tasks.compactMap { state.tasks[$0]?.epoch })
        if instance.task == nil { kept.insert(instance.epoch) }
        for claim in state.claims(of: instance.id) where !kept.contains(claim.epoch) {
            state.delete(.claim(claim.resource))
            capacityChanged = true
        }
    }

    func nodeName(_ id: NodeID) -> String { state.nodes[id]?.name ?? id.text }

    mutating func note(
        _ action: String, _ instance: Instance, on node: NodeID, _ more: [String: String] = [:], now: Timestamp
    ) {
        note(
            kind: "container", action: action, id: instance.containers.first?.text ?? "", name: instance.name,
            attributes: more.merging(["node": nodeName(node)]) { first, _ in first }, now: now)
    }
}
