import JSON
import Model
import Wire

/// How many containers are in which state, as users see it.
package struct ContainerCounts: Sendable, Hashable {
    package var running = 0
    package var paused = 0
    /// Those that have not been started yet too.
    package var stopped = 0

    package init() {}

    package var all: Int { running + paused + stopped }

    mutating func add(_ phase: TaskStatus.Phase?) {
        switch phase {
        case .running?, .stopping?: running += 1
        case .paused?: paused += 1
        default: stopped += 1
        }
    }
}

/// The cluster in numbers, as far as the caller sees it.
package struct ClusterCounts: Sendable {
    package var containers = ContainerCounts()
    package var onNodes: [NodeID: ContainerCounts] = [:]
    /// Images of different content.
    package var images = 0
    /// When each node was last heard of.
    package var heard: [NodeID: Timestamp] = [:]
}

extension MasterCore {
    var counts: ClusterCounts {
        var counts = ClusterCounts()
        for container in state.indexes.containers.all where sees(container) {
            counts.containers.add(container.phase)
            if let node = container.node { counts.onNodes[node, default: ContainerCounts()].add(container.phase) }
        }
        counts.images = memory.values.reduce(into: Set<String>()) { $0.formUnion($1.digests) }.count
        counts.heard = memory.compactMapValues(\.heard)
        return counts
    }
}
