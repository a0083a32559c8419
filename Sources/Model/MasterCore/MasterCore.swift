import JSON
import Model
import Reconcile
import Scheduling
import Wire

/// All decisions of the master, as a synchronous state machine without input, output or clock.
///
/// Changes are collected in a draft and committed in groups: while a transaction is on its way to the store, events
/// queue; when it has ended, all of them are taken, and their changes form the next. Nothing is told to anybody (replies,
/// watches, nodes) before it is durable, and what could not be committed is undone.
package struct MasterCore: Sendable {
    /// The most events that the history keeps.
    static let historyLength = 10_000

    var state: ClusterState
    var memory: [NodeID: NodeMemory] = [:]
    /// What may be asked of nodes by those who are not confined to a group.
    private let policy: AdmissionPolicy
    /// What is to be told once the draft is durable.
    var outbox = Outbox()
    /// Workloads to look at before the draft is committed.
    var dirty: Set<WorkloadID> = []
    /// Instances for which no node was found; looked at again when something is free or a node changes.
    var waiting: Set<InstanceID> = []
    /// Of these, those that want to be where another container is.
    var wantingCompany: Set<InstanceID> = []
    /// Instances whose tasks are on an overlay without an address: somebody else still has it. Looked at in each step.
    var lacking: Set<InstanceID> = []
    /// Instances whose tasks wait to start again until their node has devices for them.
    var lackingDevices: Set<InstanceID> = []
    /// A node changed, or something became free.
    var capacityChanged = false
    var wakes: [WorkloadID: Timestamp] = [:]
    /// Nanoseconds that this process has certainly lived through, see `passTime`.
    var steady: Int64 = 0
    /// The time of the last step.
    var lastStep: Timestamp?
    var replication = ReplicationBook()
    var balance = Balance()
    /// What was told of each node's part of overlays.
    var told: [NetworkID: PeerBook] = [:]
    /// Since when tasks serve, by the steady clock.
    var serving: [TaskID: Int64] = [:]
    /// Whose command or query is being dealt with.
    var acting = Subject.master
    private(set) var history: [Event] = []
    private var nextSequence = 1

    private var queue: [MasterEvent] = []
    private var outstanding: (number: TransactionNumber, outbox: Outbox)?
    private var lastTransaction: TransactionNumber = 0
    private var announcedWake: Timestamp?
    /// After a failed commit: try again then.
    private var retryAt: Timestamp?

    /// Takes over what the store holds at `revision`.
    ///
    /// - Throws: `UnreadableRecord`.
    package init(
        records: [StoreRecord], revision: Int64, policy: AdmissionPolicy = AdmissionPolicy()
    ) throws(UnreadableRecord) {
        state = try ClusterState(records: records, revision: revision)
        self.policy = policy
    }

    /// Admission for whoever is being served.
    var admission: Admission { Admission(policy: acting.confinement == nil ? policy : acting.policy) }

    /// Takes one event and returns what is to be done, in order.
    package mutating func step(
        _ event: MasterEvent, now: Timestamp, random: inout some RandomNumberGenerator
    ) -> [MasterEffect] {
        passTime(to: now)
        var effects: [MasterEffect] = []
        switch event {
        case .committed(let number, let revision):
            guard let done = outstanding, done.number == number else { return [] }
            outstanding = nil
            state.committed(revision: revision)
            effects = release(done.outbox, now: now)
        case .commitFailed(let number, let failure):
            guard let failed = outstanding, failed.number == number else { return [] }
            outstanding = nil
            effects = fail(failed.outbox, failure, now: now)
        default:
            queue.append(event)
        }
        guard outstanding == nil, !queue.isEmpty else { return effects }
        let events = queue
        queue = []
        for event in events { take(event, now: now, random: &random) }
        return effects + finish(now: now, random: &random)
    }

    private mutating func take(
        _ event: MasterEvent, now: Timestamp, random: inout some RandomNumberGenerator
    ) {
        switch event {
        case .start: start(now: now, random: &random)
        case .command(let request, let command, let subject):
            acting = subject
            perform(command, request, now: now, random: &random)
        case .query(let request, let query, let subject):
            outbox.replies.append((request, .query(query), subject))
        case .nodeDisconnected(let node): memory[node]?.connected = false
        case .replicated(let digest, let node, let failure):
            replication.ended(digest, to: node, failed: failure != nil, at: steady)
            if let failure {
                note(
                    kind: "image", action: "replication_failed", id: digest, name: "",
                    attributes: ["node": nodeName(node), "message": String(failure.prefix(400))], now: now)
            }
        case .removingImage(let digest, let isUnderway): replication.setRemoving(digest, isUnderway)
        case .tick: tick(now: now, random: &random)
        case .committed, .commitFailed: break
        }
    }

    private mutating func start(now: Timestamp, random: inout some RandomNumberGenerator) {
        if state.cluster == nil {
            let id = Identifier<ClusterRecord>.make(&random).text
            state.put(.cluster(ClusterRecord(id: id, createdAt: now)))
        }
        for node in state.nodes.keys { memory[node] = NodeMemory(now: now, steady: steady) }
        for task in state.tasks.values where task.status.serving { serving[task.id] = steady }
        notePeers()
        noteLacking()
        waiting = Set(state.instances.values.filter { $0.task == nil }.map(\.id))
        dirty = Set(state.workloads.keys)
    }

    private mutating func tick(now: Timestamp, random: inout some RandomNumberGenerator) {
        announcedWake = nil
        for (workload, time) in wakes where time <= now {
            wakes[workload] = nil
            dirty.insert(workload)
        }
        loseSilentNodes(now: now)
        replicateImages()
        rebalance(now: now, random: &random)
    }

    /// Reconciles what is dirty, and commits the draft or, when nothing is to be written, speaks at once.
    private mutating func finish(
        now: Timestamp, random: inout some RandomNumberGenerator
    ) -> [MasterEffect] {
        if retryAt.map({ $0 <= now }) ?? true { retryAt = nil }
        settle(now: now, random: &random)
        var effects: [MasterEffect] = []
        collectChanges()
        let ready = outbox
        outbox = Outbox()
        do {
            let writes = try state.writes()
            if writes.isEmpty {
                state.undo()
                effects += release(ready, now: now)
            } else {
                lastTransaction += 1
                outstanding = (lastTransaction, ready)
                effects.append(.commit(lastTransaction, writes))
            }
        } catch {
            effects += fail(ready, .unavailable("an object cannot be written as JSON: \(error)"), now: now)
        }
        if let wake = (wakes.values + [retryAt].compactMap { $0 }).min(), wake != announcedWake {
            announcedWake = wake
            effects.append(.wake(at: wake))
        }
        return effects
    }

    /// Undoes the draft, and says so to everybody who wanted something of it.
    private mutating func fail(
        _ failed: Outbox, _ failure: StoreFailure, now: Timestamp
    ) -> [MasterEffect] {
        // What the draft deletes comes back too, and is looked at again.
        for (key, previous) in state.draft {
            for object in [previous, state[key]] {
                if let id = object?.workload { dirty.insert(id) }
                if case .some(.task(let task)) = object { lacking.insert(task.instance) }
            }
        }
        state.undo()
        outbox.takeBack(failed)
        waiting.formUnion(state.instances.values.lazy.filter { $0.task == nil }.map(\.id))
        for transfer in failed.transfers {
            replication.ended(transfer.digest, to: transfer.to, failed: true, at: steady)
        }
        retryAt = now.adding(seconds: 1)
        let problem: APIProblem =
            switch failure {
            case .full(let text):
                APIProblem(
                    .storageFull, "the store cannot be written, nothing was changed: \(text); free space and repeat")
            case .unavailable(let text), .conflict(let text):
                APIProblem(.unavailable, "the store cannot be written, nothing was changed: \(text)")
            }
        return failed.replies.map { request, reply, subject in
            acting = subject
            switch reply {
            case .query, .problem: return .reply(request, answer(reply, now: now))
            default: return .reply(request, .failure(problem))
            }
        }
    }

    /// Notes something for users; it is told when the draft is durable.
    mutating func note(
        kind: String, action: String, id: String, name: String, attributes: [String: String] = [:], now: Timestamp
    ) {
        outbox.events.append(
            described(Event(time: now, kind: kind, action: action, id: id, name: name, attributes: attributes)))
    }

    /// Gives an event its number and keeps it in the history.
    mutating func record(_ event: Event) -> Event {
        var event = event
        event.sequence = nextSequence
        nextSequence += 1
        history.append(event)
        // In blocks, so that a full history costs little.
        if history.count > Self.historyLength + 1000 { history.removeFirst(history.count - Self.historyLength) }
        return event
    }

    /// Whether nothing is on its way to the store.
    package var isSettled: Bool { outstanding == nil && queue.isEmpty }
}

extension MasterCore {
    /// Numbers for the metrics, from the present state.
    package struct Tally: Sendable {
        package var nodes = 0
        package var readyNodes = 0
        package var workloads: [Workload.Kind: Int] = [:]
        package var tasks: [TaskStatus.Phase: Int] = [:]
        /// Instances for which no node is found.
        package var waiting = 0
        package var storeRevision: Int64 = 0
        /// Events of this master process.
        package var events = 0
    }

    package var tally: Tally {
        var tally = Tally()
        tally.nodes = state.nodes.count
        tally.readyNodes = memory.values.filter(\.ready).count
        for workload in state.workloads.values { tally.workloads[workload.kind, default: 0] += 1 }
        for task in state.tasks.values { tally.tasks[task.status.phase, default: 0] += 1 }
        tally.waiting = waiting.count
        tally.storeRevision = state.storeRevision
        tally.events = nextSequence - 1
        return tally
    }

    /// The cluster's id; nil before it is made.
    package var clusterID: String? { state.cluster?.id }

    /// How other machines reach the cluster; nil: not at all.
    package var settings: ClusterSettings? { state.cluster?.settings }
}
