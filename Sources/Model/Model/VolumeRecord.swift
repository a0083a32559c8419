import JSON

/// Where a named volume is: kept in the store, so that its data is looked for on the right node also while that node is
/// away.
///
/// A named volume is one thing in the cluster: all that mount it run on its node. Only global services have one of the
/// same name on each node.
package struct VolumeRecord: Sendable, Hashable, Codable {
    package var name: String
    package var node: NodeID
    package var createdAt: Timestamp
    /// Whose it is: callers that are confined to groups reach it from this one and those above.
    package var group: String
    /// It was promised to somebody, and its node has not told of it yet.
    package var isExpected: Bool
    /// Of several nodes that have one of the name, this is the one where whoever is not global runs.
    package var isHome: Bool
    /// The instance that mounted it last, at that epoch.
    package var instance: InstanceID?
    package var epoch: Int

    package init(
        name: String, node: NodeID, createdAt: Timestamp, group: String = Group.root, isExpected: Bool = false,
        isHome: Bool = false, instance: InstanceID? = nil, epoch: Int = 0
    ) {
        self.group = group
        self.isExpected = isExpected
        self.isHome = isHome
        self.name = name
        self.node = node
        self.createdAt = createdAt
        self.instance = instance
        self.epoch = epoch
    }

    package init(from decoder: any Decoder) throws {
        let values = try decoder.container(keyedBy: CodingKeys.self)
        name = try values.decode(String.self, forKey: .name)
        node = try values.decode(NodeID.self, forKey: .node)
        createdAt = try values.decode(Timestamp.self, forKey: .createdAt)
        group = try values.decode(.group, or: Group.root)
        isExpected = try values.decode(.isExpected, or: false)
        isHome = try values.decode(.isHome, or: false)
        instance = try values.decodeIfPresent(InstanceID.self, forKey: .instance)
        epoch = try values.decode(.epoch, or: 0)
    }
}
