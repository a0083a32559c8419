import JSON
import MasterCore
import Model
import Testing
import Wire

@Suite struct ContainersOfTheCluster {
    @Test func aContainerIsCreatedPlacedAndRun() throws {
        var cluster = try Cluster()
        try cluster.addNode("n1")
        let reply = try cluster.perform(.createContainer(CreateContainer(name: "web", pod: cluster.pod())))
        guard case .container(let view) = reply else {
            Issue.record("\(reply)")
            return
        }
        #expect(view.name == "web")
        #expect(view.node == NodeID("n1"))
        #expect(view.spec.imageDigest == Cluster.digest)
        #expect(view.id.text.utf8.count == 64)
        cluster.obey()
        #expect(try cluster.container("web").status.phase == .running)
        #expect(try cluster.container(String(view.id.text.prefix(6))).name == "web")
    }

    @Test func aContainerWithoutANameGetsOne() throws {
        var cluster = try Cluster()
        try cluster.addNode("n1")
        try cluster.perform(.createContainer(CreateContainer(pod: cluster.pod())))
        try cluster.perform(.createContainer(CreateContainer(pod: cluster.pod())))
        let names = try cluster.containers().map(\.name)
        #expect(Set(names).count == 2)
        #expect(names.allSatisfy { $0.contains("-") })
    }

