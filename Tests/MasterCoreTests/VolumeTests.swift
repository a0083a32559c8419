import JSON
import MasterCore
import Model
import Testing
import Wire

@Suite struct VolumesHomes {
    func mounting(_ cluster: Cluster) -> PodSpec {
        cluster.pod { $0.containers[0].mounts = [Mount(.volume(name: "data"), target: "/data")] }
    }

    /// A volume "data" on n1, and a container that mounts it.
    func cluster() throws -> Cluster {
        var cluster = try Cluster()
        try cluster.addNode("n1")
        try cluster.perform(.createContainer(CreateContainer(name: "db", pod: mounting(cluster))))
        cluster.obey()
        try cluster.addNode("n2")
        return cluster
    }

    func views(_ cluster: inout Cluster) throws -> [VolumeView] {
        guard case .volumes(let views) = try cluster.query(.volumes) else { return [] }
        return views
    }

    @Test func allThatMountItRunOnItsNode() throws {
        var cluster = try cluster()
        #expect(cluster.keys("volumes/") == ["volumes/n1/data"])
        try cluster.perform(
            .createService(CreateService(name: "web", pod: mounting(cluster), scale: .replicated(3))))
        #expect(Set(try cluster.containers().map(\.nodeName)) == ["n1"])
    }

    @Test func instancesOfOneBatchShareIt() throws {
        var cluster = try Cluster()
        for node in ["n1", "n2", "n3"] { try cluster.addNode(node) }
        try cluster.perform(
            .createService(CreateService(name: "web", pod: mounting(cluster), scale: .replicated(3))))
        #expect(Set(try cluster.containers().map(\.nodeName)).count == 1)
    }

    @Test func anonymousOnesAreGoneAsSoonAsTheirContainerIs() throws {
        var cluster = try Cluster()
        try cluster.addNode("n1")
        var mount = Mount(.volume(name: "nameless"), target: "/n")
        mount.isAnonymous = true
        let mounts = [mount, Mount(.volume(name: "data"), target: "/data")]
        try cluster.perform(
            .createContainer(
                CreateContainer(name: "web", pod: cluster.pod { $0.containers[0].mounts = mounts }, removeOnExit: true))
        )
        cluster.obey()
        let goes = cluster.assigned[NodeID("n1")]?.values.map(\.removeVolumes)
        #expect(goes == [true])
        try cluster.connect("n1", volumes: ["data", "nameless"])
        try cluster.perform(.removeContainer("web", force: true))
        // What the node has left comes before that the task is gone.
        let left = [VolumeView(name: "data", node: NodeID("n1"), path: "/v/data", labels: [:], createdAt: cluster.now)]
        try cluster.perform(.report("n1", NodeReport(volumes: left)))
        cluster.obey()
        #expect(try views(&cluster).map(\.name) == ["data"])
    }

    @Test func aGlobalServiceHasOneOnEachNode() throws {
        var cluster = try Cluster()
        for node in ["n1", "n2"] { try cluster.addNode(node) }
        try cluster.perform(.createService(CreateService(name: "web", pod: mounting(cluster), scale: .global)))
        #expect(cluster.keys("volumes/") == ["volumes/n1/data", "volumes/n2/data"])
        #expect(try cluster.containers().map(\.nodeName).sorted() == ["n1", "n2"])
    }

    @Test func whoeverMountsItWaitsForItsNodeAndSaysWhy() throws {
        var cluster = try Cluster()
        try cluster.addNode("n1")
        try cluster.perform(.createService(CreateService(name: "web", pod: mounting(cluster))))
        cluster.obey()
        try cluster.connect("n1", volumes: ["data"])
        try cluster.addNode("n2")
        cluster.away = ["n1"]
        cluster.pass(seconds: 70, heard: ["n2"])
        let waiting = try cluster.container("web.1")
        #expect(
            waiting.unschedulable?.message.contains("volume data (its data is on n1, which is unreachable)") == true)
        let seen = try views(&cluster)
        #expect(seen.map(\.name) == ["data"])
        #expect(seen.first?.unreachableSince != nil)
        // Also a new master knows where it is.
        try cluster.restart()
        #expect(try views(&cluster).map(\.node) == [NodeID("n1")])
        try cluster.connect("n1", volumes: ["data"])
        cluster.obey()
        #expect(try cluster.container("web.1").task == waiting.task)
        #expect(try cluster.container("web.1").state == "running")
    }

    @Test func itsRecordFollowsWhatTheNodeHas() throws {
        var cluster = try cluster()
        // Not made yet, and a task will make it.
        try cluster.perform(.report("n1", NodeReport(full: false, volumes: [])))
        #expect(cluster.keys("volumes/") == ["volumes/n1/data"])
        try cluster.perform(.removeContainer("db", force: true))
        cluster.obey()
        #expect(cluster.keys("volumes/") == ["volumes/n1/data"])
        try cluster.perform(.inventory(NodeID("n1"), images: nil, volumes: []))
        #expect(cluster.keys("volumes/") == [])
        let made = VolumeView(name: "made", node: NodeID(""), path: "/v", labels: [:], createdAt: cluster.now)
        try cluster.perform(.inventory(NodeID("n2"), images: nil, volumes: [made]))
        #expect(cluster.keys("volumes/") == ["volumes/n2/made"])
        let pod = cluster.pod { $0.containers[0].mounts = [Mount(.volume(name: "made"), target: "/data")] }
        try cluster.perform(.createContainer(CreateContainer(name: "db", pod: pod)))
        #expect(try cluster.container("db").nodeName == "n2")
    }
}
