import Model
import Wire

/// One action of a user on a container, worked out on copies.
struct ContainerAct {
    let instance: Instance
    var workload: Workload
    let task: NodeTask?
    let action: ContainerAction
    /// Nothing ran that had to be stopped: the wish is noted all the same.
    private(set) var wasSo = false

    enum Outcome { case changed, unchanged, passThrough(SignalName) }

    init(instance: Instance, workload: Workload, task: NodeTask?, action: ContainerAction) {
        self.instance = instance
        self.workload = workload
        self.task = task
        self.action = action
    }

    mutating func perform(_ verb: ContainerAction.Verb, pod: PodSpec?) throws(APIProblem) -> Outcome {
        switch verb {
        case .start: return try start()
        case .stop: return stop()
        case .restart: return restart()
        case .kill: return try kill(stopSignal: pod?.containers.first?.stopSignal ?? "")
        case .pause: return try pause()
        case .unpause: return try unpause()
        }
    }

    private mutating func start() throws(APIProblem) -> Outcome {
        if workload.desired == .paused {
            throw APIProblem(.conflict, "the container \(instance.name) is paused: use `martlet unpause`")
        }
        let before = workload.desired
        if before == .running, isUnderway { return .unchanged }
        workload.desired = .running
        workload.stop = nil
        // What was only prepared has not used up its first start.
        if before != .prepared || task?.status.phase == .failed { workload.generation += 1 }
        return .changed
    }

    /// It runs, or will without being asked again. One that waits for its restart is not: its user wants it now.
    private var isUnderway: Bool {
        guard let task else { return true }
        let waitsForRestart = task.status.restartAt != nil && task.status.generation >= task.generation
        return task.isRunningOrAboutTo && !waitsForRestart
    }

    private mutating func stop() -> Outcome {
        let runs = task?.isRunningOrAboutTo ?? false
        if workload.desired == .stopped, !runs { return .unchanged }
        wasSo = !runs
        workload.desired = .stopped
        workload.stop = StopOrder(signal: action.signal, grace: action.grace).ifAny
        return .changed
    }

    private mutating func restart() -> Outcome {
        workload.desired = .running
        workload.generation += 1
        workload.stop = StopOrder(signal: action.signal, grace: action.grace).ifAny
        return .changed
    }

    private mutating func kill(stopSignal: String) throws(APIProblem) -> Outcome {
        let signal = try signal()
        try requireRunning()
        let ends = signal == .kill || signal == SignalName(stopSignal) ?? .terminate
        guard ends else { return .passThrough(signal) }
        workload.desired = .stopped
        workload.stop = StopOrder(signal: signal.description, grace: signal == .kill ? 0 : action.grace)
        workload.stop?.isKill = true
        return .changed
    }

    private mutating func pause() throws(APIProblem) -> Outcome {
        if workload.desired == .paused { return .unchanged }
        guard task?.status.phase == .running, workload.desired == .running else {
            throw APIProblem(
                .conflict, "the container \(instance.name) is not running: only a running one can be paused")
        }
        workload.desired = .paused
        return .changed
    }

    private mutating func unpause() throws(APIProblem) -> Outcome {
        guard workload.desired == .paused else {
            throw APIProblem(.conflict, "the container \(instance.name) is not paused")
        }
        workload.desired = .running
        return .changed
    }

    /// The action's signal, SIGKILL when it names none.
    func signal() throws(APIProblem) -> SignalName {
        guard let text = action.signal else { return .kill }
        guard let signal = SignalName(text) else { throw APIProblem(.badRequest, "there is no signal '\(text)'") }
        return signal
    }

    func requireRunning() throws(APIProblem) {
        switch task?.status.phase {
        case .running?, .paused?, .stopping?: return
        default: throw APIProblem(.conflict, "the container \(instance.name) is not running")
        }
    }
}

extension StopOrder {
    /// nil when it says nothing.
    var ifAny: StopOrder? { signal == nil && grace == nil ? nil : self }
}

extension NodeTask {
    /// Whether a process exists, or will without anybody asking again.
    var isRunningOrAboutTo: Bool {
        switch status.phase {
        case .running, .paused, .stopping: true
        case .assigned, .preparing, .prepared: desired == .running || desired == .paused
        case .exited, .failed: (desired == .running || desired == .paused) && !endedForGood
        case .removed: false
        }
    }
}
