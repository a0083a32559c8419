import JSON

/// A place that runs pods. The agent reports what it discovered; users set labels and availability.
package struct Node: Sendable, Hashable, Codable {
    package enum Availability: String, Sendable, Hashable, Codable {
        case active
        /// It keeps what it has and gets no more.
        case cordoned
        /// It gets no more, and what belongs to services moves away, see `Drain`.
        case drained
    }

    /// How a node is emptied of what belongs to services.
    package struct Drain: Sendable, Hashable, Codable {
        package var startedAt: Timestamp
        /// When what is left is removed whatever it takes; nil: never.
        package var deadline: Timestamp?
        /// Per cent of each service's instances that serve all the time, where an instance cannot be replaced before it
        /// goes: 0…100.
        package var minimumAvailable: Int

        package init(startedAt: Timestamp, deadline: Timestamp? = nil, minimumAvailable: Int = 100) {
            self.startedAt = startedAt
            self.deadline = deadline
            self.minimumAvailable = minimumAvailable
        }
    }

    package var id: NodeID
    /// Unique in the cluster: the machine's host name unless the operator chose another.
    package var name: String
    /// Set by users; constraints read them. Besides, constraints know `node.name`, `node.os` and `node.arch`.
    package var labels: [String: String]
    package var availability: Availability
    /// Set while it is drained.
    package var drain: Drain?
    package var platform: Platform
    /// What the agent's executor can do, by name; a spec that needs more does not fit.
    package var features: [String]
    /// What the machine has, less what is reserved for itself.
    package var capacity: Resources
    /// Its processors; nil: its agent does not tell.
    package var processors: NodeProcessors?
    /// The address under which published ports are reached.
    package var address: String
    /// Where the agent serves streams: `unix:/path` on one machine.
    package var streamEndpoint: String
    /// Where other nodes fetch content of images: `https://address:port`; nil: nowhere.
    package var contentEndpoint: String?
    /// The node's public key of X25519, in hexadecimal, by which others encrypt overlays' packets for it; nil: it cannot
    /// have that. It changes now and then.
    package var overlayKey: String?
    /// The word of the agent process that speaks for the node, see `NodeRegistration`.
    package var session: String?
    package var agentVersion: String
    package var kernelVersion: String
    /// Name and version for people, see os-release(5); nil: its agent does not tell.
    package var operatingSystem: String?
    /// 1 or 2, see cgroups(7); nil: its agent does not tell.
    package var cgroupVersion: Int?
    /// Changes with every boot of the machine, see random(4).
    package var bootID: String
    package var createdAt: Timestamp

    package init(
        id: NodeID, name: String, labels: [String: String] = [:], availability: Availability = .active,
        platform: Platform, features: [String] = [], capacity: Resources, processors: NodeProcessors? = nil,
        address: String,
        streamEndpoint: String,
        contentEndpoint: String? = nil, overlayKey: String? = nil, session: String? = nil,
        agentVersion: String, kernelVersion: String, operatingSystem: String? = nil, cgroupVersion: Int? = nil,
        bootID: String, createdAt: Timestamp
    ) {
        self.id = id
        self.name = name
        self.labels = labels
        self.availability = availability
        self.platform = platform
        self.features = features
        self.capacity = capacity
        self.processors = processors
        self.address = address
        self.streamEndpoint = streamEndpoint
        self.contentEndpoint = contentEndpoint
        self.overlayKey = overlayKey
        self.session = session
        self.agentVersion = agentVersion
        self.kernelVersion = kernelVersion
        self.operatingSystem = operatingSystem
        self.cgroupVersion = cgroupVersion
        self.bootID = bootID
        self.createdAt = createdAt
    }
}
