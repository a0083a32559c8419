import JSON
import Model
import Reconcile
import Scheduling
import Wire

/// Reconciliation and placement of what events made dirty, all in the present draft.
extension MasterCore {
    mutating func settle(now: Timestamp, random: inout some RandomNumberGenerator) {
        var placing: [InstanceID] = []
        // Each round may create instances, which the next round places; more than a few would be a mistake of ours.
        for _ in 0..<8 {
            if capacityChanged {
                capacityChanged = false
                for id in waiting { if let instance = state.instances[id] { dirty.insert(instance.workload) } }
            }
            guard !dirty.isEmpty else { break }
            let workloads = dirty.sorted()
            dirty = []
            placing = []
            for id in workloads {
                guard let picture = picture(of: id) else { continue }
                wakes[id] = nil
                for action in Reconciler.actions(for: picture, now: now) {
                    apply(action, to: picture.workload, placing: &placing, now: now, random: &random)
                }
            }
            place(placing, now: now, random: &random)
        }
        for id in waiting where state.instances[id] == nil || state.instances[id]?.task != nil { waiting.remove(id) }
    }

    private func picture(of id: WorkloadID) -> WorkloadPicture? { state.workloads[id].flatMap { picture(of: $0) } }

    func picture(of workload: Workload) -> WorkloadPicture? {
        guard let pod = state.pod(of: workload) else { return nil }
        let instances = state.instances(of: workload.id)
        var tasks: [TaskID: NodeTask] = [:]
        for instance in instances { if let task = state.task(of: instance) { tasks[task.id] = task } }
        var picture = WorkloadPicture(workload: workload, pod: pod, instances: instances, tasks: tasks)
        guard workload.kind == .service else { return picture }
        let demand = PodDemand(workload: workload.id, pod: pod)
        for node in state.nodes.values {
            switch node.availability {
            case .active:
                if workload.scale == .global, NodeSnapshot(node: node).isEligible(for: demand) {
                    picture.eligible[node.id] = node.name
                }
            case .cordoned: picture.cordoned.insert(node.id)
            case .drained: picture.drained.insert(node.id)
            }
        }
        return picture
    }

    private mutating func apply(
        _ action: ReconcileAction, to workload: Workload, placing: inout [InstanceID], now: Timestamp,
        random: inout some RandomNumberGenerator
    ) {
        switch action {
        case .createInstance(let slot, let node, let name):
            let pod = state.pod(of: workload)
            let containers = (pod?.containers ?? []).map { _ in ContainerID.makeContainer(&random) }
            state.put(
                .instance(
                    Instance(
                        id: .make(&random), workload: workload.id, slot: slot, node: node, name: name,
                        containers: containers, createdAt: now)))
            dirty.insert(workload.id)
        case .removeInstance(let id): removeInstance(id, of: workload, now: now)
        case .place(let id): placing.append(id)
        case .setTask(let id, let desired, let generation, let stop):
            guard var task = state.tasks[id] else { return }
            task.desired = desired
            task.generation = generation
            task.stop = stop
            state.put(.task(task))
        case .removeTask(let id):
            if let task = state.tasks[id] { forget(task) }
            capacityChanged = true
        case .setUpdate(let update): setUpdate(update, of: workload.id, now: now)
        case .rollBack(let message): rollBack(workload.id, message, now: now)
        case .removeWorkload:
            guard var workload = state.workloads[workload.id] else { return }
            workload.desired = .removed
            state.put(.workload(workload))
        case .forgetWorkload: forget(workload)
        case .wake(let time): wakes[workload.id] = wakes[workload.id].map { min($0, time) } ?? time
        }
    }

    private mutating func removeInstance(_ id: InstanceID, of workload: Workload, now: Timestamp) {
        guard let instance = state.instances[id] else { return }
        for claim in state.claims(of: id) { state.delete(.claim(claim.resource)) }
        state.delete(.instance(id))
        waiting.remove(id)
        dirty.insert(workload.id)
        capacityChanged = true
        note(
            kind: "container", action: "destroy", id: instance.containers.first?.text ?? "", name: instance.name,
            now: now)
    }

    /// Takes a task out of the records; its instance keeps its claims.
    mutating func forget(_ task: NodeTask) {
        state.delete(.task(task.id))
        guard var instance = state.instances[task.instance], instance.task == task.id else { return }
        instance.task = nil
        state.put(.instance(instance))
    }

    private mutating func forget(_ workload: Workload) {
        for number in state.indexes.revisionsByWorkload[workload.id] ?? [] {
            state.delete(.revision(RevisionKey(workload: workload.id, number: number)))
        }
        state.delete(.workload(workload.id))
        wakes[workload.id] = nil
    }

