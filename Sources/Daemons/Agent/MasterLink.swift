import AgentCore
import Client
import JSON
import Kernel
import Logging
import Model
import NIOHTTP1
import Synchronization
import Wire

/// The agent's side of its conversation with the master: registers, watches the tasks, posts what was observed.
///
/// While there is no master, containers go on as they were last wanted, and it is tried again for ever.
final class MasterLink: Sendable {
    /// What is posted; one after another, so that it arrives in order.
    private enum Post: Sendable {
        case report(sequence: Int, NodeReport)
        case inventory
    }

    /// Whether what the node has registered as is not so any more.
    private struct Registration: Sendable {
        var isStale = false
        /// Ends the present conversation.
        var end: AsyncStream<Void>.Continuation?
    }

    /// The master sends at least a heartbeat every 5 s.
    static let silence = Duration.seconds(15)

    /// A node that another agent is connected as is given up after so long: by then that agent is silent for good, or
    /// this is a copy.
    static let contention = Duration.seconds(20)

    private let membership: Membership
    private let describe: @Sendable (NodeIdentity) async throws -> Node
    private let inventory: @Sendable () async -> NodeInventory
    private let usage: @Sendable () async -> [DeviceUsage]?
    private let save: @Sendable (NodeIdentity) async throws -> Void
    private let period: @Sendable () -> Duration
    private let confirm: @Sendable (Int64) -> Void
    private let tell: @Sendable (AgentEvent) -> Void
    private let tellPeers: @Sendable (PeerChange) async throws -> Void
    private let logger: Logger
    private let identity: Mutex<NodeIdentity>
    private let hasSession = Atomic(false)
    private let inContact = Atomic(false)
    /// Since when another agent is connected as this node.
    private let contended = Mutex<ContinuousClock.Instant?>(nil)
    private let posts = Mutex<AsyncStream<Post>.Continuation?>(nil)
    private let registration = Mutex(Registration())
    /// The pause before the next heartbeat; cancelled to send it now.
    private let pause = Mutex<Task<Void, Never>?>(nil)

    /// - Parameters:
    ///   - describe: the node as it is now.
    ///   - inventory: what the node has now.
    ///   - usage: how its devices are used; nil: nothing is known.
    ///   - save: keeps the identity.
    ///   - period: the longest pause between two heartbeats, as things are now.
    ///   - confirm: called when the master has answered a post, with the moment at which that was sent, in milliseconds
    ///     of CLOCK_BOOTTIME; in each conversation only once the core has taken in all that the master wants.
    ///   - tell: gives the core an event.
    ///   - tellPeers: called with what other nodes have of this node's overlays.
    init(
        _ membership: Membership, identity: NodeIdentity, logger: Logger,
        describe: @escaping @Sendable (NodeIdentity) async throws -> Node,
        inventory: @escaping @Sendable () async -> NodeInventory,
        usage: @escaping @Sendable () async -> [DeviceUsage]?,
        save: @escaping @Sendable (NodeIdentity) async throws -> Void,
        period: @escaping @Sendable () -> Duration, confirm: @escaping @Sendable (Int64) -> Void,
        tell: @escaping @Sendable (AgentEvent) -> Void,
        tellPeers: @escaping @Sendable (PeerChange) async throws -> Void
    ) {
        self.membership = membership
        self.identity = Mutex(identity)
        self.describe = describe
        self.inventory = inventory
        self.usage = usage
        self.save = save
        self.period = period
        self.confirm = confirm
        self.tell = tell
        self.tellPeers = tellPeers
        self.logger = logger
    }

    var node: NodeID { identity.withLock { $0.node } }

    /// Whether the master has been told everything and answers, be it that its disk is full.
    var isInContact: Bool { inContact.load(ordering: .relaxed) }

    /// Posts a report of the core's; its outcome comes back as an event.
    func post(_ effect: AgentEffect) {
        guard case .report(let sequence, let full, let tasks, let events) = effect else { return }
        let report = NodeReport(full: full, tasks: tasks, events: events.map(\.event))
        let isTaken = posts.withLock { $0?.yield(.report(sequence: sequence, report)) } != nil
        if !isTaken { tell(.reportFailed(sequence: sequence)) }
    }

    /// Asks for the values that a task's containers are given.
    func secrets(of task: TaskID) async throws -> TaskSecrets {
        try await membership.master().json(.GET, "\(APIPaths.nodes)/\(node)/tasks/\(task)/secrets")
    }

