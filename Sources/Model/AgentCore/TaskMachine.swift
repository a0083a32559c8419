import JSON
import Model
import Wire

/// One task: what the master wants of it, what is there, and the one operation that is under way.
///
/// It is moved by outcomes (`TaskMachine+Outcomes`), after each of which `advance` compares wanted with observed and
/// gives out the next step (`TaskMachine+Steps`).
struct TaskMachine: Sendable {
    /// What was given out and has not ended. Signals, kills and probes are no operations: their effect shows by
    /// itself.
    enum Operation: Sendable, Hashable { case preparing, starting, pausing, resuming, updating, removing }

    var record: TaskRecord
    /// As it was last given out for writing.
    var written: TaskRecord?
    var operation: Operation?
    /// The stop signal was given out in this process.
    var signalled = false
    /// When a signal, a freeze or a thaw that failed is tried again.
    var retryAt: Timestamp?
    /// When SIGKILL is sent (again).
    var killAt: Timestamp?
    var probing = false
    var probeAt: Timestamp?
    /// When a removal that failed is tried again, and how long the wait was.
    var removeAt: Timestamp?
    var removeDelay: Int64 = 0
    /// What the update that is under way brings about, and in whose place.
    var updating: (target: TaskAssignment, previous: TaskAssignment)?
    /// When an update that failed is tried again, and how long the wait was.
    var updateAt: Timestamp?
    var updateDelay: Int64 = 0
    /// The master's list does not have it any more.
    var orphaned = false
    /// An end that was told before the start that it belongs to.
    var earlyExit: ContainerExit?
    /// The start that is to come is the second half of a restart that a user wanted.
    var restarts = false
    /// Why nothing goes on with it, when that is not in the record since the record cannot be written.
    var trouble: String?
    /// What users may want to know, until it is reported.
    var events: [TaskEvent] = []

    init(_ record: TaskRecord) { self.record = record }

    var assignment: TaskAssignment { record.assignment }
    var container: ContainerSpec? { assignment.pod.containers.first }

    /// A container of it shall exist.
    var wantsLife: Bool { assignment.desired == .running || assignment.desired == .paused }

    /// It is to go, and something of it is still there.
    var isLeaving: Bool { assignment.desired == .removed && !record.removed }

    /// Whether it has something of the node that only one can have.
    var hasOfNode: Bool {
        !assignment.ports.isEmpty || !assignment.grantedDevices.isEmpty || !assignment.grantedProcessors.isEmpty
    }

    /// Whether both have the same processor of the node.
    func sharesProcessors(with other: TaskMachine) -> Bool {
        guard assignment.task != other.assignment.task, !assignment.grantedProcessors.isEmpty else { return false }
        let processors = Set(assignment.grantedProcessors.flatMap(\.cpus.numbers))
        return !processors.isDisjoint(with: other.assignment.grantedProcessors.flatMap(\.cpus.numbers))
    }

    /// Whether both have the same port or processor of the node, or the same device and one of them whole.
    func competes(with other: TaskMachine) -> Bool {
        guard assignment.task != other.assignment.task else { return false }
        let isDevice = assignment.grantedDevices.contains { mine in
            // What a change is to take from it it may have until that is done.
            other.record.assignments.flatMap(\.grantedDevices).contains {
                ($0.sharing == .whole || mine.sharing == .whole) && !Set($0.devices).isDisjoint(with: mine.devices)
            }
        }
        if isDevice { return true }
        if sharesProcessors(with: other) { return true }
        return assignment.ports.contains { mine in
            other.assignment.ports.contains {
                $0.hostPort == mine.hostPort && $0.transport == mine.transport
                    && PortMapping.meet($0.hostAddress, mine.hostAddress)
            }
        }
    }

    /// A user's start that nothing was done for yet.
    var hasNewGeneration: Bool { wantsLife && assignment.generation > record.generation }

