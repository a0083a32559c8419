import JSON
import MasterCore
import Model
import Testing
import Wire

/// Who has which device of a node, and until when.
@Suite struct DeviceGrants {
    static func gpus(_ ids: [String], _ change: (inout NodeDevice) -> Void = { _ in }) -> [NodeDevice] {
        ids.map { id in
            var device = NodeDevice(id: id, vendor: "nvidia", model: "NVIDIA H200", memoryBytes: 141 << 30)
            change(&device)
            return device
        }
    }

    /// A cluster of these nodes, each with the GPUs named.
    static func cluster(_ nodes: [(String, [String])], _ change: (inout NodeDevice) -> Void = { _ in }) throws
        -> Cluster
    {
        var cluster = try Cluster()
        for (name, ids) in nodes {
            try cluster.addNode(name)
            cluster.send(.report(name, NodeReport(devices: gpus(ids, change))))
        }
        return cluster
    }

    static func run(_ name: String, _ claims: [DeviceClaim] = [DeviceClaim()], in cluster: inout Cluster) throws {
        let pod = cluster.pod { $0.containers[0].deviceClaims = claims }
        try cluster.perform(.createContainer(CreateContainer(name: name, pod: pod)))
        cluster.obey()
    }

    /// `node/id` of what the container has.
    static func devices(of name: String, in cluster: inout Cluster) throws -> [String] {
        let view = try cluster.container(name)
        return view.grantedDevices.flatMap(\.devices).map { "\(view.nodeName)/\($0)" }
    }

    @Test func aContainerAndItsNodeAreToldWhatItGot() throws {
        var cluster = try Self.cluster([("n1", ["a", "b"])])
        try Self.run("one", [DeviceClaim(ids: ["b"])], in: &cluster)
        let grant = DeviceGrant(container: "main", claim: 0, devices: ["b"])
        #expect(try cluster.container("one").grantedDevices == [grant])
        #expect(cluster.assigned[NodeID("n1")]?.values.map(\.grantedDevices) == [[grant]])
        let stored = try #require(cluster.keys("tasks/").first.flatMap { cluster.store[$0]?.value })
        #expect(String(decoding: stored, as: UTF8.self).contains(#""schema":3"#))
    }

    @Test func nobodyGetsWhatAnotherHas() throws {
        var cluster = try Self.cluster([("n1", ["a", "b"])])
        try Self.run("one", in: &cluster)
        try Self.run("two", in: &cluster)
        try Self.run("three", in: &cluster)
        let had = try Self.devices(of: "one", in: &cluster) + Self.devices(of: "two", in: &cluster)
        #expect(had.sorted() == ["n1/a", "n1/b"])
        #expect(try cluster.container("three").unschedulable?.message == "0 of 1 node: gpus taken on 1")
        try cluster.perform(.removeContainer("one", force: true))
        cluster.obey()
        #expect(try Self.devices(of: "three", in: &cluster) == [had[0]])
    }

    @Test func allOfOneTransactionGetDifferentOnes() throws {
        var cluster = try Self.cluster([("n1", (0..<6).map { "g\($0)" }), ("n2", ["h0", "h1"])])
        let pod = cluster.pod { $0.containers[0].deviceClaims = [DeviceClaim(count: 2)] }
        try cluster.perform(.createService(CreateService(name: "web", pod: pod, scale: .replicated(5))))
        cluster.obey()
        let all = try cluster.containers().flatMap { view in view.grantedDevices.flatMap(\.devices) }
        #expect(Set(all).count == 8 && all.count == 8)
        #expect(try cluster.service("web").waiting.contains("gpus taken on"))
    }

    @Test func sharesAreGivenOutOneByOne() throws {
        var cluster = try Self.cluster([("n1", ["a"])]) { $0.shares = 2 }
        for name in ["one", "two", "three"] { try Self.run(name, [DeviceClaim(sharing: .share)], in: &cluster) }
        #expect(try Self.devices(of: "one", in: &cluster) == ["n1/a"])
        #expect(try Self.devices(of: "two", in: &cluster) == ["n1/a"])
        #expect(try Self.devices(of: "three", in: &cluster) == [])
    }

    @Test func theyAreKeptOverAMastersRestart() throws {
        var cluster = try Self.cluster([("n1", ["a", "b"])])
        try Self.run("one", in: &cluster)
        let had = try Self.devices(of: "one", in: &cluster)
        try cluster.restart()
        try cluster.connect("n1")
        // It has yet to tell what it has.
        try Self.run("two", in: &cluster)
        #expect(try cluster.container("two").unschedulable?.message == "0 of 1 node: no gpu on 1")
        cluster.send(.report("n1", NodeReport(devices: Self.gpus(["a", "b"]))))
        cluster.obey()
        #expect(try Self.devices(of: "one", in: &cluster) == had)
        #expect(try Set(Self.devices(of: "two", in: &cluster) + had) == ["n1/a", "n1/b"])
    }

