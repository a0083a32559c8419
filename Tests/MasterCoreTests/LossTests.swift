import JSON
import MasterCore
import Model
import Testing
import Wire

@Suite struct LossOfNodes {
    /// A service with one instance on n1, and n2 without anything; then n1 goes away.
    func lost(
        _ loss: LossPolicy? = nil, for seconds: Int, change: (inout PodSpec) -> Void = { _ in }
    ) throws -> Cluster {
        var cluster = try Cluster()
        try cluster.addNode("n1")
        let pod = cluster.pod {
            $0.loss = loss
            change(&$0)
        }
        try cluster.perform(.createService(CreateService(name: "web", pod: pod)))
        cluster.obey()
        try cluster.addNode("n2")
        cluster.away = ["n1"]
        cluster.pass(seconds: seconds, heard: ["n2"])
        return cluster
    }

    @Test func anInstanceIsReplacedAndTheOriginalGoesWhenItsNodeIsBack() throws {
        var cluster = try lost(for: 59)
        let before = try cluster.container("web.1")
        #expect(before.nodeName == "n1")
        #expect(before.state == "unreachable")
        #expect(before.conditions.first?.message.contains("it is replaced at") == true)
        #expect(try cluster.service("web").serving == 0)
        cluster.pass(seconds: 2, heard: ["n2"])
        cluster.obey()
        let after = try cluster.container("web.1")
        #expect(after.nodeName == "n2")
        #expect(after.id == before.id)
        #expect(after.state == "running")
        #expect(after.displaced.map(\.nodeName) == ["n1"])
        #expect(after.displaced.first?.unreachableSince != nil)
        #expect(cluster.keys("tasks/").count == 2)
        try cluster.connect("n1")
        // What the node hears first is that the old one goes.
        #expect(cluster.assigned[NodeID("n1")]?.values.map(\.desired) == [.removed])
        cluster.obey()
        #expect(try cluster.container("web.1").displaced == [])
        #expect(cluster.keys("tasks/").count == 1)
        #expect(try cluster.service("web").serving == 1)
        #expect(
            cluster.events.filter { $0.kind == "container" && $0.action == "replaced" }.map(\.attributes["from"]) == [
                "n1"
            ])
    }

    @Test func theOriginalIsKeptAndItsReplacementGoes() throws {
        var cluster = try lost(LossPolicy(replaceAfter: 20, onReturn: .keepOriginal), for: 25) {
            $0.ports = [PortMapping(hostPort: 80, containerPort: 80)]
        }
        cluster.obey()
        let original = try #require(try cluster.container("web.1").displaced.first?.task)
        #expect(cluster.claims == ["claims/port/n1/tcp/*/80", "claims/port/n2/tcp/*/80"])
        try cluster.connect("n1")
        cluster.obey()
        let view = try cluster.container("web.1")
        #expect(view.task == original)
        #expect(view.displaced == [])
        #expect(view.state == "running")
        #expect(cluster.claims == ["claims/port/n1/tcp/*/80"])
        #expect(cluster.events.contains { $0.action == "returned" && $0.attributes["node"] == "n1" })
        // The counter does not go back: what comes next is newer than the replacement.
        try cluster.perform(.report("n1", NodeReport(full: true)))
        #expect(cluster.assigned.values.flatMap(\.values).map(\.epoch).max() == 3)
    }

    @Test func aContainerThatWasChangedWhileItsNodeWasAwayReturnsAsItIsWantedNow() throws {
        for isReplaced in [false, true] {
            var cluster = try Cluster()
            try cluster.addNode("n1")
            let pod = cluster.pod {
                $0.loss = LossPolicy(replaceAfter: 20, onReturn: .keepOriginal)
                if !isReplaced { $0.constraints = [Constraint(label: "node.name", relation: .equal, value: "n1")] }
            }
            try cluster.perform(.createContainer(CreateContainer(name: "web", pod: pod)))
            cluster.obey()
            let original = try #require(try cluster.container("web").task)
            try cluster.addNode("n2")
            cluster.away = ["n1"]
            cluster.pass(seconds: 25, heard: ["n2"])
            cluster.obey()
            #expect(try cluster.container("web").nodeName == (isReplaced ? "n2" : "n1"))
            var change = UpdateContainer()
            change.memory = 64 << 20
            try cluster.perform(.updateContainer("web", change))
            try cluster.connect("n1")
            cluster.obey()
            let view = try cluster.container("web")
            #expect(view.task == original && view.displaced == [])
            #expect(view.revision == 2 && view.spec.limits.memory == 64 << 20)
            #expect(cluster.assigned[NodeID("n1")]?[original]?.pod.containers[0].limits.memory == 64 << 20)
            #expect(try cluster.node("n1").allocated.memory == 64 << 20)
        }
    }

    @Test func aReplacementThatNoNodeTakesGivesWay() throws {
        var cluster = try lost(for: 70) {
            $0.constraints = [Constraint(label: "node.name", relation: .equal, value: "n1")]
        }
        let waiting = try cluster.container("web.1")
        #expect(waiting.unschedulable?.message.contains("constraint node.name==n1") == true)
        #expect(waiting.state == "unreachable")
        try cluster.connect("n1")
        cluster.obey()
        let view = try cluster.container("web.1")
        #expect(view.task == waiting.task)
        #expect(view.unschedulable == nil)
        #expect(view.displaced == [])
        #expect(try cluster.service("web").serving == 1)
    }

    @Test func whatIsAwayForTooLongIsGivenUp() throws {
        var cluster = try lost(LossPolicy(replaceAfter: 20, giveUpAfter: 40), for: 41)
        cluster.obey()
        #expect(try cluster.container("web.1").displaced == [])
        #expect(cluster.keys("tasks/").count == 1)
        #expect(cluster.events.filter { $0.action == "lost" }.map(\.attributes["node"]) == ["n1"])
        try cluster.connect("n1")
        // Its agent finds it missing, and removes it.
        #expect(cluster.assigned[NodeID("n1")] == [:])
    }

    @Test func aRestartedMasterWaitsAnew() throws {
        var cluster = try lost(for: 50)
        try cluster.restart()
        try cluster.connect("n2")
        cluster.pass(seconds: 59, heard: ["n2"])
        #expect(try cluster.container("web.1").nodeName == "n1")
        cluster.pass(seconds: 2, heard: ["n2"])
        #expect(try cluster.container("web.1").nodeName == "n2")
    }

    @Test(arguments: [Int64(3600), -3600, 30]) func noJumpOfTheClockIsSilence(_ seconds: Int64) throws {
        var cluster = try lost(for: 30)
        cluster.now = cluster.now.adding(seconds: seconds)
        cluster.step(.tick)
        #expect(try cluster.container("web.1").nodeName == "n1")
        cluster.pass(seconds: 26, heard: ["n2"])
        #expect(try cluster.container("web.1").nodeName == "n1")
        cluster.pass(seconds: 5, heard: ["n2"])
        #expect(try cluster.container("web.1").nodeName == "n2")
    }

    @Test func aContainerWaitsForItsNodeAndSaysSo() throws {
        var cluster = try Cluster()
        try cluster.addNode("n1")
        try cluster.perform(.createContainer(CreateContainer(name: "db", pod: cluster.pod())))
        cluster.obey()
        try cluster.addNode("n2")
        cluster.away = ["n1"]
        cluster.pass(seconds: 1000, heard: ["n2"])
        let view = try cluster.container("db")
        #expect(view.state == "unreachable")
        #expect(view.nodeName == "n1")
        #expect(view.conditions.map(\.reason) == ["NodeUnreachable"])
        #expect(view.conditions.first?.message.hasSuffix("it waits for the node") == true)
        try cluster.connect("n1")
        #expect(try cluster.container("db").state == "running")
    }

    @Test func removalWaitsForTheNodeUnlessForced() throws {
        var cluster = try Cluster()
        try cluster.addNode("n1")
        try cluster.perform(.createContainer(CreateContainer(name: "db", pod: cluster.pod())))
        cluster.obey()
        cluster.away = ["n1"]
        cluster.pass(seconds: 20)
        #expect(cluster.problem(.removeContainer("db", force: false))?.message.contains("--force") == true)
        try cluster.perform(.act("db", .stop, ContainerAction()))
        try cluster.perform(.removeContainer("db", force: false))
        #expect(try cluster.container("db").conditions.first?.message.contains("removed when the node is back") == true)
        var forced = cluster
        try forced.perform(.removeContainer("db", force: true))
        #expect(forced.keys("tasks/") + forced.keys("workloads/") == [])
        try cluster.connect("n1")
        cluster.obey()
        #expect(cluster.keys("tasks/") + cluster.keys("workloads/") == [])
    }

    @Test func aForceJustAfterTheMastersStartGivesNothingUp() throws {
        var cluster = try Cluster()
        try cluster.addNode("n1")
        try cluster.perform(.createContainer(CreateContainer(name: "db", pod: cluster.pod())))
        cluster.obey()
        try cluster.restart()
        try cluster.perform(.removeContainer("db", force: true))
        #expect(cluster.keys("tasks/").count == 1)
    }

    @Test func scalingDownTakesBothTasks() throws {
        var cluster = try lost(for: 70)
        cluster.obey()
        try cluster.perform(.updateService("web", UpdateService(scale: .replicated(0))))
        cluster.obey()
        #expect(cluster.keys("tasks/").count == 1)
        try cluster.connect("n1")
        cluster.obey()
        #expect(cluster.keys("tasks/") + cluster.keys("instances/") == [])
    }

    @Test func whatIsDueByTimeIsDoneAlthoughTheStoreFailsAtThatMoment() throws {
        var cluster = try lost(LossPolicy(giveUpAfter: 40), for: 20)
        try cluster.perform(.updateService("web", UpdateService(scale: .replicated(0))))
        cluster.pass(seconds: 19, heard: ["n2"])
        cluster.holdsCommits = true
        cluster.pass(seconds: 3, heard: ["n2"])
        #expect(!cluster.pending.isEmpty)
        cluster.failCommits(.full("no space left"))
        #expect(cluster.keys("tasks/").count == 1)
        cluster.holdsCommits = false
        cluster.pass(seconds: 2, heard: ["n2"])
        #expect(cluster.keys("tasks/") + cluster.keys("instances/") == [])
    }

    @Test func thatANodeIsAwayIsToldAlthoughTheStoreFailsAtThatMoment() throws {
        var cluster = try Cluster()
        try cluster.addNode("n1")
        try cluster.perform(.createContainer(CreateContainer(name: "db", pod: cluster.pod())))
        cluster.obey()
        cluster.holdsCommits = true
        cluster.send(.updateNode("n1", UpdateNode(setLabels: ["a": "b"])))
        cluster.pass(seconds: 20)
        cluster.send(.updateNode("n1", UpdateNode(setLabels: ["c": "d"])))
        cluster.containerLines = []
        // The first failure is followed by the write of all that happened meanwhile, which fails as well.
        cluster.failCommits(.full("no space left"))
        #expect(cluster.containerLines.isEmpty)
        cluster.pass(seconds: 1)
        #expect(cluster.containerLines.last?.object?.state == "unreachable")
    }

    @Test func aNodeThatMayStillBeThereIsNotRemoved() throws {
        var cluster = try lost(for: 20)
        try cluster.restart()
        #expect(cluster.problem(.removeNode("n1", force: true))?.message.contains("may still be there") == true)
        cluster.pass(seconds: 16, heard: ["n2"])
        try cluster.perform(.removeNode("n1", force: true))
    }

    @Test func aNodeIsNotRemovedWhileWhatItWasToldToRemoveMayStillRun() throws {
        var cluster = try Cluster()
        let pod = cluster.pod { $0.loss = LossPolicy(replaceAfter: 100, onDisconnect: .stopAfter(30)) }
        for node in ["n1", "n2"] { try cluster.addNode(node) }
        try cluster.perform(.createService(CreateService(name: "web", pod: pod)))
        cluster.obey()
        let (node, other) = try cluster.container("web.1").nodeName == "n1" ? ("n1", "n2") : ("n2", "n1")
        cluster.away = [node]
        try cluster.perform(.updateNode(node, UpdateNode(drain: DrainOrder(minimumAvailable: 0))))
        cluster.pass(seconds: 20, heard: [other])
        #expect(cluster.problem(.removeNode(node, force: true))?.message.contains("must not run twice") == true)
    }

    @Test func aNodeIsNotRemovedWhileSomethingOnItMayNotRunTwice() throws {
        var cluster = try lost(LossPolicy(replaceAfter: 100, onDisconnect: .stopAfter(30)), for: 46)
        // 30 s, the grace of 10, 5 s and a twentieth: 47 s.
        #expect(cluster.problem(.removeNode("n1", force: true))?.message.contains("must not run twice") == true)
        cluster.pass(seconds: 2, heard: ["n2"])
        try cluster.perform(.removeNode("n1", force: true))
        #expect(try cluster.container("web.1").nodeName == "n2")
    }
}
