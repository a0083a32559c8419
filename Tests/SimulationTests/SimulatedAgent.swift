import AgentCore
import JSON
import Model
import Wire

/// One process of an agent: the real core, a shell that carries out its effects as the daemon does, and a connection to
/// the master. A crash leaves the machine and its disk as they are.
final class SimulatedAgent {
    let machine: SimulatedMachine
    let world: World
    private unowned let cluster: Cluster
    private var core = AgentCore()
    private(set) var isAlive = true
    private var queues: [TaskID: [AgentEffect]] = [:]
    private var busy: Set<TaskID> = []
    private var wakeNumber = 0
    private var session: Session?
    private var retryDelay: Int64 = 100_000_000

    /// A connection to one master process; what is on its way when it breaks is lost.
    final class Session {
        var isOpen = true
        /// Messages keep their order in each direction: none is delivered before the one sent before it.
        var lastUp: Int64 = 0
        var lastDown: Int64 = 0
        var synced = false
    }

    var node: NodeID { NodeID(machine.name) }

    init(machine: SimulatedMachine, cluster: Cluster) {
        self.machine = machine
        self.cluster = cluster
        world = cluster.world
        machine.agent = self
        step(.recovered(machine.recover(), bootID: machine.bootID))
        connect()
        heartbeat()
    }

    func crash() {
        isAlive = false
        machine.agent = nil
        disconnect()
        world.note("\(machine.name): agent dies")
    }

    func containerEnded(_ id: TaskID, _ exit: ContainerExit) {
        world.after(world.random.milliseconds(0...20)) { [weak self] in self?.step(.exited(id, exit)) }
    }

    func clockWasSet() { step(.tick) }

    // MARK: The core and its effects

    private func step(_ event: AgentEvent) {
        guard isAlive else { return }
        for effect in core.step(event, now: machine.clock, random: &world.random) {
            switch effect {
            case .wake(let moment):
                if moment <= machine.clock { world.violate("\(machine.name): asks to be woken in the past") }
                wakeNumber += 1
                let number = wakeNumber
                world.at(machine.moment(of: moment)) { [weak self] in
                    guard let self, number == wakeNumber else { return }
                    step(.tick)
                }
            case .report(let sequence, let full, let tasks, let events):
                report(sequence, NodeReport(full: full, tasks: tasks, events: events.map(\.event)))
            case .probe(let assignment, let start, _):
                let outcome: ProbeOutcome = world.fault(0.3) ? .failure("simulated") : .success
                later(1...500) { $0.step(.probed(assignment.task, start: start, outcome)) }
            default:
                guard let task = effect.task else { continue }
                queues[task, default: []].append(effect)
                pump(task)
            }
        }
    }

    private func later(_ range: ClosedRange<Int64>, _ body: @escaping (SimulatedAgent) -> Void) {
        world.after(world.random.milliseconds(range)) { [weak self] in
            guard let self, isAlive else { return }
            body(self)
        }
    }

    /// Carries out the next effect of a task, when the one before it has ended.
    private func pump(_ task: TaskID) {
        guard !busy.contains(task), var queue = queues[task], !queue.isEmpty else { return }
        let effect = queue.removeFirst()
        queues[task] = queue
        busy.insert(task)
        carryOut(effect) { agent in
            agent.busy.remove(task)
            agent.pump(task)
        }
    }

    private func carryOut(_ effect: AgentEffect, _ done: @escaping (SimulatedAgent) -> Void) {
        let failure = world.fault(0.05) ? ExecutorFailure("simulated", isTransient: world.random.chance(0.5)) : nil
        func finish(
            _ range: ClosedRange<Int64>, _ event: AgentEvent, _ action: @escaping (SimulatedAgent) -> Void = { _ in }
        ) {
            later(range) { agent in
                if failure == nil { action(agent) }
                agent.step(event)
                done(agent)
            }
        }
        switch effect {
        case .persist(let record, _):
            later(0...20) { agent in
                agent.machine.disk[record.assignment.task] = record
                done(agent)
            }
        case .forget(let task):
            later(0...20) { agent in
                if agent.machine.pods[task] != nil {
                    agent.world.violate("\(agent.machine.name): \(task) is forgotten, and something of it is left")
                }
                agent.machine.disk[task] = nil
                done(agent)
            }
        case .prepare(let task):
            finish(
                5...400,
                .prepared(task.task, failure.map { .failure($0) } ?? .success(PreparedPod(addresses: ["10.0.0.2"])))
            ) {
                $0.machine.prepare(task)
            }
        case .start(let task, let start): self.start(task, start, failure, done)
        case .signal(let task, let start, _):
            finish(1...20, .signalled(task.task, start: start, failure)) { $0.machine.signal(task.task) }
        case .kill(let task, let start):
            finish(1...20, .killed(task.task, start: start, failure)) { $0.machine.kill(task.task) }
        case .pause(let task, let start):
            finish(1...20, .paused(task.task, start: start, failure)) { $0.machine.pause(task.task) }
        case .resume(let task, let start):
            finish(1...20, .resumed(task.task, start: start, failure)) { $0.machine.resume(task.task) }
        case .remove(let task):
            finish(5...300, .removed(task.task, failure)) { $0.machine.remove(task.task) }
        case .probe, .report, .wake: break
        }
    }