    var status: TaskStatus {
        let serving = record.servingSince != nil
        return TaskStatus(
            phase: phase, generation: record.generation, containers: [record.container], addresses: record.addresses,
            endpoints: record.endpoints ?? [],
            restartAt: waitsForRestart ? record.restartAt : nil, message: trouble ?? record.message,
            serving: serving, servingSince: record.servingSince,
            revision: (record.applied ?? assignment).revision)
    }

    var report: NodeReport.TaskReport {
        NodeReport.TaskReport(
            task: assignment.task, instance: assignment.instance, epoch: assignment.epoch, status: status)
    }

    /// It rests, and may start again by itself. What was asked of it before it ended, such as a freeze, may still be under
    /// way then.
    var waitsForRestart: Bool {
        guard wantsLife || assignment.desired == .prepared, !record.isLive else { return false }
        return switch operation {
        case .preparing, .starting, .removing: false
        case nil, .pausing, .resuming, .updating: true
        }
    }

    private var phase: TaskStatus.Phase {
        if record.removed { return .removed }
        if record.isLive && record.stop != nil { return .stopping }
        switch record.container.state {
        case .running: return .running
        case .paused: return .paused
        case .waiting, .created, .exited: break
        }
        if operation == .preparing || operation == .starting { return .preparing }
        if record.failed { return .failed }
        if record.container.state == .exited { return .exited }
        if record.startPending { return .preparing }
        return record.prepared ? .prepared : .assigned
    }

    /// When time alone makes a difference to it, after `advance`; nil: never.
    func nextDeadline(isBlocked blocked: Bool, contact: Contact, now: Timestamp) -> Timestamp? {
        if record.removed { return nil }
        let isBlocked = blocked || lacksContact(contact, now)
        if record.isLive {
            guard let stop = record.stop else {
                // Before it is tried again, nothing else is done.
                let next = operation == nil ? earliest(retryAt ?? nextProbe, nextUpdate) : nil
                return earliest(leaseEnd(contact), next)
            }
            let signals = operation == nil && !signalled && !Self.isKill(stop.signal)
            let retry = signals ? retryAt : nil
            return earliest(retry, killAt ?? stop.deadline)
        }
        if operation != nil { return nil }
        if assignment.desired != .removed, let update = nextUpdate { return update }
        switch assignment.desired {
        case .removed: return removeAt
        case .stopped: return record.container.state == .created ? killAt : nil
        case .prepared:
            let kill = record.container.state == .created ? killAt : nil
            return earliest(kill, record.prepared || isBlocked ? nil : record.restartAt)
        case .running, .paused: return isBlocked ? nil : record.restartAt
        }
    }

    private var nextUpdate: Timestamp? { record.applied == nil ? nil : updateAt }

    private var nextProbe: Timestamp? {
        record.container.state == .running && assignment.desired != .paused && !probing ? probeAt : nil
    }

    private func earliest(_ first: Timestamp?, _ second: Timestamp?) -> Timestamp? {
        guard let first, let second else { return first ?? second }
        return min(first, second)
    }

    mutating func note(_ action: String, _ attributes: [String: String] = [:], now: Timestamp) {
        events.append(
            TaskEvent(
                time: now, action: action, container: record.container.id, name: assignment.instanceName,
                attributes: attributes))
    }
}

/// Times of the agent's own, in nanoseconds.
enum Pace {
    static let second: Int64 = 1_000_000_000
    static let firstDelay: Int64 = 100_000_000
    static let longestDelay: Int64 = 60 * second
    /// Having run so long, a container starts again without the delay that has grown.
    static let steady: Int64 = 10 * second
    /// Between attempts of something that should have worked at once: a signal, a thaw.
    static let retry: Int64 = second
    /// Between SIGKILLs to a container that does not end.
    static let rekill: Int64 = 5 * second

    /// The delay before the attempt after `failures` failures (at least 1) in a row: doubling from 100 ms to 60 s.
    static func delay(failures: Int) -> Int64 {
        failures > 10 ? longestDelay : min(longestDelay, firstDelay << Int64(max(0, failures - 1)))
    }

    static func seconds(_ count: Int) -> Int64 { Int64(clamping: count).multipliedReportingOverflow(by: second).0 }
}
