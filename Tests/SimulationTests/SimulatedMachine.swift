import AgentCore
import JSON
import Model
import Wire

/// A machine with containers that live on while its agent does not. It checks what no agent may ever do.
final class SimulatedMachine {
    /// What is there of one task.
    struct Pod {
        var isPrepared = false
        var instance: InstanceID
        var start = 0
        var container = Container.none
        /// Exit codes by start, as they really happened.
        var exits: [Int: ContainerExit] = [:]
        var everRan: Set<Int> = []
        /// Whether SIGTERM ends it.
        var obeys = true
    }

    enum Container: Equatable {
        case none, created, running, paused, exited
        var isLive: Bool { self == .running || self == .paused }
    }

    let name: String
    let world: World
    let truth: Truth
    private(set) var bootID: String
    private(set) var pods: [TaskID: Pod] = [:]
    /// The records on the disk.
    var disk: [TaskID: TaskRecord] = [:]
    /// The agent of now, when there is one; told of ends.
    weak var agent: SimulatedAgent?
    private var boots = 1
    /// Nanoseconds by which its clock is ahead.
    private var clockError: Int64 = 0

    init(name: String, world: World, truth: Truth) {
        self.name = name
        self.world = world
        self.truth = truth
        bootID = "\(name)-boot-1"
    }

    /// What its clock shows.
    var clock: Timestamp { world.timestamp + clockError }

    /// When its clock will show a time.
    func moment(of time: Timestamp) -> Timestamp { time - clockError }

    // MARK: What an executor does, step by step

    func prepare(_ assignment: TaskAssignment) {
        var pod = pods[assignment.task] ?? Pod(instance: assignment.instance)
        guard let record = disk[assignment.task], record.assignment.epoch == assignment.epoch else {
            return world.violate("\(name): task \(assignment.task) is prepared without a record of its epoch")
        }
        pod.isPrepared = true
        pods[assignment.task] = pod
    }

    func create(_ assignment: TaskAssignment, start: Int) {
        let id = assignment.task
        guard var pod = pods[id], pod.isPrepared else {
            return world.violate("\(name): task \(id) is started without being prepared")
        }
        guard let record = disk[id], record.start == start else {
            return world.violate("\(name): start \(start) of task \(id) has no durable record before it")
        }
        if pod.start == start, pod.container != .none { return }
        if pod.container.isLive || pod.container == .created {
            return world.violate("\(name): start \(start) of task \(id) while start \(pod.start) is \(pod.container)")
        }
        pod.start = start
        pod.container = .created
        pods[id] = pod
    }

    /// Lets the program go; answers whether it runs or has run.
    func run(_ assignment: TaskAssignment, start: Int) -> Bool {
        let id = assignment.task
        guard var pod = pods[id], pod.start == start else { return false }
        guard pod.container == .created else { return pod.container.isLive || pod.container == .exited }
        if !pod.everRan.insert(start).inserted {
            world.violate("\(name): start \(start) of task \(id) runs twice")
        }
        pod.container = .running
        pod.obeys = world.random.chance(0.8)
        pods[id] = pod
        truth.began(assignment, on: name, world)
        // Most programs run on; some end by themselves.
        if world.hasFaults, world.random.chance(0.35) {
            let code = world.random.chance(0.5) ? 0 : Int.random(in: 1...100, using: &world.random)
            world.after(world.random.milliseconds(1...20_000)) { [weak self] in
                self?.end(id, start: start, code: code)
            }
        }
        return true
    }

    func signal(_ id: TaskID) {
        guard let pod = pods[id], pod.container == .running, pod.obeys else { return }
        let start = pod.start
        world.after(world.random.milliseconds(1...800)) { [weak self] in self?.end(id, start: start, code: 143) }
    }

    func kill(_ id: TaskID) {
        guard let pod = pods[id], pod.container.isLive || pod.container == .created else { return }
        end(id, start: pod.start, code: 137)
    }

    func pause(_ id: TaskID) { if pods[id]?.container == .running { pods[id]?.container = .paused } }
    func resume(_ id: TaskID) { if pods[id]?.container == .paused { pods[id]?.container = .running } }

    func remove(_ id: TaskID) {
        kill(id)
        pods[id] = nil
    }

