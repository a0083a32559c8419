import JSON
import MasterCore
import Model
import Testing
import Wire

/// What callers who are confined to a group, and nodes, cannot do whatever they send.
@Suite struct WhatIsRefused {
    let alice = Subject.user(TokenID("a"), name: "alice", role: .developer, group: "/a")
    let bob = Subject.user(TokenID("b"), name: "bob", role: .developer, group: "/b")

    func mounting(_ volume: String, _ cluster: Cluster) -> PodSpec {
        cluster.pod { $0.containers[0].mounts = [Mount(.volume(name: volume), target: "/data")] }
    }

    func volumes(_ cluster: inout Cluster, by subject: Subject) throws -> [String] {
        guard case .volumes(let views) = try cluster.query(.volumes, by: subject) else { return [] }
        return views.map { "\($0.name) \($0.group ?? "-")" }
    }

    // MARK: Volumes

    @Test func aVolumeIsItsFirstUsersGroups() throws {
        var cluster = try Cluster()
        try cluster.addNode("n1")
        try cluster.perform(.createContainer(CreateContainer(name: "db", pod: mounting("data", cluster))), by: bob)
        cluster.obey()
        try cluster.connect("n1", volumes: ["data"])
        #expect(try volumes(&cluster, by: bob) == ["data /b"])
        #expect(try volumes(&cluster, by: alice) == [])
        let theft = MasterCommand.createContainer(CreateContainer(name: "x", pod: mounting("data", cluster)))
        #expect(cluster.problem(theft, by: alice)?.code == .forbidden)
        let service = MasterCommand.createService(CreateService(name: "x", pod: mounting("data", cluster)))
        #expect(cluster.problem(service, by: alice)?.code == .forbidden)
        try cluster.perform(.createService(CreateService(name: "mine", pod: cluster.pod())), by: alice)
        let update = MasterCommand.updateService("mine", UpdateService(pod: mounting("data", cluster)))
        #expect(cluster.problem(update, by: alice)?.code == .forbidden)
        #expect(cluster.problem(.expectVolume("data", on: NodeID("n1"), group: nil), by: alice)?.code == .conflict)
        // It stays theirs when nobody uses it, and over a restart of the master.
        try cluster.perform(.removeContainer("db", force: true), by: bob)
        cluster.obey()
        try cluster.restart()
        try cluster.connect("n1", volumes: ["data"])
        #expect(cluster.problem(theft, by: alice)?.code == .forbidden)
        try cluster.perform(.createContainer(CreateContainer(name: "y", pod: mounting("data", cluster))), by: bob)
        try cluster.perform(.createContainer(CreateContainer(name: "z", pod: mounting("data", cluster))))
    }

    @Test func aVolumeThatNoNodeHasYetIsTakenToo() throws {
        var cluster = try Cluster()
        try cluster.addNode("n1")
        var pod = mounting("data", cluster)
        pod.constraints = [Constraint(label: "node.name", relation: .equal, value: "nowhere")]
        try cluster.perform(.createContainer(CreateContainer(name: "db", pod: pod)), by: bob)
        let theft = MasterCommand.createContainer(CreateContainer(name: "x", pod: mounting("data", cluster)))
        #expect(cluster.problem(theft, by: alice)?.code == .forbidden)
    }

    @Test func aVolumeThatIsMadeBelongsToItsMaker() throws {
        var cluster = try Cluster()
        try cluster.addNode("n1")
        try cluster.perform(.expectVolume("data", on: NodeID("n1"), group: nil), by: bob)
        // A report that was on its way takes nothing back.
        try cluster.perform(.report("n1", NodeReport(volumes: [])))
        #expect(try volumes(&cluster, by: bob) == [], "it is not there yet")
        #expect(cluster.problem(.expectVolume("data", on: NodeID("n1"), group: nil), by: alice)?.code == .conflict)
        try cluster.connect("n1", volumes: ["data"])
        #expect(try volumes(&cluster, by: bob) == ["data /b"])
        // One that never came is forgotten.
        try cluster.perform(.expectVolume("other", on: NodeID("n1"), group: "/b"))
        cluster.pass(seconds: 61, heard: ["n1"])
        try cluster.connect("n1", volumes: ["data"])
        #expect(cluster.keys("volumes/") == ["volumes/n1/data"])
        #expect(cluster.problem(.expectVolume("x", on: NodeID("n1"), group: "/b"), by: alice)?.code == .forbidden)
    }

    @Test func whatWasMadeWithoutAGroupIsNoDevelopers() throws {
        var cluster = try Cluster()
        try cluster.addNode("n1")
        try cluster.connect("n1", volumes: ["data"])
        let theft = MasterCommand.createContainer(CreateContainer(name: "x", pod: mounting("data", cluster)))
        #expect(cluster.problem(theft, by: alice)?.code == .forbidden)
    }

    // MARK: Names

