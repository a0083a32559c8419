import JSON
import Model
import Scheduling
import Wire

/// Changes of containers that need no new start.
extension MasterCore {
    mutating func updateContainer(
        _ ref: String, _ body: UpdateContainer, now: Timestamp
    ) throws(APIProblem) -> PendingReply {
        let instance = try instance(ref)
        let workload = try changeable(instance, "updated")
        if let name = body.name { try requireNew(name, of: workload) }
        if workload.removeOnExit, let restart = body.restart {
            let pod = PodSpec(containers: [], restart: restart)
            try admit { () throws(AdmissionError) in try admission.removeOnExit(pod, at: "$.restart") }
        }
        if body.deviceClaims != nil, instance.task == nil, !instance.displaced.isEmpty {
            throw APIProblem(
                .conflict,
                "the devices of the container \(instance.name) cannot be changed while its node is not heard of: try again when "
                    + "it is, or remove the container")
        }
        let changed = try changeInPlace(instance, now: now) { pod throws(APIProblem) in
            guard !pod.containers.isEmpty else { return }
            body.apply(to: &pod.containers[0].limits)
            if let claims = body.deviceClaims { pod.containers[0].deviceClaims = claims }
            if let restart = body.restart { pod.restart = restart }
        }
        if let name = body.name { rename(instance, to: name, now: now) }
        if changed { note("update", instance, now: now) }
        return .containerOf(workload.id)
    }

    /// Changes what may change while a container runs: limits, restart policy, claims and networks, see
    /// `PodSpec.changesInPlace`. Its workload and its task have a new revision then, without a replacement, and its node
    /// is told.
    ///
    /// The caller checks what it puts in; limits and restart policy are checked here, and that its node has room.
    /// - Returns: whether something is different now.
    /// - Throws: `APIProblem` 400 for what is out of bounds, 409 for what does not fit on the node, a service's
    ///   container, or one that is being removed. Nothing has changed then.
    mutating func changeInPlace(
        _ instance: Instance, now: Timestamp, _ change: (inout PodSpec) throws(APIProblem) -> Void
    ) throws(APIProblem) -> Bool {
        var workload = try changeable(instance, "changed")
        guard let old = state.pod(of: workload) else {
            throw Self.noContainer(instance.name)
        }
        var pod = old
        try change(&pod)
        guard pod != old else { return false }
        for (had, wanted) in zip(old.containers, pod.containers) where had.limits.pinning != nil {
            guard had.limits.cpu == wanted.limits.cpu else {
                throw APIProblem(
                    .badRequest,
                    "$.cpu: the container \(instance.name) has processors of its own, as many as it was made with: "
                        + "remove it and run it anew for another number")
            }
        }
        guard pod.changesInPlace(from: old) else {
            throw APIProblem(
                .badRequest, "only limits, the restart policy, claims and networks of a container can be changed")
        }
        if pod.attachments != old.attachments || pod.network != old.network { try requireWay(of: pod, at: "$") }
        try admit { () throws(AdmissionError) in
            try admission.restart(pod.restart, at: "$.restart")
            if let limits = pod.containers.first?.limits { try admission.limits(limits, at: "$") }
            if let claims = pod.containers.first?.deviceClaims {
                try admission.deviceClaims(claims, at: "$.deviceClaims")
            }
        }
        var task = instance.task.flatMap { state.tasks[$0] }
        if let task { try requireRoom(for: pod, insteadOf: old, task, named: instance.name) }
        let revision = (state.indexes.revisionsByWorkload[workload.id]?.max() ?? workload.revision) + 1
        let grant: AddressGrant?
        do throws(AddressShortage) {
            grant = try task.map { task throws(AddressShortage) in
                try addresses(
                    for: pod, of: instance, on: task.node, present: task.addresses, task: task.id, revision: revision)
            }
        } catch {
            throw APIProblem(.conflict, "\(error)")
        }
        let devices = try task.map { task throws(APIProblem) in
            try changedDevices(of: task, from: old, to: pod, revision: revision, named: instance.name)
        }
        put(pod, as: revision, of: workload.id, now: now)
        if task != nil {
            task?.revision = revision
            if let devices { task?.grantedDevices = devices }
            if let grant {
                take(grant)
                task?.addresses = grant.addresses
            }
            if let task { state.put(.task(task)) }
        }
        workload.revision = revision
        state.put(.workload(workload))
        // What the last one asked for, an address say, is free for others.
        forgetRevisions(of: workload.id)
        dirty.insert(workload.id)
        capacityChanged = true
        return true
    }

