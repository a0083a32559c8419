import JSON

/// Something that is or is not so, with a reason and since when: readiness, health and reachability are conditions,
/// not states.
package struct Condition: Sendable, Hashable, Codable {
    package enum Kind: String, Sendable, Hashable, Codable {
        /// The node's agent is connected and can take tasks.
        case ready
        /// The agent has been silent for longer than its lease.
        case unreachable
        /// The task serves: all containers run, and those with a health check are healthy.
        case serving
        /// The last health checks succeeded.
        case healthy
        /// No node fits; the message explains.
        case unschedulable
        /// A device that it has is unusable or gone; the message says why, and what becomes of it.
        case deviceUnusable
    }

    package var kind: Kind
    package var holds: Bool
    /// One word for programs: `ProbeFailed`, `InsufficientMemory`.
    package var reason: String
    /// A sentence for people.
    package var message: String
    package var since: Timestamp

    package init(_ kind: Kind, _ holds: Bool, reason: String = "", message: String = "", since: Timestamp) {
        self.kind = kind
        self.holds = holds
        self.reason = reason
        self.message = message
        self.since = since
    }
}
