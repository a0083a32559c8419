import JSON
import Model
import Reconcile
import Testing

@Suite struct Scaling {
    @Test func missingSlotsAreCreated() {
        var fixture = Fixture(.replicated(3))
        fixture.add(2)
        #expect(
            fixture.actions == [
                .createInstance(slot: 1, node: nil, name: "web.1"), .createInstance(slot: 3, node: nil, name: "web.3"),
            ])
    }

    @Test func whatIsAsItShallBeIsLeftAlone() {
        var fixture = Fixture(.replicated(2))
        fixture.add(1)
        fixture.add(2)
        #expect(fixture.actions == [])
    }

    @Test func theHighestSlotsGoFirst() {
        var fixture = Fixture(.replicated(1))
        for slot in 1...3 { fixture.add(slot) }
        #expect(fixture.actions == [removal(2), removal(3)])
    }

    @Test func anInstanceGoesOnceItsTaskIsRemoved() {
        var fixture = Fixture(.replicated(0))
        fixture.add(1, phase: .removed, desired: .removed)
        fixture.add(2, revision: nil)
        fixture.add(3, phase: .stopping, desired: .removed)
        #expect(
            fixture.actions == [
                .removeTask(TaskID("t1")), .removeInstance(InstanceID("i1")), .removeInstance(InstanceID("i2")),
            ])
    }

    @Test func anInstanceWithoutATaskIsPlaced() {
        var fixture = Fixture(.replicated(1))
        fixture.add(1, revision: nil)
        #expect(fixture.actions == [.place(InstanceID("i1"))])
    }

    @Test func aTaskThatItsNodeLostIsPlacedAnew() {
        var fixture = Fixture(.replicated(1))
        fixture.add(1, phase: .removed)
        #expect(fixture.actions == [.removeTask(TaskID("t1")), .place(InstanceID("i1"))])
    }

    @Test func aGlobalServiceHasOneOnEachEligibleNode() {
        var fixture = Fixture(.global)
        fixture.picture.eligible = [NodeID("n1"): "one", NodeID("n2"): "two"]
        fixture.add(0, node: "n1")
        fixture.picture.instances[0].node = NodeID("n1")
        #expect(fixture.actions == [.createInstance(slot: 0, node: NodeID("n2"), name: "web.two")])
        fixture.picture.eligible = [NodeID("n2"): "two"]
        #expect(fixture.actions.contains(removal(0)))
        fixture.picture.cordoned = [NodeID("n1")]
        #expect(!fixture.actions.contains(removal(0)))
    }

    @Test func tasksLeaveDrainedNodes() {
        var fixture = Fixture(.replicated(2))
        fixture.add(1, node: "n1")
        fixture.add(2, node: "n2")
        fixture.picture.drained = [NodeID("n2"): Node.Drain(startedAt: fixture.now)]
        #expect(fixture.actions == [.displace(InstanceID("i2"), TaskID("t2"), .drained), .place(InstanceID("i2"))])
    }
}

@Suite struct Containers {
    @Test func theTaskFollowsTheWorkload() {
        var fixture = Fixture(.replicated(1), kind: .container)
        fixture.add(1)
        fixture.picture.workload.desired = .stopped
        fixture.picture.workload.stop = StopOrder(grace: 3)
        #expect(
            fixture.actions == [
                .setTask(TaskID("t1"), desired: .stopped, generation: 1, stop: StopOrder(grace: 3))
            ])
        fixture.picture.workload.desired = .running
        fixture.picture.workload.stop = nil
        fixture.picture.workload.generation = 2
        #expect(fixture.actions == [.setTask(TaskID("t1"), desired: .running, generation: 2, stop: nil)])
    }

    @Test func aStoppedOneIsNotPlaced() {
        var fixture = Fixture(.replicated(1), kind: .container)
        fixture.add(1, revision: nil)
        fixture.picture.workload.desired = .stopped
        #expect(fixture.actions == [])
    }

    @Test func removeOnExitActsOnceItEndedForGood() {
        func actions(_ phase: TaskStatus.Phase, restartAt: Timestamp? = nil, generation: Int = 1) -> [ReconcileAction] {
            var fixture = Fixture(.replicated(1), kind: .container)
            fixture.picture.workload.removeOnExit = true
            fixture.add(1, phase: phase) {
                $0.status.restartAt = restartAt
                $0.status.generation = generation
            }
            return fixture.actions
        }
        #expect(actions(.exited) == [.removeWorkload, removal(1)])
        #expect(actions(.failed) == [.removeWorkload, removal(1)])
        #expect(actions(.running) == [])
        #expect(actions(.exited, restartAt: Timestamp(nanoseconds: 5)) == [])
        // The end of an earlier start is not the end of the one that was asked for since.
        #expect(actions(.exited, generation: 0) == [])
    }

    @Test func aWorkloadIsForgottenWithItsLastInstance() {
        var fixture = Fixture(.replicated(1), kind: .container)
        fixture.picture.workload.desired = .removed
        #expect(fixture.actions == [.forgetWorkload])
        fixture.add(1, revision: nil)
        #expect(fixture.actions == [.removeInstance(InstanceID("i1"))])
    }

    @Test func aForcedRemovalReachesATaskThatIsGoingAlready() {
        var fixture = Fixture(.replicated(1), kind: .container)
        fixture.picture.workload.desired = .removed
        fixture.add(1, phase: .stopping, desired: .removed)
        #expect(fixture.actions == [])
        fixture.picture.workload.stop = StopOrder(signal: "SIGKILL", grace: 0)
        #expect(
            fixture.actions == [
                .setTask(
                    TaskID("t1"), desired: .removed, generation: 1, stop: StopOrder(signal: "SIGKILL", grace: 0))
            ])
    }
}