    /// The container's workload, if it is a container's own and stays.
    func changeable(_ instance: Instance, _ done: String) throws(APIProblem) -> Workload {
        guard let workload = state.workloads[instance.workload] else {
            throw Self.noContainer(instance.name)
        }
        guard workload.kind == .container else {
            throw APIProblem(
                .conflict,
                "the container \(instance.name) belongs to the service \(workload.name) and cannot be \(done) alone: "
                    + "use `martlet service update`")
        }
        guard workload.desired != .removed else {
            throw APIProblem(.conflict, "the container \(instance.name) is being removed")
        }
        return workload
    }

    /// What it holds of its node may grow only as far as there is room.
    private func requireRoom(
        for pod: PodSpec, insteadOf old: PodSpec, _ task: NodeTask, named name: String
    ) throws(APIProblem) {
        let (wanted, had) = (pod.resources, old.resources)
        guard wanted.memory > had.memory || wanted.cpu > had.cpu, !task.rests, let node = state.nodes[task.node] else {
            return
        }
        let free = node.capacity - snapshot(of: node).allocated
        if wanted.memory > had.memory, wanted.memory - had.memory > free.memory {
            throw APIProblem(
                .conflict,
                "the container \(name) cannot have \(wanted.memory >> 20) MiB: of its node \(node.name) "
                    + "\(max(0, free.memory) >> 20) of \(node.capacity.memory >> 20) MiB are free beside its own")
        }
        if wanted.cpu > had.cpu, wanted.cpu - had.cpu > free.cpu {
            throw APIProblem(
                .conflict,
                "the container \(name) cannot have \(wanted.cpu / 1_000_000) thousandths of a core: of its node "
                    + "\(node.name) \(max(0, free.cpu) / 1_000_000) of \(node.capacity.cpu / 1_000_000) are free "
                    + "beside its own")
        }
    }

    private func requireNew(_ name: String, of workload: Workload) throws(APIProblem) {
        try admit { () throws(AdmissionError) in try admission.name(name) }
        guard name != workload.name else {
            throw APIProblem(.conflict, "the container \(name) has this name already")
        }
        try requireFree(name, kind: .container)
    }

    /// The name is the workload's and its only instance's; the id stays.
    private mutating func rename(_ instance: Instance, to name: String, now: Timestamp) {
        guard var workload = state.workloads[instance.workload], var renamed = state.instances[instance.id] else {
            return
        }
        let old = workload.name
        workload.name = name
        renamed.name = name
        state.put(.workload(workload))
        state.put(.instance(renamed))
        if let task = renamed.task.flatMap({ state.tasks[$0] }) {
            outbox.assignments[task.node, default: []].insert(task.id)
        }
        note("rename", renamed, ["oldName": old], now: now)
    }

    private mutating func note(
        _ action: String, _ instance: Instance, _ attributes: [String: String] = [:], now: Timestamp
    ) {
        note(
            kind: "container", action: action, id: instance.containers.first?.text ?? "", name: instance.name,
            attributes: attributes, now: now)
    }
}

extension UpdateContainer {
    /// Changes in `limits` what was given.
    func apply(to limits: inout Limits) {
        if let cpu {
            limits.cpu = cpu
            limits.cpuQuota = nil
        }
        if let cpuShares { limits.cpuShares = cpuShares }
        if let cpuPeriod { limits.cpuPeriod = cpuPeriod }
        if let cpuQuota { limits.cpuQuota = cpuQuota > 0 ? cpuQuota : nil }
        if let cpus { limits.cpus = cpus.isEmpty ? nil : cpus }
        if let memoryNodes { limits.memoryNodes = memoryNodes.isEmpty ? nil : memoryNodes }
        if let memory {
            limits.memory = memory == 0 ? nil : memory
            // Without a limit of memory there is none of both.
            if memory == 0 { limits.memorySwap = nil }
        }
        if let memorySwap { limits.memorySwap = memorySwap }
        if let memoryReservation { limits.memoryReservation = memoryReservation == 0 ? nil : memoryReservation }
        if let pids { limits.pids = pids > 0 ? pids : nil }
        if let blockWeight { limits.blockWeight = blockWeight }
    }
}