    @Test func aFailedCommitGivesNothing() throws {
        var cluster = try Self.cluster([("n1", ["a"])])
        cluster.holdsCommits = true
        let pod = cluster.pod { $0.containers[0].deviceClaims = [DeviceClaim()] }
        cluster.send(.createContainer(CreateContainer(name: "one", pod: pod)))
        cluster.failCommits(.full("disk"))
        cluster.holdsCommits = false
        try Self.run("two", in: &cluster)
        #expect(try Self.devices(of: "two", in: &cluster) == ["n1/a"])
    }

    // MARK: Until when

    @Test func whatEndedHoldsNothingAndStartsWithWhatIsFree() throws {
        var cluster = try Self.cluster([("n1", ["a", "b"])])
        try Self.run("one", [DeviceClaim(ids: ["a"])], in: &cluster)
        try Self.run("any", in: &cluster)
        #expect(try Self.devices(of: "any", in: &cluster) == ["n1/b"])
        for name in ["one", "any"] { try cluster.perform(.act(name, .stop, ContainerAction())) }
        // Until its node has told, they are its own.
        try Self.run("early", [DeviceClaim(ids: ["b"])], in: &cluster)
        #expect(try Self.devices(of: "early", in: &cluster) == ["n1/b"])
        try cluster.perform(.act("any", .start, ContainerAction()))
        cluster.obey()
        #expect(try Self.devices(of: "any", in: &cluster) == ["n1/a"])
        #expect(
            cluster.assigned[NodeID("n1")]?.values.first { $0.instanceName == "any" }?.grantedDevices.first?.devices
                == ["a"])
        let refusal = cluster.problem(.act("one", .start, ContainerAction()))
        #expect(refusal?.code == .conflict)
        #expect(
            refusal?.message
                == "the container one cannot be started: its node n1 has no devices for it: gpus taken; stop others there, "
                + "or remove it and run it anew")
        #expect(try cluster.container("one").desired == .stopped)
        try cluster.perform(.removeContainer("any", force: true))
        cluster.obey()
        try cluster.perform(.act("one", .start, ContainerAction()))
        cluster.obey()
        #expect(try Self.devices(of: "one", in: &cluster) == ["n1/a"])
    }

    @Test func whatIsBeingStoppedKeepsThem() throws {
        var cluster = try Self.cluster([("n1", ["a"])])
        try Self.run("one", in: &cluster)
        cluster.away = ["n1"]
        try cluster.perform(.act("one", .stop, ContainerAction()))
        try Self.run("two", in: &cluster)
        #expect(try Self.devices(of: "two", in: &cluster) == [])
        cluster.away = []
        try cluster.connect("n1")
        cluster.obey()
        #expect(try Self.devices(of: "two", in: &cluster) == ["n1/a"])
    }

    @Test func aRestartOfWhatRunsKeepsThem() throws {
        var cluster = try Self.cluster([("n1", ["a", "b"])])
        try Self.run("one", in: &cluster)
        let had = try Self.devices(of: "one", in: &cluster)
        try cluster.perform(.act("one", .restart, ContainerAction()))
        cluster.obey()
        #expect(try Self.devices(of: "one", in: &cluster) == had)
        // It waits for its restart by policy: nothing changes hands.
        let task = try #require(cluster.assigned[NodeID("n1")]?.values.first)
        cluster.report(
            task, on: NodeID("n1"),
            TaskStatus(phase: .exited, generation: task.generation, restartAt: cluster.now.adding(seconds: 60)))
        try Self.run("two", [DeviceClaim(count: 2)], in: &cluster)
        #expect(try cluster.container("two").unschedulable != nil)
    }

    @Test func aSilentNodesDevicesStayItsTasksAndTheReplacementGetsOthers() throws {
        var cluster = try Self.cluster([("n1", ["a"])])
        let pod = cluster.pod {
            $0.containers[0].deviceClaims = [DeviceClaim()]
            $0.loss = LossPolicy(replaceAfter: 20)
        }
        try cluster.perform(.createService(CreateService(name: "web", pod: pod)))
        cluster.obey()
        try cluster.addNode("n2")
        cluster.send(.report("n2", NodeReport(devices: Self.gpus(["x"]))))
        cluster.away = ["n1"]
        cluster.pass(seconds: 40, heard: ["n2"])
        cluster.obey()
        #expect(try Self.devices(of: "web.1", in: &cluster) == ["n2/x"])
        guard case .devices(let views) = try cluster.query(.devices(node: "n1")) else { throw Cluster.Unexpected() }
        #expect(views.map { $0.holders.map(\.name) } == [["web.1"]])
    }

    /// The master gave a task up; its node comes back with it.
    @Test func whatAForgottenTaskHoldsIsGivenToNobody() throws {
        var cluster = try Self.cluster([("n1", ["a"])])
        try Self.run("one", in: &cluster)
        let task = try #require(try cluster.container("one").task)
        cluster.away = ["n1"]
        cluster.pass(seconds: 30)
        try cluster.perform(.removeContainer("one", force: true))
        try cluster.perform(.removeNode("n1", force: true))
        #expect(cluster.keys("tasks/").isEmpty)
        let held = Self.gpus(["a"]) { $0.heldBy = [task] }
        try cluster.addNode("n1")
        cluster.send(.report("n1", NodeReport(devices: held)))
        try Self.run("two", in: &cluster)
        #expect(try cluster.container("two").unschedulable?.message == "0 of 1 node: gpus taken on 1")
        guard case .device(let view) = try cluster.query(.device("a", node: nil)) else { throw Cluster.Unexpected() }
        #expect(view.holders.map(\.isForgotten) == [true])
        let over = NodeReport.TaskReport(
            task: task, instance: InstanceID("i"), epoch: 1, status: TaskStatus(phase: .removed))
        cluster.send(.report("n1", NodeReport(tasks: [over])))
        cluster.obey()
        #expect(try Self.devices(of: "two", in: &cluster) == ["n1/a"])
    }

    @Test func sickAndGoneDevicesKeepTheirOwnersAndGetNoNew() throws {
        var cluster = try Self.cluster([("n1", ["a", "b"])])
        try Self.run("one", [DeviceClaim(ids: ["a"])], in: &cluster)
        let sick = Self.gpus(["a", "b"]) { device in
            if device.id == "b" { device.health = .init(.unusable, reasons: ["XID 48"]) } else { device.isGone = true }
        }
        cluster.send(.report("n1", NodeReport(devices: sick)))
        cluster.obey()
        #expect(try Self.devices(of: "one", in: &cluster) == ["n1/a"])
        #expect(try cluster.container("one").status.phase == .running)
        try Self.run("two", in: &cluster)
        #expect(try cluster.container("two").unschedulable?.message == "0 of 1 node: gpu in order on 1")
        // When it is well again, who waited gets it without being asked.
        cluster.send(.report("n1", NodeReport(devices: Self.gpus(["a", "b"]))))
        cluster.obey()
        #expect(try Self.devices(of: "two", in: &cluster) == ["n1/b"])
    }

    // MARK: Services

    @Test func aGlobalServiceIsWhereTheDevicesAre() throws {
        var cluster = try Self.cluster([("n1", ["a"]), ("n2", []), ("n3", ["c"])])
        let pod = cluster.pod { $0.containers[0].deviceClaims = [DeviceClaim()] }
        try cluster.perform(.createService(CreateService(name: "web", pod: pod, scale: .global)))
        cluster.obey()
        #expect(Set(try cluster.containers().map(\.nodeName)) == ["n1", "n3"])
        // A device that goes takes nothing with it; one that comes brings an instance.
        cluster.send(.report("n1", NodeReport(devices: Self.gpus(["a"]) { $0.isGone = true })))
        cluster.send(.report("n2", NodeReport(devices: Self.gpus(["b"]))))
        cluster.obey()
        #expect(Set(try cluster.containers().map(\.nodeName)) == ["n1", "n2", "n3"])
        // A new master does not take away what nodes are yet to tell of.
        try cluster.restart()
        cluster.pass(seconds: 1)
        #expect(cluster.keys("tasks/").count == 3)
    }

    @Test func anInstanceThatCannotStartAgainWaitsWithTheReason() throws {
        var cluster = try Self.cluster([("n1", ["a"])])
        let pod = cluster.pod {
            $0.containers[0].deviceClaims = [DeviceClaim()]
            $0.restart = RestartPolicy(.onFailure)
        }
        try cluster.perform(.createService(CreateService(name: "web", pod: pod)))
        cluster.obey()
        let task = try #require(cluster.assigned[NodeID("n1")]?.values.first)
        // It came to its end by itself.
        cluster.report(task, on: NodeID("n1"), TaskStatus(phase: .exited, generation: task.generation))
        try cluster.perform(
            .createContainer(
                CreateContainer(name: "other", pod: cluster.pod { $0.containers[0].deviceClaims = [DeviceClaim()] })))
        #expect(try Self.devices(of: "other", in: &cluster) == ["n1/a"])
        let refusal = cluster.problem(.act("web.1", .restart, ContainerAction()))
        #expect(
            refusal?.message.contains("has no devices for it: gpus taken") == true, "\(String(describing: refusal))")
    }

    // MARK: Who sees what

    @Test func listsNameHoldersToWhoMaySeeThem() throws {
        var cluster = try Self.cluster([("n1", ["a", "b"]), ("n2", ["a"])])
        try Self.run("one", [DeviceClaim(ids: ["b"])], in: &cluster)
        guard case .devices(let all) = try cluster.query(.devices(node: nil)) else { throw Cluster.Unexpected() }
        #expect(all.map { "\($0.nodeName)/\($0.device.id)" } == ["n1/a", "n1/b", "n2/a"])
        #expect(all[1].holders.map(\.name) == ["one"])
        #expect(throws: APIProblem.self) { try cluster.query(.device("a", node: nil)) }
        #expect(throws: APIProblem.self) { try cluster.query(.device("z", node: nil)) }
        guard case .device(let one) = try cluster.query(.device("a", node: "n2")) else { throw Cluster.Unexpected() }
        #expect(one.nodeName == "n2")
        #expect(try cluster.node("n1").devices?.map(\.device.id) == ["a", "b"])
    }
}
