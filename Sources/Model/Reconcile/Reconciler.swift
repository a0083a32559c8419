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
        for instance in kept { align(instance) }
        createMissing(kept)
        if workload.kind == .service {
            var update = UpdatePass(picture: picture, kept: kept, now: now)
            actions += update.run()
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

    /// The way out: stop and remove the task, then forget task and instance.
    private mutating func retire(_ instance: Instance) {
        guard let task = picture.task(of: instance) else {
            actions.append(.removeInstance(instance.id))
            return
        }
        if task.status.phase == .removed {
            actions.append(.removeTask(task.id))
            actions.append(.removeInstance(instance.id))
        } else if task.desired != .removed || task.stop != workload.stop {
            actions.append(
                .setTask(task.id, desired: .removed, generation: task.generation, stop: workload.stop))
        }
    }

    /// An instance that stays: give it a task, and tell the task what it shall be.
    private mutating func align(_ instance: Instance) {
        guard let task = picture.task(of: instance) else {
            if workload.desired != .stopped { actions.append(.place(instance.id)) }
            return
        }
        if task.status.phase == .removed {
            actions.append(.removeTask(task.id))
            if workload.desired != .stopped { actions.append(.place(instance.id)) }
            return
        }
        guard task.desired != .removed else { return }
        if workload.kind == .service {
            // An instance of a service counts its own starts, so that one can be restarted alone.
            if picture.drained.contains(task.node) {
                actions.append(.setTask(task.id, desired: .removed, generation: task.generation, stop: nil))
            } else if task.desired != workload.desired {
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
