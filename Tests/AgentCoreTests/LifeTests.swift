import JSON
import Model
import Testing
import Wire

@testable import AgentCore

@Suite("A task's life")
struct LifeTests {
    @Test("A task that shall run is prepared and started, each step recorded before it is taken")
    func runs() {
        var agent = Scenario()
        agent.assign(assignment())
        #expect(agent.take(records: true) == ["persist", "prepare"])
        agent.perform()
        #expect(agent.take(records: true) == ["persist", "start 1", "persist"])
        #expect(agent.status()?.phase == .running)
        #expect(agent.status()?.generation == 1)
        #expect(agent.status()?.addresses == ["10.0.0.2"])
        #expect(agent.status()?.serving == true)
        #expect(agent.container()?.pid == 41)
        #expect(agent.events == ["start"])
    }

    @Test("The record says which start is under way before it is given out, and makes it durable")
    func recordsStart() {
        var core = AgentCore()
        var random = SystemRandomNumberGenerator()
        let now = Timestamp(nanoseconds: 5)
        _ = core.step(.assigned(assignment()), now: now, random: &random)
        let effects = core.step(.prepared(t1, .success(PreparedPod())), now: now, random: &random)
        guard case .persist(let record, let sync)? = effects.first else {
            Issue.record("no record before the start: \(effects)")
            return
        }
        #expect(record.start == 1 && record.startPending && sync)
        #expect(effects.dropFirst().first == .start(record.assignment, start: 1))
    }

    @Test("A task that shall be prepared is not started; starting it later starts it")
    func prepares() {
        var agent = Scenario()
        agent.assign(assignment(.prepared))
        agent.perform()
        #expect(agent.take() == ["prepare"])
        #expect(agent.status()?.phase == .prepared)
        agent.assign(assignment(.running))
        agent.perform()
        #expect(agent.take() == ["start 1"])
        #expect(agent.status()?.phase == .running)
    }

    @Test("A container that ends by itself is reported with its exit code and stays, without a policy")
    func ends() {
        var agent = Scenario()
        agent.assign(assignment())
        agent.perform()
        agent.exit(code: 3)
        agent.pass(seconds: 100)
        #expect(agent.status()?.phase == .exited)
        #expect(agent.container()?.exitCode == 3)
        #expect(agent.status()?.restartAt == nil)
        #expect(agent.core[t1]?.start == 1)
        #expect(agent.events == ["start", "die"])
    }

    @Test("Running out of memory is flagged and told")
    func outOfMemory() {
        var agent = Scenario()
        agent.assign(assignment())
        agent.perform()
        agent.exit(code: 137, outOfMemory: true)
        #expect(agent.container()?.outOfMemory == true)
        #expect(agent.events == ["start", "oom", "die"])
    }

    @Test("A user's start of an ended container is a new start of the same task")
    func startsAgain() {
        var agent = Scenario()
        agent.assign(assignment())
        agent.perform()
        agent.exit()
        _ = agent.take()
        agent.assign(assignment(generation: 2))
        agent.perform()
        #expect(agent.take() == ["start 2"])
        #expect(agent.status()?.generation == 2)
        #expect(agent.container()?.start == 2)
    }

    @Test("An end that is told before its start is not lost")
    func endsEarly() {
        var agent = Scenario()
        agent.assign(assignment(.prepared))
        agent.perform()
        agent.assign(assignment(.running))
        agent.dropPending()
        agent.exit(start: 1, code: 7)
        agent.step(.started(t1, start: 1, .success(StartedContainer(pid: 9, startedAt: agent.now))))
        #expect(agent.status()?.phase == .exited)
        #expect(agent.container()?.exitCode == 7)
    }

    @Test("An end of an earlier start changes nothing")
    func staleEnd() {
        var agent = Scenario()
        agent.assign(assignment())
        agent.perform()
        agent.exit()
        agent.assign(assignment(generation: 2))
        agent.perform()
        agent.exit(start: 1, code: 9)
        #expect(agent.status()?.phase == .running)
    }

    @Test("Pausing freezes, resuming thaws, and a failed freeze is tried again")
    func pauses() {
        var agent = Scenario()
        agent.assign(assignment())
        agent.perform()
        agent.assign(assignment(.paused))
        #expect(agent.take().last == "pause")
        agent.dropPending()
        agent.step(.paused(t1, start: 1, ExecutorFailure("frozen halfway")))
        #expect(agent.status()?.message == "frozen halfway")
        agent.pass(seconds: 1)
        #expect(agent.take() == ["pause"])
        agent.perform()
        #expect(agent.status()?.phase == .paused)
        #expect(agent.status()?.serving == false)
        agent.assign(assignment(.running))
        agent.perform()
        #expect(agent.take() == ["resume"])
        #expect(agent.status()?.phase == .running)
        #expect(agent.events == ["start", "pause", "unpause"])
    }

    @Test("Removal of an ended container undoes everything, is told, and is forgotten when the master has taken note")
    func removes() {
        var agent = Scenario()
        agent.assign(assignment())
        agent.perform()
        agent.exit()
        _ = agent.take()
        agent.assign(assignment(.removed))
        agent.perform()
        #expect(agent.take(records: true) == ["persist", "remove", "persist"])
        #expect(agent.status()?.phase == .removed)
        agent.step(.unassigned(t1))
        #expect(agent.take() == ["forget"])
        #expect(agent.core.records.isEmpty)
    }

    @Test("A removal that fails is tried again, with growing waits, and says why")
    func removalFails() {
        var agent = Scenario()
        agent.assign(assignment(.removed))
        for wait in [0.1, 0.2, 0.4] {
            #expect(agent.take() == ["remove"])
            agent.dropPending()
            agent.step(.removed(t1, ExecutorFailure("rootfs is busy")))
            #expect(agent.status()?.message == "rootfs is busy")
            agent.pass(seconds: wait - 0.01)
            #expect(agent.take() == [])
            agent.pass(seconds: 0.02)
        }
    }

    @Test("Nothing of a removed task comes back")
    func removedIsFinal() {
        var agent = Scenario()
        agent.assign(assignment(.removed))
        agent.perform()
        _ = agent.take()
        agent.assign(assignment(.running, generation: 5))
        agent.pass(seconds: 5)
        #expect(agent.take() == [])
        #expect(agent.status()?.phase == .removed)
    }

    @Test("A pod of two containers is refused by name, and taken for removed when it shall go")
    func refusesLargerPods() {
        var agent = Scenario()
        var two = assignment()
        two.pod.containers.append(ContainerSpec(name: "second", image: "busybox"))
        agent.assign(two)
        #expect(agent.take() == [])
        #expect(agent.status()?.phase == .failed)
        #expect(agent.status()?.message.contains("2 containers") == true)
        two.desired = .removed
        agent.assign(two)
        #expect(agent.status()?.phase == .removed)
    }
}
