import JSON
import MasterCore
import Model
import Testing
import Wire

@Suite struct EvenSpreading {
    /// A service of four on n1 alone; then n2 joins.
    func joined(_ change: (inout PodSpec) -> Void = { _ in }) throws -> Cluster {
        var cluster = try Cluster()
        try cluster.addNode("n1")
        try cluster.perform(
            .createService(CreateService(name: "web", pod: cluster.pod(change), scale: .replicated(4))))
        cluster.obey()
        try cluster.addNode("n2")
        return cluster
    }

    func counts(_ cluster: Cluster) throws -> [String: Int] {
        var copy = cluster
        return Dictionary(grouping: try copy.containers(), by: \.nodeName).mapValues(\.count)
    }

    func pass(_ cluster: inout Cluster, seconds: Int) {
        for _ in 0..<seconds {
            cluster.pass(seconds: 1)
            for node in ["n1", "n2"] { cluster.send(.report(node, NodeReport())) }
            cluster.obey()
        }
    }

    @Test func instancesMoveToANodeThatJoinedOneAfterAnother() throws {
        var cluster = try joined()
        pass(&cluster, seconds: 9)
        #expect(cluster.assigned[NodeID("n2")] == [:])
        var most = 0
        for _ in 0..<40 {
            pass(&cluster, seconds: 1)
            most = max(most, cluster.keys("tasks/").count)
            #expect(try cluster.service("web").serving == 4)
        }
        #expect(most == 5)
        #expect(try counts(cluster) == ["n1": 2, "n2": 2])
        #expect(
            cluster.events.filter { $0.action == "moved" }.map(\.attributes["reason"]) == ["rebalanced", "rebalanced"])
        pass(&cluster, seconds: 30)
        #expect(cluster.events.count { $0.action == "moved" } == 2)
    }

    @Test func aNodeThatStaysAwayHoldsNothingUp() throws {
        var cluster = try Cluster()
        for node in ["n0", "n1"] { try cluster.addNode(node) }
        try cluster.perform(.createService(CreateService(name: "web", pod: cluster.pod(), scale: .replicated(4))))
        cluster.obey()
        cluster.away = ["n0"]
        for _ in 0..<20 {
            cluster.pass(seconds: 5, heard: ["n1"])
            cluster.obey()
        }
        #expect(try counts(cluster) == ["n1": 4])
        try cluster.addNode("n2")
        pass(&cluster, seconds: 60)
        #expect(try counts(cluster) == ["n1": 2, "n2": 2])
        try cluster.connect("n0")
        cluster.obey()
        #expect(cluster.keys("tasks/").count == 4)
    }

    @Test func whatIsTiedOrPackedStays() throws {
        let changes: [(inout PodSpec) -> Void] = [
            { $0.strategy = .binpack }, { $0.strategy = .random },
            { $0.containers[0].mounts = [Mount(.volume(name: "data"), target: "/data")] },
            { $0.loss = LossPolicy(onDisconnect: .stopAfter(30)) },
        ]
        for change in changes {
            var cluster = try joined(change)
            pass(&cluster, seconds: 30)
            #expect(try counts(cluster) == ["n1": 4])
        }
    }

    @Test func aMoveThatDoesNotComeToServeIsTakenBack() throws {
        var cluster = try joined()
        let before = try cluster.containers().map(\.task)
        for _ in 0..<140 {
            cluster.pass(seconds: 1)
            for node in ["n1", "n2"] { cluster.send(.report(node, NodeReport())) }
        }
        cluster.obey()
        #expect(try cluster.containers().map(\.task) == before)
        #expect(cluster.keys("tasks/").count == 4)
        // And it is not tried again at once, but later, although nothing else happens.
        pass(&cluster, seconds: 30)
        #expect(cluster.keys("tasks/").count == 4)
        pass(&cluster, seconds: 700)
        #expect(try counts(cluster) == ["n1": 2, "n2": 2])
    }

    @Test func whatHasToServeForAWhileIsNotForgottenMeanwhile() throws {
        var cluster = try joined()
        try cluster.perform(.updateService("web", UpdateService(update: UpdatePolicy(monitor: 60))))
        // Nodes tell of what they do, and then of nothing for longer than the time.
        for _ in 0..<6 {
            cluster.obey()
            cluster.pass(seconds: 70, heard: ["n1", "n2"])
        }
        #expect(try counts(cluster) == ["n1": 2, "n2": 2])
    }
}

@Suite struct CopiesOfImages {
    func image(_ digest: String, _ names: String...) -> ImageView {
        ImageView(
            names: names, digest: "sha256:" + String(repeating: digest, count: 64), id: "sha256:" + digest, size: 1,
            platform: Platform(os: "linux", architecture: "amd64"), createdAt: nil)
    }

