import JSON
import MasterCore
import Model
import Testing
import Wire

/// What has ended holds nothing of its node, and needs room to start again.
@Suite struct RestingContainers {
    /// A node of 1 GiB with a container of 600 MiB that was stopped.
    static func clusterWithAStoppedContainer() throws -> Cluster {
        var cluster = try Cluster()
        try cluster.addNode("n1", memory: 1 << 30)
        try run("first", in: &cluster)
        try cluster.perform(.act("first", .stop, ContainerAction()))
        cluster.obey()
        return cluster
    }

    static func run(_ name: String, in cluster: inout Cluster, mebibytes: Int64 = 600) throws {
        let pod = cluster.pod { $0.containers[0].limits.memory = mebibytes << 20 }
        try cluster.perform(.createContainer(CreateContainer(name: name, pod: pod)))
        cluster.obey()
    }

    @Test func aStoppedContainerMakesRoom() throws {
        var cluster = try Self.clusterWithAStoppedContainer()
        try Self.run("second", in: &cluster)
        #expect(try cluster.container("second").status.phase == .running)
    }

    @Test(arguments: [ContainerAction.Verb.start, .restart])
    func itStartsOnlyWhereThereIsRoom(verb: ContainerAction.Verb) throws {
        var cluster = try Self.clusterWithAStoppedContainer()
        try Self.run("second", in: &cluster)
        let refusal = cluster.problem(.act("first", verb, ContainerAction()))
        let problem = try #require(refusal)
        #expect(problem.code == .conflict)
        #expect(
            problem.message.hasPrefix(
                "the container first cannot be started: its node n1 is short of memory: it wants 600 MiB, and 424 of "
                    + "1024 are free"))
        #expect(try cluster.container("first").desired == .stopped)
        try cluster.restart()
        let again = cluster.problem(.act("first", verb, ContainerAction()))
        #expect(again?.message == problem.message)
        try cluster.perform(.removeContainer("second", force: true))
        cluster.obey()
        try cluster.perform(.act("first", verb, ContainerAction()))
        cluster.obey()
        #expect(try cluster.container("first").status.phase == .running)
    }

    @Test func whoWaitsIsPlacedWhenSomethingEnds() throws {
        var cluster = try Cluster()
        try cluster.addNode("n1", memory: 1 << 30)
        try Self.run("first", in: &cluster)
        try Self.run("second", in: &cluster)
        #expect(try cluster.container("second").unschedulable?.message == "0 of 1 node: memory on 1")
        try cluster.perform(.act("first", .stop, ContainerAction()))
        cluster.obey()
        #expect(try cluster.container("second").status.phase == .running)
    }

    @Test func twoStartsAtOnceDoNotShareTheRoom() throws {
        var cluster = try Self.clusterWithAStoppedContainer()
        try Self.run("second", in: &cluster)
        try cluster.perform(.act("second", .stop, ContainerAction()))
        cluster.obey()
        cluster.holdsCommits = true
        cluster.send(.createContainer(CreateContainer(name: "other", pod: cluster.pod())))
        let starts = ["first", "second"].map { cluster.send(.act($0, .start, ContainerAction())) }
        cluster.releaseCommits()
        cluster.obey()
        #expect(try cluster.container("first").status.phase == .running)
        #expect(try cluster.container("second").status.phase == .exited)
        guard case .failure(let problem)? = cluster.replies[starts[1]] else {
            Issue.record("the second start was granted")
            return
        }
        #expect(problem.message.contains("short of memory"))
    }

    @Test func whatIsToStartAgainByItselfKeepsItsRoom() throws {
        var cluster = try Cluster()
        try cluster.addNode("n1", memory: 1 << 30)
        let pod = cluster.pod {
            $0.containers[0].limits.memory = 600 << 20
            $0.restart = RestartPolicy(.always)
        }
        try cluster.perform(.createContainer(CreateContainer(name: "first", pod: pod)))
        cluster.obey()
        let task = try #require(cluster.assigned[NodeID("n1")]?.values.first)
        cluster.report(
            task, on: NodeID("n1"),
            TaskStatus(phase: .exited, generation: task.generation, restartAt: cluster.now.adding(seconds: 5)))
        try Self.run("second", in: &cluster)
        #expect(try cluster.container("second").unschedulable != nil)
    }
}
