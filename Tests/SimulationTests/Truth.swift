import AgentCore
import JSON
import Model
import Wire

struct TaskStart: Hashable {
    var task: TaskID
    var start: Int
}

/// What really happened in the whole cluster, beside what its parts believe.
final class Truth {
    /// Something that runs.
    struct Live {
        var assignment: TaskAssignment
        var node: String

        var mustBeAlone: Bool { assignment.pod.loss?.stopAfter != nil }
        /// The volumes that are one thing in the cluster.
        var volumes: [String]
    }

    private let world: World
    /// Whether the master has a record of the task.
    private let isKnown: (TaskID) -> Bool
    private let isGlobal: (WorkloadID) -> Bool
    var exits: [TaskStart: ContainerExit] = [:]
    private(set) var live: [TaskID: Live] = [:]
    private var forsaken: Set<TaskID> = []
    /// The newest epoch that was started on each node, by instance.
    private var begun: [String: [InstanceID: Int]] = [:]

    init(_ world: World, isKnown: @escaping (TaskID) -> Bool, isGlobal: @escaping (WorkloadID) -> Bool) {
        self.world = world
        self.isKnown = isKnown
        self.isGlobal = isGlobal
    }

    func began(_ assignment: TaskAssignment, on node: String) {
        let task = assignment.task
        let volumes = isGlobal(assignment.workload) ? [] : assignment.pod.volumes
        let new = Live(assignment: assignment, node: node, volumes: volumes)
        for (other, old) in live.sorted(by: { $0.key < $1.key }) { check(task, new, beside: other, old) }
        live[task] = new
        if let newest = begun[node]?[assignment.instance], newest > assignment.epoch {
            world.violate("\(node) starts epoch \(assignment.epoch) of \(assignment.instanceName) after \(newest)")
        }
        begun[node, default: [:]][assignment.instance] = assignment.epoch
        // What was given up is nobody's account any more until its node has removed it.
        let used = live.filter { $0.value.node == node && isKnown($0.key) }
            .reduce(0) { $0 + $1.value.assignment.pod.resources.memory }
        if used > Cluster.memory { world.violate("\(used >> 30) GiB are given away on \(node) with task \(task)") }
    }

    private func check(_ task: TaskID, _ new: Live, beside other: TaskID, _ old: Live) {
        if old.assignment.instance == new.assignment.instance,
            old.node == new.node || old.mustBeAlone || new.mustBeAlone,
            old.node == new.node || !isGivenUp(other, old) && !isGivenUp(task, new)
        {
            world.violate(
                "\(new.assignment.instanceName) runs twice: task \(other) on \(old.node) and task \(task) on \(new.node)"
            )
        }
        if old.node != new.node, forsaken.isDisjoint(with: [task, other]),
            let volume = new.volumes.first(where: { old.volumes.contains($0) })
        {
            world.violate("volume \(volume) is used on \(old.node) by \(other), and on \(new.node) by \(task)")
        }
        guard old.node == new.node else { return }
        checkDevices(task, new, beside: other, old)
        checkProcessors(task, new, beside: other, old)
        for port in new.assignment.ports
        where old.assignment.ports.contains(where: { $0.hostPort == port.hostPort && $0.transport == port.transport }) {
            world.violate("port \(port.hostPort) of \(new.node) is used by \(other) and \(task)")
        }
    }

    private func checkProcessors(_ task: TaskID, _ new: Live, beside other: TaskID, _ old: Live) {
        let own = Set(new.assignment.grantedProcessors.flatMap(\.cpus.numbers))
        let others = old.assignment.grantedProcessors.flatMap(\.cpus.numbers)
        if new.assignment.pod.containers.contains(where: { $0.limits.pinning != nil }), own.isEmpty {
            world.violate("\(task) of \(new.node) runs without the processors that it wants")
        }
        if own.isEmpty || others.isEmpty { return }
        world.tally.count("processors used")
        if !own.isDisjoint(with: others) {
            world.violate("processors \(others) of \(new.node) are used by \(other) and \(task)")
        }
    }

    private func checkDevices(_ task: TaskID, _ new: Live, beside other: TaskID, _ old: Live) {
        for grant in new.assignment.grantedDevices {
            world.tally.count("device used")
            for id in grant.devices {
                let same = old.assignment.grantedDevices.filter { $0.devices.contains(id) }
                if same.contains(where: { $0.sharing == .whole || grant.sharing == .whole }) {
                    world.violate("device \(id) of \(new.node) is used by \(other) and \(task)")
                }
                let users = live.values.filter { live in
                    live.node == new.node && live.assignment.grantedDevices.contains { $0.devices.contains(id) }
                }
                if users.count > 1 { world.violate("device \(id) of \(new.node) has more than two users") }
            }
        }
    }

    /// Made before its service was told that its instances must not run twice, on a node that was then silent for as long
    /// as its own policy waits: nothing ends it there, and nobody waits for it any longer.
    private func isGivenUp(_ task: TaskID, _ live: Live) -> Bool { !live.mustBeAlone && !isKnown(task) }

    func ended(_ task: TaskID) { live[task] = nil }

    /// The tasks' node was removed from the cluster by force, and its volumes with it: what they do there is nobody's
    /// business any more, except for what must not run twice.
    func forsake(_ tasks: some Sequence<TaskID>) { forsaken.formUnion(tasks) }

    /// The tasks of an instance that run.
    func tasks(of instance: InstanceID) -> [TaskID] {
        live.filter { $0.value.assignment.instance == instance }.keys.sorted()
    }

    /// How many instances of a service run.
    func instances(of workload: String) -> Int {
        Set(live.values.filter { $0.assignment.workloadName == workload }.map(\.assignment.instance)).count
    }
}
