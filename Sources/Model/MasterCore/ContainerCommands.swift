import JSON
import Model
import Scheduling
import Wire

extension MasterCore {
    mutating func createContainer(
        _ body: CreateContainer, now: Timestamp, random: inout some RandomNumberGenerator
    ) throws(APIProblem) -> PendingReply {
        if let name = body.name { try admit { () throws(AdmissionError) in try admission.name(name) } }
        try admit { () throws(AdmissionError) in try admission.labels(body.labels) }
        var pod = try admit { () throws(AdmissionError) in
            try admission.pod(body.pod, kind: .container) { resolve($0) }
        }
        try resolveAttachments(of: &pod, kind: .container)
        try resolveNamespaces(of: &pod)
        if body.removeOnExit { try admit { () throws(AdmissionError) in try admission.removeOnExit(pod) } }
        let name = body.name ?? freeName(&random)
        try requireFree(name, kind: .container)
        let workload = Workload(
            id: .make(&random), kind: .container, name: name, group: try group(body.group), labels: body.labels,
            scale: .replicated(1),
            desired: body.start ? .running : .prepared, removeOnExit: body.removeOnExit,
            removeVolumes: body.removeOnExit, createdAt: now)
        try requireFiles(of: pod, group: workload.group)
        try requireVolumes(of: pod)
        state.put(.workload(workload))
        put(pod, as: 1, of: workload.id, now: now)
        dirty.insert(workload.id)
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
            throw Self.noContainer(ref)
        }
        guard workload.desired != .removed else {
            throw APIProblem(.conflict, "the container \(instance.name) is being removed")
        }
        var act = ContainerAct(
            instance: instance, workload: workload, task: state.shownTask(of: instance), action: action)
        if workload.kind == .service { return try actOnService(act, verb, now: now) }
        let outcome = try act.perform(verb, pod: state.pod(of: workload))
        switch outcome {
        case .changed: break
        case .unchanged: return .alreadySo
        case .passThrough(let signal):
            noteSignal(signal, to: instance, now: now)
            return .passThrough(instance.id, signal)
        }
        if verb == .start || verb == .restart, var task = act.task, task.desired != .removed {
            try requireRoom(for: task, named: instance.name)
            try requireDevices(for: &task, named: instance.name)
            task.desired = act.workload.desired
            task.generation = act.workload.generation
            task.stop = act.workload.stop
            state.put(.task(task))
        }
        state.put(.workload(act.workload))
        dirty.insert(workload.id)
        return act.wasSo ? .alreadySo : .done
    }

    private mutating func noteSignal(_ signal: SignalName, to instance: Instance, now: Timestamp) {
        note(
            kind: "container", action: "kill", id: instance.containers.first?.text ?? "", name: instance.name,
            attributes: ["signal": signal.description], now: now)
    }

    /// A task that rests holds nothing of its node; before it starts again, there must be room for it. Its writable
    /// layer is on that node, so that no other will do.
    private func requireRoom(for task: NodeTask, named name: String) throws(APIProblem) {
        guard task.rests, task.status.phase != .removed, let pod = state.pod(of: task),
            let node = state.nodes[task.node]
        else { return }
        let snapshot = snapshot(of: node)
        guard let short = snapshot.shortage(for: PodDemand(workload: task.workload, pod: pod)) else { return }
        let (wanted, capacity) = (pod.resources, node.capacity)
        let free = capacity - snapshot.allocated
        let amounts =
            short == "memory"
            ? "it wants \(wanted.memory >> 20) MiB, and \(max(0, free.memory) >> 20) of \(capacity.memory >> 20) are free"
            : short == "cpu"
                ? "it wants \(wanted.cpu / 1_000_000) thousandths of a core, and \(max(0, free.cpu) / 1_000_000) of "
                    + "\(capacity.cpu / 1_000_000) are free"
                : short
        let subject = ["cpu", "memory"].contains(short) ? short : "huge pages"
        throw APIProblem(
            .conflict,
            "the container \(name) cannot be started: its node \(node.name) is short of \(subject): \(amounts); stop "
                + "others there, or remove it and run it anew")
    }

    /// The same of devices and processors of its own: it is given those that it had, or others.
    private mutating func requireDevices(for task: inout NodeTask, named name: String) throws(APIProblem) {
        guard task.status.phase != .removed else { return }
        do throws(DeviceShortage) {
            try grantOwn(to: &task)
            clearShortage(of: task.instance)
        } catch {
            throw APIProblem(
                .conflict,
                "the container \(name) cannot be started: its node \(nodeName(task.node)) has no \(error.subject) for it: \(error); "
                    + "stop others there, or remove it and run it anew")
        }
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
            noteSignal(signal, to: act.instance, now: now)
            return .passThrough(act.instance.id, signal)
        case .restart:
            guard var task = act.task, task.desired == .running || task.isEndedForDevices else {
                throw APIProblem(
                    .conflict, "the container \(name) is not running: the cluster is placing or replacing it")
            }
            try requireRoom(for: task, named: name)
            try requireDevices(for: &task, named: name)
            task.desired = .running
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

    mutating func removeContainer(
        _ ref: String, force: Bool, volumes: Bool, now: Timestamp
    ) throws(APIProblem) -> PendingReply {
        let instance = try instance(ref)
        guard var workload = state.workloads[instance.workload] else {
            throw Self.noContainer(ref)
        }
        guard workload.kind == .container else {
            throw APIProblem(
                .conflict,
                "the container \(instance.name) belongs to the service \(workload.name); use `martlet service "
                    + "scale` or "
                    + "`martlet service rm`")
        }
        let task = state.shownTask(of: instance)
        let runs = task.map { $0.isRunningOrAboutTo } ?? false
        if runs, !force, workload.desired != .removed {
            guard let task, let since = silentSince(task.node, now: now) else {
                throw APIProblem(
                    .conflict, "the container \(instance.name) is running: stop it first or use --force")
            }
            // Nobody can wait for its end: that it shall end has to do.
            if workload.desired != .stopped {
                throw APIProblem(
                    .conflict,
                    "the container \(instance.name) ran when its node \(nodeName(task.node)) was last heard of, at \(since): "
                        + "stop it first, and it goes when the node is back, or give it up at once with --force")
            }
        }
        if workload.desired != .removed {
            workload.desired = .removed
            workload.stop = nil
        }
        if volumes, !workload.removeVolumes {
            workload.removeVolumes = true
            // Its node may know already that it is to go.
            if let task { outbox.assignments[task.node, default: []].insert(task.id) }
        }
        if force { workload.stop = StopOrder(signal: SignalName.kill.description, grace: 0) }
        state.put(.workload(workload))
        dirty.insert(workload.id)
        if force { giveUpUnreachable(of: workload.id, now: now) }
        return .done
    }
}
