import JSON
import Model
import Wire

/// All decisions of an agent, as a synchronous state machine without input, output or clock: the agent's shell feeds
/// it with events and carries out the effects; the simulator does the same with a seed.
package struct AgentCore: Sendable {
    private(set) var tasks: [TaskID: TaskMachine] = [:]
    private var byInstance: [InstanceID: Set<TaskID>] = [:]
    /// Assignments whose epoch is older than what this node has of the instance.
    var refused: [TaskID: NodeReport.TaskReport] = [:]
    var reporter = Reporter()
    private var epochs = EpochMemory()
    private var contact = Contact()
    private var bootID = ""
    private var wakeAt: Timestamp?
    /// Tasks with processors of their own whose container runs: others may wait for its end.
    private var pinned: Set<TaskID> = []

    package init() {}

    /// Takes one event and returns what is to be done, see `AgentEffect` for the order in which.
    package mutating func step(
        _ event: AgentEvent, now: Timestamp, random: inout some RandomNumberGenerator
    ) -> [AgentEffect] {
        var touched: Set<TaskID> = []
        // A process that was stopped may hear of other things before its timer: the tick that is overdue is taken along.
        if let due = wakeAt, due <= now {
            wakeAt = nil
            touched.formUnion(tasks.keys)
        }
        switch event {
        case .recovered(let found, let bootID, let epochs):
            self.bootID = bootID
            contact.last = now
            for (instance, epoch) in epochs.sorted(by: { $0.key < $1.key }) { self.epochs.note(instance, epoch) }
            for task in found { recover(task, now, &touched) }
        case .assignments(let list): replaceAll(list, &touched)
        case .assigned(let assignment): assign(assignment, &touched)
        case .unassigned(let task): unassign(task, &touched)
        case .connected: reporter.connect()
        case .disconnected:
            reporter.disconnect()
            contact.isConfirmed = false
            touched.formUnion(leased)
        case .contact(let moment): confirm(moment, now, &touched)
        case .reported(let sequence):
            if let sent = reporter.succeeded(sequence) { confirm(sent, now, &touched) }
        case .reportFailed(let sequence): reporter.failed(sequence, now: now, random: &random)
        case .tick:
            wakeAt = nil
            touched.formUnion(tasks.keys)
        default: outcome(event, now, &touched)
        }
        return settle(touched, now)
    }

    /// Brings everything that the event touched forward, then reports and asks to be woken.
    private mutating func settle(_ touched: Set<TaskID>, _ now: Timestamp) -> [AgentEffect] {
        var effects: [AgentEffect] = []
        var queue = touched.sorted()
        var index = 0
        while index < queue.count {
            let id = queue[index]
            index += 1
            guard var machine = tasks[id] else { continue }
            effects += machine.advance(now: now, blocker: blocker(of: machine), contact: contact)
            tasks[id] = machine
            reporter.add(id, machine.events)
            tasks[id]?.events = []
            if machine.record.isLive, !machine.assignment.grantedProcessors.isEmpty {
                pinned.insert(id)
            } else if pinned.remove(id) != nil {
                queue += tasks.filter { !$0.value.record.removed && $0.value.sharesProcessors(with: machine) }.keys
                    .sorted()
            }
            guard machine.record.removed else { continue }
            if machine.orphaned {
                drop(machine)
                effects.append(.forget(id))
            }
            // Whoever waited for it may go on.
            var waiting = siblings(of: machine)
            if machine.hasOfNode {
                waiting.formUnion(tasks.filter { $0.value.competes(with: machine) }.keys)
            }
            queue += waiting.filter { tasks[$0]?.record.removed == false }.sorted()
        }
        if let report = reporter.next(tasks, refused, now: now) { effects.append(report) }
        if let wake = nextWake(now), wake != wakeAt {
            wakeAt = wake
            effects.append(.wake(at: wake))
        }
        return effects
    }

    private func nextWake(_ now: Timestamp) -> Timestamp? {
        var earliest = reporter.retryAt
        for machine in tasks.values {
            let isBlocked = blocker(of: machine) != nil
            guard let deadline = machine.nextDeadline(isBlocked: isBlocked, contact: contact, now: now) else {
                continue
            }
            earliest = earliest.map { min($0, deadline) } ?? deadline
        }
        return earliest
    }

    // MARK: Instances and epochs

    private mutating func add(_ machine: TaskMachine) {
        epochs.note(machine.assignment.instance, machine.assignment.epoch)
        tasks[machine.assignment.task] = machine
        byInstance[machine.assignment.instance, default: []].insert(machine.assignment.task)
    }

    private mutating func drop(_ machine: TaskMachine) {
        epochs.note(machine.assignment.instance, machine.assignment.epoch)
        tasks[machine.assignment.task] = nil
        byInstance[machine.assignment.instance]?.remove(machine.assignment.task)
        if byInstance[machine.assignment.instance]?.isEmpty == true { byInstance[machine.assignment.instance] = nil }
    }

    private func siblings(of machine: TaskMachine) -> Set<TaskID> {
        (byInstance[machine.assignment.instance] ?? []).subtracting([machine.assignment.task])
    }

    /// Another task of the instance that is still on this node, so that there are never two of them at a time; or one
    /// that is on its way out and has a port or a device of the node that this one is to have, or runs on a processor of
    /// this one.
    private func blocker(of machine: TaskMachine) -> TaskID? {
        guard !machine.record.isLive, !machine.record.prepared || machine.record.restartAt != nil else { return nil }
        let sibling = siblings(of: machine).filter {
            guard let other = tasks[$0], !other.record.removed else { return false }
            return other.assignment.epoch <= machine.assignment.epoch || other.record.isLive
        }.min()
        guard sibling == nil, machine.wantsLife, machine.hasOfNode else { return sibling }
        // Nobody runs on a processor that somebody else still runs on, whoever of them the master believes to have ended.
        let others = tasks.values.filter {
            ($0.isLeaving && $0.competes(with: machine)) || ($0.record.isLive && $0.sharesProcessors(with: machine))
        }
        return others.map(\.assignment.task).min()
    }

    // MARK: The master's list

    private mutating func replaceAll(_ list: [TaskAssignment], _ touched: inout Set<TaskID>) {
        let listed = Set(list.map(\.task))
        for id in tasks.keys where !listed.contains(id) { unassign(id, &touched) }
        for id in refused.keys where !listed.contains(id) { refused[id] = nil }
        for assignment in list.sorted(by: { $0.epoch < $1.epoch }) { assign(assignment, &touched) }
    }

    private mutating func assign(_ assignment: TaskAssignment, _ touched: inout Set<TaskID>) {
        let id = assignment.task
        if tasks[id] != nil {
            tasks[id]?.assign(assignment)
            touched.insert(id)
            return
        }
        if let problem = problem(of: assignment) {
            let phase: TaskStatus.Phase = assignment.desired == .removed ? .removed : .failed
            refused[id] = NodeReport.TaskReport(
                task: id, instance: assignment.instance, epoch: assignment.epoch,
                status: TaskStatus(phase: phase, generation: assignment.generation, message: problem))
            reporter.mark(id)
            return
        }
        let machine = TaskMachine(TaskRecord(assignment, bootID: bootID))
        for sibling in siblings(of: machine) {
            // The master has moved on to a newer epoch; what this node has of an older one is void.
            tasks[sibling]?.condemn()
            touched.insert(sibling)
        }
        refused[id] = nil
        add(machine)
        touched.insert(id)
    }

    private func problem(of assignment: TaskAssignment) -> String? {
        let present = (byInstance[assignment.instance] ?? []).compactMap { tasks[$0]?.assignment.epoch }
        if let newest = (present + [epochs[assignment.instance]].compactMap(\.self)).max(),
            newest >= assignment.epoch
        {
            return "epoch \(assignment.epoch) of instance \(assignment.instanceName) is refused: "
                + "this node has had epoch \(newest)"
        }
        if assignment.pod.containers.count != 1 || assignment.containers.count != 1 {
            return "a pod of \(assignment.pod.containers.count) containers is not supported by this agent: "
                + "it runs pods of one"
        }
        return nil
    }

    private mutating func unassign(_ id: TaskID, _ touched: inout Set<TaskID>) {
        refused[id] = nil
        guard tasks[id] != nil else { return }
        tasks[id]?.condemn()
        tasks[id]?.orphaned = true
        touched.insert(id)
    }

    // MARK: Outcomes

    private mutating func recover(_ found: RecoveredTask, _ now: Timestamp, _ touched: inout Set<TaskID>) {
        let id = found.record.assignment.task
        var machine = TaskMachine(found.record)
        machine.recover(found, bootID: bootID, now: now)
        add(machine)
        touched.insert(id)
    }

    private mutating func outcome(_ event: AgentEvent, _ now: Timestamp, _ touched: inout Set<TaskID>) {
        func change(_ id: TaskID, _ body: (inout TaskMachine) -> Void) {
            guard var machine = tasks[id] else { return }
            body(&machine)
            tasks[id] = machine
            touched.insert(id)
        }
        switch event {
        case .prepared(let id, let result): change(id) { $0.prepared(result, now: now) }
        case .started(let id, let start, let result):
            change(id) { $0.started(start: start, result, now: now) }
        case .exited(let id, let exit): change(id) { $0.exited(exit, now: now) }
        case .signalled(let id, let start, let failure):
            change(id) { $0.signalled(start: start, failure, now: now) }
        case .killed(let id, let start, let failure): change(id) { $0.killed(start: start, failure, now: now) }
        case .paused(let id, let start, let failure): change(id) { $0.frozen(start: start, failure, now: now) }
        case .resumed(let id, let start, let failure): change(id) { $0.thawed(start: start, failure, now: now) }
        case .updated(let id, let failure): change(id) { $0.updated(failure, now: now) }
        case .rewired(let id, let pod): change(id) { $0.rewired(pod) }
        case .removed(let id, let failure): change(id) { $0.removed(failure, now: now) }
        case .probed(let id, let start, let outcome): change(id) { $0.probed(start: start, outcome, now: now) }
        case .delayed(let id, let why): change(id) { $0.trouble = why }
        case .recovered, .assignments, .assigned, .unassigned, .connected, .disconnected, .reported, .contact,
            .reportFailed, .tick:
            break
        }
    }

    // MARK: Contact with the master

    /// Tasks that must not run for long without contact.
    private var leased: [TaskID] { tasks.filter { $0.value.stopAfter != nil }.map(\.key) }

    private mutating func confirm(_ moment: Timestamp, _ now: Timestamp, _ touched: inout Set<TaskID>) {
        guard reporter.isConnected else { return }
        // What waits for contact may go on.
        touched.formUnion(leased.filter { tasks[$0]?.lacksContact(contact, now) == true })
        // One from a clock that was ahead must not count for longer than one of now.
        contact.last = max(min(contact.last, now), min(moment, now))
        contact.isConfirmed = true
    }

    // MARK: For the shell

    /// What the agent has, for its own routes and for garbage collection.
    package var records: [TaskRecord] { tasks.values.map(\.record) }

    package subscript(task: TaskID) -> TaskRecord? { tasks[task]?.record }
}
