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
    /// When the last post that the master confirmed was sent, by the machine's own clock.
    private var lastConfirmed: Int64?
    /// Stopped by a signal: what happens meanwhile waits.
    private var isPaused = false
    private var backlog: [() -> Void] = []

    /// A connection to one master process; what is on its way when it breaks is lost.
    final class Session {
        var isOpen = true
        /// Messages keep their order in each direction: none is delivered before the one sent before it.
        var last: [Link.Stream: Int64] = [:]
        var synced = false
        /// When the master was heard last.
        var heard: Int64 = 0
        /// The master has confirmed the report that names everything.
        var isConfirmed = false
    }

    var node: NodeID { NodeID(machine.name) }

    init(machine: SimulatedMachine, cluster: Cluster) {
        self.machine = machine
        self.cluster = cluster
        world = cluster.world
        machine.agent = self
        step(.recovered(machine.recover(), bootID: machine.bootID, epochs: machine.epochs))
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
        later(0...20) { $0.step(.exited(id, exit)) }
    }

    func clockWasSet() { whenAwake { $0.step(.tick) } }

    func pause(for delay: Int64) {
        guard isAlive, !isPaused else { return }
        isPaused = true
        world.note("\(machine.name): agent is paused")
        world.after(delay) { [weak self] in self?.wake() }
    }

    func wake() {
        guard isPaused else { return }
        isPaused = false
        world.note("\(machine.name): agent goes on")
        let waiting = backlog
        backlog = []
        for action in waiting where isAlive { action() }
    }

    /// Does it when the process runs.
    private func whenAwake(_ body: @escaping (SimulatedAgent) -> Void) {
        guard isAlive else { return }
        if isPaused {
            backlog.append { [weak self] in self?.whenAwake(body) }
        } else {
            body(self)
        }
    }

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
                    self?.whenAwake { agent in
                        if number == agent.wakeNumber { agent.step(.tick) }
                    }
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
        world.after(world.random.milliseconds(range)) { [weak self] in self?.whenAwake(body) }
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
                // The epoch is durable before the record goes.
                if let assignment = agent.machine.disk[task]?.assignment {
                    agent.machine.epochs[assignment.instance] = max(
                        assignment.epoch, agent.machine.epochs[assignment.instance] ?? 0)
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
        case .update(let task, _):
            finish(1...50, .updated(task.task, failure)) { $0.machine.update(task) }
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
            guard let seconds = task.pod.loss?.stopAfter else { return agent.run(task, start, lease: nil, done) }
            let lease = agent.lastConfirmed.map { $0 + Int64(seconds) * 1_000_000_000 }
            agent.ask(task) { agent, isWanted in
                guard isWanted, let lease, lease > agent.machine.elapsed else {
                    let failure = ExecutorFailure("there is no contact", isTransient: true)
                    agent.step(.started(task.task, start: start, .failure(failure)))
                    return done(agent)
                }
                agent.run(task, start, lease: lease, done)
            }
        }
    }

    private func run(
        _ task: TaskAssignment, _ start: Int, lease: Int64?, _ done: @escaping (SimulatedAgent) -> Void
    ) {
        machine.create(task, start: start, lease: lease)
        later(1...30) { agent in
            let isThere = agent.machine.run(task, start: start)
            let result: Result<StartedContainer, ExecutorFailure> =
                isThere
                ? .success(StartedContainer(pid: 1, startedAt: agent.machine.clock))
                : .failure(ExecutorFailure("the container is gone"))
            agent.step(.started(task.task, start: start, result))
            done(agent)
        }
    }

    /// Asks the master whether a task is still to run; no answer within 5 s is a no.
    private func ask(_ task: TaskAssignment, _ answer: @escaping (SimulatedAgent, Bool) -> Void) {
        var isOpen = true
        let once = { (agent: SimulatedAgent, isWanted: Bool) in
            guard isOpen else { return }
            isOpen = false
            answer(agent, isWanted)
        }
        later(5000...5000) { once($0, false) }
        guard let session else { return }
        up(session) { agent, master in
            master.isWanted(task, agent, session, once)
        }
    }

    // MARK: The master

    private func connect() {
        let session = Session()
        session.heard = world.now
        self.session = session
        let registration = NodeRegistration(node: cluster.node(machine))
        up(session) { agent, master in
            master.register(registration, from: agent, session)
        }
        // An answer that never comes: try again.
        world.after(5_000_000_000) { [weak self] in
            self?.whenAwake { agent in
                if agent.session === session, !session.synced { agent.disconnect() }
            }
        }
    }

    func disconnect() {
        guard let session else { return }
        session.isOpen = false
        self.session = nil
        if !machine.link.isCut(.up) { cluster.master?.sessionEnded(node, session) }
        guard isAlive else { return }
        whenAwake { $0.step(.disconnected) }
        retryDelay = min(5_000_000_000, retryDelay * 2)
        world.after(retryDelay + Int64.random(in: 0..<retryDelay, using: &world.random)) { [weak self] in
            self?.whenAwake { agent in
                if agent.session == nil { agent.connect() }
            }
        }
    }

    /// Sends to the master, in order.
    private func up(_ session: Session, _ message: @escaping (SimulatedAgent, SimulatedMaster) -> Void) {
        world.after(delay(session, .posts)) { [weak self] in
            self?.machine.link.deliver(.posts) {
                guard let self, session.isOpen else { return }
                guard let master = self.cluster.master, !self.world.fault(0.01) else { return self.disconnect() }
                message(self, master)
            }
        }
    }

    private func delay(_ session: Session, _ stream: Link.Stream) -> Int64 {
        let arrival = max(session.last[stream] ?? 0, world.now + world.random.milliseconds(0...30))
        session.last[stream] = arrival
        return arrival - world.now
    }

    /// Delivers what the master sends, in order.
    func down(_ session: Session, _ stream: Link.Stream, _ message: @escaping (SimulatedAgent) -> Void) {
        world.after(delay(session, stream)) { [weak self] in
            self?.machine.link.deliver(stream) {
                self?.whenAwake { agent in
                    guard session.isOpen else { return }
                    if agent.world.fault(0.005) { return agent.disconnect() }
                    session.heard = agent.world.now
                    message(agent)
                }
            }
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
        if !machine.devices.isEmpty { report.devices = machine.reportedDevices }
        if report.full {
            report.images = [Cluster.image]
            report.volumes = machine.volumes.sorted().map {
                VolumeView(name: $0, node: node, path: "/\($0)", labels: [:], createdAt: machine.clock)
            }
        }
        post(report, session) { agent, succeeded in
            agent.step(succeeded ? .reported(sequence: sequence) : .reportFailed(sequence: sequence))
        }
    }

    private func post(
        _ report: NodeReport, _ session: Session, _ answer: @escaping (SimulatedAgent, Bool) -> Void
    ) {
        let (sent, sentAt) = (machine.elapsed, machine.clock)
        up(session) { agent, master in
            master.report(report, from: agent, session) { agent, succeeded in
                if succeeded {
                    session.isConfirmed = session.isConfirmed || report.full
                    if session.isConfirmed { agent.confirm(sent, sentAt) }
                }
                answer(agent, succeeded)
            }
        }
    }

    /// The master has heard what was sent at this time.
    private func confirm(_ sent: Int64, _ sentAt: Timestamp) {
        lastConfirmed = max(lastConfirmed ?? sent, sent)
        machine.renewLeases(contact: lastConfirmed ?? sent)
        step(.contact(at: sentAt))
    }

    private func heartbeat() {
        world.after(3_000_000_000) { [weak self] in
            self?.whenAwake { agent in
                if let session = agent.session, session.synced {
                    if agent.world.now - session.heard > 15_000_000_000 {
                        agent.disconnect()
                    } else {
                        agent.post(NodeReport(), session) { _, _ in }
                    }
                }
                agent.heartbeat()
            }
        }
    }

    var tasks: [TaskRecord] { core.records }
}
