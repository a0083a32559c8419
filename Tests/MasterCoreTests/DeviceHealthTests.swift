import JSON
import MasterCore
import Model
import Testing
import Wire

/// What becomes of tasks whose devices become unusable.
@Suite struct HealthOfDevices {
    /// The node tells of these devices, of which some are sick or gone.
    private func tell(
        _ node: String, _ ids: [String], sick: [String] = [], gone: [String] = [], unconfirmed: [String] = [],
        in cluster: inout Cluster
    ) {
        let devices = DeviceGrants.gpus(ids) { device in
            if sick.contains(device.id) { device.health = .init(.unusable, reasons: ["XID 79"]) }
            if unconfirmed.contains(device.id) {
                device.health = .init(.unusable, reasons: ["nothing is known"])
                device.isUnconfirmed = true
            }
            device.isGone = gone.contains(device.id)
        }
        cluster.send(.report(node, NodeReport(devices: devices)))
    }

    private func service(
        _ policy: DeviceClaim.HealthPolicy, _ nodes: [(String, [String])], scale: Workload.Scale = .replicated(1),
        change: (inout PodSpec) -> Void = { _ in }
    ) throws -> Cluster {
        var cluster = try DeviceGrants.cluster(nodes)
        let pod = cluster.pod {
            $0.containers[0].deviceClaims = [DeviceClaim(onUnhealthy: policy)]
            change(&$0)
        }
        try cluster.perform(.createService(CreateService(name: "web", pod: pod, scale: scale)))
        cluster.obey()
        return cluster
    }

    private func container(_ policy: DeviceClaim.HealthPolicy, _ ids: [String]) throws -> Cluster {
        var cluster = try DeviceGrants.cluster([("n1", ids)])
        try DeviceGrants.run("one", [DeviceClaim(onUnhealthy: policy)], in: &cluster)
        #expect(try DeviceGrants.devices(of: "one", in: &cluster) == ["n1/\(ids[0])"])
        return cluster
    }

    private func condition(_ name: String, in cluster: inout Cluster) throws -> String? {
        try cluster.container(name).conditions.first { $0.kind == .deviceUnusable }?.message
    }

    private func told(_ action: String, in cluster: Cluster) -> [[String: String]] {
        cluster.events.filter { $0.action == action }.map(\.attributes)
    }

    // MARK: stay

