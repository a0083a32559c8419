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
        case heartbeat
    }

    static let heartbeat = Duration.seconds(5)
    /// The master sends at least a heartbeat every 5 s.
    static let silence = Duration.seconds(15)

    private let client: APIClient
    private let describe: @Sendable (NodeIdentity) async throws -> Node
    private let inventory: @Sendable () async -> (images: [ImageView], volumes: [VolumeView])
    private let save: @Sendable (NodeIdentity) async throws -> Void
    private let tell: @Sendable (AgentEvent) -> Void
    private let logger: Logger
    private let identity: Mutex<NodeIdentity>
    private let posts = Mutex<AsyncStream<Post>.Continuation?>(nil)

    /// - Parameters:
    ///   - describe: the node as it is now.
    ///   - inventory: images and volumes as they are now.
    ///   - save: keeps the identity.
    ///   - tell: gives the core an event.
    init(
        _ endpoint: String, identity: NodeIdentity, logger: Logger,
        describe: @escaping @Sendable (NodeIdentity) async throws -> Node,
        inventory: @escaping @Sendable () async -> (images: [ImageView], volumes: [VolumeView]),
        save: @escaping @Sendable (NodeIdentity) async throws -> Void,
        tell: @escaping @Sendable (AgentEvent) -> Void
    ) throws {
        client = APIClient(try ServerAddress(endpoint))
        self.identity = Mutex(identity)
        self.describe = describe
        self.inventory = inventory
        self.save = save
        self.tell = tell
        self.logger = logger
    }

    var node: NodeID { identity.withLock { $0.node } }

    /// Posts a report of the core's; its outcome comes back as an event.
    func post(_ effect: AgentEffect) {
        guard case .report(let sequence, let full, let tasks, let events) = effect else { return }
        let report = NodeReport(full: full, tasks: tasks, events: events.map(\.event))
        let isTaken = posts.withLock { $0?.yield(.report(sequence: sequence, report)) } != nil
        if !isTaken { tell(.reportFailed(sequence: sequence)) }
    }

    /// Images or volumes have changed.
    func inventoryChanged() { posts.withLock { _ = $0?.yield(.inventory) } }

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
                logger.info("the master ended the conversation; it is begun again")
            } catch let error as AgentError {
                throw error
            } catch {
                if Task.isCancelled { break }
                logger.warning("no conversation with the master; trying again", metadata: ["error": "\(error)"])
            }
            tell(.disconnected)
            // Spread out, so that a master that comes back is not asked by all nodes at once.
            try await Task.sleep(for: .milliseconds(delay + Int.random(in: 0...delay)))
            delay = min(5000, delay * 2)
        }
    }

    private func register() async throws {
        let known = identity.withLock { $0 }
        let registration = NodeRegistration(node: try await describe(known), clusterID: known.cluster)
        let answer: NodeRegistered
        do {
            answer = try await client.json(.POST, APIPaths.nodes, body: .json(registration))
        } catch let error as ClientError where error.status == 409 {
            throw AgentError("the master refuses this node: \(error.message)")
        }
        guard answer.clusterID != known.cluster else { return }
        if let cluster = known.cluster {
            throw AgentError(
                "this node belongs to the cluster \(cluster), and the master is of \(answer.clusterID); "
                    + "use another data directory for another cluster")
        }
        let joined = identity.withLock { identity in
            identity.cluster = answer.clusterID
            return identity
        }
        try await save(joined)
    }

    /// One connection's life: the watch, and beside it the posts.
    private func converse() async throws {
        let (queue, continuation) = AsyncStream<Post>.makeStream()
        posts.withLock { $0 = continuation }
        defer {
            posts.withLock { $0 = nil }
            continuation.finish()
        }
        let lastLine = LastHeard()
        try await withThrowingTaskGroup(of: Void.self) { group in
            defer { group.cancelAll() }
            group.addTask { try await self.watch { lastLine.note() } }
            group.addTask { try await self.deliver(queue) }
            group.addTask {
                while true {
                    try await Task.sleep(for: Self.heartbeat)
                    continuation.yield(.heartbeat)
                    if lastLine.silence > Self.silence {
                        throw ClientError(.timeout, "the master has been silent for more than 15 s")
                    }
                }
            }
            try await group.next()
        }
    }

    private func watch(_ alive: @Sendable () -> Void) async throws {
        let path = "\(APIPaths.nodes)/\(node)/tasks"
        let lines = try await client.lines(.GET, path, query: ["watch": "true"])
        var first: [TaskAssignment]? = []
        for try await line in lines.decoded(as: WatchLine<TaskAssignment>.self) {
            alive()
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

    private func deliver(_ queue: AsyncStream<Post>) async throws {
        for await post in queue {
            do {
                try await deliver(post)
            } catch let error as ClientError where error.status == 404 {
                fail(post)
                throw error
            } catch {
                fail(post)
                try Task.checkCancellation()
                logger.warning("a report did not reach the master", metadata: ["error": "\(error)"])
            }
        }
    }

    private func fail(_ post: Post) {
        if case .report(let sequence, _) = post { tell(.reportFailed(sequence: sequence)) }
    }

    private func deliver(_ post: Post) async throws {
        var report = NodeReport()
        switch post {
        case .report(_, let given): report = given
        case .inventory, .heartbeat: break
        }
        if case .heartbeat = post {
        } else if report.full || report.tasks.isEmpty && report.events.isEmpty {
            let inventory = await inventory()
            report.images = inventory.images
            report.volumes = inventory.volumes
        }
        failpoint("agent.before_report")
        try await client.send(.POST, "\(APIPaths.nodes)/\(node)/status", body: .json(report))
        if case .report(let sequence, _) = post { tell(.reported(sequence: sequence)) }
    }
}

/// When the master last said anything.
private final class LastHeard: Sendable {
    private let moment = Mutex(ContinuousClock.now)

    func note() { moment.withLock { $0 = .now } }
    var silence: Duration { moment.withLock { ContinuousClock.now - $0 } }
}
