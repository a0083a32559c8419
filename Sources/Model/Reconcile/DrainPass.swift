import JSON
import Model

/// Moves a service's instances away from nodes that are being drained: a replacement is made elsewhere, and the old
/// task goes once that one serves. What must not run twice is stopped first, if enough others serve; what is tied to
/// its node stays. At the deadline everything goes.
struct DrainPass {
    let picture: WorkloadPicture
    let kept: [Instance]
    /// Tasks that others remove in the same round: an update, say.
    let leaving: Set<TaskID>
    let now: Timestamp
    private var actions: [ReconcileAction] = []

    init(picture: WorkloadPicture, kept: [Instance], leaving: Set<TaskID>, now: Timestamp) {
        self.picture = picture
        self.kept = kept
        self.leaving = leaving
        self.now = now
    }

    mutating func run() -> [ReconcileAction] {
        guard !picture.drained.isEmpty else { return [] }
        var room = max(1, picture.workload.update.parallelism) - kept.count { isMoving($0) }
        var serving = kept.count { instance in
            instance.tasks.contains { id in
                picture.tasks[id].map { picture.serves($0) && !leaving.contains(id) } ?? false
            }
        }
        for instance in kept {
            guard let task = picture.task(of: instance), let drain = picture.drained[task.node],
                task.desired != .removed, !leaving.contains(task.id), picture.unreachable[task.node] == nil
            else { continue }
            if let deadline = drain.deadline {
                if deadline <= now {
                    remove(task)
                    continue
                }
                actions.append(.wake(deadline))
            }
            // An update that is going on replaces what is older by itself.
            let isUpdated =
                picture.workload.updateState.phase == .updating && task.revision != picture.workload.revision
            guard room > 0, !isUpdated else { continue }
            switch picture.way(of: task) {
            case .stays: break
            case .startFirst:
                room -= 1
                actions += [.displace(instance.id, task.id, .drained), .place(instance.id)]
            case .stopFirst:
                let serves = picture.serves(task)
                guard !serves || serving - 1 >= picture.minimum(drain) else { continue }
                room -= 1
                if serves { serving -= 1 }
                remove(task)
            }
        }
        return actions
    }

    private func isMoving(_ instance: Instance) -> Bool {
        guard let task = picture.task(of: instance) else { return !instance.displaced.contains { $0.cause == .lost } }
        if task.desired == .removed || leaving.contains(task.id) { return true }
        return instance.displaced.contains { $0.cause != .lost && !picture.isLeftBehind($0) }
    }

    private mutating func remove(_ task: NodeTask) {
        actions.append(.setTask(task.id, desired: .removed, generation: task.generation, stop: nil))
    }
}

extension WorkloadPicture {
    /// How a task can leave its node.
    enum Way: Equatable {
        /// Its replacement serves before it goes.
        case startFirst
        /// It must not run twice.
        case stopFirst
        /// What it needs is on its node: this is how it depends on it.
        case stays(String)
    }

    func way(of task: NodeTask) -> Way {
        let pod = pod(of: task)
        if let volume = pod.volumes.first { return .stays("mounts the volume \(volume), which is on this node") }
        if pod.attachments.contains(where: { !spanning.contains($0.network) }) {
            return .stays("is on a network of this node")
        }
        if !pod.namespaces.containers.isEmpty { return .stays("shares namespaces with a container of this node") }
        return mustBeAlone(pod) || mustBeAlone(self.pod) ? .stopFirst : .startFirst
    }

    /// Instances that have to serve all through a drain.
    func minimum(_ drain: Node.Drain) -> Int {
        guard case .replicated(let number) = workload.scale else { return 0 }
        return (number * drain.minimumAvailable + 99) / 100
    }

    /// Why a task is still on a node that is being drained.
    package func explanation(of task: NodeTask, _ drain: Node.Drain) -> String {
        guard workload.kind == .service else { return "a container stays until it is removed" }
        if task.desired == .removed { return "is being removed" }
        if let instance = instances.first(where: { $0.tasks.contains(task.id) }), instance.task != task.id {
            if let condition = instance.unschedulable, instance.task == nil {
                return "waits for a replacement: \(condition.message)"
            }
            return "goes when its replacement serves"
        }
        switch way(of: task) {
        case .stays(let why): return why
        case .stopFirst where serves(task) && instances.count(where: { serves($0) }) - 1 < minimum(drain):
            return
                "must not run twice, and to stop it would leave fewer than \(minimum(drain)) that serve"
        case .startFirst, .stopFirst: return "waits for its turn"
        }
    }
}
