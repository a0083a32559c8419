import JSON
import Model
import Testing
import Wire

@testable import AgentCore

@Suite("Restarting")
struct RestartTests {
    @Test("The delay before a restart doubles from 100 ms to 60 s")
    func delays() {
        var agent = Scenario()
        agent.assign(assignment(restart: RestartPolicy(.always)))
        agent.perform()
        var delays: [Double] = []
        for _ in 1...12 {
            agent.exit(code: 1)
            guard let at = agent.status()?.restartAt else { break }
            delays.append(Double(at - agent.now) / 1e9)
            agent.pass(seconds: delays[delays.count - 1])
            agent.perform()
        }
        #expect(delays == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 51.2, 60, 60])
        #expect(agent.container()?.restarts == 12)
        #expect(agent.container()?.start == 13)
    }

    @Test("Ten seconds of running take the delay back")
    func forgives() {
        var agent = Scenario()
        agent.assign(assignment(restart: RestartPolicy(.always)))
        agent.perform()
        for _ in 1...5 {
            agent.exit(code: 1)
            agent.pass(seconds: 60)
            agent.perform()
        }
        agent.pass(seconds: 10)
        agent.exit(code: 1)
        #expect(agent.status()?.restartAt == agent.now + 100_000_000)
    }

    /// A container that ended while it was being frozen.
    private static func endedInFreeze() -> Scenario {
        var agent = Scenario()
        agent.assign(assignment(restart: RestartPolicy(.always)))
        agent.perform()
        agent.assign(assignment(.paused, restart: RestartPolicy(.always)))
        agent.exit(code: 1)
        return agent
    }

    @Test("What ends while its freeze is under way waits for its restart, and does not seem to be at rest")
    func endsWhileFrozen() {
        let agent = Self.endedInFreeze()
        #expect(agent.status()?.phase == .exited)
        #expect(agent.status()?.restartAt == agent.now + 100_000_000)
    }

    @Test("A stop is answered, whatever is under way with a container that has ended")
    func stopDuringFreeze() {
        var agent = Self.endedInFreeze()
        agent.assign(assignment(.stopped, restart: RestartPolicy(.always)))
        #expect(agent.status()?.restartAt == nil)
    }

    @Test("A new policy that has no restart holds for a container that ended while it was being frozen")
    func refusedDuringFreeze() {
        var agent = Self.endedInFreeze()
        agent.assign(assignment(.paused, restart: RestartPolicy()))
        #expect(agent.status()?.restartAt == nil)
    }

    @Test("What was due while the agent did not run is seen to with the first event, whatever that is about")
    func overdue() {
        var agent = Scenario()
        agent.assign(assignment(restart: RestartPolicy(.always)))
        agent.assign(assignment(task: t2, instance: i2, restart: RestartPolicy(.always)))
        agent.perform()
        agent.exit(t1, code: 1)
        agent.now = agent.now + 20_000_000
        agent.exit(t2, code: 1)
        _ = agent.take()
        agent.now = agent.now.adding(seconds: 60)
        agent.step(.delayed(t1, nil))
        #expect(agent.take() == ["start 2", "start 2"])
    }

    @Test(
        "The policy decides on the exit code",
        arguments: [
            (RestartPolicy(.no), 1, false), (RestartPolicy(.no), 0, false),
            (RestartPolicy(.onFailure), 0, false), (RestartPolicy(.onFailure), 1, true),
            (RestartPolicy(.always), 0, true), (RestartPolicy(.unlessStopped), 0, true),
        ])
    func policies(policy: RestartPolicy, code: Int, restarts: Bool) {
        var agent = Scenario()
        agent.assign(assignment(restart: policy))
        agent.perform()
        agent.exit(code: code)
        #expect((agent.status()?.restartAt != nil) == restarts)
        agent.pass(seconds: 1)
        #expect((agent.core[t1]?.start == 2) == restarts)
    }

    @Test("On-failure gives up after its number of restarts; a user's start begins anew")
    func givesUp() {
        var agent = Scenario()
        let policy = RestartPolicy(.onFailure, maximumRetries: 2)
        agent.assign(assignment(restart: policy))
        agent.perform()
        for _ in 1...5 {
            agent.exit(code: 1)
            agent.pass(seconds: 5)
            agent.perform()
        }
        #expect(agent.core[t1]?.start == 3)
        #expect(agent.status()?.phase == .exited && agent.status()?.restartAt == nil)
        agent.assign(assignment(generation: 2, restart: policy))
        agent.perform()
        #expect(agent.status()?.phase == .running && agent.container()?.restarts == 0)
    }

    @Test("A failure to prepare is told; it is tried again as the policy says")
    func prepareFails() {
        var agent = Scenario()
        agent.assign(assignment())
        agent.dropPending()
        agent.step(.prepared(t1, .failure(ExecutorFailure("port 80 is taken by another program"))))
        #expect(agent.status()?.phase == .failed)
        #expect(agent.status()?.message == "port 80 is taken by another program")
        #expect(agent.status()?.restartAt == nil)
        #expect(agent.status()?.generation == 1)
        agent.pass(seconds: 100)
        #expect(agent.take() == ["prepare"])

        agent.assign(assignment(generation: 2, restart: RestartPolicy(.always)))
        agent.dropPending()
        agent.step(.prepared(t1, .failure(ExecutorFailure("still taken"))))
        #expect(agent.status()?.restartAt != nil)
        agent.pass(seconds: 1)
        agent.perform()
        #expect(agent.status()?.phase == .running)
        #expect(agent.status()?.message == "")
    }

