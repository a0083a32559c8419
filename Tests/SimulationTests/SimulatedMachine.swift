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
        /// When its shim ends it, by the machine's own clock; nil: it may run for ever.
        var leaseEnd: Int64?
        /// Nanoseconds between the shim's signal and its SIGKILL.
        var grace: Int64 = 0
        var leaseRanOut = false
        /// What its control group was told; nil: nothing runs.
        var limits: Limits?
        /// What it answers for on overlays.
        var addresses: [AssignedAddress] = []
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
    /// Epochs of instances whose tasks were forgotten.
    var epochs: [InstanceID: Int] = [:]
    private(set) var volumes: Set<String> = []
    /// Between the machine and the master.
    let link: Link
    /// The agent of now, when there is one; told of ends.
    weak var agent: SimulatedAgent?
    /// It was removed from the cluster and has not come back since.
    var isRemoved = false
    /// What its agent reports; empty: nothing.
    var devices: [NodeDevice] = []
    var processors: NodeProcessors?
    private var boots = 1
    /// Nanoseconds by which its clock was set ahead.
    private var clockError: Int64 = 0
    /// How much faster than time its clocks run, in millionths.
    private let drift: Int64
    private let began: Int64

    init(name: String, world: World, truth: Truth) {
        self.name = name
        self.world = world
        self.truth = truth
        link = Link(world)
        bootID = "\(name)-boot-1"
        began = world.now
        drift = Int64.random(in: -10_000...10_000, using: &world.random)
    }

    /// Nanoseconds of its own clock that nobody sets: one in a hundred fast or slow.
    var elapsed: Int64 { (world.now - began) / 1_000_000 * (1_000_000 + drift) }

    /// What its clock shows.
    var clock: Timestamp { Timestamp(nanoseconds: began + elapsed + clockError) }

    /// When its clock will show a time, and a little later.
    func moment(of time: Timestamp) -> Timestamp { moment(ofElapsed: time.nanoseconds - began - clockError) }

    private func moment(ofElapsed elapsed: Int64) -> Timestamp {
        Timestamp(nanoseconds: began + elapsed / (1_000_000 + drift) * 1_000_000 + 2_000_000)
    }

    /// Three GPUs, of one of which there are two shares.
    static let gpus = ["g0", "g1", "g2"].map { NodeDevice(id: $0, vendor: "nvidia", shares: $0 == "g2" ? 2 : 1) }

    static let cores = NodeProcessors(nodes: [
        .init(id: 0, cores: (0..<4).map { .init(cpus: ProcessorSet([$0])) })
    ])

    /// The devices with the tasks that hold them: all that have something left here which may still run.
    var reportedDevices: [NodeDevice] {
        let held = disk.values.filter { !($0.container.state == .exited && $0.restartAt == nil) }.map(\.assignment)
        return devices.map { device in
            var device = device
            device.heldBy = held.filter { $0.grantedDevices.contains { $0.devices.contains(device.id) } }.map(\.task)
                .sorted()
            return device
        }
    }

    // MARK: What an executor does, step by step

    func prepare(_ assignment: TaskAssignment) {
        var pod = pods[assignment.task] ?? Pod(instance: assignment.instance)
        guard let record = disk[assignment.task], record.assignment.epoch == assignment.epoch else {
            return world.violate("\(name): task \(assignment.task) is prepared without a record of its epoch")
        }
        pod.isPrepared = true
        pod.addresses = assignment.addresses
        pods[assignment.task] = pod
        volumes.formUnion(assignment.pod.volumes)
    }

    /// - Parameter lease: when the shim is to end it, by the machine's own clock; nil: never.
    func create(_ assignment: TaskAssignment, start: Int, lease: Int64?) {
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
        pod.limits = assignment.pod.containers.first?.limits
        pod.leaseEnd = lease
        pod.leaseRanOut = false
        pod.grace = Int64(assignment.pod.containers.first?.stopGrace ?? 0) * 1_000_000_000
        pods[id] = pod
        if lease != nil { watchLease(id, start) }
    }

    // MARK: What a shim does for leases

    /// The agent has had contact with the master at this time of the machine's own clock.
    func renewLeases(contact: Int64) {
        for (id, record) in disk {
            guard let seconds = record.assignment.pod.loss?.stopAfter, var pod = pods[id], pod.leaseEnd != nil,
                !pod.leaseRanOut
            else { continue }
            // What has passed has passed, also when the timer's turn is still to come.
            if let end = pod.leaseEnd, end <= elapsed { continue }
            pod.leaseEnd = contact + Int64(seconds) * 1_000_000_000
            pods[id] = pod
        }
    }

    private func watchLease(_ id: TaskID, _ start: Int) {
        guard let pod = pods[id], pod.start == start, let end = pod.leaseEnd else { return }
        world.at(moment(ofElapsed: end)) { [weak self] in
            guard let self, let pod = pods[id], pod.start == start, let end = pod.leaseEnd,
                pod.container.isLive || pod.container == .created
            else { return }
            guard end <= elapsed else { return watchLease(id, start) }
            guard pod.container.isLive else { return }
            pods[id]?.leaseRanOut = true
            resume(id)
            if pod.obeys {
                world.after(world.random.milliseconds(1...800)) { [weak self] in
                    self?.end(id, start: start, code: 143, reason: ContainerExit.lease)
                }
            }
            world.at(moment(ofElapsed: end + pod.grace)) { [weak self] in
                self?.end(id, start: start, code: 137, reason: ContainerExit.lease)
            }
        }
    }

    /// Lets the program go; answers whether it runs or has run.
    func run(_ assignment: TaskAssignment, start: Int) -> Bool {
        let id = assignment.task
        guard var pod = pods[id], pod.start == start else { return false }
        guard pod.container == .created else { return pod.container.isLive || pod.container == .exited }
        if let end = pod.leaseEnd, end <= elapsed {
            pods[id]?.container = .none
            return false
        }
        if !pod.everRan.insert(start).inserted {
            world.violate("\(name): start \(start) of task \(id) runs twice")
        }
        pod.container = .running
        pod.obeys = world.random.chance(0.8)
        pods[id] = pod
        truth.began(assignment, on: name)
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

    func update(_ assignment: TaskAssignment) {
        if pods[assignment.task]?.isPrepared == true { pods[assignment.task]?.addresses = assignment.addresses }
        guard let pod = pods[assignment.task], pod.container != .none else { return }
        pods[assignment.task]?.limits = assignment.pod.containers.first?.limits
        world.tally.count("updated in place")
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
        if pod.container.isLive { truth.ended(id) }
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
            pods[id]?.addresses = []
            pods[id]?.container = .none
        }
    }

    /// Everything on its disk goes.
    func loseData() {
        world.note("\(name): is set up from nothing")
        world.tally.count("data lost")
        for id in pods.keys.sorted() { remove(id) }
        disk = [:]
        epochs = [:]
        volumes = []
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
