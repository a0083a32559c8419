import AgentCore
import JSON
import MasterCore
import Model
import Wire

/// Somebody who asks for things at random, and remembers which were granted.
final class SimulatedUser {
    private let cluster: Cluster
    private var world: World { cluster.world }
    private var next = 1
    private(set) var names: [String] = []
    private(set) var services: [String] = []
    private var isActive = true

    private let usesOverlays: Bool
    private let usesDevices: Bool

    init(_ cluster: Cluster, usesOverlays: Bool = false, usesDevices: Bool = false) {
        self.usesDevices = usesDevices
        self.cluster = cluster
        self.usesOverlays = usesOverlays
    }

    func stop() { isActive = false }

    /// Overlays that containers may be on; one of them has few addresses.
    private static let overlays = [
        CreateNetwork(name: "tight", driver: "overlay", subnet: "10.9.0.0/29"),
        CreateNetwork(name: "wide", driver: "overlay", subnet: "10.9.1.0/27", isIPv6: true),
    ]

    private func makeNetworks(_ master: SimulatedMaster) {
        for body in Self.overlays { master.send(.createNetwork(body)) }
    }

    func act() {
        world.after(world.random.milliseconds(20...1500)) { [weak self] in
            guard let self, isActive else { return }
            ask()
            act()
        }
    }

    private func ask() {
        guard let master = cluster.master else { return }
        if usesOverlays, world.random.chance(0.1) { makeNetworks(master) }
        if usesOverlays, world.random.chance(0.2) { return rewire(master) }
        switch Int.random(in: 0..<24, using: &world.random) {
        case 0..<4: if names.count < 8 { master.send(.createContainer(newContainer())) { _ in } }
        case 4..<6: if services.count < 3 { master.send(.createService(newService())) { _ in } }
        case 6..<8: change(master)
        case 8:
            if let name = services.randomElement(using: &world.random) {
                services.removeAll { $0 == name }
                master.send(.removeService(name, force: world.random.chance(0.5)))
            }
        case 9..<11:
            if let name = names.randomElement(using: &world.random) {
                master.send(.removeContainer(name, force: world.random.chance(0.7))) { [weak self] result in
                    if case .success = result { self?.names.removeAll { $0 == name } }
                }
            }
        case 11..<13: changeNode(master)
        case 13: update(master)
        default: act(on: master)
        }
    }

    private func update(_ master: SimulatedMaster) {
        guard let name = names.randomElement(using: &world.random) else { return }
        var change = UpdateContainer()
        // No limit that nodes promise: what is given away is counted by what containers were started with.
        if world.random.chance(0.8) { change.pids = [0, 100, 200].randomElement(using: &world.random) }
        if world.random.chance(0.3) {
            change.restart = [RestartPolicy(.no), RestartPolicy(.always)].randomElement(using: &world.random)
        }
        master.send(.updateContainer(name, change))
    }

    /// Containers come to overlays and leave them while they run.
    private func rewire(_ master: SimulatedMaster) {
        guard let name = names.randomElement(using: &world.random) else { return }
        let network = world.random.chance(0.7) ? "tight" : "wide"
        if world.random.chance(0.5) {
            return master.send(.disconnect(network, DisconnectNetwork(container: name)))
        }
        let isFixed = network == "tight" && world.random.chance(0.5)
        let address = isFixed ? ["10.9.0.4", "10.9.0.5"].randomElement(using: &world.random) : nil
        master.send(.connect(network, ConnectNetwork(container: name, address: address)))
    }

    private func changeNode(_ master: SimulatedMaster) {
        if world.random.chance(0.3) { return removeNodes(master) }
        guard let machine = cluster.machines.randomElement(using: &world.random) else { return }
        let drain = DrainOrder(
            deadline: [nil, 0, 20].randomElement(using: &world.random) ?? nil,
            minimumAvailable: [100, 50, 0].randomElement(using: &world.random) ?? 100)
        let body = [
            UpdateNode(availability: .active), UpdateNode(availability: .cordoned), UpdateNode(drain: drain),
            UpdateNode(drain: drain),
        ].randomElement(using: &world.random)
        guard let body else { return }
        world.note("user: \(machine.name) \(body.availability?.rawValue ?? "drain")")
        master.send(.updateNode(machine.name, body))
    }

    /// Only those that have been silent for a while can be removed; they are new nodes when they come back.
    private func removeNodes(_ master: SimulatedMaster) {
        for machine in cluster.machines { remove(machine, master) }
    }

    private func remove(_ machine: SimulatedMachine, _ master: SimulatedMaster) {
        let force = world.random.chance(0.8)
        master.send(.removeNode(machine.name, force: force)) { [world, truth = cluster.truth] result in
            switch result {
            case .success:
                world.note("user: \(machine.name) is removed")
                world.tally.count("node removed")
                truth.forsake(Array(machine.disk.keys) + Array(machine.pods.keys))
                machine.isRemoved = true
            case .failure(let problem):
                if problem.message.contains("must not run twice") { world.tally.count("node kept for a lease") }
            }
        }
    }

