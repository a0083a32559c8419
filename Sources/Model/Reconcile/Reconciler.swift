import JSON
import Model

/// Compares what a workload shall be with what it is: a pure function, safe to repeat at any time.
package enum Reconciler {
    /// What is to be done now. The actions belong together: they are written in one transaction.
    package static func actions(for picture: WorkloadPicture, now: Timestamp) -> [ReconcileAction] {
        var pass = Pass(picture: picture, now: now)
        return pass.run()
    }
}

private struct Pass {
    let picture: WorkloadPicture
    let now: Timestamp
    var actions: [ReconcileAction] = []
    /// An instance got another task, or none: whoever looks at all of them looks in the next round.
    private var isRestructured = false

    init(picture: WorkloadPicture, now: Timestamp) {
        self.picture = picture
        self.now = now
    }

    var workload: Workload { picture.workload }

    mutating func run() -> [ReconcileAction] {
        if endsNow { actions.append(.removeWorkload) }
        let removing = workload.desired == .removed || endsNow
        if removing, picture.instances.isEmpty {
            actions.append(.forgetWorkload)
            return actions
        }
        var kept: [Instance] = []
        for instance in picture.instances {
            if removing || !isWanted(instance) { retire(instance) } else { kept.append(instance) }
        }
        guard !removing else { return actions }
        for instance in kept { if !settleDisplaced(of: instance) { align(instance) } }
        createMissing(kept)
        if workload.kind == .service, !isRestructured {
            var update = UpdatePass(picture: picture, kept: kept, now: now)
            actions += update.run()
            let leaving = actions.compactMap { action -> TaskID? in
                if case .setTask(let id, .removed, _, _) = action { id } else { nil }
            }
            var drain = DrainPass(picture: picture, kept: kept, leaving: Set(leaving), now: now)
            actions += drain.run()
        }
        return actions
    }

    /// A container with `removeOnExit` that has ended.
    private var endsNow: Bool {
        guard workload.removeOnExit, workload.desired != .removed, workload.desired != .prepared else { return false }
        return picture.instances.contains { instance in
            guard let task = picture.task(of: instance) else { return false }
            return task.generation >= workload.generation && task.endedForGood
        }
    }

    private func isWanted(_ instance: Instance) -> Bool {
        switch workload.scale {
        case .replicated(let number): instance.node == nil && instance.slot >= 1 && instance.slot <= number
        case .global: instance.node.map { picture.eligible[$0] != nil || picture.cordoned.contains($0) } ?? false
        }
    }

    /// The way out: stop and remove its tasks, then forget them and the instance.
    private mutating func retire(_ instance: Instance) {
        var isEmpty = true
        for id in instance.tasks {
            guard let task = picture.tasks[id] else { continue }
            if task.status.phase == .removed {
                actions.append(.removeTask(id))
            } else if isGivenUp(task) {
                actions.append(.giveUp(id))
            } else {
                isEmpty = false
                if task.desired != .removed || task.stop != workload.stop {
                    actions.append(.setTask(id, desired: .removed, generation: task.generation, stop: workload.stop))
                }
            }
        }
        if isEmpty { actions.append(.removeInstance(instance.id)) }
    }

    /// An instance that stays: give it a task, and tell the task what it shall be.
    private mutating func align(_ instance: Instance) {
        guard let task = picture.task(of: instance) else {
            place(instance)
            return
        }
        if task.status.phase == .removed || isGivenUp(task) {
            isRestructured = true
            actions.append(task.status.phase == .removed ? .removeTask(task.id) : .giveUp(task.id))
            place(instance)
            return
        }
        if isToBeReplaced(task, of: instance) {
            isRestructured = true
            actions.append(.displace(instance.id, task.id, .lost))
            if !picture.mustBeAlone(picture.pod) || picture.mustBeAlone(picture.pod(of: task)) { place(instance) }
            return
        }
        guard task.desired != .removed else { return }
        if workload.desired == .running, seesToDevices(of: task, instance) { return }
        if workload.kind == .service {
            // An instance of a service counts its own starts, so that one can be restarted alone.
            if task.desired != workload.desired {
                actions.append(
                    .setTask(task.id, desired: workload.desired, generation: task.generation, stop: workload.stop))
            }
        } else if task.desired != workload.desired || task.generation != workload.generation
            || task.stop != workload.stop
        {
            actions.append(
                .setTask(task.id, desired: workload.desired, generation: workload.generation, stop: workload.stop))
        }
    }

    /// Acts on devices that are unusable or gone, as the task's claims want it.
    ///
    /// - Returns: whether nothing else is to be told to the task now.
    private mutating func seesToDevices(of task: NodeTask, _ instance: Instance) -> Bool {
        // One of a service rests until somebody starts it; a container starts with other devices once it has ended.
        if task.isEndedForDevices { return workload.kind == .service || !task.rests }
        // What has ended by itself is a case for its restart policy.
        guard let ailment = picture.ailing[task.id], task.desired == .running, !task.rests else { return false }
        // One that has never run has nothing to end: its node says why it cannot start, and it starts with others then.
        let hasRun = task.status.containers.contains { $0.start > 0 }
        if ailment.policy == .restart, let next = instance.deviceMoves?.next, next > now {
            actions.append(.wake(next))
            return false
        }
        switch ailment.policy {
        case .stay: return false
        case .end:
            guard hasRun else { return false }
            actions.append(.endTask(task.id, reason: ailment.words, again: false))
        case .restart where workload.kind == .container:
            // Its writable layer is on its node.
            guard ailment.hasOthers, hasRun else { return false }
            actions += [
                .countDeviceMove(instance.id), .endTask(task.id, reason: ailment.words, again: true),
            ]
        case .restart:
            // An update that is going on replaces what is older by itself.
            let isUpdated = workload.updateState.phase == .updating && task.revision != workload.revision
            guard !isUpdated else { return false }
            isRestructured = true
            actions.append(.countDeviceMove(instance.id))
            if picture.mustBeAlone(picture.pod) || picture.mustBeAlone(picture.pod(of: task)) {
                remove(task)
            } else {
                actions += [.displace(instance.id, task.id, .unhealthy)]
                place(instance)
            }
        }
        return true
    }

