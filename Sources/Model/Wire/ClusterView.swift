import JSON
import Model

/// `GET /cluster`: the whole in one object.
package struct ClusterView: Sendable, Codable, Hashable {
    package var id: String
    package var createdAt: Timestamp
    package var nodes: Int
    package var readyNodes: Int
    package var workloads: Int
    package var tasks: Int
    /// The store's revision at the last commit.
    package var storeRevision: Int64
    package var capacity: Resources
    package var allocated: Resources
    /// nil: other machines cannot join yet.
    package var settings: ClusterSettings?

    package init(
        id: String, createdAt: Timestamp, nodes: Int, readyNodes: Int, workloads: Int, tasks: Int, storeRevision: Int64,
        capacity: Resources, allocated: Resources, settings: ClusterSettings? = nil
    ) {
        self.id = id
        self.createdAt = createdAt
        self.nodes = nodes
        self.readyNodes = readyNodes
        self.workloads = workloads
        self.tasks = tasks
        self.storeRevision = storeRevision
        self.capacity = capacity
        self.allocated = allocated
        self.settings = settings
    }
}