    /// Asks what the master wants of a task of this node now; nil: nothing any more.
    func assignment(of task: TaskID) async throws -> TaskAssignment? {
        let list: [TaskAssignment] = try await membership.master().json(
            .GET, "\(APIPaths.nodes)/\(node)/tasks", query: ["task": task.text])
        return list.first { $0.task == task }
    }

    /// Asks which nodes belong to the cluster.
    func members() async throws -> [NodeID] {
        try await membership.master().json(.GET, "\(APIPaths.cluster)/members")
    }

    /// Images or volumes have changed.
    func inventoryChanged() { posts.withLock { _ = $0?.yield(.inventory) } }

    /// The node is another than it has registered as: it registers again.
    func registerAgain() {
        registration.withLock {
            $0.isStale = true
            $0.end?.finish()
        }
    }

    /// Waits for it.
    private func waitForRegistration() async {
        let (stream, end) = AsyncStream<Void>.makeStream()
        registration.withLock {
            $0.end = end
            if $0.isStale { end.finish() }
        }
        for await _ in stream {}
        registration.withLock { $0.end = nil }
    }

    /// Runs until it is cancelled.
    ///
    /// - Throws: `AgentError` when the master belongs to another cluster.
    func run() async throws {
        var delay = 100
        while !Task.isCancelled {
            do {
                try await register()
                delay = 100
                try await converse()
                let isStale = registration.withLock { $0.isStale }
                logger.info(
                    isStale
                        ? "the node registers again: what it has said of itself has changed"
                        : "the master ended the conversation; it is begun again")
                if isStale {
                    inContact.store(false, ordering: .relaxed)
                    tell(.disconnected)
                    continue
                }
            } catch let error as AgentError {
                throw error
            } catch {
                if Task.isCancelled { break }
                logger.warning("no conversation with the master; trying again", metadata: ["error": "\(error)"])
            }
            inContact.store(false, ordering: .relaxed)
            tell(.disconnected)
            // Spread out, so that a master that comes back is not asked by all nodes at once.
            try await Task.sleep(for: .milliseconds(delay + Int.random(in: 0...delay)))
            delay = min(5000, delay * 2)
        }
    }

    /// Which cluster the node belongs to; nil until it has registered.
    var cluster: String? { identity.withLock { $0.cluster } }

    private func register() async throws {
        let known = try await identityWithSession()
        registration.withLock { $0.isStale = false }
        let registration = NodeRegistration(
            node: try await describe(known), clusterID: known.cluster, session: known.session,
            nextSession: known.nextSession)
        let answer = try await introduce(registration)
        contended.withLock { $0 = nil }
        if let cluster = known.cluster, cluster != answer.clusterID {
            throw AgentError(
                "this node belongs to the cluster \(cluster), and the master is of \(answer.clusterID); "
                    + "use another data directory for another cluster")
        }
        let joined = identity.withLock { identity in
            identity.cluster = answer.clusterID
            identity.session = identity.nextSession
            return identity
        }
        if joined != known {
            do {
                try await save(joined)
            } catch let error as KernelError where error.isOutOfSpace && known.cluster != nil {
                // What is kept says as much: the master takes the two words again.
            }
        }
        if try await membership.learn(answer.settings, node: known.node) {
            // There is a certificate now, so that other nodes may come for content.
            var again = registration
            again.node = try await describe(joined)
            again.session = joined.session
            let _: NodeRegistered = try await membership.master().json(.POST, APIPaths.nodes, body: .json(again))
        }
    }

    private func introduce(_ registration: NodeRegistration) async throws -> NodeRegistered {
        do {
            if membership.mustJoin { return try await membership.join(registration) }
            return try await membership.master().json(.POST, APIPaths.nodes, body: .json(registration))
        } catch let error as ClientError where error.code == "node-connected" {
            let since = contended.withLock { since in
                let first = since ?? .now
                since = first
                return first
            }
            guard ContinuousClock.now - since < Self.contention else {
                throw AgentError("the master refuses this node: \(error.message)")
            }
            throw error
        } catch let error as ClientError where error.status == 507 {
            // The master's disk is full: the word that it knows already asks nothing of it.
            identity.withLock { $0.nextSession = $0.session ?? $0.nextSession }
            throw error
        } catch let error as ClientError where [401, 403, 409].contains(error.status ?? 0) {
            throw AgentError("the master refuses this node: \(error.message)")
        }
    }