    /// Has a node found for the instance's next task. One that must run alone waits for everything that may run beside
    /// it: only what ends by itself without contact has ended for certain when it counts as lost.
    private mutating func place(_ instance: Instance) {
        guard workload.desired != .stopped else { return }
        if picture.mustBeAlone(picture.pod) {
            let others = instance.displaced.compactMap { displaced in
                picture.tasks[displaced.task].map { (task: $0, isLost: displaced.cause == .lost) }
            }.filter {
                $0.task.status.phase != .removed && !($0.isLost && picture.mustBeAlone(picture.pod(of: $0.task)))
            }
            for other in others where other.task.desired != .removed { remove(other.task) }
            guard others.isEmpty else { return }
        }
        actions.append(.place(instance.id))
    }

    // MARK: Lost nodes

    /// Whether the task's node has been silent for so long, when there is such a time; asks to look again then.
    private mutating func isSilent(_ task: NodeTask, for seconds: Int?) -> Bool {
        guard let seconds, let since = picture.unreachable[task.node] else { return false }
        let moment = since.adding(seconds: Int64(seconds))
        if moment > now { actions.append(.wake(moment)) }
        return moment <= now
    }

    private mutating func isGivenUp(_ task: NodeTask) -> Bool {
        isSilent(task, for: picture.loss(of: task).giveUpAfter)
    }

    private mutating func isToBeReplaced(_ task: NodeTask, of instance: Instance) -> Bool {
        // One of a global service belongs to its node, and what ended for good has nothing to go on with.
        guard instance.node == nil, workload.desired == .running, workload.kind == .service || !task.endedForGood
        else { return false }
        return isSilent(task, for: picture.loss(of: task).replaceAfter)
    }

    /// Deals with the tasks that do not count.
    ///
    /// - Returns: whether one of them counts again.
    private mutating func settleDisplaced(of instance: Instance) -> Bool {
        for displaced in instance.displaced {
            guard let task = picture.tasks[displaced.task] else { continue }
            if task.status.phase == .removed {
                actions.append(.removeTask(task.id))
            } else if isGivenUp(task) {
                actions.append(.giveUp(task.id))
            } else if task.desired != .removed {
                let returns =
                    displaced.cause == .lost
                    ? lostReturns(task, of: instance) : movedReturns(task, displaced.cause, of: instance)
                if returns {
                    isRestructured = true
                    actions.append(.restore(instance.id, task.id))
                    return true
                }
            }
        }
        return false
    }

    /// A task whose node was lost counts again if the node is back and nothing has taken its place, or if its policy
    /// says so; else it goes.
    private mutating func lostReturns(_ task: NodeTask, of instance: Instance) -> Bool {
        let isBack = picture.unreachable[task.node] == nil
        guard let current = picture.task(of: instance) else { return isBack }
        // Of a service's, one that an update has passed by does not return; a container is changed in place.
        let isOfNow = workload.kind == .container || task.revision == current.revision
        if isOfNow, picture.loss(of: task).onReturn == .keepOriginal { return isBack }
        // Told while its node is away, so that it is the first that the node hears.
        remove(task)
        return false
    }

    /// A task that moves goes when its replacement serves, or when its node's time is up; when none was found yet and it
    /// may stay, it counts again.
    private mutating func movedReturns(
        _ task: NodeTask, _ cause: Displaced.Cause, of instance: Instance
    ) -> Bool {
        let drain = picture.drained[task.node]
        if let deadline = drain?.deadline {
            if deadline <= now {
                remove(task)
                return false
            }
            actions.append(.wake(deadline))
        }
        guard let current = picture.task(of: instance) else {
            guard cause == .unhealthy else { return drain == nil }
            return picture.ailing[task.id] == nil && picture.unreachable[task.node] == nil
        }
        if let moment = picture.counts(current, now: now) {
            if moment <= now { remove(task) } else { actions.append(.wake(moment)) }
            return false
        }
        // Nothing is worth a replacement that does not come to serve, unless the node must be left.
        guard cause == .rebalanced, drain == nil, picture.serves(task) else { return false }
        let patience = UpdatePass.patience(with: picture.pod(of: current))
        let end = WorkloadPicture.due(
            current.createdAt.adding(seconds: Int64(patience)), length: patience, now: now)
        if end > now { actions.append(.wake(end)) }
        return end <= now || UpdatePass.failure(of: current) != nil
    }

    private mutating func remove(_ task: NodeTask) {
        actions.append(.setTask(task.id, desired: .removed, generation: task.generation, stop: nil))
    }

    private mutating func createMissing(_ kept: [Instance]) {
        switch workload.scale {
        case .replicated(let number):
            let present = Set(kept.map(\.slot))
            for slot in stride(from: 1, through: number, by: 1) where !present.contains(slot) {
                let name = workload.kind == .container ? workload.name : "\(workload.name).\(slot)"
                actions.append(.createInstance(slot: slot, node: nil, name: name))
            }
        case .global:
            let present = Set(kept.compactMap(\.node))
            for (node, nodeName) in picture.eligible.sorted(by: { $0.key < $1.key }) where !present.contains(node) {
                actions.append(.createInstance(slot: 0, node: node, name: "\(workload.name).\(nodeName)"))
            }
        }
    }
}
