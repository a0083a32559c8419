import JSON
import Model

/// Replaces the instances of a service whose task runs an older revision, one batch after another: a task is stopped
/// and removed before its successor is made, and a batch counts once each of its tasks has served for the monitor time.
struct UpdatePass {
    let picture: WorkloadPicture
    let kept: [Instance]
    let now: Timestamp
    private var actions: [ReconcileAction] = []

    init(picture: WorkloadPicture, kept: [Instance], now: Timestamp) {
        self.picture = picture
        self.kept = kept
        self.now = now
    }

    private var workload: Workload { picture.workload }

    /// How far an instance is on its way to the newest revision.
    enum Progress: Equatable {
        /// Its task runs an older revision.
        case outdated
        /// It is being replaced, or its new task does not count yet; it may be looked at again at that time.
        case underway(until: Timestamp?)
        /// Its new task serves, and has for the monitor time.
        case good
        case failed(String)
        /// Its node is not heard of: the others go on without it, and it is seen to when it is back or replaced.
        case away(isOutdated: Bool)
    }

    mutating func run() -> [ReconcileAction] {
        guard workload.updateState.phase == .updating else { return actions }
        var outdated: [Instance] = []
        var awaitsOthers = false
        var underway = false
        for instance in kept {
            switch progress(of: instance) {
            case .outdated: outdated.append(instance)
            case .underway(let until):
                underway = true
                if let until { actions.append(.wake(until)) }
            case .good: break
            case .away(let isOutdated): awaitsOthers = awaitsOthers || isOutdated
            case .failed(let message):
                if workload.update.onFailure == .continue { continue }
                return fail("\(instance.name): \(message)")
            }
        }
        guard !underway else { return actions }
        if !outdated.isEmpty {
            startBatch(outdated)
        } else if !awaitsOthers {
            actions.append(.setUpdate(UpdateState(.settled, message: settledMessage, since: now)))
        }
        return actions
    }

    private var settledMessage: String {
        workload.updateState.rolledBackFrom == nil ? "" : workload.updateState.message
    }

    func progress(of instance: Instance) -> Progress {
        guard let task = picture.task(of: instance) else {
            let isLost = instance.displaced.contains { $0.cause == .lost }
            return isLost ? .away(isOutdated: true) : .underway(until: nil)
        }
        if let since = picture.unreachable[task.node] {
            // After a restart of the master every node is, for a moment.
            let moment = since.adding(seconds: Int64(LossPolicy.patience))
            return moment > now ? .underway(until: moment) : .away(isOutdated: task.revision != workload.revision)
        }
        guard task.desired != .removed, task.status.phase != .removed else { return .underway(until: nil) }
        guard task.revision == workload.revision else { return .outdated }
        if let message = Self.failure(of: task) { return .failed(message) }
        if let counts = picture.counts(task, now: now) {
            return counts <= now ? .good : .underway(until: counts)
        }
        let patience = Self.patience(with: picture.pod)
        let deadline = due(task.createdAt.adding(seconds: Int64(patience)), length: patience)
        return deadline <= now
            ? .failed("does not serve \(patience) s after it was made") : .underway(until: deadline)
    }

    /// Seconds in which a new task has to serve.
    static func patience(with pod: PodSpec) -> Int {
        120 + (pod.containers.compactMap { $0.healthCheck?.startPeriod }.max() ?? 0)
    }

    private func due(_ deadline: Timestamp, length: Int) -> Timestamp {
        WorkloadPicture.due(deadline, length: length, now: now)
    }

    /// Why a task of the newest revision is taken as failed; nil: it is not.
    static func failure(of task: NodeTask) -> String? {
        if let container = task.status.containers.first(where: { $0.restarts >= 3 }) {
            return "restarted \(container.restarts) times" + ending(container)
        }
        switch task.status.phase {
        case .failed: return task.status.message.isEmpty ? "could not be started" : task.status.message
        // What the cluster ended for a device's sake says nothing of the revision.
        case .exited where task.endedForGood && !task.isEndedForDevices:
            return "ended" + (task.status.containers.first.map(ending) ?? "")
        default: return nil
        }
    }

    private static func ending(_ container: ContainerStatus) -> String {
        guard let code = container.exitCode else { return "" }
        let reason = container.outOfMemory ? "out of memory" : container.reason
        return ", last with exit code \(code)" + (reason.isEmpty ? "" : " (\(reason))")
    }

    private mutating func startBatch(_ outdated: [Instance]) {
        if workload.update.delay > 0, let last = lastCounted() {
            let next = due(
                last.adding(seconds: Int64(workload.update.delay)), length: workload.update.delay)
            guard next <= now else {
                actions.append(.wake(next))
                return
            }
        }
        // Those that do not serve anyway come first, so that a mended revision heals before it disturbs.
        func rank(_ instance: Instance) -> (Int, Int, InstanceID) {
            (picture.task(of: instance)?.status.serving == true ? 1 : 0, instance.slot, instance.id)
        }
        for instance in outdated.sorted(by: { rank($0) < rank($1) }).prefix(max(1, workload.update.parallelism)) {
            guard let task = picture.task(of: instance) else { continue }
            actions.append(.setTask(task.id, desired: .removed, generation: task.generation, stop: nil))
        }
    }

    /// When the last batch came to count; nil: there was none yet.
    private func lastCounted() -> Timestamp? {
        kept.compactMap { instance -> Timestamp? in
            guard let task = picture.task(of: instance), task.revision == workload.revision else { return nil }
            return picture.counts(task, now: now)
        }.max()
    }

    private mutating func fail(_ message: String) -> [ReconcileAction] {
        if workload.update.onFailure == .rollback, workload.updateState.rolledBackFrom == nil, workload.revision > 1 {
            actions.append(.rollBack(message))
        } else {
            var state = workload.updateState
            state.phase = .paused
            state.message = message
            state.since = now
            actions.append(.setUpdate(state))
        }
        return actions
    }
}

extension Reconciler {
    /// The tasks of a service's newest revision that failed: resuming a paused update tries them anew.
    package static func failedTasks(of picture: WorkloadPicture) -> [TaskID] {
        picture.instances.compactMap { instance in
            guard let task = picture.task(of: instance), task.revision == picture.workload.revision,
                task.desired != .removed, picture.unreachable[task.node] == nil,
                UpdatePass.failure(of: task) != nil || !task.status.serving
            else { return nil }
            return task.id
        }
    }
}
