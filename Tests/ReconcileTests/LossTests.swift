import JSON
import Model
import Reconcile
import Testing

@Suite struct LostNodes {
    let i1 = InstanceID("i1")
    let t1 = TaskID("t1")
    let t9 = TaskID("t9")

    /// One instance on a node that has been silent for so long.
    func fixture(
        silentFor seconds: Int64, _ loss: LossPolicy? = nil, kind: Workload.Kind = .service
    ) -> Fixture {
        var fixture = Fixture(.replicated(1), kind: kind)
        fixture.add(1)
        fixture.picture.pod.loss = loss
        fixture.picture.unreachable[NodeID("n1")] = fixture.now.adding(seconds: -seconds)
        return fixture
    }

    /// Its task was displaced, and with `replaced` there is another on n2.
    func displaced(
        silentFor seconds: Int64?, _ loss: LossPolicy? = nil, replaced: Bool = true,
        desired: DesiredState = .running
    ) -> Fixture {
        var fixture = fixture(silentFor: seconds ?? 0, loss)
        if seconds == nil { fixture.picture.unreachable = [:] }
        fixture.picture.instances[0].task = nil
        fixture.picture.instances[0].displaced = [Displaced(t1, .lost, since: fixture.now)]
        fixture.picture.tasks[t1]?.desired = desired
        if replaced {
            var task = fixture.picture.tasks[t1]
            task?.id = t9
            task?.node = NodeID("n2")
            task?.epoch = 2
            task?.desired = .running
            fixture.picture.tasks[t9] = task
            fixture.picture.instances[0].task = t9
        }
        return fixture
    }

    @Test func aServicesInstanceIsReplacedAfterItsTime() {
        let early = fixture(silentFor: 59)
        #expect(early.actions.contains(.wake(early.now.adding(seconds: 1))))
        #expect(!early.actions.contains(.place(i1)))
        #expect(fixture(silentFor: 60).actions.suffix(2) == [.displace(i1, t1, .lost), .place(i1)])
    }

    @Test func aContainerWaitsForItsNode() {
        #expect(fixture(silentFor: 1_000_000, kind: .container).actions == [])
        let own = LossPolicy(replaceAfter: 30)
        #expect(fixture(silentFor: 30, own, kind: .container).actions == [.displace(i1, t1, .lost), .place(i1)])
    }

    @Test func whatEndedOrIsStoppedIsNotReplaced() {
        var fixture = fixture(silentFor: 100, LossPolicy(replaceAfter: 30), kind: .container)
        fixture.picture.workload.desired = .stopped
        #expect(!fixture.actions.contains(.place(i1)))
        fixture.picture.workload.desired = .running
        fixture.picture.tasks[t1]?.status.phase = .exited
        #expect(!fixture.actions.contains(.place(i1)))
    }

    @Test func oneOfAGlobalServiceBelongsToItsNode() {
        var fixture = fixture(silentFor: 100)
        fixture.picture.workload.scale = .global
        fixture.picture.instances[0].node = NodeID("n1")
        fixture.picture.eligible = [NodeID("n1"): "n1"]
        #expect(!fixture.actions.contains(.place(i1)))
    }

    @Test func theReplacedTaskIsWantedRemovedBeforeItsNodeIsBack() {
        #expect(displaced(silentFor: 70).actions.contains(removal(1)))
        let keeping = LossPolicy(replaceAfter: 60, onReturn: .keepOriginal)
        #expect(displaced(silentFor: 70, keeping).actions == [])
    }

    @Test func aReplacementThatWasNeverPlacedGivesWay() {
        for policy in [LossPolicy(replaceAfter: 60), LossPolicy(replaceAfter: 60, onReturn: .keepOriginal)] {
            #expect(displaced(silentFor: nil, policy, replaced: false).actions == [.restore(i1, t1)])
            #expect(displaced(silentFor: 70, policy, replaced: false).actions == [.place(i1)])
        }
    }

    @Test func theOriginalIsKeptWhereThePolicySaysSo() {
        let keeping = LossPolicy(replaceAfter: 60, onReturn: .keepOriginal)
        #expect(displaced(silentFor: nil, keeping).actions == [.restore(i1, t1)])
        // Not one of an older revision.
        var older = displaced(silentFor: nil, keeping)
        older.picture.tasks[t9]?.revision = 2
        older.picture.workload.revision = 2
        older.picture.olderPods[1] = older.picture.pod
        #expect(older.actions.contains(removal(1)))
    }

    @Test func whatIsSilentForTooLongIsGivenUp() {
        let policy = LossPolicy(replaceAfter: 60, giveUpAfter: 100)
        #expect(displaced(silentFor: 100, policy, desired: .removed).actions == [.giveUp(t1)])
        #expect(displaced(silentFor: 100, policy, replaced: false).actions == [.giveUp(t1), .place(i1)])
        let never = LossPolicy(giveUpAfter: 100)
        #expect(fixture(silentFor: 100, never, kind: .container).actions == [.giveUp(t1), .place(i1)])
    }

    @Test func whatIsBackAndGoneIsForgotten() {
        var fixture = displaced(silentFor: nil, desired: .removed)
        #expect(fixture.actions == [])
        fixture.picture.tasks[t1]?.status.phase = .removed
        #expect(fixture.actions == [.removeTask(t1)])
    }

    @Test func aWorkloadGoesWhenAllItsTasksAreGone() {
        var fixture = displaced(silentFor: 70, LossPolicy(replaceAfter: 60, giveUpAfter: 100))
        fixture.picture.workload.desired = .removed
        #expect(
            fixture.actions.filter { if case .setTask = $0 { true } else { false } } == [
                .setTask(t9, desired: .removed, generation: 1, stop: nil), removal(1),
            ])
        fixture.picture.tasks[t9]?.status.phase = .removed
        fixture.picture.tasks[t1]?.desired = .removed
        #expect(fixture.actions.contains(.removeTask(t9)))
        #expect(!fixture.actions.contains(.removeInstance(i1)))
        fixture.now = fixture.now.adding(seconds: 30)
        #expect(fixture.actions == [.removeTask(t9), .giveUp(t1), .removeInstance(i1)])
    }

    @Test func anUpdateGoesOnWithoutLostOnesAndEndsWithThem() {
        var fixture = Fixture(.replicated(2))
        fixture.add(1)
        fixture.add(2, node: "n2")
        fixture.picture.workload.revision = 2
        fixture.picture.workload.updateState = UpdateState(.updating, since: fixture.now)
        fixture.picture.unreachable[NodeID("n1")] = fixture.now.adding(seconds: -5)
        // It may be back in a moment: the master has just begun, say.
        #expect(!fixture.actions.contains(removal(2)))
        fixture.picture.unreachable[NodeID("n1")] = fixture.now.adding(seconds: -20)
        #expect(fixture.actions.contains(removal(2)))
        fixture.picture.tasks[TaskID("t2")]?.revision = 2
        #expect(!fixture.actions.contains { if case .setUpdate = $0 { true } else { false } })
        fixture.picture.unreachable = [:]
        #expect(fixture.actions.contains(removal(1)))
    }

    @Test func theTasksOwnRevisionSaysWhenItIsOver() {
        var fixture = fixture(silentFor: 60)
        fixture.picture.workload.revision = 2
        fixture.picture.olderPods[1] = PodSpec(
            containers: [], loss: LossPolicy(replaceAfter: 200, onDisconnect: .stopAfter(100)))
        #expect(!fixture.actions.contains(.place(i1)))
    }
}
