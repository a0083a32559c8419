import JSON
import MasterCore
import Model
import Testing
import Wire

/// Swarm classic's ways: affinities between containers, and containers that are rescheduled.
@Suite struct CompanyAndLoss {
    private func create(
        _ cluster: inout Cluster, _ name: String, affinities: [String] = [], constraints: [String] = [],
        labels: [String: String] = [:], loss: LossPolicy? = nil, volume: String? = nil
    ) throws {
        let pod = cluster.pod {
            $0.affinities = affinities.compactMap { Constraint($0) }
            $0.constraints = constraints.compactMap { Constraint($0) }
            $0.loss = loss
            if let volume { $0.containers[0].mounts = [Mount(.volume(name: volume), target: "/data")] }
        }
        try cluster.perform(.createContainer(CreateContainer(name: name, pod: pod, labels: labels)))
        cluster.obey()
    }

    private func cluster() throws -> Cluster {
        var cluster = try Cluster()
        for node in ["n1", "n2", "n3"] { try cluster.addNode(node) }
        return cluster
    }

    @Test(arguments: ["container==db", "container==/^d/", "tier==back", "of==image"])
    func containersFollowEachOther(affinity: String) throws {
        var cluster = try cluster()
        try create(&cluster, "db", constraints: ["node==n3"], labels: ["tier": "back", "of": "image"])
        try create(&cluster, "web", affinities: [affinity])
        #expect(try cluster.container("web").nodeName == "n3")
        try create(&cluster, "other", affinities: [affinity.replacing("==", with: "!=")])
        #expect(try cluster.container("other").nodeName != "n3")
    }

    @Test func anIdWillDo() throws {
        var cluster = try cluster()
        try create(&cluster, "db", constraints: ["node==n2"])
        try create(&cluster, "web", affinities: ["container==\(try cluster.container("db").id)"])
        #expect(try cluster.container("web").nodeName == "n2")
    }

    @Test func whoeverWaitsForAnotherGoesWhereItComes() throws {
        var cluster = try cluster()
        try create(&cluster, "third", affinities: ["container==second"])
        try create(&cluster, "second", affinities: ["container==first"])
        #expect(try cluster.container("third").nodeName == "")
        #expect(try cluster.container("second").unschedulable?.message.contains("affinity container==first") == true)
        try create(&cluster, "first", constraints: ["node==n2"])
        #expect(try ["first", "second", "third"].map { try cluster.container($0).nodeName } == ["n2", "n2", "n2"])
    }

    @Test func whatIsGoneIsAvoidedNoMore() throws {
        var cluster = try Cluster()
        try cluster.addNode("n1")
        try create(&cluster, "a", labels: ["app": "web"])
        try create(&cluster, "b", affinities: ["app!=web"])
        #expect(try cluster.container("b").nodeName == "")
        cluster.send(.removeContainer("a", force: true))
        cluster.obey()
        #expect(try cluster.container("b").nodeName == "n1")
    }

    @Test func anExpressionThatIsNoneIsRefused() throws {
        var cluster = try cluster()
        let pod = cluster.pod { $0.affinities = [Constraint("container==/(/")].compactMap(\.self) }
        let problem = cluster.problem(.createContainer(CreateContainer(name: "web", pod: pod)))
        #expect(problem?.code == .badRequest)
        #expect(problem?.message.contains("$.pod.affinities[0].value") == true)
    }

    @Test func aContainerIsRescheduledUnderItsIdAndName() throws {
        var cluster = try cluster()
        try create(&cluster, "web", constraints: ["node==~n1"], loss: LossPolicy(replaceAfter: 60))
        let before = try cluster.container("web")
        #expect(before.nodeName == "n1")
        cluster.away = ["n1"]
        cluster.pass(seconds: 90, heard: ["n2", "n3"])
        cluster.obey()
        let after = try cluster.container("web")
        #expect(after.id == before.id)
        #expect(["n2", "n3"].contains(after.nodeName))
        #expect(after.state == "running")
    }

    @Test func itsVolumeTiesItToItsNode() throws {
        var cluster = try cluster()
        try create(&cluster, "db", constraints: ["node==~n1"], loss: LossPolicy(replaceAfter: 60), volume: "data")
        cluster.away = ["n1"]
        cluster.pass(seconds: 90, heard: ["n2", "n3"])
        cluster.obey()
        let view = try cluster.container("db")
        #expect(view.displaced.map(\.nodeName) == ["n1"] || view.nodeName == "n1")
        #expect(!["n2", "n3"].contains(view.nodeName))
    }

    @Test func countsAreOfWhatTheCallerSees() throws {
        var cluster = try cluster()
        try create(&cluster, "a", constraints: ["node==n1"])
        try create(&cluster, "b", constraints: ["node==n1"])
        try create(&cluster, "c", constraints: ["node==nowhere"])
        try cluster.perform(.act("b", .stop, ContainerAction()))
        cluster.obey()
        guard case .counts(let counts) = try cluster.query(.counts) else { throw Cluster.Unexpected() }
        #expect(counts.containers.all == 3)
        #expect(counts.containers.running == 1)
        #expect(counts.onNodes[NodeID("n1")]?.all == 2)
        #expect(counts.images == 1)
        let developer = Subject.user(TokenID("t"), name: "", role: .developer, group: "/team")
        guard case .counts(let own) = try cluster.query(.counts, by: developer) else { throw Cluster.Unexpected() }
        #expect(own.containers.all == 0)
    }
}
