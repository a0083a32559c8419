import Logging
import Model
import Synchronization

/// Which nodes belong to the cluster, as the master says: a node that was removed still has its certificate.
///
/// It is asked anew when what is known is older than a few seconds. While it cannot be reached, what it said last
/// holds.
final class Members: Sendable {
    private struct Known: Sendable {
        var nodes: Set<NodeID>
        var at: ContinuousClock.Instant
    }

    private static let patience = Duration.seconds(5)

    private let ask: @Sendable () async throws -> [NodeID]
    private let freshness: Duration
    private let logger: Logger
    private let known = Mutex<Known?>(nil)

    /// - Parameters:
    ///   - freshness: how long what the master has said is not asked for again.
    ///   - ask: gets the list from the master.
    init(
        freshness: Duration = .seconds(5), logger: Logger, ask: @escaping @Sendable () async throws -> [NodeID]
    ) {
        self.freshness = freshness
        self.ask = ask
        self.logger = logger
    }

    func contains(_ node: NodeID) async -> Bool {
        if let known = known.withLock({ $0 }), ContinuousClock.now - known.at < freshness,
            known.nodes.contains(node)
        {
            return true
        }
        do {
            let nodes = try await withThrowingTaskGroup(of: [NodeID].self) { group in
                defer { group.cancelAll() }
                group.addTask { try await self.ask() }
                group.addTask {
                    try await Task.sleep(for: Self.patience)
                    throw AgentError("the master does not say which nodes there are")
                }
                return try await group.next() ?? []
            }
            known.withLock { $0 = Known(nodes: Set(nodes), at: .now) }
        } catch {
            logger.info("the cluster's nodes are not known anew", metadata: ["error": "\(error)"])
        }
        return known.withLock { $0 }?.nodes.contains(node) ?? false
    }
}
