import JSON
import Model
import Reconcile
import Testing

@Suite struct Draining {
    /// Instances 1 and 2 on n1, which is drained, and 3 on n2.
    func fixture(
        parallelism: Int = 1, minimum: Int = 100, deadline: Int64? = nil, _ change: (inout PodSpec) -> Void = { _ in }
    ) -> Fixture {
        var fixture = Fixture(.replicated(3))
        fixture.add(1)
        fixture.add(2)
        fixture.add(3, node: "n2")
        change(&fixture.picture.pod)
        fixture.picture.workload.update.parallelism = parallelism
        fixture.picture.drained[NodeID("n1")] = Node.Drain(
            startedAt: fixture.now, deadline: deadline.map { fixture.now.adding(seconds: $0) },
            minimumAvailable: minimum)
        return fixture
    }

    func moved(_ slot: Int) -> [ReconcileAction] {
        [.displace(InstanceID("i\(slot)"), TaskID("t\(slot)"), .drained), .place(InstanceID("i\(slot)"))]
    }

    /// Instance 1 has a replacement on n2.
    func underway(serving seconds: Int64?) -> Fixture {
        var fixture = fixture()
        var task = fixture.picture.tasks[TaskID("t1")]
        task?.id = TaskID("t9")
        task?.node = NodeID("n2")
        task?.status.serving = seconds != nil
        task?.status.servingSince = seconds.map { fixture.now.adding(seconds: -$0) }
        fixture.picture.tasks[TaskID("t9")] = task
        fixture.picture.instances[0].task = TaskID("t9")
        fixture.picture.instances[0].displaced = [Displaced(TaskID("t1"), .drained, since: fixture.now)]
        return fixture
    }

    @Test func asManyAsAnUpdateReplacesMoveAtATime() {
        #expect(fixture().actions == moved(1))
        #expect(fixture(parallelism: 2).actions == moved(1) + moved(2))
        #expect(underway(serving: nil).actions == [])
    }

    @Test func theOldOneGoesOnceTheNewOneHasServed() {
        #expect(!underway(serving: 0).actions.contains(removal(1)))
        #expect(underway(serving: 1).actions.contains(removal(1)))
    }

    @Test func aNodeThatDiesBeforeItHasRemovedWhatWasMovedHoldsNothingUp() {
        var fixture = underway(serving: 3600)
        fixture.picture.tasks[TaskID("t1")]?.node = NodeID("n3")
        fixture.picture.tasks[TaskID("t1")]?.desired = .removed
        #expect(fixture.actions == [])
        fixture.picture.unreachable[NodeID("n3")] = fixture.now.adding(seconds: -30)
        #expect(fixture.actions.filter { if case .wake = $0 { false } else { true } } == moved(2))
    }

    @Test func activationEndsIt() {
        var fixture = underway(serving: nil)
        fixture.picture.drained = [:]
        // One that is placed goes on; one that waits is given back its task.
        #expect(fixture.actions == [])
        fixture.picture.instances[0].task = nil
        #expect(fixture.actions == [.restore(InstanceID("i1"), TaskID("t1"))])
    }

    @Test func whatMustNotRunTwiceStopsFirstIfEnoughServe() {
        func exclusive(_ minimum: Int) -> Fixture {
            fixture(parallelism: 3, minimum: minimum) {
                $0.loss = LossPolicy(replaceAfter: 100, onDisconnect: .stopAfter(30))
            }
        }
        #expect(exclusive(100).actions == [])
        // 66 per cent of three are two, 34 are two as well, 33 are one.
        #expect(exclusive(66).actions == [removal(1)])
        #expect(exclusive(33).actions == [removal(1), removal(2)])
        var idle = exclusive(100)
        idle.picture.tasks[TaskID("t2")]?.status.serving = false
        #expect(idle.actions == [removal(2)])
    }

    @Test func whatAnUpdateStopsInTheSameRoundServesNoMore() {
        var fixture = fixture(parallelism: 3, minimum: 66) {
            $0.loss = LossPolicy(replaceAfter: 100, onDisconnect: .stopAfter(30))
        }
        // Two of three have to serve, and the update is about to stop instance 3, which is the last of the older ones.
        fixture.picture.workload.revision = 2
        fixture.picture.workload.updateState = UpdateState(.updating, since: fixture.now)
        fixture.picture.tasks[TaskID("t1")]?.revision = 2
        fixture.picture.tasks[TaskID("t2")]?.revision = 2
        #expect(fixture.actions == [removal(3)])
    }

    @Test func whatIsTiedStaysUntilTheDeadline() {
        var fixture = fixture(deadline: 60) { $0.containers[0].mounts = [Mount(.volume(name: "data"), target: "/d")] }
        let end = fixture.now.adding(seconds: 60)
        #expect(Set(fixture.actions) == [.wake(end)])
        let drain = Node.Drain(startedAt: fixture.now)
        let task = fixture.picture.tasks[TaskID("t1")]
        #expect(task.map { fixture.picture.explanation(of: $0, drain).contains("volume data") } == true)
        fixture.now = end
        #expect(fixture.actions == [removal(1), removal(2)])
    }

    @Test func atTheDeadlineWhatMovesGoesToo() {
        var fixture = underway(serving: nil)
        fixture.picture.drained[NodeID("n1")]?.deadline = fixture.now
        #expect(fixture.actions == [removal(1), removal(2)])
    }

    @Test func containersStay() {
        var fixture = Fixture(.replicated(1), kind: .container)
        fixture.add(1)
        fixture.picture.drained[NodeID("n1")] = Node.Drain(startedAt: fixture.now, deadline: fixture.now)
        #expect(fixture.actions == [])
    }
}
