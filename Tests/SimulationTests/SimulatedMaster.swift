import AgentCore
import JSON
import Model
import Wire

@testable import MasterCore

/// What the store holds; it outlives the masters.
final class SimulatedStore {
    private(set) var records: [String: StoreRecord] = [:]
    private(set) var revision: Int64 = 0

    var all: [StoreRecord] { records.values.sorted { $0.key < $1.key } }

    private var globals: Set<WorkloadID> = []

    func isGlobal(_ workload: WorkloadID) -> Bool { globals.contains(workload) }

    private struct Envelope: Decodable {
        var object: Workload
    }

    private func note(_ record: StoreWrite) {
        guard record.key.hasPrefix("workloads/"), let value = record.value,
            let workload = try? JSONCoding.decode(Envelope.self, from: value).object, workload.scale == .global
        else { return }
        globals.insert(workload.id)
    }

    /// All of it or nothing.
    func commit(_ writes: [StoreWrite]) -> Result<Int64, StoreFailure> {
        for write in writes where (records[write.key]?.modificationRevision ?? 0) != write.expectedRevision {
            return .failure(.conflict("\(write.key) has changed"))
        }
        revision += 1
        for write in writes {
            note(write)
            records[write.key] = write.value.map {
                StoreRecord(key: write.key, value: $0, modificationRevision: revision)
            }
        }
        return .success(revision)
    }
}

/// One process of the master: the real core over the store, and its connections.
final class SimulatedMaster {
    let world: World
    private unowned let cluster: Cluster
    private(set) var core: MasterCore
    private(set) var isAlive = true
    private var nextRequest = 1
    private var waiting: [RequestID: (Result<MasterReply, APIProblem>) -> Void] = [:]
    private var sessions: [NodeID: (agent: SimulatedAgent, session: SimulatedAgent.Session)] = [:]
    private var wakeNumber = 0
    /// Stopped by a signal: what happens meanwhile waits.
    private var isPaused = false
    private var backlog: [MasterEvent] = []
    /// Nanoseconds by which its clock was set ahead.
    private var clockError: Int64 = 0
    /// Who had which address of an overlay at the last commit.
    private var granted: [String: TaskID] = [:]
    private var clock: Timestamp { world.timestamp + clockError }

    init(cluster: Cluster) throws {
        self.cluster = cluster
        world = cluster.world
        core = try MasterCore(records: cluster.store.all, revision: cluster.store.revision)
        for task in core.state.tasks.values {
            for given in task.addresses where given.leftAt == nil { granted[given.address] = task.id }
        }
        step(.start)
        tick()
    }

    func crash() {
        isAlive = false
        world.note("master dies")
        for (_, connection) in sessions.sorted(by: { $0.key < $1.key }) { connection.agent.disconnect() }
        sessions = [:]
    }

    private func tick() {
        world.after(1_000_000_000) { [weak self] in
            guard let self, isAlive else { return }
            step(.tick)
            tick()
        }
    }

    private func step(_ event: MasterEvent) {
        guard isAlive else { return }
        if isPaused { return backlog.append(event) }
        for effect in core.step(event, now: clock, random: &world.random) { carryOut(effect) }
    }

    private static let noted: Set = ["lost", "replaced", "returned", "moved", "ready", "unreachable", "destroy"]

    func pause(for delay: Int64) {
        guard !isPaused else { return }
        isPaused = true
        world.note("master is paused")
        world.after(delay) { [weak self] in self?.wake() }
    }

    /// Its timer is the first that it hears.
    func wake() {
        guard isPaused else { return }
        isPaused = false
        world.note("master goes on")
        let waiting = backlog
        backlog = []
        step(.tick)
        for event in waiting { step(event) }
    }

    func setClock() {
        clockError = world.random.milliseconds(-3_600_000...3_600_000)
        world.note("the master's clock is set, \(clockError / 1_000_000_000) s ahead")
        step(.tick)
    }

    private func carryOut(_ effect: MasterEffect) {
        switch effect {
        case .commit(let number, let writes): commit(number, writes)
        case .assign(let node, let lines):
            guard let (agent, session) = sessions[node] else { return }
            agent.down(session, .watch) { $0.lines(lines) }
        case .reply(let request, let result): waiting.removeValue(forKey: request)?(result)
        case .wake(let moment):
            wakeNumber += 1
            let number = wakeNumber
            world.at(moment - clockError) { [weak self] in
                guard let self, number == wakeNumber else { return }
                step(.tick)
            }
        case .event(let event):
            world.tally.count(event.action + (event.attributes["reason"].map { " \($0)" } ?? ""))
            if Self.noted.contains(event.action) {
                world.note("master: \(event.name) \(event.action) \(event.attributes)")
            }
        case .changed, .replicate, .untag, .peers: break
        }
    }