    @Test func whatStaysGoesOnAndItsViewSaysWhy() throws {
        var cluster = try container(.stay, ["a", "b"])
        let task = try cluster.container("one").task
        tell("n1", ["a", "b"], sick: ["a"], in: &cluster)
        cluster.obey()
        #expect(try cluster.container("one").task == task)
        #expect(try cluster.container("one").status.phase == .running)
        #expect(
            try condition("one", in: &cluster) == "its device a is unusable: XID 79: it goes on with it")
        #expect(
            told("device_unusable", in: cluster).map { ($0["device"] ?? "") + " " + ($0["policy"] ?? "") } == ["a stay"]
        )
        tell("n1", ["a", "b"], in: &cluster)
        #expect(try condition("one", in: &cluster) == nil)
        // What the node does not tell of any more is gone, too.
        tell("n1", ["b"], in: &cluster)
        #expect(try condition("one", in: &cluster) == "its device a is not there any more: it goes on with it")
    }

    // MARK: restart

    @Test(arguments: ["sick", "gone", "left out"]) func aServicesTaskIsReplacedAndGoesWhenItsReplacementServes(
        how: String
    ) throws {
        var cluster = try service(.restart, [("n1", ["a"])])
        try cluster.addNode("n2")
        tell("n2", ["x"], in: &cluster)
        let old = try #require(try cluster.container("web.1").task)
        tell(
            "n1", how == "left out" ? [] : ["a"], sick: how == "sick" ? ["a"] : [], gone: how == "gone" ? ["a"] : [],
            in: &cluster)
        #expect(cluster.keys("tasks/").count == 2)
        // It serves as well as it can until then, and what it has is its own.
        #expect(try cluster.container("web.1").task == old)
        #expect(try condition("web.1", in: &cluster)?.hasSuffix("it goes when its replacement serves") == true)
        cluster.obey()
        cluster.pass(seconds: 2, heard: ["n1", "n2"])
        cluster.obey()
        #expect(try DeviceGrants.devices(of: "web.1", in: &cluster) == ["n2/x"])
        #expect(cluster.keys("tasks/").count == 1)
        #expect(told("moved", in: cluster).map { $0["reason"] } == ["unhealthy"])
    }

    @Test func anotherDeviceOfTheSameNodeWillDo() throws {
        var cluster = try service(.restart, [("n1", ["a", "b"])], scale: .global)
        #expect(try DeviceGrants.devices(of: "web.n1", in: &cluster) == ["n1/a"])
        tell("n1", ["a", "b"], sick: ["a"], in: &cluster)
        cluster.obey()
        cluster.pass(seconds: 2, heard: ["n1"])
        cluster.obey()
        #expect(try DeviceGrants.devices(of: "web.n1", in: &cluster) == ["n1/b"])
        #expect(cluster.keys("tasks/").count == 1)
    }

    @Test(arguments: [Workload.Scale.replicated(1), .global])
    func withoutAnotherItStaysAndCountsAgainWhenItsDeviceIsWell(scale: Workload.Scale) throws {
        var cluster = try service(.restart, [("n1", ["a"])], scale: scale)
        let name = scale == .global ? "web.n1" : "web.1"
        let task = try #require(try cluster.container(name).task)
        tell("n1", ["a"], sick: ["a"], in: &cluster)
        cluster.obey()
        #expect(try cluster.container(name).task == task)
        #expect(try cluster.container(name).unschedulable?.message == "0 of 1 node: gpu in order on 1")
        #expect(try cluster.service("web").serving == 1)
        // A new master, that has yet to hear of devices, changes nothing.
        try cluster.restart()
        cluster.pass(seconds: 1)
        try cluster.connect("n1")
        cluster.obey()
        #expect(try cluster.container(name).displaced.map(\.cause) == [.unhealthy])
        tell("n1", ["a"], in: &cluster)
        cluster.obey()
        #expect(try cluster.container(name).task == task)
        #expect(try cluster.container(name).displaced.isEmpty)
        #expect(try cluster.container(name).unschedulable == nil)
        // Each time that it becomes sick counts, and nothing in between.
        tell("n1", ["a"], sick: ["a"], in: &cluster)
        tell("n1", ["a", "b"], sick: ["a"], in: &cluster)
        cluster.obey()
        cluster.pass(seconds: 2, heard: ["n1"])
        cluster.obey()
        #expect(try DeviceGrants.devices(of: name, in: &cluster) == ["n1/b"])
        #expect(told("moved", in: cluster).count == 1)
        let tasks = cluster.keys("tasks/")
        for sick in [[], ["a"], [], ["a"]] {
            tell("n1", ["a", "b"], sick: sick, in: &cluster)
            cluster.obey()
        }
        #expect(cluster.keys("tasks/") == tasks)
    }

    /// One whose program ruins each device that it gets.
    @Test(arguments: [true, false]) func oneThatRuinsDeviceAfterDeviceGetsThemEverMoreSlowly(isService: Bool) throws {
        let ids = ["a", "b", "c", "d"]
        var cluster = try isService ? service(.restart, [("n1", ids)]) : container(.restart, ids)
        let name = isService ? "web.1" : "one"
        tell("n1", ids, sick: ["a"], in: &cluster)
        cluster.obey()
        cluster.pass(seconds: 2, heard: ["n1"])
        cluster.obey()
        #expect(try DeviceGrants.devices(of: name, in: &cluster) == ["n1/b"])
        tell("n1", ids, sick: ["a", "b"], in: &cluster)
        cluster.pass(seconds: 20, heard: ["n1"])
        cluster.obey()
        #expect(try DeviceGrants.devices(of: name, in: &cluster) == ["n1/b"])
        #expect(try condition(name, in: &cluster)?.contains("when it runs, not before 20") == true)
        // Also of a master that has taken over.
        try cluster.restart()
        try cluster.connect("n1")
        tell("n1", ids, sick: ["a", "b"], in: &cluster)
        cluster.obey()
        #expect(try DeviceGrants.devices(of: name, in: &cluster) == ["n1/b"])
        cluster.pass(seconds: 20, heard: ["n1"])
        cluster.obey()
        cluster.pass(seconds: 2, heard: ["n1"])
        cluster.obey()
        #expect(try DeviceGrants.devices(of: name, in: &cluster) == ["n1/c"])
        tell("n1", ids, sick: ["a", "b", "c"], in: &cluster)
        cluster.pass(seconds: 40, heard: ["n1"])
        cluster.obey()
        #expect(try DeviceGrants.devices(of: name, in: &cluster) == ["n1/c"])
        cluster.pass(seconds: 40, heard: ["n1"])
        cluster.obey()
        cluster.pass(seconds: 2, heard: ["n1"])
        cluster.obey()
        #expect(try DeviceGrants.devices(of: name, in: &cluster) == ["n1/d"])
    }

    @Test func whatMustNotRunTwiceIsEndedFirst() throws {
        var cluster = try service(.restart, [("n1", ["a"]), ("n2", ["x"])]) {
            $0.loss = LossPolicy(onDisconnect: .stopAfter(10))
        }
        let view = try cluster.container("web.1")
        let other = view.nodeName == "n1" ? "n2/x" : "n1/a"
        tell(view.nodeName, ["a", "x"], sick: ["a", "x"], in: &cluster)
        #expect(cluster.keys("tasks/").count == 1)
        cluster.obey()
        #expect(try DeviceGrants.devices(of: "web.1", in: &cluster) == [other])
    }

    @Test func aContainerStartsAgainOnItsNodeWithAnotherDeviceOnceItHasEnded() throws {
        var cluster = try container(.restart, ["a", "b"])
        let before = try cluster.container("one")
        cluster.away = ["n1"]
        tell("n1", ["a", "b"], sick: ["a"], in: &cluster)
        #expect(try cluster.container("one").desired == .stopped)
        // Until its node has told of its end, what it has is its own.
        #expect(try DeviceGrants.devices(of: "one", in: &cluster) == ["n1/a"])
        #expect(try condition("one", in: &cluster)?.hasSuffix("it is being ended") == true)
        try cluster.connect("n1")
        tell("n1", ["a", "b"], sick: ["a"], in: &cluster)
        let order = cluster.assigned[NodeID("n1")]?.values.first?.stop
        #expect(order?.reason == "its device a is unusable: XID 79")
        cluster.obey()
        let after = try cluster.container("one")
        #expect(after.task == before.task && after.generation == before.generation + 1)
        #expect(after.status.phase == .running && after.desired == .running)
        #expect(try DeviceGrants.devices(of: "one", in: &cluster) == ["n1/b"])
        #expect(try condition("one", in: &cluster) == nil)
        #expect(told("device_restart", in: cluster).count == 1)
    }

    @Test func aContainerGoesOnUntilItsNodeHasAnotherDevice() throws {
        var cluster = try container(.restart, ["a", "b"])
        try DeviceGrants.run("two", in: &cluster)
        tell("n1", ["a", "b"], sick: ["a"], in: &cluster)
        cluster.obey()
        #expect(try cluster.container("one").status.phase == .running)
        #expect(
            try condition("one", in: &cluster)?.hasSuffix("it goes on until its node has others for it") == true)
        try cluster.perform(.removeContainer("two", force: true))
        cluster.obey()
        #expect(try DeviceGrants.devices(of: "one", in: &cluster) == ["n1/b"])
        #expect(try cluster.container("one").status.phase == .running)
    }

    @Test func whatGoesWithItsEndIsStartedAgainAllTheSame() throws {
        var cluster = try DeviceGrants.cluster([("n1", ["a", "b"])])
        let pod = cluster.pod { $0.containers[0].deviceClaims = [DeviceClaim(onUnhealthy: .restart)] }
        try cluster.perform(.createContainer(CreateContainer(name: "one", pod: pod, removeOnExit: true)))
        cluster.obey()
        tell("n1", ["a", "b"], sick: ["a"], in: &cluster)
        cluster.obey()
        #expect(try DeviceGrants.devices(of: "one", in: &cluster) == ["n1/b"])
    }

    // MARK: end

    @Test func aContainerIsStoppedAndStartsWithAnotherDeviceWhenSomebodyWantsIt() throws {
        var cluster = try container(.end, ["a", "b"])
        tell("n1", ["a", "b"], sick: ["a"], in: &cluster)
        let order = cluster.assigned[NodeID("n1")]?.values.first?.stop
        #expect(order?.reason == "its device a is unusable: XID 79")
        cluster.obey()
        #expect(try cluster.container("one").desired == .stopped)
        #expect(try cluster.container("one").status.phase == .exited)
        #expect(told("device_end", in: cluster).map { $0["reason"] } == [order?.reason])
        tell("n1", ["a", "b"], in: &cluster)
        tell("n1", ["a", "b"], sick: ["a"], in: &cluster)
        cluster.obey()
        #expect(try cluster.container("one").status.phase == .exited)
        try cluster.perform(.act("one", .start, ContainerAction()))
        cluster.obey()
        #expect(try DeviceGrants.devices(of: "one", in: &cluster) == ["n1/b"])
        #expect(try cluster.container("one").status.phase == .running)
    }

    @Test func anInstanceOfAServiceRestsUntilSomebodyRestartsIt() throws {
        var cluster = try service(.end, [("n1", ["a", "b"])])
        tell("n1", ["a", "b"], sick: ["a"], in: &cluster)
        cluster.obey()
        #expect(try cluster.container("web.1").status.phase == .exited)
        tell("n1", ["a", "b"], in: &cluster)
        try cluster.restart()
        try cluster.connect("n1")
        tell("n1", ["a", "b"], sick: ["a"], in: &cluster)
        cluster.obey()
        #expect(try cluster.container("web.1").status.phase == .exited)
        #expect(try cluster.service("web").serving == 0)
        try cluster.perform(.act("web.1", .restart, ContainerAction()))
        cluster.obey()
        #expect(try DeviceGrants.devices(of: "web.1", in: &cluster) == ["n1/b"])
        #expect(try cluster.container("web.1").status.phase == .running)
    }

    @Test func ofSeveralClaimsTheStrictestCounts() throws {
        var cluster = try DeviceGrants.cluster([("n1", ["a", "b", "c"])])
        let claims = [
            DeviceClaim(ids: ["a"], onUnhealthy: .restart), DeviceClaim(ids: ["b"], onUnhealthy: .end),
        ]
        try DeviceGrants.run("one", claims, in: &cluster)
        tell("n1", ["a", "b", "c"], sick: ["a", "b"], in: &cluster)
        cluster.obey()
        #expect(try cluster.container("one").status.phase == .exited)
        #expect(try cluster.container("one").desired == .stopped)
    }

    // MARK: What is no sickness

    @Test(arguments: DeviceClaim.HealthPolicy.allCases) func silenceAndWhatNobodyCanSayChangeNothing(
        policy: DeviceClaim.HealthPolicy
    ) throws {
        var cluster = try service(policy, [("n1", ["a", "b"])])
        let task = try cluster.container("web.1").task
        tell("n1", ["a", "b"], unconfirmed: ["a"], in: &cluster)
        cluster.obey()
        #expect(try cluster.container("web.1").task == task)
        #expect(try condition("web.1", in: &cluster) == nil)
        // It gets no new work meanwhile.
        try DeviceGrants.run("two", [DeviceClaim(ids: ["a"])], in: &cluster)
        #expect(try cluster.container("two").unschedulable?.message == "0 of 1 node: gpu in order on 1")
        cluster.away = ["n1"]
        cluster.pass(seconds: 60)
        #expect(try cluster.container("web.1").task == task)
        try cluster.connect("n1")
        cluster.obey()
        #expect(try cluster.container("web.1").task == task)
        #expect(try cluster.container("web.1").status.phase == .running)
    }

    // MARK: How they are used

    @Test func useIsKeptForAMinuteWithinBoundsAndNeverStored() throws {
        var cluster = try DeviceGrants.cluster([("n1", ["a", "b"])])
        func usage() throws -> [String: DeviceUsage] {
            guard case .deviceUsage(let all) = try cluster.query(.deviceUsage) else { throw Cluster.Unexpected() }
            return all[NodeID("n1")] ?? [:]
        }
        #expect(try usage().isEmpty)
        let commits = cluster.commits
        let wrong = DeviceStats(
            id: "a", utilization: 900, memoryUsage: nil, memoryUsedByAll: -1, memory: .max, celsius: -9999,
            milliwatts: -1)
        let many = (0..<(NodeDevice.limit + 9)).map { number in
            var stats = wrong
            if number > 0 { stats.id = "x\(number)" }
            return DeviceUsage(
                stats, tasks: (0..<100).map { DeviceUsage.Share(task: TaskID("t\($0)"), memoryUsage: -1) })
        }
        cluster.send(.report("n1", NodeReport(deviceUsage: many)))
        let kept = try usage()
        #expect(kept.count == NodeDevice.limit)
        #expect(
            kept["a"]?.stats
                == DeviceStats(
                    id: "a", utilization: 100, memoryUsage: nil, memoryUsedByAll: 0, memory: 1 << 60, celsius: -273,
                    milliwatts: 0))
        #expect(kept["a"]?.tasks.count == NodeDevice.mostShares)
        #expect(kept["a"]?.tasks.first?.memoryUsage == 0)
        #expect(cluster.commits == commits)
        cluster.pass(seconds: 50, heard: ["n1"])
        #expect(try !usage().isEmpty)
        cluster.pass(seconds: 20, heard: ["n1"])
        #expect(try usage().isEmpty)
    }
}