    private func act(on master: SimulatedMaster) {
        guard let name = names.randomElement(using: &world.random),
            let verb = ContainerAction.Verb.allCases.randomElement(using: &world.random)
        else { return }
        let grace = world.random.chance(0.7) ? Int.random(in: 0...5, using: &world.random) : nil
        world.note("user: \(verb.rawValue) \(name)")
        master.send(.act(name, verb, ContainerAction(grace: verb == .stop || verb == .restart ? grace : nil)))
    }

    private func newContainer() -> CreateContainer {
        let name = "c\(next)"
        next += 1
        names.append(name)
        var pod = pod()
        if pod.attachments.first?.network == "tight", world.random.chance(0.5) {
            pod.attachments[0].address = world.random.chance(0.5) ? "10.9.0.4" : "10.9.0.5"
        }
        return CreateContainer(name: name, pod: pod, start: world.random.chance(0.85))
    }

    private func newService() -> CreateService {
        let name = "s\(next)"
        next += 1
        services.append(name)
        let scale: Workload.Scale =
            world.random.chance(0.2) ? .global : .replicated(Int.random(in: 0...4, using: &world.random))
        var pod = pod()
        pod.restart = RestartPolicy(.always)
        return CreateService(
            name: name, pod: pod, scale: scale,
            update: UpdatePolicy(
                parallelism: Int.random(in: 1...2, using: &world.random), monitor: 1, onFailure: .continue))
    }

    private func change(_ master: SimulatedMaster) {
        guard let name = services.randomElement(using: &world.random) else { return }
        if world.random.chance(0.5) {
            let count = Int.random(in: 0...4, using: &world.random)
            master.send(.updateService(name, UpdateService(scale: .replicated(count))))
        } else {
            var pod = pod()
            pod.restart = RestartPolicy(.always)
            pod.containers[0].environment = ["N=\(next)"]
            master.send(.updateService(name, UpdateService(pod: pod)))
        }
    }

    private func pod() -> PodSpec {
        var container = ContainerSpec(image: "busybox:latest")
        container.limits.memory = [nil, 1 << 30, 3 << 30].randomElement(using: &world.random) ?? nil
        container.stopGrace = Int.random(in: 1...4, using: &world.random)
        if world.random.chance(0.2) {
            container.healthCheck = HealthCheck(
                probe: .tcp(port: 80), interval: 2, timeout: 1, retries: 3, startPeriod: 0)
        }
        let policies: [RestartPolicy] = [
            RestartPolicy(.no), RestartPolicy(.onFailure), RestartPolicy(.onFailure, maximumRetries: 2),
            RestartPolicy(.always), RestartPolicy(.unlessStopped),
        ]
        if world.random.chance(0.15) {
            let name = world.random.chance(0.5) ? "data" : "more"
            container.mounts = [Mount(.volume(name: name), target: "/data")]
        }
        var ports: [PortMapping] = []
        if world.random.chance(0.3) { ports = [PortMapping(hostPort: 8080, hostPortEnd: 8089, containerPort: 80)] }
        var pod = PodSpec(
            containers: [container], ports: ports,
            restart: policies.randomElement(using: &world.random) ?? RestartPolicy(.no),
            loss: loss(grace: container.stopGrace))
        if usesDevices, world.random.chance(0.7) {
            let claims = [DeviceClaim(), DeviceClaim(count: 2), DeviceClaim(sharing: .share), DeviceClaim(ids: ["g0"])]
            pod.containers[0].deviceClaims = claims.randomElement(using: &world.random).map { [$0] } ?? []
        }
        if usesDevices, world.random.chance(0.6) {
            pod.containers[0].limits.cpu = world.random.chance(0.5) ? 1_000_000_000 : 2_000_000_000
            pod.containers[0].limits.pinning = .cores
        }
        if usesOverlays, world.random.chance(0.5) {
            pod.network = .attached
            let network = world.random.chance(0.5) ? "tight" : "wide"
            pod.attachments = [NetworkAttachment(network: network)]
        }
        return pod
    }

    private func loss(grace: Int) -> LossPolicy? {
        let extra = Int.random(in: 0...20, using: &world.random)
        let giveUp = world.random.chance(0.3) ? 30 + extra : nil
        switch Int.random(in: 0..<8, using: &world.random) {
        case 0..<2: return nil
        case 2..<4: return LossPolicy(replaceAfter: 15 + extra / 2, giveUpAfter: giveUp, onReturn: .keepOriginal)
        case 4: return LossPolicy(replaceAfter: 15 + extra / 2, giveUpAfter: giveUp)
        case 5: return LossPolicy(giveUpAfter: giveUp)
        default:
            let stop = Int.random(in: 5...30, using: &world.random)
            let least = max(15, LossPolicy.leastReplaceAfter(stopAfter: stop, grace: grace))
            return LossPolicy(
                replaceAfter: world.random.chance(0.9) ? least : nil,
                giveUpAfter: world.random.chance(0.3) ? least + extra : nil, onDisconnect: .stopAfter(stop))
        }
    }
}
