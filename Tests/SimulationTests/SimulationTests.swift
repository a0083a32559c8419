import AgentCore
import Glibc
import JSON
import MasterCore
import Model
import Testing
import Wire

@Suite("Master and agents under faults")
struct SimulationTests {
    private static func setting(_ name: String) -> Int? {
        getenv(name).flatMap { Int(String(cString: $0)) }
    }

    /// `MARTLET_SEED` repeats one run; `MARTLET_SIM_RUNS` says how many there are.
    private static var seeds: [UInt64] {
        if let seed = setting("MARTLET_SEED") { return [UInt64(seed)] }
        return (1...UInt64(setting("MARTLET_SIM_RUNS") ?? 100)).map { $0 }
    }

    @Test("Whatever breaks: no instance runs twice, ends are told truly, and in the end all is as it was asked for")
    func faults() throws {
        for seed in Self.seeds {
            let problems = try Simulation(seed: seed, nodes: 1 + Int(seed % 3)).run()
            if !problems.isEmpty {
                Issue.record("seed \(seed) (repeat with MARTLET_SEED=\(seed)):\n\(problems.joined(separator: "\n"))")
                return
            }
        }
    }

    @Test("The same seed gives the same run")
    func repeats() throws {
        let first = Simulation(seed: 7, nodes: 2)
        let second = Simulation(seed: 7, nodes: 2)
        #expect(try first.run() == second.run())
        #expect(first.cluster?.store.all == second.cluster?.store.all)
    }
}

/// One run: a time of faults, then a time of peace after which everything must be as it was asked for.
final class Simulation {
    private let seed: UInt64
    private let nodes: Int
    private(set) var cluster: Cluster?

    init(seed: UInt64, nodes: Int) {
        self.seed = seed
        self.nodes = nodes
    }

    /// What went wrong, with the last that happened before it.
    func run() throws -> [String] {
        let cluster = try Cluster(seed: seed, nodes: nodes)
        self.cluster = cluster
        let user = SimulatedUser(cluster)
        user.act()
        cluster.breakThings()
        cluster.world.run(seconds: 40)
        user.stop()
        cluster.heal()
        cluster.world.run(seconds: 240)
        Settlement(cluster).check()
        let violations = cluster.world.violations
        return violations.isEmpty ? [] : violations + ["what happened before:"] + cluster.world.trace.suffix(60)
    }
}

/// Once nothing breaks any more, desired and observed are the same.
struct Settlement {
    let cluster: Cluster
    private var world: World { cluster.world }

    init(_ cluster: Cluster) { self.cluster = cluster }

    func check() {
        guard world.violations.isEmpty else { return }
        guard let master = cluster.master else { return world.violate("there is no master") }
        guard master.core.isSettled else { return world.violate("the master still waits for its store") }
        var containers: [ContainerView] = []
        var services: [ServiceView] = []
        master.query(.containers(ContainerFilter())) {
            if case .success(.containers(let list)) = $0 { containers = list }
        }
        master.query(.services) { if case .success(.services(let list)) = $0 { services = list } }
        for container in containers { check(container) }
        for service in services { check(service) }
        checkMachines(containers)
    }

    private func check(_ view: ContainerView) {
        let phase = view.status.phase
        let live = cluster.truth.task(of: view.instance) != nil
        switch view.desired {
        case .running:
            // One that ended for good by its policy stays ended.
            let isOver =
                view.kind == .container && (phase == .exited || phase == .failed) && view.status.restartAt == nil
            if !isOver && (phase != .running || !live) && view.unschedulable == nil { fail(view, "does not run") }
        case .paused:
            let isOver = (phase == .exited || phase == .failed) && view.status.restartAt == nil
            if phase != .paused && !isOver { fail(view, "is not paused") }
        case .stopped: if live { fail(view, "runs although it was stopped") }
        case .prepared: if live { fail(view, "runs although it was only to be prepared") }
        case .removed: fail(view, "is not removed")
        }
        if (phase == .running || phase == .paused) != live { fail(view, "is told to be \(phase), and live is \(live)") }
    }

    private func fail(_ view: ContainerView, _ text: String) {
        world.violate(
            "\(view.name) (task \(view.task?.text ?? "-") on \(view.nodeName)) \(text): \(view.desired), \(view.status)"
        )
    }

    private func check(_ view: ServiceView) {
        if view.service.desired == .removed { return world.violate("service \(view.service.name) is not removed") }
        let paused = view.service.updateState.phase == .paused
        if view.serving < view.wanted && view.waiting.isEmpty && !paused {
            world.violate("service \(view.service.name): \(view.serving) of \(view.wanted) serve")
        }
        if view.updated < view.wanted && view.waiting.isEmpty && !paused {
            world.violate("service \(view.service.name): \(view.updated) of \(view.wanted) are updated")
        }
    }

    /// Machines have what the master knows of, and nothing else.
    private func checkMachines(_ containers: [ContainerView]) {
        let known = Set(containers.compactMap(\.task))
        for machine in cluster.machines {
            for task in machine.pods.keys where !known.contains(task) {
                world.violate("\(machine.name) has the pod of task \(task), which nobody wants")
            }
            for task in machine.disk.keys where !known.contains(task) {
                world.violate("\(machine.name) has a record of task \(task), which nobody wants")
            }
        }
        let live = Set(containers.filter { $0.status.phase == .running || $0.status.phase == .paused }.map(\.instance))
        if live.count != cluster.truth.liveCount {
            world.violate("\(cluster.truth.liveCount) containers run, and the master knows of \(live.count)")
        }
    }
}
