import JSON
import Model
import Reconcile
import Testing

/// What is done about tasks whose devices are sick.
@Suite struct SickDevices {
    private typealias Ailment = WorkloadPicture.Ailment

    private func fixture(
        _ policy: DeviceClaim.HealthPolicy, kind: Workload.Kind = .service, hasOthers: Bool = true, starts: Int = 1,
        change: (inout NodeTask) -> Void = { _ in }
    ) -> Fixture {
        var fixture = Fixture(.replicated(1), kind: kind)
        fixture.add(1) { task in
            var container = ContainerStatus(name: "main", id: ContainerID("c1"))
            container.start = starts
            task.status.containers = [container]
            change(&task)
        }
        fixture.picture.ailing[TaskID("t1")] = Ailment(policy, "why", hasOthers: hasOthers)
        return fixture
    }

    private let moved: [ReconcileAction] = [
        .countDeviceMove(InstanceID("i1")), .displace(InstanceID("i1"), TaskID("t1"), .unhealthy),
        .place(InstanceID("i1")),
    ]

    @Test func eachPolicyDoesItsOwn() {
        #expect(fixture(.stay).actions == [])
        #expect(fixture(.end).actions == [.endTask(TaskID("t1"), reason: "why", again: false)])
        #expect(fixture(.restart).actions == moved)
        #expect(
            fixture(.restart, kind: .container).actions == [
                .countDeviceMove(InstanceID("i1")), .endTask(TaskID("t1"), reason: "why", again: true),
            ])
        #expect(fixture(.restart, kind: .container, hasOthers: false).actions == [])
    }

    @Test(arguments: [Workload.Kind.service, .container])
    func whoGotOthersNotLongAgoWaits(kind: Workload.Kind) {
        var fixture = fixture(.restart, kind: kind)
        let moves = DeviceMoves(at: fixture.now)
        fixture.picture.instances[0].deviceMoves = moves
        #expect(fixture.actions == [.wake(moves.next)])
        fixture.now = moves.next
        #expect(fixture.actions.first == .countDeviceMove(InstanceID("i1")))
    }

    @Test func eachMoveWaitsTwiceAsLongUpToAnHourAndQuietForgetsThem() {
        let start = Timestamp(nanoseconds: 0)
        var moves = DeviceMoves(at: start)
        var waits: [Int64] = []
        for _ in 0..<10 {
            waits.append((moves.next - moves.last) / 1_000_000_000)
            moves.add(at: moves.next)
        }
        #expect(waits == [30, 60, 120, 240, 480, 960, 1920, 3600, 3600, 3600])
        moves.add(at: moves.last.adding(seconds: 7199))
        #expect(moves.count == 12)
        moves.add(at: moves.last.adding(seconds: 7200))
        #expect(moves.count == 1)
        moves.add(at: moves.last.adding(seconds: 599))
        #expect(moves.count == 2)
        #expect(moves.withoutLast?.count == 1 && moves.withoutLast?.withoutLast == nil)
    }

    @Test func whatHasNeverRunIsNotEnded() {
        #expect(fixture(.end, starts: 0).actions == [])
        #expect(fixture(.restart, kind: .container, starts: 0).actions == [])
        #expect(fixture(.restart, starts: 0).actions == moved)
    }

    @Test(arguments: DeviceClaim.HealthPolicy.allCases)
    func whatEndedByItselfOrIsToGoIsLeftAlone(policy: DeviceClaim.HealthPolicy) {
        #expect(fixture(policy) { $0.status.phase = .exited }.actions == [])
        #expect(fixture(policy) { $0.desired = .removed }.actions == [])
        // One that waits for its restart would get the same devices.
        let waits = fixture(policy) {
            $0.status.phase = .exited
            $0.status.restartAt = Timestamp(nanoseconds: 1)
        }
        #expect(waits.actions.isEmpty == (policy == .stay))
    }

    @Test func whatWasEndedRestsOrStartsWithOthersOnceItHasEnded() {
        let ended = { (task: inout NodeTask) in
            task.desired = .stopped
            task.stop = StopOrder(reason: "why")
        }
        let over = { (task: inout NodeTask) in
            ended(&task)
            task.status.phase = .exited
        }
        #expect(fixture(.end, change: ended).actions == [])
        #expect(fixture(.end, change: over).actions == [])
        #expect(fixture(.restart, kind: .container, change: ended).actions == [])
        #expect(
            fixture(.restart, kind: .container, change: over).actions == [
                .setTask(TaskID("t1"), desired: .running, generation: 1, stop: nil)
            ])
    }

    @Test func theOldOneCountsAgainWhenItIsWellAndNothingTookItsPlace() {
        var waits = fixture(.restart)
        waits.picture.instances[0].task = nil
        waits.picture.instances[0].displaced = [Displaced(TaskID("t1"), .unhealthy, since: waits.now)]
        #expect(waits.actions == [.place(InstanceID("i1"))])
        waits.picture.ailing = [:]
        #expect(waits.actions == [.restore(InstanceID("i1"), TaskID("t1"))])
        // Silence says nothing of its devices.
        waits.picture.unreachable[NodeID("n1")] = waits.now
        #expect(!waits.actions.contains(.restore(InstanceID("i1"), TaskID("t1"))))
    }
}