    @Test("A passing trouble such as a full disk is waited for whatever the policy")
    func transient() {
        var agent = Scenario()
        agent.assign(assignment())
        agent.dropPending()
        agent.step(.prepared(t1, .failure(ExecutorFailure("no space left", isTransient: true))))
        #expect(agent.status()?.restartAt != nil)
        agent.pass(seconds: 1)
        agent.perform()
        #expect(agent.status()?.phase == .running)
    }

    @Test("A program that does not exist fails with 127")
    func startFails() {
        var agent = Scenario()
        agent.assign(assignment(.prepared))
        agent.perform()
        agent.assign(assignment(.running))
        agent.dropPending()
        agent.step(.started(t1, start: 1, .failure(ExecutorFailure("no program /bin/x", exitCode: 127))))
        #expect(agent.status()?.phase == .failed)
        #expect(agent.container()?.exitCode == 127)
        #expect(agent.status()?.restartAt == nil)
        #expect(agent.events == ["die"])
    }
}

@Suite("Health")
struct HealthTests {
    private let check = HealthCheck(probe: .tcp(port: 80), interval: 5, timeout: 2, retries: 3)

    private func running(_ policy: RestartPolicy = RestartPolicy(), _ check: HealthCheck) -> Scenario {
        var agent = Scenario()
        agent.assign(assignment(restart: policy, health: check))
        agent.perform()
        _ = agent.take()
        return agent
    }

    @Test("The first success makes it serve")
    func becomesHealthy() {
        var agent = running(RestartPolicy(), check)
        #expect(agent.container()?.health == .starting)
        #expect(agent.status()?.serving == false)
        agent.pass(seconds: 5)
        #expect(agent.take() == ["probe"])
        agent.step(.probed(t1, start: 1, .success))
        #expect(agent.container()?.health == .healthy)
        #expect(agent.status()?.serving == true)
        #expect(agent.status()?.servingSince == agent.now)
    }

    @Test("Failures in a row stop it; the policy starts it again, in the same task")
    func unhealthy() {
        var agent = running(RestartPolicy(.onFailure), check)
        for failures in 1...3 {
            agent.pass(seconds: 5)
            #expect(agent.take() == ["probe"])
            agent.step(.probed(t1, start: 1, .failure("connection refused")))
            #expect(agent.container()?.failingStreak == failures)
        }
        #expect(agent.take() == ["signal "])
        #expect(agent.container()?.health == .unhealthy)
        agent.exit(code: 0)
        #expect(agent.container()?.reason == "unhealthy")
        #expect(agent.status()?.message == "health check failed: connection refused")
        agent.pass(seconds: 1)
        agent.perform()
        #expect(agent.take() == ["start 2"])
        #expect(agent.container()?.health == .starting)
        #expect(agent.events == ["start", "health_status", "kill", "die", "start"])
    }

    @Test("One success takes the count back")
    func countIsInARow() {
        var agent = running(RestartPolicy(), check)
        for outcome in [ProbeOutcome.failure("a"), .failure("b"), .success, .failure("c"), .failure("d")] {
            agent.pass(seconds: 5)
            agent.step(.probed(t1, start: 1, outcome))
        }
        #expect(agent.container()?.failingStreak == 2)
        #expect(agent.status()?.phase == .running)
    }

    @Test("Failures within the start period do not count until it has been healthy")
    func startPeriod() {
        var check = check
        check.startPeriod = 20
        var agent = running(RestartPolicy(), check)
        for _ in 1...3 {
            agent.pass(seconds: 5)
            agent.step(.probed(t1, start: 1, .failure("x")))
        }
        #expect(agent.container()?.failingStreak == 0)
        agent.pass(seconds: 5)
        agent.step(.probed(t1, start: 1, .failure("x")))
        #expect(agent.container()?.failingStreak == 1)
    }

    @Test("No second probe while one is under way, none while it is frozen")
    func oneAtATime() {
        var agent = running(RestartPolicy(), check)
        agent.pass(seconds: 30)
        #expect(agent.take() == ["probe"])
        agent.step(.probed(t1, start: 1, .success))
        agent.assign(assignment(.paused, health: check))
        agent.perform()
        _ = agent.take()
        agent.pass(seconds: 30)
        #expect(agent.take() == [])
    }

    @Test("A probe that is due waits with everything else for the next try of what failed")
    func waitsForTheNextTry() throws {
        var agent = running(RestartPolicy(), check)
        agent.pass(seconds: 4)
        agent.assign(assignment(.paused, health: check))
        agent.now = agent.now + 2 * Pace.second
        agent.step(.paused(t1, start: 1, ExecutorFailure("frozen halfway")))
        agent.assign(assignment(.running, health: check))
        #expect(try #require(agent.wakeAt) > agent.now)
        _ = agent.take()
        agent.pass(seconds: 2)
        #expect(agent.take() == ["probe"])
    }
}