    /// Two steps, between which a crash leaves a container that was made and not started.
    private func start(
        _ task: TaskAssignment, _ start: Int, _ failure: ExecutorFailure?, _ done: @escaping (SimulatedAgent) -> Void
    ) {
        later(1...100) { agent in
            if let failure {
                // As the executor does: nothing of a start that failed stays.
                agent.machine.kill(task.task)
                agent.step(.started(task.task, start: start, .failure(failure)))
                return done(agent)
            }
            agent.machine.create(task, start: start)
            agent.later(1...30) { agent in
                let isThere = agent.machine.run(task, start: start)
                let result: Result<StartedContainer, ExecutorFailure> =
                    isThere
                    ? .success(StartedContainer(pid: 1, startedAt: agent.machine.clock))
                    : .failure(ExecutorFailure("the container is gone"))
                agent.step(.started(task.task, start: start, result))
                done(agent)
            }
        }
    }

    // MARK: The master

    private func connect() {
        let session = Session()
        self.session = session
        let registration = NodeRegistration(node: cluster.node(machine))
        up(session) { agent, master in
            master.register(registration, from: agent, session)
        }
        // An answer that never comes: try again.
        world.after(5_000_000_000) { [weak self] in
            guard let self, self.session === session, !session.synced else { return }
            disconnect()
        }
    }

    func disconnect() {
        guard let session else { return }
        session.isOpen = false
        self.session = nil
        cluster.master?.sessionEnded(node, session)
        guard isAlive else { return }
        step(.disconnected)
        retryDelay = min(5_000_000_000, retryDelay * 2)
        world.after(retryDelay + Int64.random(in: 0..<retryDelay, using: &world.random)) { [weak self] in
            guard let self, isAlive, self.session == nil else { return }
            connect()
        }
    }

    /// Sends to the master, in order.
    private func up(_ session: Session, _ message: @escaping (SimulatedAgent, SimulatedMaster) -> Void) {
        session.lastUp = max(session.lastUp, world.now + world.random.milliseconds(0...30))
        world.after(session.lastUp - world.now) { [weak self] in
            guard let self, session.isOpen else { return }
            guard let master = cluster.master, !world.fault(0.01) else { return disconnect() }
            message(self, master)
        }
    }

    /// Delivers what the master sends, in order.
    func down(_ session: Session, _ message: @escaping (SimulatedAgent) -> Void) {
        session.lastDown = max(session.lastDown, world.now + world.random.milliseconds(0...30))
        world.after(session.lastDown - world.now) { [weak self] in
            guard let self, isAlive, session.isOpen else { return }
            if world.fault(0.005) { return disconnect() }
            message(self)
        }
    }

    func synced(_ session: Session, _ list: [TaskAssignment]) {
        session.synced = true
        retryDelay = 100_000_000
        step(.assignments(list))
        step(.connected)
    }

    func lines(_ lines: [WatchLine<TaskAssignment>]) {
        for line in lines {
            switch line.change {
            case .put: if let object = line.object { step(.assigned(object)) }
            case .delete: step(.unassigned(TaskID(line.id)))
            case .synced, .heartbeat: break
            }
        }
    }

    private func report(_ sequence: Int, _ report: NodeReport) {
        guard let session, session.synced else {
            return later(0...1) { $0.step(.reportFailed(sequence: sequence)) }
        }
        var report = report
        if report.full { report.images = [Cluster.image] }
        let sent = report
        up(session) { agent, master in
            master.report(sent, from: agent, session) { agent, succeeded in
                agent.step(succeeded ? .reported(sequence: sequence) : .reportFailed(sequence: sequence))
            }
        }
    }

    private func heartbeat() {
        world.after(5_000_000_000) { [weak self] in
            guard let self, isAlive else { return }
            if let session, session.synced {
                up(session) { agent, master in master.report(NodeReport(), from: agent, session) { _, _ in } }
            }
            heartbeat()
        }
    }

    var tasks: [TaskRecord] { core.records }
}
