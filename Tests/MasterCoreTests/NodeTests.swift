import JSON
import MasterCore
import Model
import Testing
import Wire

@Suite struct NodesOfTheCluster {
    @Test func silenceMakesANodeUnreachableAndKeepsItsTasks() throws {
        var cluster = try Cluster()
        try cluster.addNode("n1")
        try cluster.perform(.createContainer(CreateContainer(name: "web", pod: cluster.pod())))
        cluster.obey()
        cluster.pass(seconds: 14)
        #expect(try ready(&cluster))
        cluster.pass(seconds: 2)
        #expect(try !ready(&cluster))
        #expect(try cluster.container("web").nodeName == "n1")
        try cluster.perform(.report("n1", NodeReport()))
        #expect(try ready(&cluster))
        #expect(
            cluster.events.filter { $0.kind == "node" }.map(\.action) == ["register", "ready", "unreachable", "ready"])
    }

    func ready(_ cluster: inout Cluster) throws -> Bool {
        guard case .node(let view) = try cluster.query(.node("n1")) else { return false }
        return view.conditions.contains { $0.kind == .ready && $0.holds }
    }

    @Test func theRestartedMasterKnowsEverythingAgain() throws {
        var cluster = try Cluster()
        try cluster.addNode("n1")
        let pod = cluster.pod { $0.ports = [PortMapping(hostPort: 80, containerPort: 80)] }
        try cluster.perform(.createContainer(CreateContainer(name: "web", pod: pod)))
        cluster.obey()
        let before = try cluster.container("web")
        try cluster.restart()
        #expect(cluster.core.awaitsReports)
        let after = try cluster.container("web")
        #expect(after.id == before.id)
        #expect(after.task == before.task)
        #expect(after.status == before.status)
        // The image is unheard of until the node has told it again.
        #expect(cluster.problem(.createContainer(CreateContainer(pod: pod)))?.code == .noSuchImage)
        try cluster.perform(.report("n1", NodeReport(full: false)))
        #expect(cluster.core.awaitsReports)
    }

    @Test func aTaskThatTheNodeLostIsMadeAnew() throws {
        var cluster = try Cluster()
        try cluster.addNode("n1")
        try cluster.perform(.createService(CreateService(name: "web", pod: cluster.pod())))
        cluster.obey()
        let before = try cluster.container("web.1")
        try cluster.perform(.report("n1", NodeReport(full: true)))
        cluster.obey()
        let after = try cluster.container("web.1")
        #expect(after.task != before.task)
        #expect(after.id == before.id)
        #expect(after.status.phase == .running)
    }

    @Test func anAssignmentThatTheNodeHasNotSeenIsNotTakenAsLost() throws {
        var cluster = try Cluster()
        try cluster.addNode("n1")
        try cluster.perform(.createContainer(CreateContainer(name: "web", pod: cluster.pod())))
        let before = try cluster.container("web").task
        try cluster.perform(.report("n1", NodeReport(full: true)))
        #expect(try cluster.container("web").task == before)
    }

    @Test func reportsOfAnotherEpochOrNodeAreIgnored() throws {
        var cluster = try Cluster()
        try cluster.addNode("n1")
        try cluster.addNode("n2")
        try cluster.perform(.createContainer(CreateContainer(name: "web", pod: cluster.pod())))
        cluster.obey()
        let view = try cluster.container("web")
        let task = try #require(view.task)
        let lie = NodeReport.TaskReport(
            task: task, instance: view.instance, epoch: 1, status: TaskStatus(phase: .removed))
        let other = view.node == NodeID("n1") ? "n2" : "n1"
        try cluster.perform(.report(other, NodeReport(tasks: [lie])))
        var old = lie
        old.epoch = 0
        try cluster.perform(.report(view.nodeName, NodeReport(tasks: [old])))
        #expect(try cluster.container("web").status.phase == .running)
    }

    @Test func whatANodeTellsOfATaskIsBounded() throws {
        var cluster = try Cluster()
        try cluster.addNode("n1")
        try cluster.perform(.createContainer(CreateContainer(name: "web", pod: cluster.pod())))
        let task = try #require(cluster.assigned[NodeID("n1")]?.values.first)
        let long = String(repeating: "x", count: 100_000)
        let endpoint = NetworkEndpoint(network: long, address: long, gateway: long, mac: long)
        let container = ContainerStatus(name: long, id: ContainerID(long), reason: long)
        cluster.report(
            task, on: NodeID("n1"),
            TaskStatus(
                phase: .running, containers: Array(repeating: container, count: 100),
                addresses: Array(repeating: long, count: 100), endpoints: Array(repeating: endpoint, count: 1000),
                message: long))
        #expect(try cluster.container("web").status.endpoints.count == 64)
        let record = try #require(cluster.store["tasks/\(task.task)"])
        #expect(record.value.count < 64 << 10)
    }

    @Test func anotherClustersAgentAndATakenNameAreRefused() throws {
        var cluster = try Cluster()
        try cluster.addNode("n1")
        guard case .nodes(let nodes) = try cluster.query(.nodes) else { return }
        var node = nodes[0].node
        #expect(
            cluster.problem(.registerNode(NodeRegistration(node: node, clusterID: "other")))?.message
                .contains("belongs to the cluster other") == true)
        node.id = NodeID("n9")
        #expect(
            cluster.problem(.registerNode(NodeRegistration(node: node)))?.message.contains("has the name n1") == true)
        node.name = "n9"
        node.streamEndpoint = "tcp://somewhere"
        #expect(cluster.problem(.registerNode(NodeRegistration(node: node)))?.code == .badRequest)
    }

    @Test func labelsArePlacedByAndKeptOverReconnects() throws {
        var cluster = try Cluster()
        try cluster.addNode("n1")
        try cluster.addNode("n2")
        let pod = cluster.pod { $0.constraints = [Constraint("zone==b")].compactMap { $0 } }
        try cluster.perform(.createContainer(CreateContainer(name: "web", pod: pod)))
        #expect(
            try cluster.container("web").unschedulable?.message.hasPrefix("0 of 2 nodes: constraint zone==b on 2")
                == true)
        try cluster.perform(.updateNode("n2", UpdateNode(setLabels: ["zone": "b"])))
        #expect(try cluster.container("web").nodeName == "n2")
        guard case .node(let view) = try cluster.query(.node("n2")) else { return }
        var again = view.node
        again.labels = [:]
        try cluster.perform(.registerNode(NodeRegistration(node: again)))
        guard case .node(let kept) = try cluster.query(.node("n2")) else { return }
        #expect(kept.node.labels == ["zone": "b"])
        #expect(cluster.problem(.updateNode("n2", UpdateNode(setLabels: ["martlet.x": "1"])))?.code == .badRequest)
    }

    @Test func aNodeThatIsGoneCanBeRemovedWithItsTasks() throws {
        var cluster = try Cluster()
        try cluster.addNode("n1")
        try cluster.perform(.createService(CreateService(name: "web", pod: cluster.pod())))
        cluster.obey()
        #expect(cluster.problem(.removeNode("n1", force: true))?.message.contains("is connected") == true)
        try cluster.addNode("n2")
        cluster.pass(seconds: 20, heard: ["n2"])
        #expect(cluster.problem(.removeNode("n1", force: false))?.message.contains("1 tasks") == true)
        try cluster.perform(.removeNode("n1", force: true))
        #expect(try cluster.container("web.1").nodeName == "n2")
    }

    @Test func aTaskIsSmallInTheStore() throws {
        var cluster = try Cluster()
        try cluster.addNode("n1")
        let pod = cluster.pod { $0.ports = [PortMapping(hostPort: 80, containerPort: 80)] }
        try cluster.perform(.createContainer(CreateContainer(name: "web", pod: pod)))
        let task = try #require(cluster.assigned[NodeID("n1")]?.values.first)
        cluster.report(
            task, on: NodeID("n1"),
            TaskStatus(phase: .failed, generation: 1, message: String(repeating: "x", count: 5000)))
        let key = try #require(cluster.keys("tasks/").first)
        #expect((cluster.store[key]?.value.count ?? 0) <= 1024)
    }
}

@Suite struct TheStoresRecords {
    @Test func unknownFieldsAreLeftAloneAndDamageIsNamed() throws {
        let fine = StoreRecord(
            key: "cluster",
            value: Array(#"{"schema":1,"object":{"id":"c","createdAt":"2026-01-01T00:00:00Z","new":1}}"#.utf8),
            modificationRevision: 1)
        _ = try MasterCore(records: [fine], revision: 1)
        let damaged = StoreRecord(key: "tasks/x", value: Array("{".utf8), modificationRevision: 1)
        #expect { _ = try MasterCore(records: [damaged], revision: 1) } throws: { "\($0)".contains("'tasks/x'") }
        let newer = StoreRecord(
            key: "cluster", value: Array(#"{"schema":9,"object":{"id":"c","createdAt":"2026-01-01T00:00:00Z"}}"#.utf8),
            modificationRevision: 1)
        #expect { _ = try MasterCore(records: [newer], revision: 1) } throws: { "\($0)".contains("newer version") }
    }
}