    func end(_ id: TaskID, start: Int, code: Int, reason: String = "", unseen: Bool = false) {
        guard var pod = pods[id], pod.start == start, pod.container.isLive || pod.container == .created else { return }
        if pod.container == .paused && code != 137 { return }
        let exit = ContainerExit(start: start, exitCode: code, finishedAt: clock, reason: reason)
        if pod.container.isLive { truth.ended(pod.instance, id) }
        pod.container = .exited
        pod.exits[start] = exit
        pods[id] = pod
        truth.exits[TaskStart(task: id, start: start)] = exit
        world.note("\(name): start \(start) of \(id) ended with \(code) \(reason)")
        if !unseen { agent?.containerEnded(id, exit) }
    }

    // MARK: Faults

    /// The shim of a running container dies, and the container with it.
    func loseShim() {
        let running = pods.filter { $0.value.container.isLive }.keys.sorted()
        guard let id = running.randomElement(using: &world.random), let start = pods[id]?.start else { return }
        end(id, start: start, code: 137, reason: "shim lost")
    }

    /// The machine loses power: nothing runs any more, and what was in memory is gone.
    func reboot() {
        boots += 1
        bootID = "\(name)-boot-\(boots)"
        world.note("\(name): boots again")
        for id in pods.keys.sorted() {
            if let start = pods[id]?.start { end(id, start: start, code: 137, reason: "node rebooted", unseen: true) }
            pods[id]?.isPrepared = false
            pods[id]?.container = .none
        }
    }

    /// Somebody sets the clock: up to an hour behind the master's, or a little ahead; whoever waits for a time is told.
    func setClock() {
        clockError = world.random.milliseconds(-3_600_000...20_000)
        world.note("\(name): the clock is set, \(clockError / 1_000_000_000) s ahead")
        agent?.clockWasSet()
    }

    // MARK: Recovery

    func recover() -> [RecoveredTask] {
        // Leftovers without a record go.
        for id in pods.keys where disk[id] == nil { remove(id) }
        return disk.values.sorted { $0.assignment.task < $1.assignment.task }.map { record in
            let pod = pods[record.assignment.task]
            let sameBoot = record.bootID == bootID
            return RecoveredTask(
                record, prepared: sameBoot && pod?.isPrepared == true ? PreparedPod() : nil,
                container: sameBoot ? found(pod) : ended(pod, record))
        }
    }

    /// What the disk tells of an end before the machine went down.
    private func ended(_ pod: Pod?, _ record: TaskRecord) -> RecoveredTask.Container {
        guard let exit = pod?.exits[record.start], exit.reason != "node rebooted" else { return .none }
        return .exited(exit)
    }

    private func found(_ pod: Pod?) -> RecoveredTask.Container {
        guard let pod else { return .none }
        let started = StartedContainer(pid: 1, startedAt: clock)
        switch pod.container {
        case .none: return .none
        case .created: return .created(start: pod.start)
        case .running: return .running(start: pod.start, started, paused: false)
        case .paused: return .running(start: pod.start, started, paused: true)
        case .exited: return pod.exits[pod.start].map { .exited($0) } ?? .none
        }
    }
}

struct TaskStart: Hashable {
    var task: TaskID
    var start: Int
}

/// What really happened in the whole cluster, beside what its parts believe.
final class Truth {
    var exits: [TaskStart: ContainerExit] = [:]
    private var live: [InstanceID: TaskID] = [:]
    private var ports: [String: TaskID] = [:]
    private var portsOf: [TaskID: [String]] = [:]
    /// What runs on each node, with its memory.
    private var memory: [String: [TaskID: Int64]] = [:]

    func began(_ assignment: TaskAssignment, on node: String, _ world: World) {
        let (instance, task, mappings) = (assignment.instance, assignment.task, assignment.ports)
        memory[node, default: [:]][task] = assignment.pod.resources.memory
        let used = memory[node, default: [:]].values.reduce(0, +)
        if used > Cluster.memory { world.violate("\(used >> 30) GiB are given away on \(node) with task \(task)") }
        if let other = live[instance] {
            world.violate("instance \(instance) runs twice: task \(other) and task \(task) on \(node)")
        }
        live[instance] = task
        for mapping in mappings {
            let key = "\(node)/\(mapping.transport)/\(mapping.hostPort)"
            if let other = ports[key] { world.violate("port \(key) is used by \(other) and \(task)") }
            ports[key] = task
            portsOf[task, default: []].append(key)
        }
    }

    func ended(_ instance: InstanceID, _ task: TaskID) {
        if live[instance] == task { live[instance] = nil }
        for node in memory.keys { memory[node]?[task] = nil }
        for key in portsOf.removeValue(forKey: task) ?? [] { ports[key] = nil }
    }

    func task(of instance: InstanceID) -> TaskID? { live[instance] }
    var liveCount: Int { live.count }
}
