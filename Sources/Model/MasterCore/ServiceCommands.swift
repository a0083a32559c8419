import JSON
import Model
import Reconcile
import Wire

extension MasterCore {
    mutating func createService(
        _ body: CreateService, now: Timestamp, random: inout some RandomNumberGenerator
    ) throws(APIProblem) -> PendingReply {
        try admit { () throws(AdmissionError) in
            try admission.name(body.name)
            try admission.labels(body.labels)
            try admission.scale(body.scale)
            try admission.update(body.update)
        }
        var pod = try admit { () throws(AdmissionError) in
            try admission.pod(body.pod, kind: .service) { resolve($0) }
        }
        try resolveAttachments(of: &pod, kind: .service)
        try requireNetworks(of: pod, scale: body.scale)
        try requireFree(body.name, kind: .service)
        let workload = Workload(
            id: .make(&random), kind: .service, name: body.name, group: try group(body.group), labels: body.labels,
            scale: body.scale,
            desired: .running, update: body.update, createdAt: now)
        try requireFiles(of: pod, group: workload.group)
        try requireVolumes(of: pod)
        state.put(.workload(workload))
        put(pod, as: 1, of: workload.id, now: now)
        dirty.insert(workload.id)
        note(
            kind: "service", action: "create", id: workload.id.text, name: workload.name,
            attributes: ["image": pod.containers.first?.image ?? ""], now: now)
        return .service(workload.id)
    }

    mutating func updateService(
        _ ref: String, _ body: UpdateService, now: Timestamp
    ) throws(APIProblem) -> PendingReply {
        let workload = try service(ref)
        guard workload.desired != .removed else {
            throw APIProblem(.conflict, "the service \(workload.name) is being removed")
        }
        if let expected = body.ifRevision, expected != workload.revision {
            throw APIProblem(
                .conflict,
                "the service \(workload.name) is at revision \(workload.revision), not \(expected): read it again, "
                    + "then repeat"
            )
        }
        let pod = try admitted(body)
        var changed = workload
        if let labels = body.labels { changed.labels = labels }
        if let scale = body.scale { changed.scale = try rescaled(workload, to: scale) }
        if let update = body.update { changed.update = update }
        if let pod, pod != Self.completed(state.pod(of: workload)) {
            try requireNetworks(of: pod, scale: workload.scale)
            try requireFiles(of: pod, group: workload.group)
            try requireVolumes(of: pod)
            changed.revision += 1
            changed.updateState = UpdateState(.updating, since: now)
            put(pod, as: changed.revision, of: workload.id, now: now)
        } else if body.resume == true {
            changed = try resumed(changed, now: now)
        }
        guard changed != workload else { return .service(workload.id) }
        state.put(.workload(changed))
        dirty.insert(workload.id)
        var attributes = ["revision": "\(changed.revision)"]
        if case .replicated(let number) = changed.scale { attributes["replicas"] = "\(number)" }
        note(
            kind: "service", action: "update", id: workload.id.text, name: workload.name, attributes: attributes,
            now: now)
        return .service(workload.id)
    }

    private func admitted(_ body: UpdateService) throws(APIProblem) -> PodSpec? {
        var pod = try admit { () throws(AdmissionError) -> PodSpec? in
            if let labels = body.labels { try admission.labels(labels) }
            if let scale = body.scale { try admission.scale(scale) }
            if let update = body.update { try admission.update(update) }
            guard let pod = body.pod else { return nil }
            return try admission.pod(pod, kind: .service) { resolve($0) }
        }
        if var asked = pod {
            try resolveAttachments(of: &asked, kind: .service)
            pod = asked
        }
        return pod
    }

    private func requireNetworks(of pod: PodSpec, scale: Workload.Scale) throws(APIProblem) {
        guard scale == .global, let network = state.networksOfOneNode(pod).first else { return }
        throw APIProblem(
            .badRequest,
            "$.pod.attachments: a service with an instance on every node cannot be on the network "
                + "\(state.networks[network]?.name ?? network.text), which is on one node")
    }

    /// What an earlier version stored, with what admission fills in since then.
    private static func completed(_ pod: PodSpec?) -> PodSpec? {
        guard var pod else { return nil }
        pod.loss = pod.loss(of: .service)
        return pod
    }

    private func rescaled(_ workload: Workload, to scale: Workload.Scale) throws(APIProblem) -> Workload.Scale {
        switch (workload.scale, scale) {
        case (.replicated, .replicated), (.global, .global): return scale
        case (.global, .replicated), (.replicated, .global):
            throw APIProblem(
                .conflict,
                "the service \(workload.name) cannot change between a number of instances and one on every node: "
                    + "remove it "
                    + "and create it anew")
        }
    }

    /// A paused update goes on: what failed at the newest revision is tried anew.
    private mutating func resumed(_ workload: Workload, now: Timestamp) throws(APIProblem) -> Workload {
        guard workload.updateState.phase == .paused else {
            throw APIProblem(.conflict, "no update of the service \(workload.name) is paused")
        }
        var changed = workload
        changed.updateState.phase = .updating
        changed.updateState.message = ""
        changed.updateState.since = now
        if let picture = picture(of: workload, now: now) {
            for id in Reconciler.failedTasks(of: picture) {
                guard var task = state.tasks[id] else { continue }
                task.desired = .removed
                state.put(.task(task))
            }
        }
        return changed
    }

    mutating func removeService(_ ref: String, force: Bool, now: Timestamp) throws(APIProblem) -> PendingReply {
        var workload = try service(ref)
        let first = workload.desired != .removed
        workload.desired = .removed
        if force { workload.stop = StopOrder(signal: SignalName.kill.description, grace: 0) }
        state.put(.workload(workload))
        dirty.insert(workload.id)
        if force { giveUpUnreachable(of: workload.id, now: now) }
        if first { note(kind: "service", action: "remove", id: workload.id.text, name: workload.name, now: now) }
        return .done
    }
}
