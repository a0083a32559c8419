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
    func devicePool(of node: NodeID) -> DevicePool {
        guard let memory = memory[node] else { return DevicePool() }
        var pool = memory.pool
        for (id, holders) in state.indexes.deviceHolders[node] ?? [:] { pool.take(id, Array(holders.values)) }
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
    mutating func setDevices(of node: NodeID, _ reported: [NodeDevice]) {
        let devices = NodeDevice.bounded(reported)
        guard devices != memory[node]?.devices else { return }
        memory[node]?.setDevices(devices)
        capacityChanged = true
        // Those with claims want to be where the devices are.
        dirty.formUnion(state.indexes.globalWorkloads)
    }

    /// A task is over: its node need not say again that it holds nothing.
    mutating func forgetHolder(_ task: TaskID, on node: NodeID) {
        guard let held = memory[node]?.heldDevices, held.contains(where: { $0.heldBy.contains(task) }),
            var devices = memory[node]?.devices
        else { return }
        for index in devices.indices { devices[index].heldBy.removeAll { $0 == task } }
        memory[node]?.setDevices(devices)
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

    // MARK: Starting again

    /// Why a task cannot have its devices again.
    struct DeviceShortage: Error, CustomStringConvertible {
        let description: String
    }

    /// Gives a task that rests the devices that it wants to start again; one that does not rest keeps what it has.
    func grantDevices(to task: inout NodeTask) throws(DeviceShortage) {
        guard let pod = state.pod(of: task) else { return }
        let demanded = DemandedDevices.all(of: pod)
        guard !demanded.isEmpty, task.rests || task.grantedDevices.isEmpty else { return }
        let had = task.grantedDevices
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
            state.pod(of: task)?.containers.contains(where: { !$0.deviceClaims.isEmpty }) ?? false
        else { return true }
        var granted = task
        do throws(DeviceShortage) {
            try grantDevices(to: &granted)
        } catch {
            guard next.desired == .stopped else {
                wait(task, "\(nodeName(task.node)): \(error)", now: now)
                return false
            }
            granted.grantedDevices = []
        }
        next.grantedDevices = granted.grantedDevices
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
