import JSON
import Model
import Testing
import Wire

@testable import AgentCore

@Suite("Changes in place") struct UpdatesOfTasks {
    private func changed(
        _ revision: Int, _ desired: DesiredState = .running, memory: Int64? = nil, networks: [String] = [],
        restart: RestartPolicy = RestartPolicy()
    ) -> TaskAssignment {
        var changed = assignment(desired, restart: restart)
        changed.revision = revision
        changed.pod.containers[0].limits.memory = memory
        changed.pod.attachments = networks.map { NetworkAttachment(network: $0) }
        return changed
    }

    private func running() -> Scenario {
        var scenario = Scenario()
        scenario.assign(assignment())
        scenario.perform()
        _ = scenario.take()
        return scenario
    }

    @Test("New limits of a container that runs are brought about, and its revision tells when")
    func limits() {
        var scenario = running()
        scenario.assign(changed(2, memory: 64 << 20))
        #expect(scenario.take(records: true) == ["persist", "update 1-2"])
        #expect(scenario.status()?.revision == 1)
        #expect(scenario.records[t1]?.applied?.revision == 1)
        scenario.perform()
        #expect(scenario.status()?.revision == 2)
        #expect(scenario.status()?.phase == .running)
        #expect(scenario.records[t1]?.applied == nil)
        #expect(scenario.take() == [])
    }

    @Test("Other devices of a container that runs are brought about, and its revision tells when")
    func devices() {
        var scenario = running()
        var changed = assignment()
        changed.revision = 2
        changed.grantedDevices = [DeviceGrant(container: "main", claim: 0, devices: ["a"])]
        scenario.assign(changed)
        #expect(scenario.take(records: true) == ["persist", "update 1-2"])
        #expect(scenario.status()?.revision == 1)
        scenario.perform()
        #expect(scenario.status()?.revision == 2)
        #expect(scenario.take() == [])
    }

    @Test("What fails is said, and tried again until it succeeds")
    func failure() {
        var scenario = running()
        scenario.assign(changed(2, memory: 64 << 20))
        scenario.dropPending()
        _ = scenario.take()
        scenario.step(.updated(t1, ExecutorFailure("cannot update container web: busy")))
        #expect(scenario.status()?.message == "cannot update container web: busy")
        #expect(scenario.take() == [])
        scenario.pass(seconds: 1.1)
        #expect(scenario.take() == ["update 1-2"])
        scenario.perform()
        #expect(scenario.status()?.message == "")
        #expect(scenario.status()?.revision == 2)
    }

    @Test("A change that comes while one is under way follows it, from where that one led")
    func another() {
        var scenario = running()
        scenario.assign(changed(2, memory: 64 << 20))
        scenario.assign(changed(3, memory: 32 << 20))
        #expect(scenario.take() == ["update 1-2"])
        scenario.dropPending()
        scenario.step(.updated(t1, nil))
        #expect(scenario.take() == ["update 2-3"])
        scenario.perform()
        #expect(scenario.status()?.revision == 3)
    }

    @Test("What failed half-way is led to what is wanted now, and so is what was before it")
    func halfDone() {
        var scenario = running()
        scenario.assign(changed(2, networks: ["n1"]))
        scenario.dropPending()
        scenario.step(.updated(t1, ExecutorFailure("no room")))
        _ = scenario.take()
        scenario.assign(changed(3, networks: ["n2"]))
        #expect(scenario.take() == ["update 2-3"])
        scenario.perform()
        #expect(scenario.take() == ["update 1-3"])
        #expect(scenario.status()?.revision == 3)
        #expect(scenario.records[t1]?.applied == nil && scenario.records[t1]?.attempted == nil)
    }

    @Test("What failed half-way is undone when all is to be as before, also after a restart of the agent")
    func undone() {
        for restarts in [false, true] {
            var scenario = running()
            scenario.assign(changed(2, networks: ["n1"]))
            scenario.dropPending()
            scenario.step(.updated(t1, ExecutorFailure("no room")))
            if restarts {
                scenario = scenario.restarted(
                    .running(start: 1, StartedContainer(pid: 41, startedAt: scenario.now), paused: false))
                scenario.dropPending()
                scenario.step(.updated(t1, ExecutorFailure("no room")))
            }
            _ = scenario.take()
            scenario.assign(changed(3))
            #expect(scenario.take() == ["update 2-3"])
            #expect(scenario.status()?.revision == 1)
            scenario.perform()
            #expect(scenario.take() == [])
            #expect(scenario.status()?.revision == 3)
        }
    }

    @Test("An agent that was restarted in between does it again")
    func restart() {
        var scenario = running()
        scenario.assign(changed(2, memory: 64 << 20))
        var next = scenario.restarted(
            .running(start: 1, StartedContainer(pid: 41, startedAt: scenario.now), paused: false))
        #expect(next.take() == ["update 1-2"])
        next.perform()
        #expect(next.status()?.revision == 2)
    }

    @Test("What does not run has its limits from its next start on; new networks it has at once")
    func resting() {
        var scenario = running()
        scenario.exit(code: 0)
        scenario.assign(changed(2, memory: 64 << 20))
        #expect(scenario.take() == [])
        #expect(scenario.status()?.revision == 2)
        scenario.assign(changed(3, memory: 64 << 20, networks: ["n1"]))
        #expect(scenario.take() == ["update 2-3"])
        scenario.perform()
        #expect(scenario.status()?.revision == 3)
    }

