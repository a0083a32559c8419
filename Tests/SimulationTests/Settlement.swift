import MasterCore
import Model
import Wire

/// Once nothing breaks any more, desired and observed are the same.
final class Settlement {
    let cluster: Cluster
    private var problems: [String] = []

    init(_ cluster: Cluster) { self.cluster = cluster }

    /// Lets time pass until all is so, and a while longer; what is not so after 20 minutes is a violation.
    static func reach(_ cluster: Cluster) {
        for _ in 0..<40 where cluster.world.violations.isEmpty {
            cluster.world.run(seconds: 30)
            if Settlement(cluster).check().isEmpty { break }
        }
        cluster.world.run(seconds: 60)
        guard cluster.world.violations.isEmpty else { return }
        for problem in Settlement(cluster).check() { cluster.world.violate(problem) }
    }

    /// What is not so.
    private func check() -> [String] {
        guard let master = cluster.master else { return ["there is no master"] }
        guard master.core.isSettled else { return ["the master still waits for its store"] }
        var containers: [ContainerView] = []
        var services: [ServiceView] = []
        master.query(.containers(ContainerFilter())) {
            if case .success(.containers(let list)) = $0 { containers = list }
        }
        master.query(.services) { if case .success(.services(let list)) = $0 { services = list } }
        for container in containers { check(container) }
        for service in services {
            check(service, containers)
            checkSpread(service, containers)
        }
        checkMachines(containers)
        master.query(.volumes) {
            if case .success(.volumes(let list)) = $0 { self.checkVolumes(list, containers, services) }
        }
        return problems
    }

    private func check(_ view: ContainerView) {
        let phase = view.status.phase
        let tasks = cluster.truth.tasks(of: view.instance)
        let live = !tasks.isEmpty
        if tasks.count > 1 { fail(view, "runs \(tasks.count) times") }
        if !view.displaced.isEmpty { fail(view, "has displaced tasks: \(view.displaced)") }
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
        if live, let task = view.task,
            let limits = cluster.machines.compactMap({ $0.pods[task]?.limits }).first, limits != view.spec.limits
        {
            fail(view, "has limits of an earlier revision")
        }
        if (phase == .running || phase == .paused) != live { fail(view, "is told to be \(phase), and live is \(live)") }
    }

    private func fail(_ view: ContainerView, _ text: String) {
        problems.append(
            "\(view.name) (task \(view.task?.text ?? "-") on \(view.nodeName)) \(text): \(view.desired), \(view.status)"
        )
    }

    private func check(_ view: ServiceView, _ containers: [ContainerView]) {
        let detail = containers.filter { $0.workload == view.service.id }.reduce(into: ", \(view.service.updateState)")
        {
            $0 +=
                "\n  \($1.name) revision \($1.revision) on \($1.nodeName): \($1.desired), \($1.status), \($1.displaced)"
        }
        if view.service.desired == .removed { return problems.append("service \(view.service.name) is not removed") }
        let paused = view.service.updateState.phase == .paused
        if view.serving < view.wanted && view.waiting.isEmpty && !paused {
            problems.append("service \(view.service.name): \(view.serving) of \(view.wanted) serve\(detail)")
        }
        if view.updated < view.wanted && view.waiting.isEmpty && !paused {
            problems.append("service \(view.service.name): \(view.updated) of \(view.wanted) are updated\(detail)")
        }
    }

    /// Services that could run anywhere are spread evenly.
    private func checkSpread(_ view: ServiceView, _ containers: [ContainerView]) {
        let container = view.pod.containers[0]
        guard case .replicated = view.service.scale, view.service.updateState.phase == .settled,
            view.service.desired == .running, view.serving == view.wanted, container.limits.memory == nil,
            view.pod.ports.isEmpty, container.mounts.isEmpty, container.deviceClaims.isEmpty,
            container.limits.pinning == nil,
            view.pod.attachments.isEmpty,
            view.pod.loss?.stopAfter == nil
        else { return }
        var counts = Dictionary(uniqueKeysWithValues: cluster.machines.map { ($0.name, 0) })
        for container in containers where container.workload == view.service.id {
            counts[container.nodeName, default: 0] += 1
        }
        if (counts.values.max() ?? 0) - (counts.values.min() ?? 0) > 1 {
            problems.append("service \(view.service.name) is spread unevenly: \(counts.sorted { $0.key < $1.key })")
        }
    }

    /// Every claim is somebody's.
    private func checkClaims(_ containers: [ContainerView]) {
        let instances = Set(containers.map(\.instance.text))
        for record in cluster.store.all where record.key.hasPrefix("claims/") {
            let text = String(decoding: record.value, as: UTF8.self)
            if !instances.contains(where: { text.contains($0) }) {
                problems.append("\(record.key) is claimed by nobody")
            }
        }
        let ports = containers.reduce(0) { $0 + $1.ports.count }
        let claims = cluster.store.all.count { $0.key.hasPrefix("claims/") }
        let waiting = containers.contains { $0.task == nil }
        if claims != ports, !waiting { problems.append("\(claims) ports are claimed, and \(ports) are used") }
    }

    /// All that mount a volume are on a node that has it, and but for global services on the same.
    private func checkVolumes(_ volumes: [VolumeView], _ containers: [ContainerView], _ services: [ServiceView]) {
        let globals = Set(services.filter { $0.service.scale == .global }.map(\.service.id))
        var homes: [String: String] = [:]
        for container in containers where cluster.truth.tasks(of: container.instance).count == 1 {
            for mount in container.spec.mounts {
                guard case .volume(let name) = mount.source else { continue }
                if !volumes.contains(where: { $0.name == name && $0.node == container.node }) {
                    problems.append(
                        "\(container.name) mounts \(name), and \(container.nodeName) is not known to have it")
                }
                guard !globals.contains(container.workload) else { continue }
                let home = homes[name] ?? container.nodeName
                homes[name] = home
                if home != container.nodeName {
                    problems.append("the volume \(name) is used on \(home) and on \(container.nodeName)")
                }
            }
        }
    }

    /// Machines have what the master knows of, and nothing else.
    private func checkMachines(_ containers: [ContainerView]) {
        let known = Set(containers.compactMap(\.task))
        for machine in cluster.machines {
            for task in machine.pods.keys where !known.contains(task) {
                problems.append("\(machine.name) has the pod of task \(task), which nobody wants")
            }
            for task in machine.disk.keys where !known.contains(task) {
                problems.append("\(machine.name) has a record of task \(task), which nobody wants")
            }
        }
        let live = Set(containers.filter { $0.status.phase == .running || $0.status.phase == .paused }.map(\.instance))
        if live.count != cluster.truth.live.count {
            problems.append("\(cluster.truth.live.count) containers run, and the master knows of \(live.count)")
        }
        checkClaims(containers)
    }
}
