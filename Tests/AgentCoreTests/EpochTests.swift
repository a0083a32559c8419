import JSON
import Model
import Testing
import Wire

@testable import AgentCore

@Suite struct Epochs {
    @Test func whatIsOlderThanWhatWasForgottenIsRefused() {
        var scenario = Scenario()
        scenario.assign(assignment(task: t2, epoch: 2))
        scenario.perform()
        scenario.step(.unassigned(t2))
        scenario.exit(t2)
        scenario.perform()
        #expect(scenario.records.isEmpty)
        _ = scenario.take()
        for epoch in [1, 2] {
            scenario.assign(assignment(task: t1, epoch: epoch))
            #expect(scenario.take().isEmpty)
            #expect(scenario.status()?.message.contains("epoch \(epoch) of instance web is refused") == true)
        }
        scenario.assign(assignment(task: TaskID("t3"), epoch: 3))
        #expect(scenario.take() == ["prepare"])
    }

    @Test func itIsRememberedOverARestart() {
        var scenario = Scenario(connected: false)
        scenario.core = AgentCore()
        scenario.step(.recovered([], bootID: Scenario.boot, epochs: [i1: 5]))
        scenario.step(.connected)
        _ = scenario.take()
        scenario.assign(assignment(epoch: 5))
        #expect(scenario.take() == [])
        scenario.assign(assignment(task: t2, epoch: 6))
        #expect(scenario.take() == ["prepare"])
    }

    @Test func theSameTaskIsNoNewEpoch() {
        var scenario = Scenario()
        scenario.assign(assignment())
        scenario.perform()
        var next = scenario.restarted(
            .running(start: 1, StartedContainer(pid: 41, startedAt: scenario.now), paused: false))
        next.step(.assignments([assignment()]))
        #expect(next.status()?.phase == .running)
    }

    @Test func whatIsHereCountsAlsoWhenMuchElseWasSeenSince() {
        var scenario = Scenario()
        scenario.assign(assignment(epoch: 5))
        scenario.perform()
        for number in 0..<6000 {
            let task = TaskID("x\(number)")
            scenario.assign(assignment(.prepared, task: task, instance: InstanceID("other\(number)")))
            scenario.step(.unassigned(task))
            scenario.perform()
        }
        scenario.assign(assignment(task: t2, epoch: 4))
        #expect(scenario.status(t2)?.message.contains("is refused") == true)
        #expect(scenario.status()?.phase == .running)
    }

    @Test func theMemoryIsBoundedAndKeepsWhatWasSeenLast() {
        var memory = EpochMemory()
        for number in 0..<20_000 { memory.note(InstanceID("i\(number)"), 1) }
        #expect(memory[InstanceID("i0")] == nil)
        for number in 20_000 - EpochMemory.limit..<20_000 { #expect(memory[InstanceID("i\(number)")] == 1) }
    }
}
