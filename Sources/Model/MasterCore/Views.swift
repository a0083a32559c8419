import JSON
import Model
import Wire

/// How objects look to users and nodes.
extension MasterCore {
    func containerView(_ instance: Instance, now: Timestamp) -> ContainerView? {
        guard let workload = state.workloads[instance.workload], let id = instance.containers.first else { return nil }
        let task = state.shownTask(of: instance)
        guard let pod = task.flatMap({ state.pod(of: $0) }) ?? state.pod(of: workload),
            let spec = pod.containers.first
        else { return nil }
        let status = task?.status ?? TaskStatus(phase: .assigned)
        return ContainerView(
            id: id, name: instance.name, kind: workload.kind, instance: instance.id, workload: workload.id,
            workloadName: workload.name, group: workload.group, slot: instance.slot, task: task?.id, node: task?.node,
            nodeName: task.flatMap { state.nodes[$0.node]?.name } ?? "",
            revision: task?.revision ?? workload.revision, desired: task?.desired ?? workload.desired,
            generation: task?.generation ?? workload.generation, status: status,
            container: status.containers.first { $0.id == id } ?? ContainerStatus(name: spec.name, id: id), spec: spec,
            pod: pod, hostname: pod.hostname.isEmpty ? String(id.text.prefix(12)) : pod.hostname,
            ports: task?.ports ?? [], grantedDevices: task?.grantedDevices.filter { $0.leftAt == nil } ?? [],
            grantedProcessors: task?.grantedProcessors ?? [],
            labels: workload.labels(of: spec),
            removeOnExit: workload.removeOnExit, unschedulable: instance.unschedulable,
            unreachableSince: task.flatMap { silentSince($0.node, now: now) },
            conditions: conditions(instance, of: workload, now: now), displaced: displacedViews(instance, now: now),
            createdAt: instance.createdAt)
    }

    func serviceView(_ workload: Workload, now: Timestamp) -> ServiceView? {
        guard let pod = state.pod(of: workload) else { return nil }
        let instances = state.instances(of: workload.id)
        var serving = 0
        var updated = 0
        var waiting = ""
        for instance in instances {
            let serves = instance.tasks.contains { id in
                guard let task = state.tasks[id], task.status.serving, task.desired == .running else { return false }
                return silentSince(task.node, now: now) == nil
            }
            if serves { serving += 1 }
            if let task = state.task(of: instance) {
                if task.revision == workload.revision, task.desired != .removed { updated += 1 }
            } else if let condition = instance.unschedulable, waiting.isEmpty {
                waiting = condition.message
            }
        }
        let wanted =
            switch workload.scale {
            case .replicated(let number): number
            case .global: instances.count
            }
        return ServiceView(
            service: workload, pod: pod, serving: serving, wanted: workload.desired == .removed ? 0 : wanted,
            updated: updated, waiting: waiting)
    }

    func nodeView(_ node: Node, explained: Bool = false, now: Timestamp) -> NodeView {
        let load = state.indexes.loads[node.id]
        var node = node
        // Whoever knows the word could pass for the node's next agent.
        node.session = nil
        // Of one node they are much, of all of them too much.
        if !explained { node.processors = nil }
        return NodeView(
            node: node, conditions: (memory[node.id] ?? NodeMemory(now: now, steady: steady)).conditions(at: steady),
            allocated: load?.allocated ?? Resources(), tasks: load?.tasks ?? 0,
            drain: drainView(node, explained: explained, now: now),
            devices: explained ? (try? deviceViews(of: node.id.text)) ?? [] : nil)
    }

    func assignment(of task: NodeTask) -> TaskAssignment? {
        guard let instance = state.instances[task.instance], let workload = state.workloads[task.workload],
            let pod = state.pod(of: task)
        else { return nil }
        return TaskAssignment(
            task: task.id, instance: instance.id, instanceName: instance.name, containers: instance.containers,
            workload: workload.id, workloadName: workload.name, kind: workload.kind, labels: workload.labels,
            revision: task.revision, epoch: task.epoch, desired: task.desired, generation: task.generation,
            stop: task.stop, pod: pod, ports: task.ports,
            networks: pod.attachments.compactMap { state.networks[NetworkID($0.network)] },
            addresses: task.addresses.filter { $0.leftAt == nil },
            grantedDevices: task.grantedDevices.filter { $0.leftAt == nil },
            grantedProcessors: task.grantedProcessors, removeVolumes: workload.removeVolumes)
    }

    func location(of instance: Instance) -> TaskLocation? {
        guard let container = instance.containers.first else { return nil }
        let task = state.shownTask(of: instance)
        let node = task.flatMap { state.nodes[$0.node] }
        return TaskLocation(
            container: container, name: instance.name, task: task?.id, node: node?.id, nodeName: node?.name ?? "",
            streamEndpoint: node?.streamEndpoint ?? "", status: task?.status ?? TaskStatus(),
            waiting: instance.unschedulable?.message ?? "")
    }

    /// Images of all nodes, those with the same content as one.
    func imageViews() -> [ImageView] {
        var merged: [String: ImageView] = [:]
        for (node, memory) in memory.sorted(by: { $0.key < $1.key }) {
            for image in memory.images {
                var view = merged[image.digest] ?? image
                if merged[image.digest] == nil { view.nodes = [] }
                view.names += image.names.filter { !view.names.contains($0) }
                view.namedAt = (view.namedAt ?? [:]).merging(image.namedAt ?? [:], uniquingKeysWith: max)
                if !view.nodes.contains(node) { view.nodes.append(node) }
                merged[image.digest] = view
            }
        }
        return merged.values.sorted { ($0.names.first ?? "~", $0.digest) < ($1.names.first ?? "~", $1.digest) }
    }

    func clusterView(_ record: ClusterRecord) -> ClusterView {
        var allocated = Resources()
        for load in state.indexes.loads.values { allocated = allocated + load.allocated }
        return ClusterView(
            id: record.id, createdAt: record.createdAt, nodes: state.nodes.count,
            readyNodes: memory.values.filter(\.ready).count, workloads: state.workloads.count,
            tasks: state.tasks.count, storeRevision: state.storeRevision,
            capacity: state.nodes.values.reduce(Resources()) { $0 + $1.capacity }, allocated: allocated,
            settings: record.settings)
    }
}