    @Test func everythingIsDurableBeforeAnybodyIsTold() throws {
        var cluster = try Cluster()
        try cluster.addNode("n1")
        cluster.holdsCommits = true
        let request = cluster.send(.createContainer(CreateContainer(name: "web", pod: cluster.pod())))
        #expect(cluster.replies[request] == nil)
        #expect(cluster.assigned[NodeID("n1")]?.isEmpty == true)
        #expect(cluster.pending.count == 1)
        let keys = cluster.pending[0].1.map(\.key)
        #expect(
            ["workloads/", "revisions/", "instances/", "tasks/"].allSatisfy { prefix in
                keys.contains { $0.hasPrefix(prefix) }
            })
        cluster.releaseCommits()
        #expect(cluster.replies[request] != nil)
        #expect(cluster.assigned[NodeID("n1")]?.count == 1)
    }

    @Test func whatComesMeanwhileGoesIntoOneTransaction() throws {
        var cluster = try Cluster()
        try cluster.addNode("n1")
        cluster.holdsCommits = true
        let before = cluster.commits
        let requests = (0..<20).map { index in
            cluster.send(
                .createContainer(
                    CreateContainer(name: "c\(index)", pod: PodSpec(containers: [ContainerSpec(image: "web")]))))
        }
        cluster.releaseCommits()
        #expect(cluster.commits - before == 2)
        #expect(requests.allSatisfy { (try? cluster.replies[$0]?.get()) != nil })
    }

    @Test func aFailedCommitChangesNothingAndSaysSo() throws {
        var cluster = try Cluster()
        try cluster.addNode("n1")
        cluster.holdsCommits = true
        let request = cluster.send(
            .createContainer(
                CreateContainer(
                    name: "web", pod: cluster.pod { $0.ports = [PortMapping(hostPort: 80, containerPort: 80)] })))
        cluster.failCommits(.full("no space left"))
        guard case .failure(let problem)? = cluster.replies[request] else {
            Issue.record("it was said to be done")
            return
        }
        #expect(problem.code == .storageFull)
        #expect(try cluster.containers().isEmpty)
        cluster.holdsCommits = false
        // The name and the port are free again.
        try cluster.perform(
            .createContainer(
                CreateContainer(
                    name: "web", pod: cluster.pod { $0.ports = [PortMapping(hostPort: 80, containerPort: 80)] })))
        #expect(try cluster.container("web").ports.map(\.hostPort) == [80])
    }

    @Test func aReportThatCouldNotBeCommittedIsTakenWhenItComesAgain() throws {
        var cluster = try Cluster()
        try cluster.addNode("n1")
        try cluster.perform(.createContainer(CreateContainer(name: "web", pod: cluster.pod())))
        cluster.holdsCommits = true
        let task = try #require(cluster.assigned[NodeID("n1")]?.values.first)
        let status = TaskStatus(phase: .exited, generation: 1)
        cluster.report(task, on: NodeID("n1"), status)
        cluster.failCommits(.full("no space left"))
        #expect(try cluster.container("web").status.phase == .assigned)
        cluster.holdsCommits = false
        cluster.report(task, on: NodeID("n1"), status)
        #expect(try cluster.container("web").status.phase == .exited)
    }

    @Test func heartbeatsWriteNothing() throws {
        var cluster = try Cluster()
        try cluster.addNode("n1")
        let before = cluster.commits
        try cluster.perform(.report("n1", NodeReport()))
        #expect(cluster.commits == before)
    }

    @Test func stopStartRestartCountGenerations() throws {
        var cluster = try Cluster()
        try cluster.addNode("n1")
        try cluster.perform(.createContainer(CreateContainer(name: "web", pod: cluster.pod())))
        cluster.obey()
        func task() -> TaskAssignment? { cluster.assigned[NodeID("n1")]?.values.first }
        guard case .alreadySo = try cluster.perform(.act("web", .start, ContainerAction())) else {
            Issue.record("a running container was started")
            return
        }
        try cluster.perform(.act("web", .stop, ContainerAction(grace: 3)))
        #expect(task()?.desired == .stopped)
        #expect(task()?.stop == StopOrder(grace: 3))
        cluster.obey()
        guard case .alreadySo = try cluster.perform(.act("web", .stop, ContainerAction())) else {
            Issue.record("a stopped container was stopped")
            return
        }
        try cluster.perform(.act("web", .start, ContainerAction()))
        #expect(task()?.generation == 2)
        #expect(task()?.stop == nil)
        cluster.obey()
        try cluster.perform(.act("web", .restart, ContainerAction(grace: 1)))
        #expect(task()?.generation == 3)
        #expect(task()?.stop == StopOrder(grace: 1))
        #expect(cluster.keys("tasks/").count == 1)
    }

    @Test func aPreparedOneStartsItsFirstGeneration() throws {
        var cluster = try Cluster()
        try cluster.addNode("n1")
        try cluster.perform(.createContainer(CreateContainer(name: "web", pod: cluster.pod(), start: false)))
        cluster.obey()
        #expect(try cluster.container("web").status.phase == .prepared)
        try cluster.perform(.act("web", .start, ContainerAction()))
        #expect(cluster.assigned[NodeID("n1")]?.values.first?.generation == 1)
        #expect(cluster.assigned[NodeID("n1")]?.values.first?.desired == .running)
    }

    @Test func startingWhatIsAboutToRunIsNoSecondStart() throws {
        var cluster = try Cluster()
        try cluster.addNode("n1")
        try cluster.perform(.createContainer(CreateContainer(name: "web", pod: cluster.pod())))
        // The node has said nothing yet.
        guard case .alreadySo = try cluster.perform(.act("web", .start, ContainerAction())) else {
            Issue.record("it was started twice")
            return
        }
        let task = try #require(cluster.assigned[NodeID("n1")]?.values.first)
        #expect(task.generation == 1)
        cluster.report(
            task, on: NodeID("n1"),
            TaskStatus(phase: .exited, generation: 1, restartAt: cluster.now.adding(seconds: 60)))
        // One that waits out its back-off is started at once.
        try cluster.perform(.act("web", .start, ContainerAction()))
        #expect(cluster.assigned[NodeID("n1")]?.values.first?.generation == 2)
    }

    @Test func killEndsItAndOtherSignalsPassThrough() throws {
        var cluster = try Cluster()
        try cluster.addNode("n1")
        try cluster.perform(.createContainer(CreateContainer(name: "web", pod: cluster.pod())))
        #expect(cluster.problem(.act("web", .kill, ContainerAction()))?.code == .conflict)
        cluster.obey()
        guard
            case .passThrough(let location, let signal) = try cluster.perform(
                .act("web", .kill, ContainerAction(signal: "HUP")))
        else {
            Issue.record("SIGHUP was taken as an end")
            return
        }
        #expect(signal.number == 1)
        #expect(location.streamEndpoint == "unix:/run/n1.sock")
        try cluster.perform(.act("web", .kill, ContainerAction()))
        let task = try #require(cluster.assigned[NodeID("n1")]?.values.first)
        #expect(task.desired == .stopped)
        #expect(task.stop?.signal == "SIGKILL")
        #expect(task.stop?.grace == 0)
    }

    @Test func pauseNeedsARunningContainer() throws {
        var cluster = try Cluster()
        try cluster.addNode("n1")
        try cluster.perform(.createContainer(CreateContainer(name: "web", pod: cluster.pod())))
        #expect(cluster.problem(.act("web", .pause, ContainerAction()))?.code == .conflict)
        cluster.obey()
        try cluster.perform(.act("web", .pause, ContainerAction()))
        cluster.obey()
        #expect(try cluster.container("web").status.phase == .paused)
        #expect(cluster.problem(.act("web", .start, ContainerAction()))?.message.contains("unpause") == true)
        try cluster.perform(.act("web", .unpause, ContainerAction()))
        cluster.obey()
        #expect(try cluster.container("web").status.phase == .running)
        #expect(cluster.problem(.act("web", .unpause, ContainerAction()))?.code == .conflict)
    }

    @Test func removalLeavesNothing() throws {
        var cluster = try Cluster()
        try cluster.addNode("n1")
        let pod = cluster.pod { $0.ports = [PortMapping(hostPort: 8080, containerPort: 80)] }
        try cluster.perform(.createContainer(CreateContainer(name: "web", pod: pod)))
        cluster.obey()
        let refused = cluster.problem(.removeContainer("web", force: false))
        #expect(refused?.message.contains("--force") == true)
        try cluster.perform(.removeContainer("web", force: true))
        #expect(cluster.problem(.act("web", .start, ContainerAction()))?.message.contains("being removed") == true)
        #expect(cluster.problem(.createContainer(CreateContainer(name: "web", pod: pod)))?.code == .conflict)
        cluster.obey()
        for prefix in ["workloads/", "revisions/", "instances/", "tasks/", "claims/"] {
            #expect(cluster.keys(prefix) == [])
        }
        #expect(cluster.assigned[NodeID("n1")]?.isEmpty == true)
        #expect(cluster.problem(.act("web", .start, ContainerAction()))?.code == .notFound)
        #expect(cluster.events.map(\.action).contains("destroy"))
    }

    @Test func removeOnExitShowsTheExitCodeFirst() throws {
        var cluster = try Cluster()
        try cluster.addNode("n1")
        try cluster.perform(
            .createContainer(CreateContainer(name: "once", pod: cluster.pod(), removeOnExit: true)))
        let task = try #require(cluster.assigned[NodeID("n1")]?.values.first)
        cluster.report(
            task, on: NodeID("n1"),
            TaskStatus(
                phase: .exited, generation: 1,
                containers: [ContainerStatus(name: "main", id: task.containers[0], state: .exited, exitCode: 7)]))
        #expect(cluster.containerLines.last?.object?.container.exitCode == 7)
        cluster.obey()
        #expect(cluster.containerLines.last?.change == .delete)
        #expect(cluster.keys("workloads/") == [])
    }

    @Test func onlyWhatWasNeverPlacedGoesAtOnce() throws {
        var cluster = try Cluster()
        try cluster.addNode("n1", memory: 1 << 20)
        let pod = cluster.pod { $0.containers[0].limits.memory = 64 << 20 }
        try cluster.perform(.createContainer(CreateContainer(name: "big", pod: pod)))
        let view = try cluster.container("big")
        #expect(view.task == nil)
        #expect(view.unschedulable?.message == "0 of 1 node: memory on 1")
        try cluster.perform(.removeContainer("big", force: false))
        #expect(cluster.keys("instances/") == [])
    }

    @Test func whoWaitsIsPlacedWhenANodeComes() throws {
        var cluster = try Cluster()
        try cluster.addNode("small", memory: 1 << 20)
        let pod = cluster.pod { $0.containers[0].limits.memory = 64 << 20 }
        try cluster.perform(.createContainer(CreateContainer(name: "big", pod: pod)))
        try cluster.addNode("large")
        #expect(try cluster.container("big").nodeName == "large")
    }

    @Test func anUnknownImageAndATakenNameAreRefused() throws {
        var cluster = try Cluster()
        try cluster.addNode("n1")
        let unknown = cluster.problem(
            .createContainer(CreateContainer(pod: PodSpec(containers: [ContainerSpec(image: "nope:1")]))))
        #expect(unknown?.code == .noSuchImage)
        #expect(unknown?.message.contains("no node has the image nope:1") == true)
        try cluster.perform(.createContainer(CreateContainer(name: "web", pod: cluster.pod())))
        #expect(cluster.problem(.createContainer(CreateContainer(name: "web", pod: cluster.pod())))?.code == .conflict)
        try cluster.perform(.createService(CreateService(name: "api", pod: cluster.pod(), scale: .replicated(0))))
        #expect(
            cluster.problem(.createContainer(CreateContainer(name: "api.1", pod: cluster.pod())))?.code == .conflict)
    }

    @Test func anAmbiguousIdNamesCandidates() throws {
        var cluster = try Cluster()
        try cluster.addNode("n1")
        #expect(cluster.problem(.act("abcd", .stop, ContainerAction()))?.code == .notFound)
        try cluster.perform(.createService(CreateService(name: "api", pod: cluster.pod(), scale: .replicated(2))))
        let problem = cluster.problem(.act("api", .restart, ContainerAction()))
        #expect(problem?.code == .conflict)
        #expect(problem?.message.contains("api.1, api.2") == true)
    }
}
