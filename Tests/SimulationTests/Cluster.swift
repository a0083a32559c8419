import AgentCore
import JSON
import MasterCore
import Model
import Wire

/// Machines with agents, a master and a user, and the faults that befall them.
final class Cluster {
    static let image = ImageView(
        names: ["busybox:latest"], digest: "sha256:" + String(repeating: "a", count: 64),
        id: "sha256:" + String(repeating: "b", count: 64), size: 1,
        platform: Platform(os: "linux", architecture: "amd64"),
        createdAt: nil)

    /// Bytes of each machine.
    static let memory: Int64 = 8 << 30

    let world: World
    let truth: Truth
    let store: SimulatedStore
    private(set) var master: SimulatedMaster?
    private(set) var machines: [SimulatedMachine] = []
    private var agents: [String: SimulatedAgent] = [:]

    init(seed: UInt64, nodes: Int, tally: Tally = Tally()) throws {
        let (world, store) = (World(seed: seed, tally: tally), SimulatedStore())
        self.world = world
        self.store = store
        truth = Truth(
            world, isKnown: { store.records["tasks/\($0)"] != nil }, isGlobal: { store.isGlobal($0) })
        for number in 1...nodes {
            machines.append(SimulatedMachine(name: "node\(number)", world: world, truth: truth))
        }
        master = try SimulatedMaster(cluster: self)
        for machine in machines { agents[machine.name] = SimulatedAgent(machine: machine, cluster: self) }
    }

    func node(_ machine: SimulatedMachine) -> Node {
        Node(
            id: NodeID(machine.name), name: machine.name, labels: ["zone": machine.name],
            platform: Platform(os: "linux", architecture: "amd64"),
            features: ["overlay", "cni"] + (machine.processors == nil ? [] : [NodeProcessors.pinningFeature]),
            capacity: Resources(cpu: 8_000_000_000, memory: Self.memory, disk: 8 << 30),
            processors: machine.processors, address: "10.0.0.1",
            streamEndpoint: "unix:/x", agentVersion: "1", kernelVersion: "6", bootID: machine.bootID,
            createdAt: world.timestamp)
    }

    // MARK: Faults

    func crashMaster() {
        guard let dying = master else { return }
        master = nil
        dying.crash()
        world.after(world.random.milliseconds(10...4000)) { [weak self] in self?.startMaster() }
    }

    func startMaster() {
        guard master == nil else { return }
        do {
            master = try SimulatedMaster(cluster: self)
            world.note("master starts")
        } catch {
            world.violate("a master does not start from the store: \(error)")
        }
    }

    func crashAgent(_ machine: SimulatedMachine, reboot: Bool) {
        guard let agent = agents.removeValue(forKey: machine.name) else { return }
        agent.crash()
        if reboot { machine.reboot() }
        world.after(world.random.milliseconds(10...6000)) { [weak self] in self?.startAgent(machine) }
    }

    /// The machine of a node that was removed is set up from nothing before it joins again.
    func reinstall(_ machine: SimulatedMachine) {
        crashAgent(machine, reboot: true)
        machine.loseData()
    }

    func startAgent(_ machine: SimulatedMachine) {
        guard agents[machine.name] == nil else { return }
        world.note("\(machine.name): agent starts")
        agents[machine.name] = SimulatedAgent(machine: machine, cluster: self)
    }

    /// Something breaks, every now and then.
    func breakThings() {
        world.after(world.random.milliseconds(200...5000)) { [weak self] in
            guard let self, world.hasFaults else { return }
            let machine = machines[Int.random(in: 0..<machines.count, using: &world.random)]
            switch Int.random(in: 0..<32, using: &world.random) {
            case 0..<8: crashAgent(machine, reboot: false)
            case 8..<10: crashAgent(machine, reboot: true)
            case 10..<13: crashMaster()
            case 13..<17: agents[machine.name]?.disconnect()
            case 17..<20: machine.loseShim()
            case 20..<22: machine.setClock()
            case 22..<27: partition(machine)
            case 27..<29: agents[machine.name]?.pause(for: world.random.milliseconds(1000...60_000))
            case 29..<31: master?.pause(for: world.random.milliseconds(1000...40_000))
            default: master?.setClock()
            }
            breakThings()
        }
    }

    /// Cuts a machine off for a while, both ways or one.
    private func partition(_ machine: SimulatedMachine) {
        let directions =
            world.random.chance(0.6) ? Set(Link.Direction.allCases) : [world.random.chance(0.5) ? .up : .down]
        machine.link.cut(directions)
        world.note("\(machine.name): cut off \(directions)")
        world.after(world.random.milliseconds(1000...80_000)) { [weak self] in
            guard let self else { return }
            world.note("\(machine.name): no longer cut off")
            machine.link.mend()
        }
    }

    /// From now on nothing breaks, and everybody is there.
    func heal() {
        world.hasFaults = false
        startMaster()
        master?.wake()
        for machine in machines {
            machine.link.mend()
            startAgent(machine)
            agents[machine.name]?.wake()
        }
    }

    // MARK: What must always hold

    /// What an agent tells of an end is what happened.
    func check(_ report: NodeReport, from agent: SimulatedAgent) {
        for task in report.tasks {
            guard let container = task.status.containers.first, container.state == .exited, container.start > 0,
                container.reason != "start failed", let code = container.exitCode
            else { continue }
            let key = TaskStart(task: task.task, start: container.start)
            // A start that a reboot kept from happening has no end of its own.
            guard let exit = truth.exits[key] else {
                if container.reason != "node rebooted" {
                    world.violate("\(agent.machine.name) tells of an end of \(key) that did not happen: \(code)")
                }
                continue
            }
            if exit.exitCode != code {
                world.violate("\(agent.machine.name) tells \(code) for \(key), and it was \(exit.exitCode)")
            }
        }
        for task in report.tasks where task.status.phase == .removed {
            if agent.machine.pods[task.task] != nil {
                world.violate("\(agent.machine.name) tells that \(task.task) is removed, and something of it is left")
            }
        }
    }
}