    /// The identity with the word of this process, which is kept before anybody hears it. On a full disk the word of the
    /// process before goes on: a node must come back to be told to free space.
    private func identityWithSession() async throws -> NodeIdentity {
        let known = identity.withLock { $0 }
        if hasSession.load(ordering: .relaxed) { return known }
        var fresh = known
        var random = SystemRandomNumberGenerator()
        fresh.nextSession = NodeID.make(&random).text
        do {
            try await save(fresh)
        } catch let error as KernelError where error.isOutOfSpace && known.nextSession != nil {
            logger.warning("the node's identity cannot be written; it stays as it is", metadata: ["error": "\(error)"])
            fresh = known
        }
        let kept = fresh
        identity.withLock { $0 = kept }
        hasSession.store(true, ordering: .relaxed)
        return kept
    }

    /// One connection's life: the watch, and beside it the posts.
    private func converse() async throws {
        let (queue, continuation) = AsyncStream<Post>.makeStream()
        posts.withLock { $0 = continuation }
        defer {
            posts.withLock { $0 = nil }
            continuation.finish()
        }
        let conversation = Conversation()
        try await withThrowingTaskGroup(of: Void.self) { group in
            defer { group.cancelAll() }
            group.addTask { try await self.watch(conversation) }
            group.addTask { try await self.watchPeers() }
            group.addTask { try await self.deliver(queue, conversation) }
            group.addTask { try await self.beat(conversation) }
            group.addTask { try await self.tellUsage(conversation) }
            group.addTask { await self.waitForRegistration() }
            try await group.next()
        }
    }

    /// Sends heartbeats beside the posts: nothing that takes long to gather or to answer may hold them up.
    private func beat(_ conversation: Conversation) async throws {
        try await withThrowingDiscardingTaskGroup { beats in
            while true {
                let period = period()
                try await rest(period)
                if conversation.silence > Self.silence {
                    throw ClientError(.timeout, "the master has been silent for more than 15 s")
                }
                // One that is not answered for so long is worth nothing any more, and others are on their way.
                beats.addTask { try await self.heartbeat(conversation, patience: period * 3) }
            }
        }
    }

    /// From one word on how devices are used to the next.
    private static let usagePeriod = Duration.seconds(10)

    /// Tells how devices are used, beside all else: what does not arrive is followed by news.
    private func tellUsage(_ conversation: Conversation) async throws {
        while true {
            try await Task.sleep(for: Self.usagePeriod)
            guard let usage = await usage() else { continue }
            do {
                try await send(NodeReport(deviceUsage: usage), conversation)
            } catch let error as ClientError where Self.endsConversation(error) {
                throw error
            } catch {
                try Task.checkCancellation()
                logger.debug("how devices are used did not reach the master", metadata: ["error": "\(error)"])
            }
        }
    }

    private func rest(_ duration: Duration) async throws {
        let sleep = Task { _ = try? await Task.sleep(for: duration) }
        pause.withLock { $0 = sleep }
        await withTaskCancellationHandler {
            await sleep.value
        } onCancel: {
            sleep.cancel()
        }
        try Task.checkCancellation()
    }

    /// Has a heartbeat sent now, if there is a conversation.
    func beatSoon() { pause.withLock { $0?.cancel() } }

    private func heartbeat(_ conversation: Conversation, patience: Duration) async throws {
        do {
            try await withThrowingTaskGroup(of: Void.self) { group in
                defer { group.cancelAll() }
                group.addTask { try await self.send(NodeReport(), conversation) }
                group.addTask { try await Task.sleep(for: patience) }
                try await group.next()
            }
        } catch let error as ClientError where Self.endsConversation(error) {
            throw error
        } catch {
            try Task.checkCancellation()
            logger.warning("a heartbeat did not reach the master", metadata: ["error": "\(error)"])
        }
    }

    private func watch(_ conversation: Conversation) async throws {
        let path = "\(APIPaths.nodes)/\(node)/tasks"
        let lines = try await membership.master().lines(.GET, path, query: ["watch": "true"])
        var first: [TaskAssignment]? = []
        for try await line in lines.decoded(as: WatchLine<TaskAssignment>.self) {
            conversation.heard()
            switch line.change {
            case .put:
                guard let assignment = line.object else { continue }
                if first == nil { tell(.assigned(assignment)) } else { first?.append(assignment) }
            case .delete:
                if first == nil {
                    tell(.unassigned(TaskID(line.id)))
                } else {
                    first?.removeAll { $0.task.text == line.id }
                }
            case .synced:
                tell(.assignments(first ?? []))
                first = nil
                // Only now: the full report that follows names all tasks that the master has assigned.
                tell(.connected)
            case .heartbeat: break
            }
        }
    }

