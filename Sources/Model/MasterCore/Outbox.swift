import JSON
import Model
import Wire

/// What is told when the draft has become durable.
struct Outbox: Sendable {
    var replies: [(request: RequestID, reply: PendingReply, subject: Subject)] = []
    var events: [Event] = []
    /// Objects whose views changed; views are made when they are told.
    var instances: [InstanceID: ContainerID] = [:]
    var services: Set<WorkloadID> = []
    var nodes: Set<NodeID> = []
    /// Tasks whose assignment changed, by node.
    var assignments: [NodeID: Set<TaskID>] = [:]
    /// Nodes whose part of an overlay may have changed.
    var peers: [NetworkID: Set<NodeID>] = [:]
    var transfers: [ReplicationBook.Transfer] = []
    var staleNames: [ReplicationBook.StaleNames] = []

    /// Takes over from one whose draft was not written what is true all the same: that somebody wants to hear how things
    /// are now.
    mutating func takeBack(_ failed: Outbox) {
        instances.merge(failed.instances) { own, _ in own }
        services.formUnion(failed.services)
        nodes.formUnion(failed.nodes)
        assignments.merge(failed.assignments) { $0.union($1) }
        peers.merge(failed.peers) { $0.union($1) }
    }

    var isEmpty: Bool {
        replies.isEmpty && events.isEmpty && transfers.isEmpty && staleNames.isEmpty && instances.isEmpty
            && services.isEmpty && nodes.isEmpty
            && assignments.isEmpty && peers.isEmpty
    }
}

/// A reply that is put into words when its change is durable.
enum PendingReply: Sendable {
    case done
    case alreadySo
    case containerOf(WorkloadID)
    case service(WorkloadID)
    case node(NodeID)
    case registered(NodeID)
    case token(TokenID)
    case assignments(NodeID)
    case secret(SecretID)
    case config(ConfigID)
    case network(NetworkID)
    /// Names of what was removed.
    case removed([String])
    case passThrough(InstanceID, SignalName)
    case query(MasterQuery)
    case problem(APIProblem)
}

extension MasterCore {
    /// Notes whose views and assignments the draft changes.
    mutating func collectChanges() {
        for (key, previous) in state.draft {
            switch key {
            case .node, .task, .workload: balance.isDue = true
            default: break
            }
            switch key {
            case .cluster, .revision, .claim, .token, .secret, .config, .volume, .network: break
            case .node(let id):
                outbox.nodes.insert(id)
                if case .some(.node(let node)) = previous {
                    collectPeers(id, before: node)
                } else {
                    collectPeers(id, before: nil)
                }
            case .workload(let id):
                outbox.services.insert(id)
                for instance in state.indexes.instancesByWorkload[id] ?? [] { touch(instance) }
            case .instance(let id):
                if case .some(.instance(let instance)) = previous { touch(instance) }
                touch(id)
            case .task(let id):
                var before: NodeTask?
                if case .some(.task(let task)) = previous { before = task }
                collect(id, before: before, after: state.tasks[id])
            }
        }
    }

    private mutating func collect(_ id: TaskID, before: NodeTask?, after: NodeTask?) {
        guard let either = after ?? before else { return }
        outbox.nodes.insert(either.node)
        touch(either.instance)
        collectPeers(before.flatMap { .init($0) }, after.flatMap { .init($0) })
        let same =
            before.map { before in
                after.map { after in
                    before.desired == after.desired && before.generation == after.generation
                        && before.revision == after.revision
                        && before.stop == after.stop && before.ports == after.ports
                        && before.addresses == after.addresses
                } ?? false
            } ?? false
        if !same { outbox.assignments[either.node, default: []].insert(id) }
    }

    mutating func touch(_ id: InstanceID) {
        if let instance = state.instances[id] { touch(instance) }
    }

    private mutating func touch(_ instance: Instance) {
        if let container = instance.containers.first { outbox.instances[instance.id] = container }
        outbox.services.insert(instance.workload)
    }

    /// Says everything in the outbox: watches first, so that a list which is asked for now is not followed by changes
    /// that it shows already.
    mutating func release(_ outbox: Outbox, now: Timestamp) -> [MasterEffect] {
        var effects: [MasterEffect] = []
        let changes = changes(of: outbox, now: now)
        if !changes.isEmpty { effects.append(.changed(changes)) }
        for (node, tasks) in outbox.assignments.sorted(by: { $0.key < $1.key }) {
            let lines = tasks.sorted().map { id in
                state.tasks[id].flatMap { assignment(of: $0) }.map { WatchLine(.put, id: id.text, object: $0) }
                    ?? WatchLine<TaskAssignment>(.delete, id: id.text)
            }
            effects.append(.assign(node, lines))
        }
        effects += tellPeers(outbox.peers)
        effects += outbox.events.map { .event(record($0)) }
        effects += outbox.transfers.map {
            .replicate(digest: $0.digest, names: $0.names, from: $0.from, to: $0.to)
        }
        effects += outbox.staleNames.map { .untag($0.node, digest: $0.digest, names: $0.names) }
        for (request, reply, subject) in outbox.replies {
            acting = subject
            effects.append(.reply(request, answer(reply, now: now)))
        }
        return effects
    }

    private func changes(of outbox: Outbox, now: Timestamp) -> [ObjectChange] {
        var changes: [ObjectChange] = []
        for (id, container) in outbox.instances.sorted(by: { $0.key < $1.key }) {
            let view = state.instances[id].flatMap { containerView($0, now: now) }
            changes.append(.container(WatchLine(view == nil ? .delete : .put, id: container.text, object: view)))
        }
        for id in outbox.services.sorted() {
            if let workload = state.workloads[id] {
                guard workload.kind == .service, let view = serviceView(workload, now: now) else { continue }
                changes.append(.service(WatchLine(.put, id: id.text, object: view)))
            } else {
                changes.append(.service(WatchLine(.delete, id: id.text)))
            }
        }
        for id in outbox.nodes.sorted() {
            let view = state.nodes[id].map { nodeView($0, now: now) }
            changes.append(.node(WatchLine(view == nil ? .delete : .put, id: id.text, object: view)))
        }
        return changes
    }
}