    @Test("Nothing starts while its networks are those of before")
    func networksFirst() {
        var scenario = running()
        scenario.exit(code: 0)
        var again = changed(2, networks: ["n1"])
        again.generation = 2
        scenario.assign(again)
        #expect(scenario.take() == ["update 1-2"])
        scenario.dropPending()
        scenario.step(.updated(t1, ExecutorFailure("cannot update container web: no room")))
        #expect(scenario.take() == [])
        scenario.pass(seconds: 1.1)
        #expect(scenario.take() == ["update 1-2"])
        scenario.perform()
        #expect(scenario.take() == ["start 2"])
    }

    @Test("A change that comes while it is being started is brought about afterwards")
    func whileStarting() {
        var scenario = Scenario()
        scenario.assign(assignment())
        #expect(scenario.take() == ["prepare"])
        scenario.assign(changed(2, memory: 64 << 20))
        scenario.perform()
        // The start took the new limits along; nothing else was to be done.
        #expect(scenario.take() == ["start 1"])
        #expect(scenario.status()?.revision == 2)
        scenario.exit(code: 0)
        var again = changed(3, memory: 64 << 20)
        again.generation = 2
        scenario.assign(again)
        #expect(scenario.take() == ["start 2"])
        var newest = changed(4, memory: 32 << 20)
        newest.generation = 2
        scenario.assign(newest)
        scenario.perform()
        #expect(scenario.take() == ["update 3-4"])
    }

    @Test("A stop does not wait for an update that fails")
    func stop() {
        var scenario = running()
        scenario.assign(changed(2, memory: 64 << 20))
        scenario.dropPending()
        scenario.step(.updated(t1, ExecutorFailure("busy")))
        _ = scenario.take()
        scenario.assign(changed(2, .stopped, memory: 64 << 20))
        #expect(scenario.take() == ["signal "])
        scenario.exit(code: 143)
        #expect(scenario.status()?.phase == .exited)
        #expect(scenario.status()?.revision == 2)
    }

    @Test("A new restart policy is in force at once: also for a container that waits for its restart")
    func policy() {
        var scenario = Scenario()
        scenario.assign(assignment(restart: RestartPolicy(.always)))
        scenario.perform()
        scenario.exit(code: 1)
        _ = scenario.take()
        #expect(scenario.status()?.restartAt != nil)
        scenario.assign(changed(2))
        #expect(scenario.status()?.restartAt == nil)
        scenario.pass(seconds: 300)
        #expect(scenario.take() == [])
        // It runs, and its end is now a reason to start it again.
        var other = running()
        other.assign(changed(2, restart: RestartPolicy(.always)))
        #expect(other.take() == [])
        other.exit(code: 0)
        other.pass(seconds: 1)
        #expect(other.take() == ["start 2"])
    }
}

@Suite("Health that is only told of") struct HealthTold {
    private func scenario(_ change: (inout HealthCheck) -> Void) -> Scenario {
        var check = HealthCheck(probe: .tcp(port: 80), interval: 30, timeout: 1, retries: 2, startPeriod: 20)
        change(&check)
        var scenario = Scenario()
        scenario.assign(assignment(health: check))
        scenario.perform()
        _ = scenario.take()
        return scenario
    }

    @Test("A container that is unhealthy goes on when its check only tells")
    func tell() {
        var scenario = scenario {
            $0.onUnhealthy = .tell
            $0.startPeriod = 0
        }
        for _ in 0..<2 {
            scenario.pass(seconds: 31)
            #expect(scenario.take() == ["probe"])
            scenario.step(.probed(t1, start: 1, .failure("no")))
        }
        #expect(scenario.container()?.health == .unhealthy)
        #expect(scenario.status()?.phase == .running)
        #expect(scenario.status()?.serving == false)
        #expect(scenario.take() == [])
        scenario.pass(seconds: 31)
        scenario.step(.probed(t1, start: 1, .success))
        #expect(scenario.container()?.health == .healthy)
        #expect(scenario.status()?.serving == true)
    }

    @Test("Within the start period there is a shorter interval, until the first success")
    func startInterval() {
        var scenario = scenario { $0.startInterval = 2 }
        scenario.pass(seconds: 2.1)
        #expect(scenario.take() == ["probe"])
        scenario.step(.probed(t1, start: 1, .failure("not yet")))
        scenario.pass(seconds: 2.1)
        #expect(scenario.take() == ["probe"])
        scenario.step(.probed(t1, start: 1, .success))
        scenario.pass(seconds: 2.1)
        #expect(scenario.take() == [])
        scenario.pass(seconds: 28)
        #expect(scenario.take() == ["probe"])
    }

    @Test("It may be the longer one")
    func longStartInterval() {
        var scenario = scenario {
            $0.startPeriod = 600
            $0.startInterval = 90
        }
        scenario.pass(seconds: 45)
        #expect(scenario.take() == [])
        scenario.pass(seconds: 46)
        #expect(scenario.take() == ["probe"])
    }

    @Test("Where nothing is said it is five seconds")
    func standard() {
        var scenario = scenario { $0.interval = nil }
        scenario.pass(seconds: 5.1)
        #expect(scenario.take() == ["probe"])
        scenario.step(.probed(t1, start: 1, .success))
        scenario.pass(seconds: 5.1)
        #expect(scenario.take() == [])
        scenario.pass(seconds: 25)
        #expect(scenario.take() == ["probe"])
    }
}
