import JSON
import Model
import Wire

@testable import AgentCore

/// An `AgentCore` with a clock and a stand-in for what runs containers: effects are listed, and answered on demand.
struct Scenario {
    static let boot = "boot-1"

    var core = AgentCore()
    var now = Timestamp(nanoseconds: 1_000 * 1_000_000_000)
    var random = SystemRandomNumberGenerator()
    /// Everything given out since the last `take()`, in order, as words: `persist`, `start 1`, `signal TERM`, …
    private(set) var log: [String] = []
    /// Not yet answered.
    private(set) var pending: [AgentEffect] = []
    private(set) var records: [TaskID: TaskRecord] = [:]
    private(set) var told: [TaskID: TaskStatus] = [:]
    private(set) var events: [String] = []
    private(set) var reports: [(sequence: Int, full: Bool, tasks: [TaskID])] = []
    private(set) var wakeAt: Timestamp?
    /// Answers reports at once; off to see what happens while one is under way.
    var answersReports = true

    init(recovered: [RecoveredTask] = [], bootID: String = Scenario.boot, connected: Bool = true) {
        for task in recovered { records[task.record.assignment.task] = task.record }
        step(.recovered(recovered, bootID: bootID))
        if connected { step(.connected) }
        log = []
    }

    mutating func step(_ event: AgentEvent) {
        for effect in core.step(event, now: now, random: &random) { take(effect) }
    }

    private mutating func take(_ effect: AgentEffect) {
        switch effect {
        case .persist(let record, _):
            records[record.assignment.task] = record
            log.append("persist")
        case .forget(let task):
            records[task] = nil
            log.append("forget")
        case .prepare: log.append("prepare")
        case .start(_, let start): log.append("start \(start)")
        case .signal(_, _, let signal): log.append("signal \(signal)")
        case .kill: log.append("kill")
        case .pause: log.append("pause")
        case .resume: log.append("resume")
        case .update(let assignment, let previous): log.append("update \(previous.revision)-\(assignment.revision)")
        case .remove: log.append("remove")
        case .probe: log.append("probe")
        case .wake(let at): wakeAt = at
        case .report(let sequence, let full, let tasks, let events):
            for report in tasks { told[report.task] = report.status }
            self.events += events.map(\.action)
            reports.append((sequence, full, tasks.map(\.task)))
            if answersReports { step(.reported(sequence: sequence)) }
        }
        if effect.task != nil || effect.isProbe { pending.append(effect) }
    }

    /// What was given out since the last call, without records when they are not asked for.
    mutating func take(records: Bool = false) -> [String] {
        defer { log = [] }
        return records ? log : log.filter { $0 != "persist" }
    }

    /// Answers what is pending with success until nothing is; signals, kills and probes only are marked as delivered.
    mutating func perform() {
        while !pending.isEmpty {
            let effect = pending.removeFirst()
            switch effect {
            case .prepare(let a): step(.prepared(a.task, .success(PreparedPod(addresses: ["10.0.0.2"]))))
            case .start(let a, let start):
                step(.started(a.task, start: start, .success(StartedContainer(pid: 40 + start, startedAt: now))))
            case .signal(let a, let start, _): step(.signalled(a.task, start: start, nil))
            case .kill(let a, let start): step(.killed(a.task, start: start, nil))
            case .pause(let a, let start): step(.paused(a.task, start: start, nil))
            case .resume(let a, let start): step(.resumed(a.task, start: start, nil))
            case .update(let a, _): step(.updated(a.task, nil))
            case .remove(let a): step(.removed(a.task, nil))
            case .persist, .forget, .probe, .report, .wake: break
            }
        }
    }

    /// Drops what is pending, for a test that answers itself.
    mutating func dropPending() { pending = [] }

    mutating func assign(_ assignment: TaskAssignment) { step(.assigned(assignment)) }

    mutating func exit(_ task: TaskID = t1, start: Int? = nil, code: Int = 0, outOfMemory: Bool = false) {
        let start = start ?? core[task]?.start ?? 0
        step(
            .exited(
                task, ContainerExit(start: start, exitCode: code, outOfMemory: outOfMemory, finishedAt: now)))
    }

    /// Lets time pass, with a tick at each moment that the core asked for.
    mutating func pass(seconds: Double) {
        let end = now + Int64(seconds * 1e9)
        while let wake = wakeAt, wake <= end {
            wakeAt = nil
            now = max(now, wake)
            step(.tick)
        }
        now = end
        step(.tick)
    }

    /// A new process of the agent with the records that were written, and what is found of each.
    func restarted(
        _ container: RecoveredTask.Container, prepared: Bool = true, bootID: String = Scenario.boot,
        at later: Double = 0
    ) -> Scenario {
        let found = records.values.map {
            RecoveredTask($0, prepared: prepared ? PreparedPod(addresses: ["10.0.0.2"]) : nil, container: container)
        }
        var next = Scenario(connected: false)
        next.now = now + Int64(later * 1e9)
        for task in found { next.records[task.record.assignment.task] = task.record }
        next.core = AgentCore()
        next.step(.recovered(found, bootID: bootID))
        next.step(.connected)
        return next
    }

    func status(_ task: TaskID = t1) -> TaskStatus? { told[task] }
    func container(_ task: TaskID = t1) -> ContainerStatus? { told[task]?.containers.first }
}

extension AgentEffect {
    fileprivate var isProbe: Bool { if case .probe = self { true } else { false } }
}

let t0 = TaskID("t0")
let t1 = TaskID("t1")
let t2 = TaskID("t2")
let i1 = InstanceID("i1")
let i2 = InstanceID("i2")

/// A task as the master assigns it.
func assignment(
    _ desired: DesiredState = .running, task: TaskID = t1, instance: InstanceID = i1, epoch: Int = 1,
    generation: Int = 1, stop: StopOrder? = nil, restart: RestartPolicy = RestartPolicy(),
    health: HealthCheck? = nil, grace: Int = 10
) -> TaskAssignment {
    var container = ContainerSpec(image: "busybox")
    container.healthCheck = health
    container.stopGrace = grace
    return TaskAssignment(
        task: task, instance: instance, instanceName: "web", containers: [ContainerID("c-\(instance)")],
        workload: WorkloadID("w1"), workloadName: "web", kind: .container, labels: [:], revision: 1, epoch: epoch,
        desired: desired, generation: generation, stop: stop,
        pod: PodSpec(containers: [container], restart: restart), ports: [])
}