    private func commit(_ number: TransactionNumber, _ writes: [StoreWrite]) {
        world.after(world.random.milliseconds(0...30)) { [weak self] in
            guard let self, isAlive else { return }
            if world.fault(0.02) {
                return step(
                    .commitFailed(number, world.random.chance(0.5) ? .full("simulated") : .unavailable("simulated")))
            }
            switch cluster.store.commit(writes) {
            case .success(let revision):
                // Durable, and its master dies before it hears of it.
                if world.fault(0.003) { return cluster.crashMaster() }
                checkAddresses()
                step(.committed(number, revision: revision))
            case .failure(let failure):
                world.violate("a transaction of the only master is refused: \(failure)")
            }
        }
    }

    /// No two tasks have one address of an overlay, and no block of addresses has two lessees.
    private func checkAddresses() {
        checkGrants()
        var owners: [String: TaskID] = [:]
        var lessees: [String: NodeID] = [:]
        for task in core.state.tasks.values where !task.addresses.isEmpty && task.status.phase != .removed {
            for given in task.addresses {
                for text in [given.address, given.address6] where !text.isEmpty {
                    if let other = owners.updateValue(task.id, forKey: text), other != task.id {
                        world.violate("\(text) is given to task \(task.id) and to \(other)")
                    }
                }
                guard given.isLeased, let number = given.address.split(separator: ".").last.flatMap({ Int($0) }) else {
                    continue
                }
                // Blocks of a /29 have two addresses, those of a /27 four.
                let block = given.address.hasPrefix("10.9.0.") ? "tight \(number / 2)" : "wide \(number / 4)"
                if let other = lessees.updateValue(task.node, forKey: block), other != task.node {
                    world.violate("the block \(block) is leased by \(other) and by \(task.node)")
                }
            }
        }
    }

    /// Nobody is given an address that another pod may still answer for: only one that was given up, or whose node is not
    /// heard of, is not waited for.
    private func checkGrants() {
        var now: [String: TaskID] = [:]
        for task in core.state.tasks.values where task.status.phase != .removed {
            for given in task.addresses where given.leftAt == nil { now[given.address] = task.id }
        }
        defer { granted = now }
        for (address, owner) in now where granted[address] != owner {
            for machine in cluster.machines {
                for (holder, pod) in machine.pods
                where holder != owner && pod.addresses.contains(where: { $0.address == address }) {
                    guard let task = core.state.tasks[holder], core.memory[task.node]?.ready == true else { continue }
                    world.violate("\(address) is given to task \(owner) while \(holder) has it on \(machine.name)")
                }
            }
        }
    }

    /// Sends a command; the answer may never come, when the master dies.
    func send(_ command: MasterCommand, _ answer: @escaping (Result<MasterReply, APIProblem>) -> Void = { _ in }) {
        nextRequest += 1
        waiting[nextRequest] = answer
        step(.command(nextRequest, command))
    }

    /// Asks for something that is answered from what is committed.
    func query(_ query: MasterQuery, _ answer: @escaping (Result<MasterReply, APIProblem>) -> Void) {
        nextRequest += 1
        waiting[nextRequest] = answer
        step(.query(nextRequest, query))
    }

    func register(_ registration: NodeRegistration, from agent: SimulatedAgent, _ session: SimulatedAgent.Session) {
        if agent.machine.isRemoved {
            agent.machine.isRemoved = false
            // Else with all that it had.
            if world.random.chance(0.5) { return cluster.reinstall(agent.machine) }
        }
        send(.registerNode(registration)) { [weak self] result in
            guard let self, session.isOpen, case .success = result else { return }
            send(.connectNode(registration.node.id.text)) { [weak self] result in
                guard let self, session.isOpen, case .success(.assignments(let node, let list)) = result else { return }
                sessions[node] = (agent, session)
                agent.down(session, .watch) { $0.synced(session, list) }
            }
        }
    }

    func sessionEnded(_ node: NodeID, _ session: SimulatedAgent.Session) {
        guard sessions[node]?.session === session else { return }
        sessions[node] = nil
        step(.nodeDisconnected(node))
    }

    func report(
        _ report: NodeReport, from agent: SimulatedAgent, _ session: SimulatedAgent.Session,
        _ answer: @escaping (SimulatedAgent, Bool) -> Void
    ) {
        cluster.check(report, from: agent)
        send(.report(agent.node.text, report)) { result in
            guard session.isOpen else { return }
            // A node that was removed has to register anew.
            if case .failure(let problem) = result, problem.code == .notFound {
                return agent.down(session, .answers) { $0.disconnect() }
            }
            let succeeded = if case .success = result { true } else { false }
            agent.down(session, .answers) { answer($0, succeeded) }
        }
    }

    /// Says whether a task is to run, as it knows it now.
    func isWanted(
        _ task: TaskAssignment, _ agent: SimulatedAgent, _ session: SimulatedAgent.Session,
        _ answer: @escaping (SimulatedAgent, Bool) -> Void
    ) {
        query(.assignments(agent.node.text)) { result in
            var isWanted = false
            if case .success(.assignments(_, let list)) = result {
                isWanted = list.contains {
                    $0.task == task.task && $0.epoch == task.epoch && [.running, .paused].contains($0.desired)
                }
            }
            agent.down(session, .answers) { answer($0, isWanted) }
        }
    }
}
