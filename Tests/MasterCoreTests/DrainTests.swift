import JSON
import MasterCore
import Model
import Testing
import Wire

@Suite struct DrainOfNodes {
    /// Two nodes with a service of two.
    func cluster(_ change: (inout PodSpec) -> Void = { _ in }) throws -> Cluster {
        var cluster = try Cluster()
        try cluster.addNode("n1")
        try cluster.addNode("n2")
        try cluster.perform(
            .createService(CreateService(name: "web", pod: cluster.pod(change), scale: .replicated(2))))
        cluster.obey()
        return cluster
    }

    @Test func theReplacementServesBeforeTheOldOneGoes() throws {
        var cluster = try cluster()
        let before = try #require(try cluster.containers().first { $0.nodeName == "n1" })
        try cluster.perform(.updateNode("n1", UpdateNode(drain: DrainOrder())))
        #expect(try cluster.node("n1").node.availability == .drained)
        #expect(try cluster.node("n1").drain?.remaining == 1)
        // Users see the old one as long as it is the one that serves.
        #expect(try cluster.container(before.name).nodeName == "n1")
        #expect(try cluster.service("web").serving == 2)
        cluster.obey()
        #expect(cluster.keys("tasks/").count == 3)
        #expect(try cluster.node("n1").drain?.staying.map(\.reason) == ["goes when its replacement serves"])
        cluster.pass(seconds: 1, heard: ["n1", "n2"])
        cluster.obey()
        #expect(cluster.keys("tasks/").count == 2)
        #expect(try cluster.containers().map(\.nodeName) == ["n2", "n2"])
        #expect(try cluster.container(before.name).id == before.id)
        #expect(try cluster.node("n1").drain?.remaining == 0)
        #expect(cluster.events.contains { $0.action == "moved" && $0.attributes["reason"] == "drained" })
    }

    @Test func activationGivesBackWhatWaits() throws {
        var cluster = try cluster { $0.containers[0].limits.memory = 3 << 30 }
        let before = try cluster.containers().map(\.task)
        try cluster.perform(.updateNode("n1", UpdateNode(availability: .drained)))
        let drain = try cluster.node("n1").drain
        #expect(drain?.staying.first?.reason.contains("waits for a replacement: 0 of 2 nodes") == true)
        #expect(try cluster.service("web").serving == 2)
        try cluster.perform(.updateNode("n1", UpdateNode(availability: .active)))
        #expect(try cluster.containers().map(\.task) == before)
        #expect(try cluster.node("n1").drain == nil)
    }

    @Test func containersStayAndAreNamed() throws {
        var cluster = try cluster()
        let pod = cluster.pod { $0.constraints = [Constraint(label: "node.name", relation: .equal, value: "n1")] }
        try cluster.perform(.createContainer(CreateContainer(name: "db", pod: pod)))
        cluster.obey()
        try cluster.perform(.updateNode("n1", UpdateNode(drain: DrainOrder(deadline: 0))))
        cluster.obey()
        let drain = try cluster.node("n1").drain
        #expect(drain?.remaining == 0)
        #expect(drain?.staying.map(\.name) == ["db"])
        #expect(try cluster.container("db").state == "running")
    }

    @Test func theOrderIsChecked() throws {
        var cluster = try cluster()
        let wrong = [
            UpdateNode(availability: .active, drain: DrainOrder()), UpdateNode(drain: DrainOrder(deadline: -1)),
            UpdateNode(drain: DrainOrder(minimumAvailable: 101)),
        ]
        for body in wrong { #expect(cluster.problem(.updateNode("n1", body))?.code == .badRequest) }
    }

    @Test func aDrainOutlivesTheMasterAndTheAgent() throws {
        var cluster = try cluster()
        try cluster.perform(.updateNode("n1", UpdateNode(drain: DrainOrder(minimumAvailable: 50))))
        try cluster.restart()
        try cluster.addNode("n1")
        #expect(try cluster.node("n1").drain?.minimumAvailable == 50)
    }

    @Test func aCordonedNodeKeepsWhatItHas() throws {
        var cluster = try cluster()
        try cluster.perform(.updateNode("n1", UpdateNode(availability: .cordoned)))
        try cluster.perform(.updateService("web", UpdateService(scale: .replicated(4))))
        cluster.obey()
        #expect(try cluster.containers().map(\.nodeName).sorted() == ["n1", "n2", "n2", "n2"])
    }
}
