import JSON
import Model
import Testing
import Wire

@testable import AgentCore

@Suite("Stopping")
struct StopTests {
    private func running(_ restart: RestartPolicy = RestartPolicy(), grace: Int = 10) -> Scenario {
        var agent = Scenario()
        agent.assign(assignment(restart: restart, grace: grace))
        agent.perform()
        _ = agent.take()
        return agent
    }

    @Test("A stop sends the container's own signal and waits for the end")
    func graceful() {
        var agent = running()
        agent.assign(assignment(.stopped))
        #expect(agent.take() == ["signal "])
        #expect(agent.status()?.phase == .stopping)
        #expect(agent.status()?.serving == false)
        agent.pass(seconds: 9)
        #expect(agent.take() == [])
        agent.exit(code: 0)
        #expect(agent.status()?.phase == .exited)
        agent.pass(seconds: 60)
        #expect(agent.take() == [])
        #expect(agent.events == ["start", "kill", "die", "stop"])
    }

    @Test("SIGKILL follows when the grace is over, and again while nothing ends")
    func kills() {
        var agent = running()
        agent.assign(assignment(.stopped, stop: StopOrder(signal: "INT", grace: 2)))
        #expect(agent.take() == ["signal INT"])
        agent.pass(seconds: 1.9)
        #expect(agent.take() == [])
        agent.pass(seconds: 0.2)
        #expect(agent.take() == ["kill"])
        agent.pass(seconds: 5)
        #expect(agent.take() == ["kill"])
        agent.exit(code: 137)
        agent.pass(seconds: 60)
        #expect(agent.take() == [])
        #expect(agent.events == ["start", "kill", "kill", "die", "stop"])
    }

    @Test("What was killed by a user did not stop")
    func killedByUser() {
        var agent = running()
        var order = StopOrder(signal: "KILL", grace: 0)
        order.isKill = true
        agent.assign(assignment(.stopped, stop: order))
        #expect(agent.take() == ["kill"])
        agent.exit(code: 137)
        #expect(agent.status()?.phase == .exited)
        #expect(agent.events == ["start", "kill", "die"])
    }

    @Test("An order of SIGKILL kills at once", arguments: ["KILL", "SIGKILL", "9", "sigkill"])
    func killOrder(signal: String) {
        var agent = running()
        agent.assign(assignment(.stopped, stop: StopOrder(signal: signal)))
        #expect(agent.take() == ["kill"])
    }

    @Test("A second, stricter order shortens a stop that is under way; a more lenient one does not")
    func stricter() {
        var agent = running()
        agent.assign(assignment(.stopped, stop: StopOrder(grace: 30)))
        _ = agent.take()
        agent.assign(assignment(.stopped, stop: StopOrder(grace: 600)))
        agent.pass(seconds: 5)
        #expect(agent.take() == [])
        agent.assign(assignment(.stopped, stop: StopOrder(signal: "KILL", grace: 0)))
        #expect(agent.take() == ["kill"])
    }

    @Test("A user's stop is never restarted, whatever the policy")
    func staysStopped() {
        var agent = running(RestartPolicy(.always))
        agent.assign(assignment(.stopped, restart: RestartPolicy(.always)))
        agent.exit(code: 1)
        agent.pass(seconds: 120)
        #expect(agent.take() == ["signal "])
        #expect(agent.status()?.phase == .exited)
        #expect(agent.status()?.restartAt == nil)
    }

    @Test("A start during a stop starts again after the end, even without a new generation")
    func startDuringStop() {
        var agent = running()
        agent.assign(assignment(.stopped))
        agent.assign(assignment(.running))
        agent.perform()
        agent.exit(code: 143)
        agent.perform()
        #expect(agent.take() == ["signal ", "start 2"])
        #expect(agent.status()?.phase == .running)
    }

    @Test("A start that crossed the end of a stop on its way starts again")
    func startCrossesEnd() {
        var agent = running()
        agent.assign(assignment(.stopped))
        agent.exit(code: 143)
        agent.perform()
        agent.assign(assignment(.running))
        agent.perform()
        #expect(agent.take() == ["signal ", "start 2"])
    }

    @Test("Restart: stop, then a new start with a clean count")
    func restart() {
        var agent = running()
        agent.assign(assignment(generation: 2))
        #expect(agent.take() == ["signal "])
        agent.exit(code: 143)
        #expect(agent.status()?.phase == .preparing, "an end on the way to a restart must not look final")
        agent.perform()
        #expect(agent.take() == ["start 2"])
        #expect(agent.container()?.restarts == 0)
    }

    @Test("A frozen container is thawed before the signal")
    func thawsFirst() {
        var agent = running()
        agent.assign(assignment(.paused))
        agent.perform()
        _ = agent.take()
        agent.assign(assignment(.stopped))
        #expect(agent.take() == ["resume"])
        agent.perform()
        #expect(agent.take() == ["signal "])
    }

    @Test("A frozen container that does not thaw is killed at the deadline all the same")
    func killsFrozen() {
        var agent = running()
        agent.assign(assignment(.paused))
        agent.perform()
        agent.assign(assignment(.stopped, stop: StopOrder(grace: 3)))
        _ = agent.take()
        agent.dropPending()
        agent.pass(seconds: 4)
        #expect(agent.take() == ["kill"])
    }

    @Test("A kill order does not wait for a thaw that failed before it")
    func killAfterFailedThaw() {
        var agent = running()
        agent.assign(assignment(.paused))
        agent.perform()
        agent.assign(assignment(.stopped, stop: StopOrder(grace: 30)))
        agent.dropPending()
        agent.step(.resumed(t1, start: 1, ExecutorFailure("does not thaw")))
        _ = agent.take()
        agent.assign(assignment(.stopped, stop: StopOrder(signal: "KILL")))
        #expect(agent.take() == ["kill"])
        agent.pass(seconds: 3)
        #expect(agent.take() == [])
    }

    @Test("A signal that could not be delivered is sent again")
    func resends() {
        var agent = running()
        agent.assign(assignment(.stopped))
        _ = agent.take()
        agent.dropPending()
        agent.step(.signalled(t1, start: 1, ExecutorFailure("shim does not answer")))
        agent.pass(seconds: 1)
        #expect(agent.take() == ["signal "])
    }

    @Test("Removal of a running container stops it first, with its grace")
    func removal() {
        var agent = running()
        agent.assign(assignment(.removed))
        #expect(agent.take() == ["signal "])
        agent.exit(code: 0)
        #expect(agent.take() == ["remove"])
        agent.perform()
        #expect(agent.status()?.phase == .removed)
    }

    @Test("A task that the master does not know any more goes, and is forgotten at once")
    func orphan() {
        var agent = running()
        agent.step(.assignments([]))
        #expect(agent.take() == ["signal "])
        agent.exit()
        agent.perform()
        #expect(agent.take() == ["remove", "forget"])
        #expect(agent.core.records.isEmpty)
    }

    @Test("When the clock is set back, a stop lasts no longer than its grace from then on")
    func clockSetBack() {
        var agent = running()
        agent.assign(assignment(.stopped, stop: StopOrder(grace: 5)))
        _ = agent.take()
        agent.now = agent.now - 3600 * 1_000_000_000
        agent.step(.tick)
        agent.pass(seconds: 4.9)
        #expect(agent.take() == [])
        agent.pass(seconds: 0.2)
        #expect(agent.take() == ["kill"])
    }
}
