import JSON
import Model
import Reconcile
import Scheduling

/// What becomes of tasks whose devices are unusable or gone, as their claims want it.
///
/// Only what a node has told counts: one that is silent, or has yet to tell of its devices, has no sick ones.
extension MasterCore {
    /// Devices that are unusable or gone, of those that a task has.
    private func troubles(of task: NodeTask) -> [(grant: DeviceGrant, device: String, trouble: DeviceTrouble)] {
        guard !task.grantedDevices.isEmpty, let memory = memory[task.node], memory.ready,
            !memory.deviceTroubles.isEmpty
        else { return [] }
        return task.grantedDevices.filter { $0.leftAt == nil }.flatMap { grant in
            grant.devices.compactMap { id in memory.deviceTroubles[id].map { (grant, id, $0) } }
        }
    }

    /// What the task's claims want when these devices are sick: of several the strictest.
    private func policy(of grants: [DeviceGrant], _ task: NodeTask) -> DeviceClaim.HealthPolicy {
        let containers = state.pod(of: task)?.containers ?? []
        let wanted = grants.compactMap { grant in
            containers.first { $0.name == grant.container }?.deviceClaims.dropFirst(grant.claim).first?.onUnhealthy
        }
        return wanted.contains(.end) ? .end : wanted.contains(.restart) ? .restart : .stay
    }

    /// What is wrong with the task's devices; nil: nothing, as far as its node has told.
    func ailment(of task: NodeTask) -> WorkloadPicture.Ailment? {
        guard !task.grantedDevices.isEmpty, task.desired != .removed else { return nil }
        if memory[task.node]?.devices == nil {
            // One that waits for its replacement does not count again for want of news.
            let isDisplaced = state.instances[task.instance]?.task != task.id
            return isDisplaced ? WorkloadPicture.Ailment(.stay, "") : nil
        }
        let troubles = troubles(of: task)
        guard let first = troubles.first else { return nil }
        let policy = policy(of: troubles.map(\.grant), task)
        let isInPlace = policy == .restart && state.workloads[task.workload]?.kind == .container
        return WorkloadPicture.Ailment(
            policy, Self.words(first.device, first.trouble), hasOthers: !isInPlace || hasOtherDevices(task))
    }

    /// Whether its node has devices for the task beside those that are sick, once it has ended.
    private func hasOtherDevices(_ task: NodeTask) -> Bool {
        guard let pod = state.pod(of: task) else { return false }
        let pool = devicePool(of: task.node, without: task.id)
        if case .grants = pool.choose(DemandedDevices.all(of: pod)) { return true }
        return false
    }

    /// At most `longestReason` bytes: a task has to stay small in the store.
    private static func words(_ device: String, _ trouble: DeviceTrouble) -> String {
        let text = "its device \(device) \(trouble.words)"
        return text.utf8.count <= longestReason ? text : String(text.unicodeScalars.prefix(longestReason / 4)) + "…"
    }

    private static let longestReason = 240

    /// Workloads of tasks that have sick devices and want others: what is free may help them.
    var ailingWorkloads: Set<WorkloadID> {
        var found: Set<WorkloadID> = []
        for (node, memory) in memory where !memory.deviceTroubles.isEmpty {
            for (id, holders) in state.indexes.deviceHolders[node] ?? [:] where memory.deviceTroubles[id] != nil {
                for task in holders.keys {
                    guard let task = state.tasks[task], policy(of: task.grantedDevices, task) == .restart else {
                        continue
                    }
                    found.insert(task.workload)
                }
            }
        }
        return found
    }

    /// A node has told of its devices: whoever has one that became sick, or well, is looked at, and users hear of it.
    ///
    /// - Parameter before: nil: it has not told before, as far as this master knows; users have heard of it then.
    mutating func troublesChanged(on node: NodeID, _ told: [String: DeviceTrouble]?, now: Timestamp) {
        let before = told ?? [:]
        let after = memory[node]?.deviceTroubles ?? [:]
        for (id, holders) in (state.indexes.deviceHolders[node] ?? [:]).sorted(by: { $0.key < $1.key })
        where before[id] != after[id] {
            for task in holders.keys.sorted().compactMap({ state.tasks[$0] }) {
                dirty.insert(task.workload)
                touch(task.instance)
                guard told != nil, before[id] == nil, let trouble = after[id],
                    let instance = state.instances[task.instance]
                else {
                    continue
                }
                let grants = task.grantedDevices.filter { $0.devices.contains(id) }
                note(
                    "device_unusable", instance, on: node,
                    ["device": id, "reason": trouble.words, "policy": policy(of: grants, task).rawValue], now: now)
            }
        }
    }

    /// Stops a task that cannot go on with its devices.
    ///
    /// - Parameter again: it starts with others once it has ended.
    mutating func endTask(_ id: TaskID, _ reason: String, again: Bool, now: Timestamp) {
        guard var task = state.tasks[id], var workload = state.workloads[task.workload] else { return }
        let order = StopOrder(reason: reason)
        if workload.kind == .container {
            // Counted now, so that its end is not taken for that of what shall run.
            if again { workload.generation += 1 } else { (workload.desired, workload.stop) = (.stopped, order) }
            state.put(.workload(workload))
        }
        task.desired = .stopped
        task.stop = order
        state.put(.task(task))
        if let instance = state.instances[task.instance] {
            note(again ? "device_restart" : "device_end", instance, on: task.node, ["reason": reason], now: now)
        }
    }

    mutating func countDeviceMove(of id: InstanceID, now: Timestamp) {
        guard var instance = state.instances[id] else { return }
        if instance.deviceMoves == nil {
            instance.deviceMoves = DeviceMoves(at: now)
        } else {
            instance.deviceMoves?.add(at: now)
        }
        state.put(.instance(instance))
    }

    /// How a task's sick devices look to users.
    func deviceCondition(of task: NodeTask, _ instance: Instance, now: Timestamp) -> Condition? {
        guard !task.rests, let first = troubles(of: task).first, let ailment = ailment(of: task) else { return nil }
        return Condition(
            .deviceUnusable, true, reason: "DeviceUnusable",
            message: ailment.words + ": " + prospect(of: task, instance, ailment, now: now),
            since: first.trouble.since)
    }

    private func prospect(
        of task: NodeTask, _ instance: Instance, _ ailment: WorkloadPicture.Ailment, now: Timestamp
    ) -> String {
        if task.desired == .removed { return "it is being removed" }
        if task.isEndedForDevices { return "it is being ended" }
        if instance.task != task.id { return "it goes when its replacement serves" }
        switch ailment.policy {
        case .stay: return "it goes on with it"
        case .end: return "it is ended when it runs"
        case .restart:
            guard ailment.hasOthers else { return "it goes on until its node has others for it" }
            guard let next = instance.deviceMoves?.next, next > now else { return "it is replaced when it runs" }
            return "it is replaced when it runs, not before \(next): it has got others not long ago"
        }
    }
}
