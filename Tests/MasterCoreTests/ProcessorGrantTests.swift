import JSON
import MasterCore
import Model
import Testing
import Wire

/// Who has which processors of a node alone, and until when.
@Suite struct ProcessorGrants {
    /// A cluster of these nodes, with so many cores of one processor each.
    static func cluster(_ nodes: [(String, Int)]) throws -> Cluster {
        var cluster = try Cluster()
        for (name, cores) in nodes {
            let processors = NodeProcessors(nodes: [
                .init(id: 0, memory: 4 << 30, cores: (0..<cores).map { .init(cpus: ProcessorSet([$0])) })
            ])
            try cluster.addNode(
                name, features: ["overlay", "cni", "cpu-pinning", "hugepages"], processors: processors,
                hugepages: ["2m": 64 << 20])
        }
        return cluster
    }

    static func pod(_ count: Int, in cluster: Cluster) -> PodSpec {
        cluster.pod {
            $0.containers[0].limits.cpu = Int64(count) * 1_000_000_000
            $0.containers[0].limits.pinning = .cores
        }
    }

    static func run(_ name: String, _ count: Int = 1, in cluster: inout Cluster) throws {
        try cluster.perform(.createContainer(CreateContainer(name: name, pod: pod(count, in: cluster))))
        cluster.obey()
    }

    /// `node/processors` of what the container has; empty: none.
    static func processors(of name: String, in cluster: inout Cluster) throws -> String {
        let view = try cluster.container(name)
        return view.grantedProcessors.map { "\(view.nodeName)/\($0.cpus)" }.joined()
    }

    @Test func aContainerAndItsNodeAreToldWhatItGot() throws {
        var cluster = try Self.cluster([("n1", 4)])
        try Self.run("one", 2, in: &cluster)
        let grant = ProcessorGrant(
            container: "main", cpus: ProcessorSet([0, 1]), memoryNodes: ProcessorSet([0]))
        #expect(try cluster.container("one").grantedProcessors == [grant])
        #expect(cluster.assigned[NodeID("n1")]?.values.map(\.grantedProcessors) == [[grant]])
        let stored = try #require(cluster.keys("tasks/").first.flatMap { cluster.store[$0]?.value })
        #expect(String(decoding: stored, as: UTF8.self).contains(#""schema":4"#))
        #expect(try cluster.node("n1").node.processors?.cpus.count == 4)
    }

    @Test func whatOthersHaveIsWaitedFor() throws {
        var cluster = try Self.cluster([("n1", 3), ("n2", 2)])
        try Self.run("one", 2, in: &cluster)
        try Self.run("two", in: &cluster)
        #expect(try Self.processors(of: "one", in: &cluster) == "n1/0-1")
        #expect(try Self.processors(of: "two", in: &cluster) == "n2/0")
        try Self.run("three", in: &cluster)
        #expect(try cluster.container("three").unschedulable?.message == "0 of 2 nodes: processors taken on 2")
        try Self.run("large", 4, in: &cluster)
        #expect(
            try cluster.container("large").unschedulable?.message
                == "0 of 2 nodes: fewer than 5 processors (4 to be pinned) on 2")
        try cluster.perform(.removeContainer("one", force: true))
        cluster.obey()
        #expect(try Self.processors(of: "three", in: &cluster) == "n1/0")
    }

    @Test func theyAreKeptOverAMastersRestart() throws {
        var cluster = try Self.cluster([("n1", 3)])
        try Self.run("one", in: &cluster)
        try cluster.restart()
        try cluster.connect("n1")
        try Self.run("two", in: &cluster)
        try Self.run("three", in: &cluster)
        #expect(try Self.processors(of: "one", in: &cluster) == "n1/0")
        #expect(try Self.processors(of: "two", in: &cluster) == "n1/1")
        #expect(try cluster.container("three").unschedulable?.message == "0 of 1 node: processors taken on 1")
    }

    @Test func aSilentNodesTasksKeepTheirs() throws {
        var cluster = try Self.cluster([("n1", 2)])
        try Self.run("one", in: &cluster)
        cluster.away = ["n1"]
        try cluster.perform(.act("one", .stop, ContainerAction()))
        cluster.pass(seconds: 40)
        try Self.run("two", in: &cluster)
        #expect(try Self.processors(of: "two", in: &cluster) == "")
        try cluster.connect("n1")
        cluster.obey()
        #expect(try Self.processors(of: "two", in: &cluster) == "n1/0")
    }

    @Test func whatEndedHoldsNoneAndStartsWithWhatIsFree() throws {
        var cluster = try Self.cluster([("n1", 3)])
        try Self.run("one", in: &cluster)
        try cluster.perform(.act("one", .stop, ContainerAction()))
        cluster.obey()
        try Self.run("two", in: &cluster)
        #expect(try Self.processors(of: "two", in: &cluster) == "n1/0")
        try cluster.perform(.act("one", .start, ContainerAction()))
        cluster.obey()
        #expect(try Self.processors(of: "one", in: &cluster) == "n1/1")
        try cluster.perform(.act("one", .stop, ContainerAction()))
        cluster.obey()
        try Self.run("three", in: &cluster)
        let refusal = cluster.problem(.act("one", .start, ContainerAction()))
        #expect(
            refusal?.message
                == "the container one cannot be started: its node n1 has no processors for it: processors taken; stop "
                + "others there, or remove it and run it anew")
    }

    @Test func theirNumberDoesNotChangeInPlace() throws {
        var cluster = try Self.cluster([("n1", 4)])
        try Self.run("one", 2, in: &cluster)
        var change = UpdateContainer()
        change.cpu = 1_000_000_000
        let refusal = cluster.problem(.updateContainer("one", change))
        #expect(refusal?.code == .badRequest)
        #expect(refusal?.message.hasPrefix("$.cpu: the container one has processors of its own") == true)
        change.cpu = nil
        change.memory = 64 << 20
        try cluster.perform(.updateContainer("one", change))
        #expect(try Self.processors(of: "one", in: &cluster) == "n1/0-1")
    }

    @Test func aServicesInstancesHaveDifferentOnes() throws {
        var cluster = try Self.cluster([("n1", 4), ("n2", 3)])
        let pod = Self.pod(1, in: cluster)
        try cluster.perform(.createService(CreateService(name: "web", pod: pod, scale: .replicated(6))))
        cluster.obey()
        let all = try cluster.containers().flatMap { view in
            view.grantedProcessors.flatMap(\.cpus.numbers).map { "\(view.nodeName)/\($0)" }
        }
        #expect(Set(all).count == 5 && all.count == 5)
        #expect(try cluster.service("web").waiting == "0 of 2 nodes: processors taken on 2")
    }

    @Test func hugePagesArePromisedUntilATaskRests() throws {
        var cluster = try Self.cluster([("n1", 1)])
        let pod = cluster.pod { $0.containers[0].limits.hugepages = ["2m": 40 << 20] }
        for name in ["one", "two"] {
            try cluster.perform(.createContainer(CreateContainer(name: name, pod: pod)))
            cluster.obey()
        }
        #expect(try cluster.node("n1").allocated.hugepages == ["2m": 40 << 20])
        #expect(try cluster.container("two").unschedulable?.message == "0 of 1 node: hugepages of 2m taken on 1")
        try cluster.perform(.act("one", .stop, ContainerAction()))
        cluster.obey()
        #expect(try cluster.container("two").status.phase == .running)
        let refusal = cluster.problem(.act("one", .start, ContainerAction()))
        #expect(
            refusal?.message.contains("n1 is short of huge pages: hugepages of 2m taken; stop others") == true,
            "\(String(describing: refusal))")
    }
}
