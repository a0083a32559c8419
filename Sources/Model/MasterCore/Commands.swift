import JSON
import Model
import Wire

extension MasterCore {
    /// Carries out a command in the draft; what it throws becomes its reply, and it has changed nothing then.
    mutating func perform(
        _ command: MasterCommand, _ request: RequestID, now: Timestamp, random: inout some RandomNumberGenerator
    ) {
        let reply: PendingReply
        do {
            reply = try carryOut(command, now: now, random: &random)
        } catch {
            reply = .problem(error)
        }
        outbox.replies.append((request, reply, acting))
    }

    private mutating func carryOut(
        _ command: MasterCommand, now: Timestamp, random: inout some RandomNumberGenerator
    ) throws(APIProblem) -> PendingReply {
        switch command {
        case .createContainer(let body): return try createContainer(body, now: now, random: &random)
        case .act(let ref, let verb, let action): return try act(ref, verb, action, now: now)
        case .removeContainer(let ref, let force, let volumes):
            return try removeContainer(ref, force: force, volumes: volumes, now: now)
        case .updateContainer(let ref, let body): return try updateContainer(ref, body, now: now)
        case .createService(let body): return try createService(body, now: now, random: &random)
        case .updateService(let ref, let body): return try updateService(ref, body, now: now)
        case .removeService(let ref, let force): return try removeService(ref, force: force, now: now)
        case .createToken(let token): return try createToken(token, now: now)
        case .revokeToken(let ref): return try revokeToken(ref, now: now)
        case .configureCluster(let settings): return try configureCluster(settings, now: now)
        case .joinNode(let body): return try joinNode(body, now: now)
        case .registerNode(let body): return try registerNode(body, now: now)
        case .connectNode(let ref): return try connectNode(ref)
        case .report(let ref, let report): return try take(report, from: ref, now: now)
        case .updateNode(let ref, let body): return try updateNode(ref, body, now: now)
        case .removeNode(let ref, let force): return try removeNode(ref, force: force, now: now)
        case .inventory(let node, let images, let volumes):
            setInventory(of: node, images: images, volumes: volumes, now: now)
            return .done
        case .expectVolume(let name, let node, let group):
            return try expectVolume(name, on: node, group: group, now: now)
        case .createSecret(let secret): return try createSecret(secret, now: now)
        case .removeSecret(let ref): return try removeSecret(ref, now: now)
        case .createConfig(let config): return try createConfig(config, now: now)
        case .removeConfig(let ref): return try removeConfig(ref, now: now)
        case .createNetwork(let body): return try createNetwork(body, now: now, random: &random)
        case .removeNetwork(let ref): return try removeNetwork(ref, now: now)
        case .pruneNetworks(let body): return pruneNetworks(body, now: now)
        case .connect(let ref, let body): return try connect(ref, body, now: now)
        case .disconnect(let ref, let body): return try disconnect(ref, body, now: now)
        case .note(let event):
            outbox.events.append(described(event))
            return .done
        }
    }

    /// Runs a check of admission, and puts what it refuses into the API's words.
    func admit<Value>(_ check: () throws(AdmissionError) -> Value) throws(APIProblem) -> Value {
        do {
            return try check()
        } catch {
            switch error.kind {
            case .invalid: throw APIProblem(.badRequest, "\(error)")
            case .unknownImage: throw APIProblem(.noSuchImage, error.message)
            case .unsupported: throw APIProblem(.badRequest, "\(error)")
            case .forbidden: throw APIProblem(.forbidden, "\(error)")
            }
        }
    }

    /// Refuses a name that is taken, or that could be taken for an instance of a service.
    func requireFree(_ name: String, kind: Workload.Kind) throws(APIProblem) {
        if let id = state.indexes.workloadByName[name], let other = state.workloads[id] {
            let going = other.desired == .removed ? ", which is being removed" : ""
            throw APIProblem(
                .conflict,
                "the name \(name) is taken by a \(other.kind.rawValue)\(going); choose another or remove that one")
        }
        if let id = state.indexes.instanceByName[name], let instance = state.instances[id] {
            throw APIProblem(.conflict, "the name \(name) is taken by an instance (\(instance.id)); choose another")
        }
        if kind == .container, let dot = name.lastIndex(of: "."),
            let id = state.indexes.workloadByName[String(name[..<dot])], state.workloads[id]?.kind == .service
        {
            throw APIProblem(
                .conflict, "the name \(name) would be one of the service \(name[..<dot])'s instances; choose another")
        }
        if kind == .service,
            let other = state.workloads.values.first(where: { $0.kind == .container && $0.name.hasPrefix(name + ".") })
        {
            throw APIProblem(
                .conflict,
                "the service \(name) would have instances named like the container \(other.name); choose another name")
        }
    }

    /// Writes a new revision of a workload, and forgets those that are neither new nor used.
    mutating func put(_ pod: PodSpec, as number: Int, of workload: WorkloadID, now: Timestamp) {
        state.put(.revision(Revision(workload: workload, number: number, pod: pod, createdAt: now)))
        forgetRevisions(of: workload)
    }

    /// Forgets the revisions of a workload that are neither new nor used.
    mutating func forgetRevisions(of workload: WorkloadID) {
        let all = (state.indexes.revisionsByWorkload[workload] ?? []).sorted(by: >)
        // A container is never rolled back.
        let old = all.dropFirst(state.workloads[workload]?.kind == .container ? 1 : Self.keptRevisions)
        guard !old.isEmpty else { return }
        let used = state.usedRevisions(of: workload)
        for old in old where !used.contains(old) {
            state.delete(.revision(RevisionKey(workload: workload, number: old)))
        }
    }

    /// Revisions of a service that are kept for rollback.
    static let keptRevisions = 5
}
