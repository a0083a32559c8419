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
    /// Of that task; nil: there is none.
    let revision: Int?
    let phase: TaskStatus.Phase?
    let node: NodeID?
    let state: ContainerState
    let health: ContainerStatus.Health
    /// Of one that has ended.
    let exitCode: Int?
    /// What its node has published of it, see `NodeTask.ports`.
    let ports: [PortMapping]
    /// For a container that is a workload of its own; instances of services may be of different revisions.
    let own: Own?

    /// What its spec says.
    final class Own: Sendable {
        let labels: [String: String]
        let containers: [ContainerSpec]
        let ports: [PortMapping]
        let network: PodSpec.Network
        let attachments: [NetworkAttachment]
        let facts: ContainerFacts

        init(_ workload: Workload, _ pod: PodSpec) {
            labels = workload.labels(of: pod.containers.first)
            containers = pod.containers
            ports = pod.ports
            network = pod.network
            attachments = pod.attachments
            facts = ContainerFacts(
                labels: labels, containers: containers, network: network, attachments: attachments)
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
        revision = task?.revision
        phase = task?.status.phase
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

/// A container with what rules most of them out before it is looked at.
struct ListedEntry: Sendable {
    let facts: ContainerFacts
    let container: ListedContainer
}

/// All containers by their age.
struct ContainerOrder: Sendable {
    /// The oldest first, so that a new one is appended.
    private var entries: [ListedEntry] = []

    /// In no order.
    var all: some Sequence<ListedContainer> { entries.lazy.map(\.container) }

    /// Those older than `position` and newer than `oldest` (nil: all), the newest first.
    func older(
        than position: ContainerPosition?, newerThan oldest: ContainerPosition?
    ) -> ReversedCollection<ArraySlice<ListedEntry>> {
        let end = position.map(firstIndex) ?? entries.count
        var start = oldest.map(firstIndex) ?? 0
        if start < entries.count, entries[start].container.position == oldest { start += 1 }
        return entries[min(start, end)..<end].reversed()
    }

    /// What is known of the one that stands there.
    subscript(position: ContainerPosition) -> ListedContainer? {
        let index = firstIndex(position)
        guard index < entries.count, entries[index].container.position == position else { return nil }
        return entries[index].container
    }

    /// Adds it, or puts it in the place of what was known of it.
    mutating func set(_ container: ListedContainer) {
        let entry = ListedEntry(facts: container.own?.facts ?? .unknown, container: container)
        let index = firstIndex(container.position)
        if index < entries.count, entries[index].container.position == container.position {
            entries[index] = entry
        } else {
            entries.insert(entry, at: index)
        }
    }

    mutating func remove(_ position: ContainerPosition) {
        let index = firstIndex(position)
        if index < entries.count, entries[index].container.position == position { entries.remove(at: index) }
    }

    /// The first that is not older.
    private func firstIndex(_ position: ContainerPosition) -> Int {
        if let last = entries.last, last.container.position < position { return entries.count }
        var (low, high) = (0, entries.count)
        while low < high {
            let middle = (low + high) / 2
            if entries[middle].container.position < position { low = middle + 1 } else { high = middle }
        }
        return low
    }
}
