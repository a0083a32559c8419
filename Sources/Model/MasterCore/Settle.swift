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
            if !lacking.isEmpty { completeAddresses(now: now) }
            if capacityChanged {
                capacityChanged = false
                for id in waiting.union(lackingDevices) {
                    if let instance = state.instances[id] { dirty.insert(instance.workload) }
                }
                dirty.formUnion(ailingWorkloads)
            }
            guard !dirty.isEmpty else { break }
            let workloads = dirty.sorted()
            dirty = []
            placing = []
            for id in workloads {
                guard let picture = picture(of: id, now: now) else { continue }
                wakes[id] = nil
                for action in Reconciler.actions(for: picture, now: now) {
                    apply(action, to: picture.workload, placing: &placing, now: now, random: &random)
                }
            }
            place(placing, now: now, random: &random)
        }
        for id in waiting where state.instances[id] == nil || state.instances[id]?.task != nil { waiting.remove(id) }
        wantingCompany.formIntersection(waiting)
        for id in lackingDevices where state.instances[id]?.task == nil { lackingDevices.remove(id) }
    }

    private func picture(of id: WorkloadID, now: Timestamp) -> WorkloadPicture? {
        state.workloads[id].flatMap { picture(of: $0, now: now) }
    }

    func picture(of workload: Workload, now: Timestamp) -> WorkloadPicture? {
        guard let pod = state.pod(of: workload) else { return nil }
        var picture = WorkloadPicture(
            workload: workload, pod: pod, instances: state.instances(of: workload.id), tasks: [:])
        for task in picture.instances.flatMap(\.tasks).compactMap({ state.tasks[$0] }) {
            picture.tasks[task.id] = task
            picture.servingSince[task.id] = serving[task.id].map { now - (steady - $0) }
            picture.unreachable[task.node] = notReadySince(task.node, now: now)
            if task.revision != workload.revision { picture.olderPods[task.revision] = state.pod(of: task) }
            picture.ailing[task.id] = ailment(of: task)
        }
        picture.spanning = spanningNetworks([pod] + picture.olderPods.values)
        guard workload.kind == .service else { return picture }
        for node in state.indexes.unavailable.compactMap({ state.nodes[$0] }) {
            switch node.availability {
            case .active: break
            case .cordoned: picture.cordoned.insert(node.id)
            case .drained: picture.drained[node.id] = node.drain ?? Node.Drain(startedAt: node.createdAt)
            }
        }
        guard workload.scale == .global else { return picture }
        let demand = demand(of: workload, pod)
        for node in state.nodes.values where NodeSnapshot(node: node).isEligible(for: demand) {
            guard isEligible(node.id, for: demand, picture.instances) else { continue }
            picture.eligible[node.id] = node.name
        }
        return picture
    }

    /// Whether the node has what a global service claims. What is there stays when a device goes, and while a node has yet
    /// to tell of its devices.
    private func isEligible(_ node: NodeID, for demand: PodDemand, _ instances: [Instance]) -> Bool {
        guard !demand.devices.isEmpty else { return true }
        let present = instances.filter { $0.node == node }
        guard memory[node]?.devices != nil else { return !present.isEmpty }
        return present.contains { !$0.tasks.isEmpty } || devicePool(of: node).shortage(for: demand.devices) == nil
    }

    /// Networks that pods do not leave when they leave their nodes.
    private func spanningNetworks(_ pods: [PodSpec]) -> Set<String> {
        var found: Set<String> = []
        for attachment in pods.flatMap(\.attachments) {
            if let network = state.networks[NetworkID(attachment.network)], !network.isOfOneNode {
                found.insert(attachment.network)
            }
        }
        return found
    }

    private mutating func apply(
        _ action: ReconcileAction, to workload: Workload, placing: inout [InstanceID], now: Timestamp,
        random: inout some RandomNumberGenerator
    ) {
        switch action {
        case .createInstance(let slot, let node, let name):
            let pod = state.pod(of: workload)
            let containers = (pod?.containers ?? []).map { _ in ContainerID.makeContainer(&random) }
            defer {
                note(
                    kind: "container", action: "create", id: containers.first?.text ?? "", name: name, now: now)
            }
            state.put(
                .instance(
                    Instance(
                        id: .make(&random), workload: workload.id, slot: slot, node: node, name: name,
                        containers: containers, createdAt: now)))
            dirty.insert(workload.id)
        case .removeInstance(let id): removeInstance(id, of: workload, now: now)
        case .place(let id): placing.append(id)
        case .setTask(let id, let desired, let generation, let stop):
            guard let task = state.tasks[id] else { return }
            var next = task
            next.desired = desired
            next.generation = generation
            next.stop = stop
            if renewDevices(of: task, for: &next, now: now) { state.put(.task(next)) }
        case .removeTask(let id):
            guard let task = state.tasks[id] else { return }
            forget(task)
        case .displace(let instance, let task, let cause): displace(task, of: instance, cause, now: now)
        case .restore(let instance, let task): restore(task, of: instance, now: now)
        case .giveUp(let task): giveUp(task, now: now)
        case .countDeviceMove(let instance): countDeviceMove(of: instance, now: now)
        case .endTask(let task, let reason, let again): endTask(task, reason, again: again, now: now)
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
        note(
            kind: "container", action: "destroy", id: instance.containers.first?.text ?? "", name: instance.name,
            now: now)
        for claim in state.claims(of: id) { state.delete(.claim(claim.resource)) }
        state.delete(.instance(id))
        waiting.remove(id)
        dirty.insert(workload.id)
        capacityChanged = true
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
}