    @Test func anotherGroupsServiceDoesNotExist() throws {
        var cluster = try Cluster()
        try cluster.addNode("n1")
        try cluster.perform(
            .createService(CreateService(name: "web", pod: cluster.pod(), scale: .replicated(3))), by: bob)
        let nothing = cluster.problem(.act("nothing", .stop, ContainerAction()), by: alice)
        let theirs = cluster.problem(.act("web", .stop, ContainerAction()), by: alice)
        #expect(theirs?.code == .notFound)
        #expect(theirs?.message == nothing?.message.replacing("nothing", with: "web"))
    }

    @Test func whatPrivilegesADeveloperAsksForIsForbidden() throws {
        var cluster = try Cluster()
        try cluster.addNode("n1")
        let pods = [
            cluster.pod { $0.network = .host },
            cluster.pod { $0.containers[0].mounts = [Mount(.bind(path: "/etc"), target: "/x")] },
            cluster.pod { $0.containers[0].capabilitiesAdded = ["CAP_SYS_ADMIN"] },
            cluster.pod { $0.containers[0].devices = ["/dev/null"] },
        ]
        for pod in pods {
            #expect(cluster.problem(.createContainer(CreateContainer(pod: pod)), by: alice)?.code == .forbidden)
            #expect(cluster.problem(.createContainer(CreateContainer(pod: pod))) == nil)
        }
    }

    // MARK: Nodes

    func node(_ id: String, _ change: (inout Node) -> Void = { _ in }) -> NodeRegistration {
        var node = Node(
            id: NodeID(id), name: id, platform: Platform(os: "linux", architecture: "amd64"),
            capacity: Resources(cpu: 4_000_000_000, memory: 1 << 30), address: "127.0.0.1",
            streamEndpoint: "https://10.0.0.1:7071", agentVersion: "1", kernelVersion: "6", bootID: "b",
            createdAt: Timestamp(nanoseconds: 0))
        change(&node)
        return NodeRegistration(node: node)
    }

    @Test func anotherMachineNamesNoSocketOfTheMasters() throws {
        var cluster = try Cluster()
        try cluster.perform(.registerNode(node("n1")))
        let socket = node("n1") { $0.streamEndpoint = "unix:/run/martlet/agent.sock" }
        #expect(cluster.problem(.registerNode(socket), by: .node(NodeID("n1")))?.code == .forbidden)
        #expect(cluster.problem(.registerNode(node("n1")), by: .node(NodeID("n1"))) == nil)
        #expect(cluster.problem(.registerNode(socket), by: .local(uid: 0)) == nil)
    }

    @Test(arguments: [Int64.min, -1, .max])
    func amountsThatCannotBeAreRefused(amount: Int64) throws {
        var cluster = try Cluster()
        let changes: [(inout Node) -> Void] = [
            { $0.capacity.cpu = amount }, { $0.capacity.memory = amount }, { $0.capacity.disk = amount },
        ]
        for change in changes {
            #expect(cluster.problem(.registerNode(node("n1", change)))?.code == .badRequest)
        }
    }

    @Test func noNodesIdIsAnothersName() throws {
        var cluster = try Cluster()
        try cluster.perform(.registerNode(node("n1") { $0.name = "first" }))
        #expect(cluster.problem(.registerNode(node("first") { $0.name = "x" }))?.code == .conflict)
        #expect(cluster.problem(.registerNode(node("n2") { $0.name = "n1" }))?.code == .conflict)
    }

    @Test func aNodeTellsOfItsOwnContainersOnly() throws {
        var cluster = try Cluster()
        for name in ["n1", "n2"] { try cluster.addNode(name) }
        let pod = cluster.pod { $0.constraints = [Constraint(label: "node.name", relation: .equal, value: "n1")] }
        try cluster.perform(.createContainer(CreateContainer(name: "c", pod: pod)))
        cluster.obey()
        let id = try cluster.container("c").id.text
        func event(_ kind: String, _ text: String = "") -> Event {
            Event(time: cluster.now, kind: kind, action: "die", id: id, name: "c", attributes: ["x": text])
        }
        func told(by node: String, _ event: Event) throws -> Bool {
            let before = cluster.events.count
            try cluster.perform(.report(node, NodeReport(events: [event])))
            return cluster.events.count > before
        }
        #expect(try told(by: "n1", event("container")))
        #expect(try !told(by: "n2", event("container")))
        #expect(try !told(by: "n1", event("token")))
        #expect(try !told(by: "n1", event("container", String(repeating: "x", count: 5000))))
    }

    @Test func whatANodeReportsStaysSmall() throws {
        var cluster = try Cluster()
        try cluster.addNode("n1")
        try cluster.perform(.createContainer(CreateContainer(name: "c", pod: cluster.pod())))
        cluster.obey()
        let task = try #require(cluster.assigned[NodeID("n1")]?.values.first)
        // One letter with a great many marks on it is one character.
        let long = "a" + String(repeating: "\u{301}", count: 100_000)
        var status = TaskStatus(phase: .running, message: long)
        status.containers = [ContainerStatus(name: "main", id: task.containers[0], reason: long)]
        cluster.report(task, on: NodeID("n1"), status)
        let stored = cluster.store.filter { $0.key.hasPrefix("tasks/") }.values.map(\.value.count)
        #expect(stored.count == 1 && stored.allSatisfy { $0 < 10_000 })
    }
}
