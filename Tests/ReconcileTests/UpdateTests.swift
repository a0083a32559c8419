import JSON
import Model
import Reconcile
import Testing

@Suite struct Updates {
    static func updating(_ number: Int, _ change: (inout UpdatePolicy) -> Void = { _ in }) -> Fixture {
        var fixture = Fixture(.replicated(number))
        fixture.picture.workload.revision = 2
        fixture.picture.workload.update = UpdatePolicy(monitor: 5)
        change(&fixture.picture.workload.update)
        fixture.picture.workload.updateState = UpdateState(.updating, since: fixture.now)
        return fixture
    }

    @Test func oneIsReplacedAfterAnother() {
        var fixture = Self.updating(3)
        for slot in 1...3 { fixture.add(slot) }
        #expect(fixture.actions == [removal(1)])
    }

    @Test func parallelismIsTheBatch() {
        var fixture = Self.updating(3) { $0.parallelism = 2 }
        for slot in 1...3 { fixture.add(slot) }
        #expect(fixture.actions == [removal(1), removal(2)])
    }

    @Test func theNextBatchWaitsUntilTheLastServes() {
        var fixture = Self.updating(2)
        fixture.add(1, phase: .stopping, desired: .removed)
        fixture.add(2)
        #expect(fixture.actions == [])
        fixture.picture.instances[0].task = nil
        #expect(fixture.actions == [.place(InstanceID("i1"))])
    }

    @Test func aNewOneCountsAfterTheMonitorTime() {
        var fixture = Self.updating(2)
        fixture.add(1, revision: 2, servingFor: 2)
        fixture.add(2)
        #expect(fixture.actions == [.wake(fixture.now.adding(seconds: 3))])
        fixture.now = fixture.now.adding(seconds: 3)
        #expect(fixture.actions == [removal(2)])
    }

    @Test func delayPartsTheBatches() {
        var fixture = Self.updating(2) { $0.delay = 60 }
        fixture.add(1, revision: 2, servingFor: 10)
        fixture.add(2)
        #expect(fixture.actions == [.wake(fixture.now.adding(seconds: 55))])
        fixture.now = fixture.now.adding(seconds: 55)
        #expect(fixture.actions == [removal(2)])
    }

    @Test func itSettlesWhenAllAreNew() {
        var fixture = Self.updating(1)
        fixture.add(1, revision: 2)
        #expect(fixture.actions == [.setUpdate(UpdateState(.settled, since: fixture.now))])
    }

    @Test func whatDoesNotServeIsReplacedFirst() {
        var fixture = Self.updating(3)
        fixture.add(1)
        fixture.add(2)
        fixture.add(3, phase: .exited, serving: false)
        #expect(fixture.actions == [removal(3)])
    }

    @Test func aFailurePausesWithASentence() {
        var fixture = Self.updating(2)
        fixture.add(1, revision: 2, phase: .failed) { $0.status.message = "no such program: /nope" }
        fixture.add(2)
        #expect(
            fixture.actions == [
                .setUpdate(UpdateState(.paused, message: "web.1: no such program: /nope", since: fixture.now))
            ])
    }

    @Test func repeatedRestartsAreAFailure() {
        var fixture = Self.updating(2)
        fixture.add(1, revision: 2, serving: false) {
            $0.status.containers = [
                ContainerStatus(name: "main", id: ContainerID("c1"), exitCode: 137, outOfMemory: true, restarts: 3)
            ]
        }
        fixture.add(2)
        guard case .setUpdate(let state)? = fixture.actions.first else {
            Issue.record("the update goes on")
            return
        }
        #expect(state.phase == .paused)
        #expect(state.message == "web.1: restarted 3 times, last with exit code 137 (out of memory)")
    }

    @Test func notServingInTimeIsAFailure() {
        var fixture = Self.updating(1)
        fixture.add(1, revision: 2, serving: false)
        #expect(fixture.actions == [.wake(fixture.now.adding(seconds: 120))])
        fixture.now = fixture.now.adding(seconds: 120)
        guard case .setUpdate(let state)? = fixture.actions.first else {
            Issue.record("the update goes on")
            return
        }
        #expect(state.phase == .paused)
    }

    @Test func continueLeavesTheFailedBehind() {
        var fixture = Self.updating(2) { $0.onFailure = .continue }
        fixture.add(1, revision: 2, phase: .failed)
        fixture.add(2)
        #expect(fixture.actions == [removal(2)])
    }

    @Test func rollbackGoesBackOnceAndThenPauses() {
        var fixture = Self.updating(2) { $0.onFailure = .rollback }
        fixture.add(1, revision: 2, phase: .failed) { $0.status.message = "broken" }
        fixture.add(2)
        #expect(fixture.actions == [.rollBack("web.1: broken")])
        fixture.picture.workload.updateState.rolledBackFrom = 2
        guard case .setUpdate(let state)? = fixture.actions.first else {
            Issue.record("it rolls back again")
            return
        }
        #expect(state.phase == .paused)
        #expect(state.rolledBackFrom == 2)
    }

    @Test func aPausedUpdateStandsStillButScales() {
        var fixture = Self.updating(3)
        fixture.picture.workload.updateState.phase = .paused
        fixture.add(1, revision: 2, phase: .failed)
        fixture.add(2)
        #expect(fixture.actions == [.createInstance(slot: 3, node: nil, name: "web.3")])
        #expect(Reconciler.failedTasks(of: fixture.picture) == [TaskID("t1")])
    }

    @Test func aClockSetBackDoesNotStretchTheWait() {
        var fixture = Self.updating(1)
        fixture.add(1, revision: 2, servingFor: 0)
        fixture.now = fixture.now.adding(seconds: -3600)
        #expect(fixture.actions == [.wake(fixture.now.adding(seconds: 5))])
    }
}
