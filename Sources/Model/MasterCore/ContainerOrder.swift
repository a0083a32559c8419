import JSON
import Model

/// Where a container stands among all: by its age. It never changes, so that a list can be read in parts.
package struct ContainerPosition: Sendable, Hashable, Comparable {
    let createdAt: Timestamp
    let slot: Int
    let instance: InstanceID

    package init(createdAt: Timestamp, slot: Int, instance: InstanceID) {
        self.createdAt = createdAt
        self.slot = slot
        self.instance = instance
    }

    /// Less is older.
    package static func < (left: Self, right: Self) -> Bool {
        if left.createdAt != right.createdAt { return left.createdAt < right.createdAt }
        return left.slot == right.slot ? left.instance < right.instance : left.slot < right.slot
    }
}

extension Instance {
    var position: ContainerPosition { ContainerPosition(createdAt: createdAt, slot: slot, instance: id) }
}

/// What lists look at first, at hand without a search: most containers are passed over by it.
final class ListedContainer: Sendable {
    let position: ContainerPosition
    let id: ContainerID
    let name: String
    let workload: WorkloadID
    /// The task that is shown.
    let task: TaskID?
    let node: NodeID?
    let state: ContainerState
    let health: ContainerStatus.Health
    /// Of one that has ended.
    let exitCode: Int?
    /// What its node has published of it, see `NodeTask.ports`.
    let ports: [PortMapping]
    /// For a container that is a workload of its own; instances of services may be of different revisions.
    let own: Own?

    struct Own: Sendable {
        let labels: [String: String]
        /// As users wrote them, and digests of manifests.
        let images: [String]
        let mounts: [Mount]
        let exposedPorts: [String]
        let ports: [PortMapping]
        let network: PodSpec.Network
        let attachments: [NetworkAttachment]

        init(labels: [String: String], pod: PodSpec) {
            self.labels = labels
            images = pod.containers.flatMap { [$0.imageDigest, $0.image] }
            mounts = pod.containers.flatMap(\.mounts)
            exposedPorts = pod.containers.flatMap(\.exposedPorts)
            ports = pod.ports
            network = pod.network
            attachments = pod.attachments
        }
    }

    /// - Parameter desired: the workload's.
    init?(_ instance: Instance, task: NodeTask?, desired: DesiredState, own: Own?) {
        guard let id = instance.containers.first else { return nil }
        position = instance.position
        self.id = id
        name = instance.name
        workload = instance.workload
        self.task = task?.id
        node = task?.node
        state = ContainerState(
            task: task?.status, desired: desired == .removed ? .removed : task?.desired ?? desired)
        let container = task?.status.containers.first
        health = container?.health ?? .none
        exitCode = state == .exited ? container?.exitCode : nil
        ports = task?.ports ?? []
        self.own = own
    }
}

/// All containers by their age.
struct ContainerOrder: Sendable {
    /// The oldest first, so that a new one is appended.
    private var entries: [ListedContainer] = []

    var count: Int { entries.count }

    /// Those older than `position` (nil: all), the newest first.
    func older(than position: ContainerPosition?) -> ReversedCollection<ArraySlice<ListedContainer>> {
        entries[..<(position.map(firstIndex) ?? entries.count)].reversed()
    }

    /// Adds it, or puts it in the place of what was known of it.
    mutating func set(_ entry: ListedContainer) {
        let index = firstIndex(entry.position)
        if index < entries.count, entries[index].position == entry.position {
            entries[index] = entry
        } else {
            entries.insert(entry, at: index)
        }
    }

    mutating func remove(_ position: ContainerPosition) {
        let index = firstIndex(position)
        if index < entries.count, entries[index].position == position { entries.remove(at: index) }
    }

    /// The first that is not older.
    private func firstIndex(_ position: ContainerPosition) -> Int {
        if let last = entries.last, last.position < position { return entries.count }
        var (low, high) = (0, entries.count)
        while low < high {
            let middle = (low + high) / 2
            if entries[middle].position < position { low = middle + 1 } else { high = middle }
        }
        return low
    }
}