    /// Hears what other nodes have of the overlays that pods of this node are on.
    private func watchPeers() async throws {
        let lines: LineSequence
        do {
            lines = try await membership.master().lines(
                .GET, "\(APIPaths.nodes)/\(node)/peers", query: ["watch": "true"])
        } catch let error as ClientError where error.status == 404 {
            // A master of an earlier version has no overlays. That it does not know the node the other watch finds out.
            while true { try await Task.sleep(for: .seconds(3600)) }
        }
        var first: [NetworkPeer]? = []
        for try await line in lines.decoded(as: WatchLine<NetworkPeer>.self) {
            switch line.change {
            case .put:
                guard let peer = line.object else { continue }
                if first == nil { try await tellPeers(.put(peer)) } else { first?.append(peer) }
            case .delete:
                if first == nil {
                    try await tellPeers(.delete(id: line.id))
                } else {
                    first?.removeAll { $0.id == line.id }
                }
            case .synced:
                try await tellPeers(.all(first ?? []))
                first = nil
            case .heartbeat: break
            }
        }
    }

    private func deliver(_ queue: AsyncStream<Post>, _ conversation: Conversation) async throws {
        for await post in queue {
            do {
                try await deliver(post, conversation)
            } catch let error as ClientError where Self.endsConversation(error) {
                fail(post)
                throw error
            } catch {
                fail(post)
                try Task.checkCancellation()
                logger.warning("a report did not reach the master", metadata: ["error": "\(error)"])
                // Nobody else repeats what the node has.
                if case .inventory = post {
                    Task { [weak self] in
                        try? await Task.sleep(for: .seconds(5))
                        self?.inventoryChanged()
                    }
                }
            }
        }
    }

    /// The master does not know this node (any more): registering again finds out why.
    private static func endsConversation(_ error: ClientError) -> Bool { [401, 403, 404].contains(error.status ?? 0) }

    private func fail(_ post: Post) {
        if case .report(let sequence, _) = post { tell(.reportFailed(sequence: sequence)) }
    }

    private func deliver(_ post: Post, _ conversation: Conversation) async throws {
        var report = NodeReport()
        if case .report(_, let given) = post { report = given }
        if report.full || report.tasks.isEmpty && report.events.isEmpty {
            let inventory = await inventory()
            report.images = inventory.images
            report.volumes = inventory.volumes
            report.devices = inventory.devices
        }
        failpoint("agent.before_report")
        try await send(report, conversation)
        if case .report(let sequence, _) = post { tell(.reported(sequence: sequence)) }
    }

    private func send(_ report: NodeReport, _ conversation: Conversation) async throws {
        let moment = LeaseKeeper.now()
        do {
            try await membership.master().send(.POST, "\(APIPaths.nodes)/\(node)/status", body: .json(report))
        } catch let error as ClientError where error.status == 507 {
            // It answers, and will record it when its disk has space again: there is nothing to wait for at the start.
            inContact.store(true, ordering: .relaxed)
            throw error
        }
        // The core reports in full when it knows the master's whole list.
        guard conversation.answered(full: report.full) else { return }
        inContact.store(true, ordering: .relaxed)
        confirm(moment)
    }
}

/// What a node has beside its tasks.
struct NodeInventory: Sendable {
    var images: [ImageView]
    var volumes: [VolumeView]
    /// nil: nobody has looked yet.
    var devices: [NodeDevice]?
}

/// What the master says of other nodes on this node's overlays.
enum PeerChange: Sendable {
    /// These and no others.
    case all([NetworkPeer])
    case put(NetworkPeer)
    /// See `NetworkPeer.id`.
    case delete(id: String)
}

/// What is known of the present conversation.
private final class Conversation: Sendable {
    private let last = Mutex(ContinuousClock.now)
    private let isSynced = Mutex(false)

    /// The master has said something.
    func heard() { last.withLock { $0 = .now } }
    var silence: Duration { last.withLock { ContinuousClock.now - $0 } }

    /// A post was answered.
    ///
    /// - Returns: whether a full report has been among those that were.
    func answered(full: Bool) -> Bool {
        isSynced.withLock {
            if full { $0 = true }
            return $0
        }
    }
}
