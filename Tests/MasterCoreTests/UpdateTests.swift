import JSON
import MasterCore
import Model
import Testing
import Wire

@Suite("Changes of containers in place") struct UpdatesOfContainers {
    private func cluster(memory: Int64 = 64 << 20) throws -> Cluster {
        var cluster = try Cluster()
        try cluster.addNode("n1", memory: 1 << 30)
        let pod = cluster.pod { $0.containers[0].limits.memory = memory }
        try cluster.perform(.createContainer(CreateContainer(name: "web", pod: pod)))
        cluster.obey()
        return cluster
    }

    private func change(_ body: (inout UpdateContainer) -> Void) -> UpdateContainer {
        var change = UpdateContainer()
        body(&change)
        return change
    }

    @Test("Workload and task have a new revision, the task stays, and its node is told")
    func limits() throws {
        var cluster = try cluster()
        let before = try cluster.container("web")
        try cluster.perform(.updateContainer("web", change { $0.memory = 128 << 20 }))
        let after = try cluster.container("web")
        #expect(after.task == before.task && after.revision == before.revision + 1)
        #expect(after.spec.limits.memory == 128 << 20)
        let task = try #require(after.task)
        #expect(cluster.assigned[NodeID("n1")]?[task]?.pod.containers[0].limits.memory == 128 << 20)
        #expect(cluster.events.last?.action == "update")
        try cluster.restart()
        #expect(try cluster.container("web").spec.limits.memory == 128 << 20)
    }

    @Test("However often it changes, the revision that its task uses stays")
    func revisions() throws {
        var cluster = try cluster()
        for step in 1...20 {
            try cluster.perform(.updateContainer("web", change { $0.memory = Int64(64 + step) << 20 }))
        }
        #expect(try cluster.container("web").spec.limits.memory == 84 << 20)
        #expect(cluster.keys("revisions/").count <= 7)
        #expect(cluster.containerLines.last?.object?.task == (try cluster.container("web").task))
    }

    @Test("More than its node has free is refused, less is not")
    func room() throws {
        var cluster = try cluster(memory: 600 << 20)
        let other = cluster.pod { $0.containers[0].limits.memory = 300 << 20 }
        try cluster.perform(.createContainer(CreateContainer(name: "other", pod: other)))
        cluster.obey()
        let problem = cluster.problem(.updateContainer("web", change { $0.memory = 900 << 20 }))
        #expect(problem?.code == .conflict)
        #expect(problem?.message.contains("free") == true)
        #expect(try cluster.container("web").spec.limits.memory == 600 << 20)
        try cluster.perform(.updateContainer("web", change { $0.memory = 100 << 20 }))
        try cluster.perform(.updateContainer("other", change { $0.memory = 700 << 20 }))
    }

    @Test("Limits are checked as at the beginning, services are refused by name")
    func refusals() throws {
        var cluster = try cluster()
        #expect(cluster.problem(.updateContainer("web", change { $0.memory = 1000 }))?.code == .badRequest)
        #expect(cluster.problem(.updateContainer("web", change { $0.memorySwap = 32 << 20 }))?.code == .badRequest)
        #expect(cluster.problem(.updateContainer("nobody", change { $0.memory = 0 }))?.code == .notFound)
        try cluster.perform(
            .createService(CreateService(name: "api", pod: cluster.pod(), scale: .replicated(1))))
        let problem = cluster.problem(.updateContainer("api.1", change { $0.memory = 32 << 20 }))
        #expect(problem?.code == .conflict)
        #expect(problem?.message.contains("service api") == true)
    }

    @Test("Zero lifts a limit; what is not given stays")
    func lifting() throws {
        var cluster = try cluster()
        try cluster.perform(
            .updateContainer(
                "web",
                change {
                    $0.pids = 10
                    $0.cpuQuota = 50_000
                    $0.cpus = "0"
                }))
        try cluster.perform(
            .updateContainer(
                "web",
                change {
                    $0.memory = 0
                    $0.pids = 0
                    $0.cpus = ""
                }))
        let limits = try cluster.container("web").spec.limits
        #expect(limits.memory == nil && limits.pids == nil && limits.cpus == nil && limits.cpuQuota == 50_000)
    }

    @Test("A restart policy changes; one against removal at the end is refused")
    func restart() throws {
        var cluster = try cluster()
        try cluster.perform(.updateContainer("web", change { $0.restart = RestartPolicy(.always) }))
        #expect(try cluster.container("web").pod.restart.condition == .always)
        try cluster.perform(
            .createContainer(CreateContainer(name: "once", pod: cluster.pod(), removeOnExit: true)))
        cluster.obey()
        let problem = cluster.problem(.updateContainer("once", change { $0.restart = RestartPolicy(.always) }))
        #expect(problem?.code == .badRequest)
    }

    @Test("A container is renamed under its id, its node is told, and the old name is free")
    func rename() throws {
        var cluster = try cluster()
        let id = try cluster.container("web").id
        try cluster.perform(.updateContainer("web", change { $0.name = "shop" }))
        let view = try cluster.container("shop")
        #expect(view.id == id && view.name == "shop")
        let task = try #require(view.task)
        #expect(cluster.assigned[NodeID("n1")]?[task]?.instanceName == "shop")
        #expect(cluster.problem(.updateContainer("web", change { $0.name = "x" }))?.code == .notFound)
        try cluster.perform(.createContainer(CreateContainer(name: "web", pod: cluster.pod())))
        #expect(cluster.problem(.updateContainer("web", change { $0.name = "shop" }))?.code == .conflict)
    }
}

@Suite("Namespaces of other containers") struct NamespacesOfOthers {
    @Test("A name becomes an id; what is not there, or a service's wish for it, is refused")
    func references() throws {
        var cluster = try Cluster()
        try cluster.addNode("n1")
        try cluster.perform(.createContainer(CreateContainer(name: "web", pod: cluster.pod())))
        let id = try cluster.container("web").id
        let pod = cluster.pod {
            $0.network = .container
            $0.namespaces.network = .container("web")
            $0.namespaces.pid = .container(String(id.text.prefix(12)))
        }
        try cluster.perform(.createContainer(CreateContainer(name: "side", pod: pod)))
        let view = try cluster.container("side")
        #expect(view.pod.namespaces.network == .container(id.text))
        #expect(view.pod.namespaces.pid == .container(id.text))
        let lost = cluster.pod { $0.namespaces.ipc = .container("nobody") }
        #expect(cluster.problem(.createContainer(CreateContainer(pod: lost)))?.code == .notFound)
        let service = CreateService(name: "s", pod: pod, scale: .replicated(1))
        #expect(cluster.problem(.createService(service))?.code == .badRequest)
    }

    @Test("Nobody gets a namespace of the node by way of somebody else's container")
    func confined() throws {
        var cluster = try Cluster()
        try cluster.addNode("n1")
        let host = cluster.pod { $0.network = .host }
        try cluster.perform(.createContainer(CreateContainer(name: "agent", pod: host, group: "/team")))
        let chained = cluster.pod {
            $0.network = .container
            $0.namespaces.network = .container("agent")
        }
        try cluster.perform(.createContainer(CreateContainer(name: "chained", pod: chained, group: "/team")))
        let developer = Subject.user(TokenID("d"), name: "dev", role: .developer, group: "/team")
        for name in ["agent", "chained"] {
            let pod = cluster.pod {
                $0.network = .container
                $0.namespaces.network = .container(name)
            }
            #expect(cluster.problem(.createContainer(CreateContainer(pod: pod)), by: developer)?.code == .forbidden)
        }
    }
}
