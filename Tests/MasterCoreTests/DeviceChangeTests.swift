import JSON
import MasterCore
import Model
import Testing
import Wire

/// Claims of a container that change while it runs.
@Suite struct DeviceChanges {
    private func cluster(_ ids: [String]) throws -> Cluster {
        var cluster = try Cluster()
        try cluster.addNode("n1", features: ["overlay", "cni", DeviceGrant.changeFeature])
        cluster.send(.report("n1", NodeReport(devices: DeviceGrants.gpus(ids))))
        return cluster
    }

    private func change(_ name: String, _ claims: [DeviceClaim]) -> MasterCommand {
        var wish = UpdateContainer()
        wish.deviceClaims = claims
        return .updateContainer(name, wish)
    }

    @Test func itKeepsWhatItHasAndGetsMore() throws {
        var cluster = try cluster(["a", "b", "c"])
        try DeviceGrants.run("other", in: &cluster)
        try DeviceGrants.run("one", [DeviceClaim(ids: ["b"])], in: &cluster)
        let start = try cluster.container("one").container.startedAt
        try cluster.perform(change("one", [DeviceClaim(count: 2)]))
        cluster.obey()
        #expect(try DeviceGrants.devices(of: "one", in: &cluster) == ["n1/b", "n1/c"])
        #expect(try cluster.container("one").container.startedAt == start)
        #expect(try DeviceGrants.devices(of: "other", in: &cluster) == ["n1/a"])
    }

    @Test func whatItGivesBackIsNobodysUntilItsNodeHasTakenIt() throws {
        var cluster = try cluster(["a", "b"])
        try DeviceGrants.run("one", [DeviceClaim(ids: ["a"]), DeviceClaim(ids: ["b"])], in: &cluster)
        cluster.away = ["n1"]
        try cluster.perform(change("one", [DeviceClaim(ids: ["b"])]))
        #expect(try DeviceGrants.devices(of: "one", in: &cluster) == ["n1/b"])
        cluster.away = []
        let pod = cluster.pod { $0.containers[0].deviceClaims = [DeviceClaim()] }
        try cluster.perform(.createContainer(CreateContainer(name: "two", pod: pod)))
        #expect(try cluster.container("two").unschedulable?.message == "0 of 1 node: gpus taken on 1")
        // A master that starts anew knows it too.
        try cluster.restart()
        try cluster.connect("n1")
        cluster.send(.report("n1", NodeReport(devices: DeviceGrants.gpus(["a", "b"]))))
        #expect(try DeviceGrants.devices(of: "two", in: &cluster) == [])
        let told = try #require(
            cluster.assigned[NodeID("n1")]?.values.first { $0.instanceName == "one" })
        #expect(told.grantedDevices.flatMap(\.devices) == ["b"])
        cluster.obey()
        #expect(try DeviceGrants.devices(of: "two", in: &cluster) == ["n1/a"])
    }

    @Test func aClaimThatStaysIsMetAsItWas() throws {
        var cluster = try cluster(["a", "b", "c"])
        try DeviceGrants.run("one", [DeviceClaim(), DeviceClaim(ids: ["c"])], in: &cluster)
        // What it has for the first is sick by now; that is no reason to refuse it less.
        let sick = DeviceGrants.gpus(["a", "b", "c"]) { device in
            if device.id == "a" { device.health = NodeDevice.Health(.unusable, reasons: ["XID 79"]) }
        }
        cluster.send(.report("n1", NodeReport(devices: sick)))
        try cluster.perform(change("one", [DeviceClaim()]))
        cluster.obey()
        #expect(try DeviceGrants.devices(of: "one", in: &cluster) == ["n1/a"])
        try cluster.perform(change("one", []))
        cluster.obey()
        #expect(try cluster.container("one").grantedDevices.isEmpty)
    }

    @Test func whatItsNodeHasNotGotIsRefusedAndChangesNothing() throws {
        var cluster = try cluster(["a", "b"])
        try DeviceGrants.run("other", in: &cluster)
        try DeviceGrants.run("one", in: &cluster)
        let before = try cluster.container("one").grantedDevices
        for (claims, words) in [
            ([DeviceClaim(count: 2)], "too few free gpus (2 wanted)"),
            ([DeviceClaim(count: 3)], "(3 wanted)"),
            ([DeviceClaim(model: "A100")], "gpu model A100"),
            ([DeviceClaim(count: 65)], "$.deviceClaims[0]"),
        ] {
            let problem = cluster.problem(change("one", claims))
            #expect(problem?.message.contains(words) == true, "\(problem?.message ?? "none")")
        }
        #expect(try cluster.container("one").grantedDevices == before)
    }

    @Test func anAgentThatCannotChangeThemIsNotAskedTo() throws {
        var cluster = try DeviceGrants.cluster([("n1", ["a", "b"])])
        try DeviceGrants.run("one", in: &cluster)
        let problem = cluster.problem(change("one", [DeviceClaim(count: 2)]))
        #expect(problem?.message.contains("the agent of its node n1 is of an earlier version") == true)
    }

    @Test func oneThatRestsGetsThemWhenItStarts() throws {
        var cluster = try DeviceGrants.cluster([("n1", ["a", "b"])])
        try DeviceGrants.run("one", in: &cluster)
        try cluster.perform(.act("one", .stop, ContainerAction()))
        cluster.obey()
        try cluster.perform(change("one", [DeviceClaim(count: 2)]))
        cluster.obey()
        try DeviceGrants.run("two", in: &cluster)
        let problem = cluster.problem(.act("one", .start, ContainerAction()))
        #expect(problem?.message.contains("too few free gpus (2 wanted)") == true)
        try cluster.perform(.removeContainer("two", force: true))
        cluster.obey()
        try cluster.perform(.act("one", .start, ContainerAction()))
        cluster.obey()
        #expect(try DeviceGrants.devices(of: "one", in: &cluster) == ["n1/a", "n1/b"])
    }
}
