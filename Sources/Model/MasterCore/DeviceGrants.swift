import JSON
import Model
import Scheduling
import Wire

/// Which devices of their nodes tasks have.
///
/// A task has them from the transaction that places it until it rests: until its node has told that it ended and will not
/// start by itself. Silence of a node ends nothing. Before it starts again it is given devices anew, the same ones where
/// nobody else has them by now. A task that the master has forgotten may still run: what its node says that it holds is
/// not given to others either.
extension MasterCore {
    /// The node's devices with all that is taken of them.
    ///
    /// - Parameter task: one whose devices count as free.
    func devicePool(of node: NodeID, without task: TaskID? = nil) -> DevicePool {
        guard let memory = memory[node] else { return DevicePool() }
        var pool = memory.pool
        for (id, holders) in state.indexes.deviceHolders[node] ?? [:] {
            pool.take(id, holders.filter { $0.key != task }.map(\.value))
        }
        for device in memory.heldDevices
        where device.heldBy.contains(where: { isStranger($0, to: device.id, on: node) }) {
            // How a stranger has it nobody knows: nothing is given beside it.
            pool.take(device.id, [.whole])
        }
        return pool
    }

    /// Whether the node says of a task that it holds a device which the task has not been given, as far as this master knows.
    private func isStranger(_ id: TaskID, to device: String, on node: NodeID) -> Bool {
        guard let task = state.tasks[id], task.node == node else { return true }
        return !task.rests && state.indexes.deviceHolders[node]?[device]?[id] == nil
    }

    /// Takes over what a node says of its devices.
    mutating func setDevices(of node: NodeID, _ reported: [NodeDevice], now: Timestamp) {
        let devices = NodeDevice.bounded(reported)
        guard devices != memory[node]?.devices else { return }
        let before = memory[node]?.devices == nil ? nil : memory[node]?.deviceTroubles
        memory[node]?.setDevices(devices, held: (state.indexes.deviceHolders[node] ?? [:]).keys, now: now)
        troublesChanged(on: node, before, now: now)
        capacityChanged = true
        // Those with claims want to be where the devices are.
        dirty.formUnion(state.indexes.globalWorkloads)
    }

    /// A task is over: its node need not say again that it holds nothing.
    mutating func forgetHolder(_ task: TaskID, on node: NodeID) {
        guard let held = memory[node]?.heldDevices, held.contains(where: { $0.heldBy.contains(task) }) else { return }
        memory[node]?.removeHolder(task)
        capacityChanged = true
    }

    /// What other tasks of the instance have, by node: a replacement gets something else where it can.
    func avoidedDevices(_ instance: Instance) -> [NodeID: Set<String>] {
        var avoided: [NodeID: Set<String>] = [:]
        for task in instance.displaced.compactMap({ state.tasks[$0.task] }) {
            avoided[task.node, default: []].formUnion(task.grantedDevices.flatMap(\.devices))
        }
        return avoided
    }

    // MARK: Changing

    /// What a task has when its container's claims are others from now on: for a claim that stays what it has for it, for others
    /// what is free, its own before all else. What it is not to have any more stays its until its node has let go of it.
    ///
    /// One that rests has nothing; it is given devices when it starts.
    ///
    /// - Throws: `APIProblem` 409 when its node has no such devices free, or cannot change those of a container that runs.
    func changedDevices(
        of task: NodeTask, from old: PodSpec, to pod: PodSpec, revision: Int, named name: String
    ) throws(APIProblem) -> [DeviceGrant] {
        let (before, demanded) = (DemandedDevices.all(of: old), DemandedDevices.all(of: pod))
        guard before != demanded else { return task.grantedDevices }
        if task.rests { return [] }
        let node = nodeName(task.node)
        guard state.nodes[task.node]?.features.contains(DeviceGrant.changeFeature) == true else {
            throw APIProblem(
                .conflict,
                "the devices of the container \(name) cannot be changed while it runs: the agent of its node \(node) is of an "
                    + "earlier version; stop the container first")
        }
        guard memory[task.node]?.devices != nil else {
            throw APIProblem(
                .conflict, "the node \(node) of the container \(name) has yet to tell which devices it has: try again")
        }
        var left = before
        var (kept, wanted): ([DeviceGrant], [DemandedDevices]) = ([], [])
        for demand in demanded {
            let same = left.firstIndex { $0.container == demand.container && $0.claim == demand.claim }
            let grant = same.flatMap { same in
                task.grantedDevices.first {
                    $0.leftAt == nil && $0.container == left[same].container && $0.claim == left[same].index
                }
            }
            guard let same, var grant else {
                wanted.append(demand)
                continue
            }
            left.remove(at: same)
            grant.claim = demand.index
            kept.append(grant)
        }
        var pool = devicePool(of: task.node, without: task.id)
        pool.take(kept)
        let own = Set(task.grantedDevices.flatMap(\.devices))
        let foreign = Set(pool.devices.map(\.id)).subtracting(own)
        switch pool.choose(wanted, avoiding: foreign) {
        case .grants(let grants): kept += grants
        case .lacks(let words):
            throw APIProblem(
                .conflict,
                "the container \(name) cannot have these devices while it runs, its node \(node) has not got them: \(words)"
            )
        }
        let present = Set(kept.flatMap(\.devices))
        for var gone in task.grantedDevices {
            gone.devices.removeAll { present.contains($0) }
            gone.leftAt = gone.leftAt ?? revision
            if !gone.devices.isEmpty { kept.append(gone) }
        }
        return kept
    }