    private mutating func setUpdate(_ update: UpdateState, of id: WorkloadID, now: Timestamp) {
        guard var workload = state.workloads[id] else { return }
        workload.updateState = update
        state.put(.workload(workload))
        let action = update.phase == .paused ? "update_paused" : "update_settled"
        note(
            kind: "service", action: action, id: id.text, name: workload.name,
            attributes: update.message.isEmpty ? [:] : ["message": update.message], now: now)
    }

    private mutating func rollBack(_ id: WorkloadID, _ message: String, now: Timestamp) {
        guard var workload = state.workloads[id] else { return }
        let older = (state.indexes.revisionsByWorkload[id] ?? []).filter { $0 < workload.revision }.max()
        guard let older, let pod = state.revisions[RevisionKey(workload: id, number: older)]?.pod else {
            setUpdate(UpdateState(.paused, message: message, since: now), of: id, now: now)
            return
        }
        let failed = workload.revision
        workload.revision += 1
        workload.updateState = UpdateState(
            .updating, message: "rolled back from revision \(failed) to the spec of \(older): \(message)", since: now,
            rolledBackFrom: failed)
        state.put(.workload(workload))
        put(pod, as: workload.revision, of: id, now: now)
        dirty.insert(id)
        note(
            kind: "service", action: "rollback", id: id.text, name: workload.name, attributes: ["message": message],
            now: now)
    }

    // MARK: Placement

    private mutating func place(
        _ ids: [InstanceID], now: Timestamp, random: inout some RandomNumberGenerator
    ) {
        let instances = ids.compactMap { state.instances[$0] }.filter { $0.task == nil }
        guard !instances.isEmpty else { return }
        var demands: [WorkloadID: PodDemand] = [:]
        var requests: [PlacementRequest] = []
        for instance in instances {
            guard let workload = state.workloads[instance.workload], let pod = state.pod(of: workload) else { continue }
            let demand = demands[workload.id] ?? PodDemand(workload: workload.id, pod: pod)
            demands[workload.id] = demand
            requests.append(PlacementRequest(instance: instance.id, demand: demand, pinned: instance.node))
        }
        var scheduler = Scheduler(nodes: snapshots())
        for (request, result) in zip(requests, scheduler.place(requests, random: &random)) {
            switch result {
            case .placed(let node, let ports):
                assign(request.instance, to: node, ports: ports, now: now, random: &random)
            case .refused(let refusal): refuse(request.instance, "\(refusal)", now: now)
            }
        }
    }

    private func snapshots() -> [NodeSnapshot] {
        state.nodes.values.sorted { $0.id < $1.id }.map { snapshot(of: $0) }
    }

    func snapshot(of node: Node) -> NodeSnapshot {
        let load = state.indexes.loads[node.id] ?? ClusterIndexes.NodeLoad()
        return NodeSnapshot(
            node: node, ready: memory[node.id]?.ready ?? false, images: memory[node.id]?.digests ?? [],
            allocated: load.allocated, tasksByWorkload: load.tasksByWorkload, tasks: load.tasks, ports: load.ports)
    }

    private mutating func assign(
        _ id: InstanceID, to node: NodeID, ports: [PortMapping], now: Timestamp,
        random: inout some RandomNumberGenerator
    ) {
        guard var instance = state.instances[id], let workload = state.workloads[instance.workload] else { return }
        instance.epoch += 1
        let task = NodeTask(
            id: .make(&random), instance: id, workload: workload.id, revision: workload.revision, node: node,
            epoch: instance.epoch, desired: workload.desired,
            generation: workload.kind == .container ? workload.generation : 1,
            stop: workload.kind == .container ? workload.stop : nil, ports: ports, createdAt: now)
        instance.task = task.id
        instance.unschedulable = nil
        state.put(.instance(instance))
        state.put(.task(task))
        waiting.remove(id)
        let resources = ports.map {
            Claim.Resource.port(node: node, transport: $0.transport, address: $0.hostAddress, number: $0.hostPort)
        }
        for claim in state.claims(of: id) where !resources.contains(claim.resource) {
            state.delete(.claim(claim.resource))
            capacityChanged = true
        }
        for resource in resources {
            state.put(.claim(Claim(resource, instance: id, epoch: instance.epoch)))
        }
    }

    private mutating func refuse(_ id: InstanceID, _ message: String, now: Timestamp) {
        waiting.insert(id)
        guard var instance = state.instances[id], instance.unschedulable?.message != message else { return }
        instance.unschedulable = Condition(
            .unschedulable, true, reason: "NoNodeFits", message: message, since: instance.unschedulable?.since ?? now)
        state.put(.instance(instance))
        note(
            kind: "container", action: "unschedulable", id: instance.containers.first?.text ?? "", name: instance.name,
            attributes: ["message": message], now: now)
    }
}
