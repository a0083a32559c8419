import JSON
import MasterCore
import Model
import Testing
import Wire

@Suite struct ServicesOfTheCluster {
    static func ports(_ pod: inout PodSpec) {
        pod.ports = [PortMapping(hostPort: 8080, hostPortEnd: 8083, containerPort: 80)]
    }

    @Test func scaleUpAndDown() throws {
        var cluster = try Cluster()
        try cluster.addNode("n1")
        try cluster.perform(
            .createService(CreateService(name: "web", pod: cluster.pod(Self.ports), scale: .replicated(2))))
        cluster.obey()
        #expect(try cluster.service("web").serving == 2)
        #expect(try cluster.containers().flatMap(\.ports).map(\.hostPort).sorted() == [8080, 8081])
        try cluster.perform(.updateService("web", UpdateService(scale: .replicated(4))))
        cluster.obey()
        #expect(try cluster.service("web").serving == 4)
        try cluster.perform(.updateService("web", UpdateService(scale: .replicated(1))))
        cluster.obey()
        #expect(try cluster.containers().map(\.name) == ["web.1"])
        #expect(cluster.claims == ["claims/port/n1/tcp/*/8080"])
        #expect(try cluster.service("web").service.revision == 1)
    }

    @Test func anUpdateReplacesOneAfterAnotherAndKeepsPorts() throws {
        var cluster = try Cluster()
        try cluster.addNode("n1")
        try cluster.perform(
            .createService(CreateService(name: "web", pod: cluster.pod(Self.ports), scale: .replicated(2))))
        cluster.obey()
        let before = try cluster.containers()
        var pod = cluster.pod(Self.ports)
        pod.containers[0].environment = ["A=1"]
        try cluster.perform(.updateService("web", UpdateService(pod: pod)))
        var leastServing = 2
        for _ in 0..<20 {
            cluster.obey()
            leastServing = min(leastServing, try cluster.service("web").serving)
            cluster.now = cluster.now.adding(seconds: 2)
            cluster.step(.tick)
            try cluster.perform(.report("n1", NodeReport()))
        }
        let view = try cluster.service("web")
        #expect(view.service.updateState.phase == .settled)
        #expect(view.updated == 2)
        #expect(leastServing >= 1)
        let after = try cluster.containers()
        #expect(Set(after.map(\.id)) == Set(before.map(\.id)))
        #expect(Set(after.map(\.task)).isDisjoint(with: before.map(\.task)))
        for container in after {
            #expect(before.first { $0.id == container.id }?.ports == container.ports)
        }
    }

    @Test func aStaleRevisionIsRefused() throws {
        var cluster = try Cluster()
        try cluster.addNode("n1")
        try cluster.perform(.createService(CreateService(name: "web", pod: cluster.pod())))
        let problem = cluster.problem(.updateService("web", UpdateService(labels: ["a": "b"], ifRevision: 7)))
        #expect(problem?.code == .conflict)
        #expect(problem?.message.contains("at revision 1, not 7") == true)
    }

    @Test func aFailedUpdateRollsBack() throws {
        var cluster = try Cluster()
        try cluster.addNode("n1")
        try cluster.perform(
            .createService(
                CreateService(
                    name: "web", pod: cluster.pod(), scale: .replicated(2), update: UpdatePolicy(onFailure: .rollback)))
        )
        cluster.obey()
        let broken = cluster.pod { $0.containers[0].command = ["/nope"] }
        try cluster.perform(.updateService("web", UpdateService(pod: broken)))
        // The first task goes, its successor cannot start.
        let going = try #require(cluster.assigned[NodeID("n1")]?.values.first { $0.desired == .removed })
        cluster.report(going, on: NodeID("n1"), TaskStatus(phase: .removed, generation: 1))
        let new = try #require(cluster.assigned[NodeID("n1")]?.values.first { $0.revision == 2 })
        cluster.report(
            new, on: NodeID("n1"), TaskStatus(phase: .failed, generation: 1, message: "no such program: /nope"))
        for _ in 0..<10 {
            cluster.obey()
            cluster.now = cluster.now.adding(seconds: 2)
            cluster.step(.tick)
            try cluster.perform(.report("n1", NodeReport()))
        }
        let view = try cluster.service("web")
        #expect(view.service.revision == 3)
        #expect(view.pod == (try cluster.container("web.1")).podlessEquivalent(cluster.pod()))
        #expect(view.service.updateState.phase == .settled)
        #expect(view.service.updateState.message.contains("no such program: /nope"))
        #expect(view.serving == 2)
    }

    @Test func instancesCanBeRestartedButNotStopped() throws {
        var cluster = try Cluster()
        try cluster.addNode("n1")
        try cluster.perform(.createService(CreateService(name: "web", pod: cluster.pod())))
        cluster.obey()
        #expect(cluster.problem(.act("web.1", .stop, ContainerAction()))?.message.contains("service web") == true)
        #expect(cluster.problem(.removeContainer("web.1", force: true))?.code == .conflict)
        try cluster.perform(.act("web.1", .restart, ContainerAction()))
        #expect(cluster.assigned[NodeID("n1")]?.values.first?.generation == 2)
    }

    @Test func removalTakesAllInstances() throws {
        var cluster = try Cluster()
        try cluster.addNode("n1")
        try cluster.perform(
            .createService(CreateService(name: "web", pod: cluster.pod(Self.ports), scale: .replicated(3))))
        cluster.obey()
        try cluster.perform(.removeService("web", force: false))
        cluster.obey()
        for prefix in ["workloads/", "revisions/", "instances/", "tasks/", "claims/"] {
            #expect(cluster.keys(prefix) == [])
        }
    }

    @Test func aGlobalServiceFollowsTheNodes() throws {
        var cluster = try Cluster()
        try cluster.addNode("n1")
        try cluster.perform(.createService(CreateService(name: "agentd", pod: cluster.pod(), scale: .global)))
        try cluster.addNode("n2")
        cluster.obey()
        #expect(try cluster.containers().map(\.name).sorted() == ["agentd.n1", "agentd.n2"])
        try cluster.perform(.updateNode("n1", UpdateNode(availability: .drained)))
        cluster.obey()
        #expect(try cluster.containers().map(\.name) == ["agentd.n2"])
    }

    @Test func oldRevisionsAreForgotten() throws {
        var cluster = try Cluster()
        try cluster.addNode("n1")
        try cluster.perform(.createService(CreateService(name: "web", pod: cluster.pod(), scale: .replicated(0))))
        for number in 1...9 {
            let pod = cluster.pod { $0.containers[0].environment = ["N=\(number)"] }
            try cluster.perform(.updateService("web", UpdateService(pod: pod)))
        }
        guard case .revisions(let revisions) = try cluster.query(.revisions("web")) else {
            Issue.record("no revisions")
            return
        }
        #expect(revisions.map(\.number) == [10, 9, 8, 7, 6])
    }
}

extension ContainerView {
    /// What admission makes of a pod for a service with this container's image.
    func podlessEquivalent(_ pod: PodSpec) -> PodSpec {
        var pod = pod
        pod.containers[0].imageDigest = spec.imageDigest
        pod.restart.condition = .always
        pod.loss = .standard(for: .service)
        return pod
    }
}
