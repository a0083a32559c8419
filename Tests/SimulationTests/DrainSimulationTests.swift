import JSON
import MasterCore
import Model
import Testing
import Wire

@Suite("Drains without other faults")
struct DrainSimulationTests {
    @Test("Enough instances run all the time, drained nodes become empty, and active ones are filled evenly again")
    func drains() throws {
        for seed in SimulationTests.seeds.filter({ $0 % 4 == 0 || SimulationTests.seeds.count == 1 }) {
            let problems = try DrainSimulation(seed: seed).run()
            if !problems.isEmpty {
                Issue.record("seed \(seed) (repeat with MARTLET_SEED=\(seed)):\n\(problems.joined(separator: "\n"))")
                return
            }
        }
    }
}

/// Nodes are drained, cordoned and activated, one or two at a time, while services run that nobody changes. Agents and the
/// master die now and then, which is no reason for a container to end.
private final class DrainSimulation {
    private struct Service {
        var name: String
        var instances: Int
        /// The fewest that may run in the present drain.
        var minimum: Int
        var mustBeAlone: Bool
    }

    private let cluster: Cluster
    private var services: [Service] = []
    private var isWatching = false
    private var world: World { cluster.world }

    init(seed: UInt64) throws {
        cluster = try Cluster(seed: seed, nodes: 2 + Int(seed % 3))
        world.hasFaults = false
    }

    func run() throws -> [String] {
        world.run(seconds: 2)
        for number in 1...3 { create("s\(number)") }
        world.run(seconds: 15)
        isWatching = true
        watch()
        for _ in 0..<4 where world.violations.isEmpty { drainOne() }
        isWatching = false
        Settlement.reach(cluster)
        return world.violations.isEmpty ? [] : world.violations + ["what happened before:"] + world.trace.suffix(60)
    }

    private func create(_ name: String) {
        let mustBeAlone = world.random.chance(0.3)
        let count = Int.random(in: 1...5, using: &world.random)
        var pod = PodSpec(containers: [ContainerSpec(image: "busybox:latest")])
        pod.containers[0].stopGrace = 2
        if world.random.chance(0.3) {
            // One for each instance of all services, so that one node has room for all.
            pod.ports = [PortMapping(hostPort: 8000, hostPortEnd: 8019, containerPort: 80)]
        }
        if mustBeAlone { pod.loss = LossPolicy(replaceAfter: 60, onDisconnect: .stopAfter(30)) }
        let update = UpdatePolicy(
            parallelism: Int.random(in: 1...3, using: &world.random),
            monitor: Int.random(in: 0...3, using: &world.random))
        services.append(Service(name: name, instances: count, minimum: count, mustBeAlone: mustBeAlone))
        cluster.master?.send(
            .createService(CreateService(name: name, pod: pod, scale: .replicated(count), update: update)))
    }

    private func drainOne() {
        let number = cluster.machines.count > 2 && world.random.chance(0.3) ? 2 : 1
        let chosen = Array(cluster.machines.shuffled(using: &world.random).prefix(number))
        let percent = [100, 60, 50, 0].randomElement(using: &world.random) ?? 100
        for index in services.indices where services[index].mustBeAlone {
            services[index].minimum = (services[index].instances * percent + 99) / 100
        }
        world.note("\(chosen.map(\.name)) are drained, \(percent) per cent")
        for machine in chosen { send(machine, UpdateNode(drain: DrainOrder(minimumAvailable: percent))) }
        world.run(seconds: 1)
        killSomebody()
        // Some are called off on the way.
        if world.random.chance(0.3) {
            world.run(seconds: Double.random(in: 0...20, using: &world.random))
        } else {
            world.run(seconds: 120)
            for machine in chosen { checkEmpty(machine, percent) }
        }
        for machine in chosen {
            send(machine, UpdateNode(availability: world.random.chance(0.3) ? .cordoned : .active))
        }
        world.run(seconds: 20)
        for machine in chosen { send(machine, UpdateNode(availability: .active)) }
        // A master that dies before it has answered may not have noted anything.
        world.run(seconds: 1)
        killSomebody()
        world.run(seconds: 100)
    }

    private func killSomebody() {
        guard world.random.chance(0.5) else { return }
        world.run(seconds: Double.random(in: 0...10, using: &world.random))
        if world.random.chance(0.5) {
            cluster.crashMaster()
        } else if let machine = cluster.machines.randomElement(using: &world.random) {
            cluster.crashAgent(machine, reboot: false)
        }
    }

    private func send(_ machine: SimulatedMachine, _ body: UpdateNode) {
        while cluster.master == nil { world.run(seconds: 1) }
        cluster.master?.send(.updateNode(machine.name, body)) { [world] result in
            if case .failure(let problem) = result { world.violate("\(problem)") }
        }
    }

    /// What can leave has left.
    private func checkEmpty(_ machine: SimulatedMachine, _ percent: Int) {
        let staying = cluster.truth.live.values.filter { $0.node == machine.name }.filter { live in
            guard let service = services.first(where: { $0.name == live.assignment.workloadName }) else { return true }
            return !service.mustBeAlone || service.minimum < service.instances
        }
        if !staying.isEmpty {
            var why = ""
            cluster.master?.query(.node(machine.name)) {
                if case .success(.node(let view)) = $0 { why = "\(view.drain?.staying ?? [])" }
            }
            world.violate("\(staying.map(\.assignment.instanceName)) stay on \(machine.name), which is drained: \(why)")
        }
    }

    private func watch() {
        for service in services {
            let running = cluster.truth.instances(of: service.name)
            if running < service.minimum {
                world.violate("\(running) of \(service.name) run, fewer than \(service.minimum)")
            }
        }
        world.after(200_000_000) { [weak self] in
            if let self, isWatching { watch() }
        }
    }
}
