import JSON
import Model
import Scheduling
import Wire

/// Finds nodes for instances that wait, and gives them tasks, in the present draft.
extension MasterCore {
    /// - Parameter pinned: the only node for these instances, whatever the scheduler would choose.
    mutating func place(
        _ ids: [InstanceID], pinned: NodeID? = nil, now: Timestamp, random: inout some RandomNumberGenerator
    ) {
        let instances = ids.compactMap { state.instances[$0] }.filter { $0.task == nil }
        guard !instances.isEmpty else { return }
        var demands: [RevisionKey: PodDemand] = [:]
        var requests: [PlacementRequest] = []
        var pods: [InstanceID: PodSpec] = [:]
        var shortages: [NetworkID: AddressShortage] = [:]
        for instance in instances {
            guard let workload = state.workloads[instance.workload] else { continue }
            let key = RevisionKey(workload: workload.id, number: revision(for: instance, of: workload))
            guard let pod = state.revisions[key]?.pod else { continue }
            if let shortage = shortage(for: pod, now: now, known: &shortages) {
                refuse(instance, shortage, now: now)
                continue
            }
            let demand = demands[key] ?? demand(of: workload, pod)
            demands[key] = demand
            pods[instance.id] = pod
            requests.append(
                PlacementRequest(
                    instance: instance.id, names: [instance.name] + instance.containers.map(\.text), demand: demand,
                    pinned: pinned ?? instance.node, avoided: avoidedDevices(instance)))
        }
        let anchors = Set(demands.values.flatMap(\.anchors))
        var homes: [Anchor: NodeID] = [:]
        var names: [Anchor: String] = [:]
        for anchor in anchors {
            homes[anchor] = home(of: anchor)
            names[anchor] = name(of: anchor)
        }
        let company = company(for: demands.values.flatMap(\.affinities), placing: Set(requests.map(\.instance)))
        var scheduler = Scheduler(nodes: snapshots(), homes: homes, names: names, company: company)
        var refusals: [(InstanceID, String)] = []
        var isFree = false
        for (request, result) in zip(requests, scheduler.place(requests, random: &random)) {
            switch result {
            case .placed(let node, let ports, let devices, let processors):
                do {
                    try assign(
                        request.instance, to: node, ports: ports, devices: devices, processors: processors, now: now,
                        random: &random)
                } catch {
                    isFree = true
                    guard let instance = state.instances[request.instance] else { continue }
                    // Others of this step may have taken the last one: what ends by itself is looked at then.
                    var why = error
                    if let pod = pods[request.instance], let full = shortage(for: pod, now: now, known: &shortages) {
                        why = full
                    }
                    refuse(instance, why, now: now)
                }
            case .refused(let refusal): refusals.append((request.instance, "\(refusal)"))
            }
        }
        // The room of those that have found no address is others'.
        if isFree, !refusals.isEmpty { return place(refusals.map(\.0), pinned: pinned, now: now, random: &random) }
        for (instance, message) in refusals { refuse(instance, message, now: now) }
    }

    private mutating func refuse(_ instance: Instance, _ shortage: AddressShortage, now: Timestamp) {
        if let again = shortage.again { wakes[instance.workload] = min(again, wakes[instance.workload] ?? again) }
        refuse(instance.id, "\(shortage)", now: now)
    }

    func demand(of workload: Workload, _ pod: PodSpec) -> PodDemand {
        var demand = PodDemand(workload: workload.id, pod: pod)
        demand.anchors.removeAll {
            if case .network(let id) = $0 { state.networks[id].map { !$0.isOfOneNode } ?? false } else { false }
        }
        // A global service has a volume of the name on each of its nodes.
        if workload.scale == .global { demand.anchors.removeAll { if case .volume = $0 { true } else { false } } }
        demand.labels = workload.labels(of: pod.containers.first)
        // An agent of an earlier version takes every network for a bridge.
        var features = Set(
            pod.attachments.flatMap { $0.features + (state.networks[NetworkID($0.network)]?.features ?? []) })
        // It published for IPv4 only.
        if portOfIPv6(pod) != nil, !(way(of: pod)?.isCNI ?? false) { features.insert(Network.bridgeIPv6) }
        demand.features += features.sorted()
        return demand
    }