    /// Three nodes that have nothing but what is given.
    func cluster(_ images: [ImageView]...) throws -> Cluster {
        var cluster = try Cluster()
        for (index, images) in images.enumerated() {
            try cluster.addNode("n\(index + 1)")
            try cluster.perform(.report("n\(index + 1)", NodeReport(full: true, images: images)))
        }
        cluster.transfers = []
        cluster.step(.tick)
        return cluster
    }

    func digest(_ letter: String) -> String { image(letter).digest }

    @Test func eachNamedImageIsKeptTwice() throws {
        var cluster = try cluster([image("a", "x:1"), image("b")], [image("c", "y:1")], [image("c", "y:1")])
        #expect(cluster.transfers == ["x:1 a n1-n2"])
        cluster.pass(seconds: 3, heard: ["n1", "n2", "n3"])
        #expect(cluster.transfers.count == 1)
        try cluster.perform(.report("n2", NodeReport(images: [image("a", "x:1"), image("c", "y:1")])))
        cluster.step(.replicated(digest: digest("a"), to: NodeID("n2"), failure: nil))
        cluster.pass(seconds: 30, heard: ["n1", "n2", "n3"])
        #expect(cluster.transfers.count == 1)
    }

    /// A node that was away while its image's name was given to other content.
    @Test func ofANameThatMeansTwoThingsTheLaterCounts() throws {
        func named(_ letter: String, _ seconds: Int64) -> ImageView {
            var view = image(letter, "x:1")
            view.namedAt = ["x:1": Timestamp(nanoseconds: seconds * 1_000_000_000)]
            return view
        }
        var cluster = try cluster([named("a", 10)], [named("b", 20)], [named("b", 20)])
        #expect(cluster.untagged == ["x:1 a n1"])
        guard case .nodes(let views) = try cluster.query(.imageNodes("x:1")) else {
            Issue.record("it is on nodes")
            return
        }
        #expect(views.map(\.node.name) == ["n2", "n3"])
        try cluster.perform(.report("n1", NodeReport(images: [image("a")])))
        cluster.step(.tick)
        #expect(cluster.untagged.count == 1)
    }

    @Test func twoAreUnderWayAtATime() throws {
        var cluster = try cluster([image("a", "x:1"), image("b", "x:2"), image("c", "x:3")], [])
        #expect(cluster.transfers == ["x:1 a n1-n2", "x:2 b n1-n2"])
        cluster.step(.replicated(digest: digest("b"), to: NodeID("n2"), failure: "full"))
        cluster.step(.tick)
        #expect(cluster.transfers.last == "x:3 c n1-n2")
        #expect(cluster.events.last?.action == "replication_failed")
    }

    @Test func aFailureIsRepeatedWithGrowingPauses() throws {
        var cluster = try cluster([image("a", "x:1")], [])
        var pauses: [Int] = []
        for _ in 0..<8 {
            cluster.step(.replicated(digest: digest("a"), to: NodeID("n2"), failure: "full"))
            let before = cluster.transfers.count
            var pause = 0
            while cluster.transfers.count == before, pause < 1000 {
                cluster.pass(seconds: 5, heard: ["n1", "n2"])
                pause += 5
            }
            pauses.append(pause)
        }
        #expect(pauses == [10, 20, 40, 80, 160, 320, 600, 600])
    }

    @Test func drainedNodesAndImagesThatGoGetNone() throws {
        var cluster = try cluster([image("a", "x:1")])
        cluster.step(.removingImage(digest: digest("a"), isUnderway: true))
        try cluster.addNode("n2")
        try cluster.perform(.report("n2", NodeReport(full: true, images: [])))
        cluster.step(.tick)
        #expect(cluster.transfers == [])
        try cluster.perform(.updateNode("n2", UpdateNode(availability: .cordoned)))
        cluster.step(.removingImage(digest: digest("a"), isUnderway: false))
        cluster.step(.tick)
        #expect(cluster.transfers == [])
        try cluster.perform(.updateNode("n2", UpdateNode(availability: .active)))
        cluster.step(.tick)
        #expect(cluster.transfers == ["x:1 a n1-n2"])
    }

    @Test func aNameWithTwoMeaningsIsLeftAlone() throws {
        let cluster = try cluster([image("a", "x:1", "x:2")], [image("b", "x:1")])
        #expect(cluster.transfers == ["x:2 a n1-n2"])
    }

    @Test func aTargetThatGoesAwayIsReplaced() throws {
        var cluster = try cluster([image("a", "x:1")], [], [])
        #expect(cluster.transfers == ["x:1 a n1-n2"])
        cluster.pass(seconds: 20, heard: ["n1", "n3"])
        #expect(cluster.transfers == ["x:1 a n1-n2", "x:1 a n1-n3"])
    }
}