    /// Takes over what a node says it has let go of.
    ///
    /// - Returns: whether something is free now that was not.
    func letGoOfDevices(_ task: inout NodeTask) -> Bool {
        let before = task.grantedDevices.count
        let rests = task.rests
        // An agent of an earlier version tells of revisions that change nothing of devices.
        let canChange = state.nodes[task.node]?.features.contains(DeviceGrant.changeFeature) ?? false
        let revision = canChange ? task.status.revision : 0
        task.grantedDevices.removeAll { grant in grant.leftAt.map { rests || $0 <= revision } ?? false }
        return task.grantedDevices.count != before
    }

    // MARK: Starting again

    /// Why a task cannot have its devices, or processors of its own, again.
    struct DeviceShortage: Error, CustomStringConvertible {
        let description: String
        /// What there is too little of.
        var subject = "devices"
    }

    /// Gives a task that rests the devices that it wants to start again; one that does not rest keeps what it has.
    func grantDevices(to task: inout NodeTask) throws(DeviceShortage) {
        guard let pod = state.pod(of: task) else { return }
        let demanded = DemandedDevices.all(of: pod)
        guard !demanded.isEmpty, task.rests || task.grantedDevices.isEmpty else { return }
        let had = task.grantedDevices.filter { $0.leftAt == nil }
        if memory[task.node]?.devices == nil {
            // Its node is yet to tell what it has; it has told once.
            let holders = state.indexes.deviceHolders[task.node] ?? [:]
            let isTaken = had.contains { $0.devices.contains { holders[$0]?.isEmpty == false } }
            if !had.isEmpty, !isTaken { return }
            throw DeviceShortage(description: "the node has yet to tell which devices it has")
        }
        let pool = devicePool(of: task.node)
        if had.count == demanded.count, pool.isFree(had) { return }
        switch pool.choose(demanded) {
        case .grants(let grants): task.grantedDevices = grants
        case .lacks(let words): throw DeviceShortage(description: words)
        }
    }

    /// The same for a task that is to become `next`: when there are none, one that is to run stays as it is until there
    /// are, and any other has none.
    ///
    /// - Returns: whether it may become so.
    mutating func renewDevices(of task: NodeTask, for next: inout NodeTask, now: Timestamp) -> Bool {
        guard task.rests || task.grantedDevices.isEmpty, !next.rests, next.desired != .removed,
            state.pod(of: task)?.wantsOwn ?? false
        else { return true }
        var granted = task
        do throws(DeviceShortage) {
            try grantOwn(to: &granted)
        } catch {
            guard next.desired == .stopped else {
                wait(task, "\(nodeName(task.node)): \(error)", now: now)
                return false
            }
            granted.grantedDevices = []
            granted.grantedProcessors = []
        }
        next.grantedDevices = granted.grantedDevices
        next.grantedProcessors = granted.grantedProcessors
        clearShortage(of: task.instance)
        return true
    }

    /// The instance's task has its devices: nobody waits any more.
    mutating func clearShortage(of id: InstanceID) {
        lackingDevices.remove(id)
        guard var instance = state.instances[id], instance.task != nil, instance.unschedulable != nil else { return }
        instance.unschedulable = nil
        state.put(.instance(instance))
    }

    private mutating func wait(_ task: NodeTask, _ message: String, now: Timestamp) {
        lackingDevices.insert(task.instance)
        guard var instance = state.instances[task.instance], instance.unschedulable?.message != message else { return }
        instance.unschedulable = Condition(
            .unschedulable, true, reason: "NoDevices", message: message, since: instance.unschedulable?.since ?? now)
        state.put(.instance(instance))
    }

    // MARK: For people

    /// The devices of a node, or of all; those of nodes that are not heard of as they were last known.
    func deviceViews(of ref: String?) throws(APIProblem) -> [DeviceView] {
        let nodes = try ref.map { ref throws(APIProblem) in [try node(ref)] } ?? Array(state.nodes.values)
        return nodes.sorted { $0.name < $1.name }.flatMap { node in
            (memory[node.id]?.devices ?? []).map { device in
                let holders = state.indexes.deviceHolders[node.id]?[device.id] ?? [:]
                var shown = device
                shown.heldBy = []
                return DeviceView(
                    node: node.id, nodeName: node.name, device: shown,
                    holders: holders.sorted { $0.key < $1.key }.map { holder($0.key, $0.value) }
                        + device.heldBy.filter { isStranger($0, to: device.id, on: node.id) }.map {
                            DeviceView.Holder(task: nil, sharing: .whole, isForgotten: state.tasks[$0] == nil)
                        })
            }
        }
    }

    private func holder(_ id: TaskID, _ sharing: DeviceClaim.Sharing) -> DeviceView.Holder {
        guard let instance = state.tasks[id].flatMap({ state.instances[$0.instance] }), sees(instance) else {
            return DeviceView.Holder(task: nil, sharing: sharing)
        }
        return DeviceView.Holder(
            task: id, container: instance.containers.first, name: instance.name, sharing: sharing)
    }

    /// One device by its id, or an alias where one node is named.
    func deviceView(_ id: String, on node: String?) throws(APIProblem) -> DeviceView {
        let all = try deviceViews(of: node)
        let found = all.filter { $0.device.id == id }
        let meant = found.isEmpty ? all.filter { $0.device.aliases.contains(id) } : found
        guard meant.count <= 1 else {
            let names = meant.map(\.nodeName).joined(separator: ", ")
            throw APIProblem(.conflict, "'\(id)' may be a device of any of \(names): name the node too")
        }
        guard let view = meant.first else {
            throw APIProblem(.notFound, "there is no device '\(id)'; see `martlet device ls`")
        }
        return view
    }
}
