import JSON
import Model
import Wire

extension MasterCore {
    mutating func createContainer(
        _ body: CreateContainer, now: Timestamp, random: inout some RandomNumberGenerator
    ) throws(APIProblem) -> PendingReply {
        if let name = body.name { try admit { () throws(AdmissionError) in try admission.name(name) } }
        try admit { () throws(AdmissionError) in try admission.labels(body.labels) }
        let pod = try admit { () throws(AdmissionError) in
            try admission.pod(body.pod, kind: .container) { resolve($0) }
        }
        if body.removeOnExit { try admit { () throws(AdmissionError) in try admission.removeOnExit(pod) } }
        let name = body.name ?? freeName(&random)
        try requireFree(name, kind: .container)
        let workload = Workload(
            id: .make(&random), kind: .container, name: name, labels: body.labels, scale: .replicated(1),
            desired: body.start ? .running : .prepared, removeOnExit: body.removeOnExit, createdAt: now)
        state.put(.workload(workload))
        put(pod, as: 1, of: workload.id, now: now)
        dirty.insert(workload.id)
        note(
            kind: "container", action: "create", id: workload.id.text, name: name,
            attributes: ["image": pod.containers.first?.image ?? ""], now: now)
        return .containerOf(workload.id)
    }

    private func freeName(_ random: inout some RandomNumberGenerator) -> String {
        for _ in 0..<8 {
            let name = GeneratedName.make(&random)
            if state.indexes.workloadByName[name] == nil { return name }
        }
        return GeneratedName.make(&random) + "-\(Int.random(in: 1000...999_999, using: &random))"
    }

    mutating func act(
        _ ref: String, _ verb: ContainerAction.Verb, _ action: ContainerAction, now: Timestamp
    ) throws(APIProblem) -> PendingReply {
        let instance = try instance(ref)
        try admit { () throws(AdmissionError) in
            try admission.stop(StopOrder(signal: action.signal, grace: action.grace))
        }
        guard let workload = state.workloads[instance.workload] else {
            throw APIProblem(.notFound, "there is no container '\(ref)'")
        }
        guard workload.desired != .removed else {
            throw APIProblem(.conflict, "the container \(instance.name) is being removed")
        }
        var act = ContainerAct(
            instance: instance, workload: workload, task: state.task(of: instance), action: action)
        if workload.kind == .service { return try actOnService(act, verb, now: now) }
        let outcome = try act.perform(verb, pod: state.pod(of: workload))
        switch outcome {
        case .changed: break
        case .unchanged: return .alreadySo
        case .passThrough(let signal): return .passThrough(instance.id, signal)
        }
        state.put(.workload(act.workload))
        dirty.insert(workload.id)
        return act.wasSo ? .alreadySo : .done
    }

    /// An instance of a service can be restarted and signalled alone; all else is the service's own.
    private mutating func actOnService(
        _ act: ContainerAct, _ verb: ContainerAction.Verb, now: Timestamp
    ) throws(APIProblem) -> PendingReply {
        let name = act.instance.name
        switch verb {
        case .kill:
            let signal = try act.signal()
            try act.requireRunning()
            return .passThrough(act.instance.id, signal)
        case .restart:
            guard var task = act.task, task.desired == .running else {
                throw APIProblem(
                    .conflict, "the container \(name) is not running: the cluster is placing or replacing it")
            }
            task.generation += 1
            task.stop = StopOrder(signal: act.action.signal, grace: act.action.grace).ifAny
            state.put(.task(task))
            return .done
        default:
            throw APIProblem(
                .conflict,
                "the container \(name) belongs to the service \(act.workload.name), which keeps it running; use "
                    + "`martlet service scale` or `martlet service rm`")
        }
    }

    mutating func removeContainer(_ ref: String, force: Bool, now: Timestamp) throws(APIProblem) -> PendingReply {
        let instance = try instance(ref)
        guard var workload = state.workloads[instance.workload] else {
            throw APIProblem(.notFound, "there is no container '\(ref)'")
        }
        guard workload.kind == .container else {
            throw APIProblem(
                .conflict,
                "the container \(instance.name) belongs to the service \(workload.name); use `martlet service "
                    + "scale` or "
                    + "`martlet service rm`")
        }
        let task = state.task(of: instance)
        let runs = task.map { $0.isRunningOrAboutTo } ?? false
        if runs, !force, workload.desired != .removed {
            throw APIProblem(
                .conflict, "the container \(instance.name) is running: stop it first or use --force")
        }
        if workload.desired != .removed {
            workload.desired = .removed
            workload.stop = nil
        }
        if force { workload.stop = StopOrder(signal: SignalName.kill.description, grace: 0) }
        state.put(.workload(workload))
        dirty.insert(workload.id)
        return .done
    }
}

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
    fileprivate var ifAny: StopOrder? { signal == nil && grace == nil ? nil : self }
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

/// Names for containers whose users gave none.
enum GeneratedName {
    private static let first = [
        "amber", "brisk", "calm", "clear", "deft", "early", "fleet", "gentle", "glad", "high", "keen", "light",
        "lively",
        "lone", "merry", "mild", "nimble", "northern", "pale", "quick", "quiet", "rapid", "russet", "sharp", "silent",
        "silver", "slender", "soaring", "southern", "steady", "sunny", "swift", "tawny", "tireless", "western", "windy",
    ]
    private static let second = [
        "bunting", "crane", "curlew", "dipper", "dunlin", "egret", "falcon", "fieldfare", "finch", "fulmar", "gannet",
        "goldcrest", "grebe", "harrier", "heron", "hobby", "kestrel", "kite", "knot", "lapwing", "lark", "linnet",
        "merlin", "nightjar", "osprey", "petrel", "pipit", "plover", "puffin", "redstart", "sanderling", "shearwater",
        "skua", "snipe", "swallow", "tern", "turnstone", "wagtail", "whimbrel", "wren",
    ]

    static func make(_ random: inout some RandomNumberGenerator) -> String {
        "\(first.randomElement(using: &random) ?? first[0])-\(second.randomElement(using: &random) ?? second[0])"
    }
}