    /// What is on which node of what affinities ask for; nothing is looked at when there are none.
    ///
    /// - Parameter instances: those that look for a node: what is left of them elsewhere does not count.
    private func company(for affinities: [Constraint], placing instances: Set<InstanceID>) -> Company {
        var company = Company(for: affinities)
        guard !company.isIdle else { return company }
        for task in state.tasks.values where task.desired != .removed && !instances.contains(task.instance) {
            guard let instance = state.instances[task.instance], instance.task == task.id,
                let spec = state.pod(of: task)?.containers.first
            else { continue }
            company.note(
                names: [instance.name] + instance.containers.map(\.text), images: [spec.image],
                labels: state.workloads[task.workload].map { [$0.labels(of: spec)] } ?? [], on: task.node)
        }
        for (node, memory) in memory {
            for image in memory.images { company.note(images: image.names + [image.id, image.digest], on: node) }
        }
        return company
    }

    func snapshots() -> [NodeSnapshot] {
        state.nodes.values.sorted { $0.id < $1.id }.map { snapshot(of: $0) }
    }

    func snapshot(of node: Node) -> NodeSnapshot {
        let load = state.indexes.loads[node.id] ?? ClusterIndexes.NodeLoad()
        return NodeSnapshot(
            node: node, ready: memory[node.id]?.ready ?? false, images: memory[node.id]?.digests ?? [],
            allocated: load.allocated, tasksByWorkload: load.tasksByWorkload, tasks: load.tasks, ports: load.ports,
            devices: devicePool(of: node.id), processors: processorPool(of: node))
    }

    /// The revision that the instance's next task is made from: the newest, unless an update was paused before it came to
    /// the instance; what moves then moves as it is.
    private func revision(for instance: Instance, of workload: Workload) -> Int {
        guard workload.updateState.phase == .paused,
            let task = instance.displaced.last.flatMap({ state.tasks[$0.task] })
        else { return workload.revision }
        return task.revision
    }

    private mutating func assign(
        _ id: InstanceID, to node: NodeID, ports: [PortMapping], devices: [DeviceGrant],
        processors: [ProcessorGrant], now: Timestamp, random: inout some RandomNumberGenerator
    ) throws(AddressShortage) {
        guard var instance = state.instances[id], let workload = state.workloads[instance.workload] else { return }
        let revision = revision(for: instance, of: workload)
        let pod = state.revisions[RevisionKey(workload: workload.id, number: revision)]?.pod
        let grant = try pod.map { pod throws(AddressShortage) in
            try addresses(for: pod, of: instance, on: node, revision: revision)
        }
        if let grant { take(grant) }
        instance.epoch += 1
        let task = NodeTask(
            id: .make(&random), instance: id, workload: workload.id, revision: revision,
            node: node, epoch: instance.epoch, desired: workload.desired,
            generation: workload.kind == .container ? workload.generation : 1,
            stop: workload.kind == .container ? workload.stop : nil, ports: ports,
            addresses: grant?.addresses ?? [], grantedDevices: devices, grantedProcessors: processors,
            createdAt: now)
        instance.task = task.id
        instance.unschedulable = nil
        state.put(.instance(instance))
        state.put(.task(task))
        waiting.remove(id)
        // Somebody may have waited for its company.
        for other in wantingCompany where other != id {
            if let workload = state.instances[other]?.workload { dirty.insert(workload) }
        }
        wantingCompany.remove(id)
        if let pod {
            claimVolumes(of: pod, for: task, isGlobal: workload.scale == .global, now: now)
            claimNetworks(of: pod, for: task)
        }
        for port in ports {
            let resource = Claim.Resource.port(
                node: node, transport: port.transport, address: port.hostAddress, number: port.hostPort)
            state.put(.claim(Claim(resource, instance: id, epoch: instance.epoch)))
        }
        releaseClaims(of: instance)
        noteReplacement(instance, on: node, now: now)
    }

    private mutating func noteReplacement(_ instance: Instance, on node: NodeID, now: Timestamp) {
        guard let last = instance.displaced.last, let old = state.tasks[last.task], old.desired != .removed else {
            return
        }
        note(
            last.cause == .lost ? "replaced" : "moved", instance, on: node,
            ["from": nodeName(old.node), "reason": last.cause.rawValue], now: now)
    }

    private mutating func refuse(_ id: InstanceID, _ message: String, now: Timestamp) {
        waiting.insert(id)
        if let instance = state.instances[id],
            let pod = state.workloads[instance.workload].flatMap({ state.pod(of: $0) }),
            !pod.affinities.isEmpty || !pod.namespaces.containers.isEmpty
        {
            wantingCompany.insert(id)
        }
        guard var instance = state.instances[id], instance.unschedulable?.message != message else { return }
        instance.unschedulable = Condition(
            .unschedulable, true, reason: "NoNodeFits", message: message, since: instance.unschedulable?.since ?? now)
        state.put(.instance(instance))
        note(
            kind: "container", action: "unschedulable", id: instance.containers.first?.text ?? "", name: instance.name,
            attributes: ["message": message], now: now)
    }
}
