import JSON

/// A place that runs pods. The agent reports what it discovered; users set labels and availability.
package struct Node: Sendable, Hashable, Codable {
    package enum Availability: String, Sendable, Hashable, Codable { case active, cordoned, drained }

    package var id: NodeID
    /// Unique in the cluster: the machine's host name unless the operator chose another.
    package var name: String
    /// Set by users; constraints read them. Besides, constraints know `node.name`, `node.os` and `node.arch`.
    package var labels: [String: String]
    package var availability: Availability
    package var platform: Platform
    /// What the agent's executor can do, by name; a spec that needs more does not fit.
    package var features: [String]
    /// What the machine has, less what is reserved for itself.
    package var capacity: Resources
    /// The address under which published ports are reached.
    package var address: String
    /// Where the agent serves streams: `unix:/path` on one machine.
    package var streamEndpoint: String
    package var agentVersion: String
    package var kernelVersion: String
    /// Changes with every boot of the machine, see random(4).
    package var bootID: String
    package var createdAt: Timestamp

    package init(
        id: NodeID, name: String, labels: [String: String] = [:], availability: Availability = .active,
        platform: Platform, features: [String] = [], capacity: Resources, address: String, streamEndpoint: String,
        agentVersion: String, kernelVersion: String, bootID: String, createdAt: Timestamp
    ) {
        self.id = id
        self.name = name
        self.labels = labels
        self.availability = availability
        self.platform = platform
        self.features = features
        self.capacity = capacity
        self.address = address
        self.streamEndpoint = streamEndpoint
        self.agentVersion = agentVersion
        self.kernelVersion = kernelVersion
        self.bootID = bootID
        self.createdAt = createdAt
    }
}
