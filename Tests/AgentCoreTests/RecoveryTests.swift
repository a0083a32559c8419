import JSON
import Model
import Testing
import Wire

@testable import AgentCore

@Suite("After a crash of the agent")
struct RecoveryTests {
    private func running(_ policy: RestartPolicy = RestartPolicy()) -> Scenario {
        var agent = Scenario()
        agent.assign(assignment(restart: policy))
        agent.perform()
        return agent
    }

    private func alive(_ start: Int, _ agent: Scenario, paused: Bool = false) -> RecoveredTask.Container {
        .running(start: start, StartedContainer(pid: 40 + start, startedAt: agent.now), paused: paused)
    }

    @Test("A running container is taken over as it is")
    func takesOver() {
        let before = running()
        var agent = before.restarted(alive(1, before), at: 30)
        #expect(agent.take() == [])
        #expect(agent.status()?.phase == .running)
        #expect(agent.container()?.pid == 41 && agent.container()?.start == 1)
        #expect(agent.reports.first?.full == true)
    }

    @Test("An end that was recorded meanwhile is reported with its code, and the policy goes on")
    func endedMeanwhile() {
        let before = running(RestartPolicy(.onFailure))
        let exit = ContainerExit(start: 1, exitCode: 5, finishedAt: before.now)
        var agent = before.restarted(.exited(exit), at: 1)
        #expect(agent.container()?.exitCode == 5)
        agent.pass(seconds: 1)
        #expect(agent.take() == ["start 2"])
    }

    @Test("A start that was recorded but left no trace is made, under the same number")
    func repeatsStart() {
        var before = Scenario()
        before.assign(assignment(.prepared))
        before.perform()
        before.assign(assignment(.running))
        #expect(before.take() == ["prepare", "start 1"])
        var agent = before.restarted(.none)
        #expect(agent.take() == ["start 1"])
        var again = before.restarted(.none, prepared: false)
        #expect(again.take() == ["prepare"])
        again.perform()
        #expect(again.take() == ["start 1"])
    }

    @Test("A container that was made and not started is started, or killed when it is not wanted")
    func createdOnly() {
        var before = Scenario()
        before.assign(assignment(.prepared))
        before.perform()
        before.assign(assignment(.running))
        var agent = before.restarted(.created(start: 1))
        #expect(agent.take() == ["start 1"])

        agent = before.restarted(.created(start: 1))
        agent.dropPending()
        agent.step(.started(t1, start: 1, .failure(ExecutorFailure("x"))))
        agent = before.restarted(.created(start: 1), at: 0)
        _ = agent.take()
        agent.perform()
        #expect(agent.status()?.phase == .running)

        var stopped = before
        stopped.step(.assigned(assignment(.stopped)))
        stopped = stopped.restarted(.created(start: 1))
        #expect(stopped.take() == ["kill"])
        stopped.exit(start: 1, code: 137)
        stopped.pass(seconds: 60)
        #expect(stopped.take() == [])
    }

    @Test("A stop that had begun is finished at its old deadline")
    func finishesStop() {
        var before = running()
        before.assign(assignment(.stopped, stop: StopOrder(grace: 10)))
        var agent = before.restarted(alive(1, before), at: 4)
        #expect(agent.take() == ["signal "])
        agent.pass(seconds: 5.9)
        #expect(agent.take() == [])
        agent.pass(seconds: 0.2)
        #expect(agent.take() == ["kill"])
    }

    @Test("A removal that had begun is finished")
    func finishesRemoval() {
        var before = running()
        before.exit()
        before.assign(assignment(.removed))
        var agent = before.restarted(.none)
        #expect(agent.take() == ["remove"])
        agent.perform()
        #expect(agent.status()?.phase == .removed)
    }

    @Test("A container whose shim is gone without a record ended with 137 and says why")
    func shimLost() {
        let before = running(RestartPolicy(.always))
        let agent = before.restarted(.none)
        #expect(agent.container()?.exitCode == 137)
        #expect(agent.container()?.reason == "shim lost")
        #expect(agent.status()?.restartAt != nil)
    }

    @Test("After a reboot everything is made again and started as the policy says")
    func reboot() {
        let before = running(RestartPolicy(.unlessStopped))
        var agent = before.restarted(.none, prepared: false, bootID: "boot-2")
        #expect(agent.container()?.reason == "node rebooted")
        agent.pass(seconds: 1)
        agent.perform()
        #expect(agent.take() == ["prepare", "start 2"])

        let plain = running().restarted(.none, prepared: false, bootID: "boot-2")
        #expect(plain.status()?.phase == .exited && plain.status()?.restartAt == nil)
    }

    @Test("An end that reached the disk before a reboot is told as it was")
    func endBeforeReboot() {
        let before = running()
        let exit = ContainerExit(start: 1, exitCode: 41, finishedAt: before.now)
        let agent = before.restarted(.exited(exit), prepared: false, bootID: "boot-2")
        #expect(agent.container()?.exitCode == 41)
        #expect(agent.container()?.reason == "")
    }

    @Test("A container that a user stopped stays stopped over a reboot")
    func rebootAfterStop() {
        var before = running(RestartPolicy(.always))
        before.assign(assignment(.stopped, restart: RestartPolicy(.always)))
        before.exit()
        var agent = before.restarted(.none, prepared: false, bootID: "boot-2")
        agent.pass(seconds: 100)
        #expect(agent.take() == [])
    }

    @Test("A restart that was being waited for is not lost")
    func waitsOn() {
        var before = running(RestartPolicy(.always))
        before.exit(code: 1)
        var agent = before.restarted(.none)
        agent.pass(seconds: 1)
        #expect(agent.take() == ["start 2"])
    }

    @Test("A frozen container is taken over frozen")
    func frozen() {
        var before = running()
        before.assign(assignment(.paused))
        before.perform()
        var agent = before.restarted(alive(1, before, paused: true))
        #expect(agent.take() == [])
        #expect(agent.status()?.phase == .paused)
    }

    @Test("The record survives being written as JSON and read")
    func roundTrip() throws {
        var agent = running(RestartPolicy(.always, maximumRetries: 3))
        agent.assign(assignment(.stopped, stop: StopOrder(signal: "INT", grace: 4)))
        let record = try #require(agent.records[t1])
        #expect(record.stop != nil)
        #expect(try JSONCoding.decode(TaskRecord.self, from: JSONCoding.encode(record)) == record)
    }
}

@Suite("Instances and epochs")
struct EpochTests {
    @Test("An older epoch of an instance is refused")
    func refusesOlder() {
        var agent = Scenario()
        agent.assign(assignment(epoch: 5))
        agent.perform()
        _ = agent.take()
        agent.assign(assignment(task: t0, epoch: 4))
        #expect(agent.take() == [])
        #expect(agent.status(t0)?.phase == .failed)
        #expect(agent.status(t0)?.message.contains("epoch") == true)
        #expect(agent.status(t1)?.phase == .running)
    }

    @Test("A newer epoch starts only after the older task is gone")
    func waitsForOlder() {
        var agent = Scenario()
        agent.assign(assignment(epoch: 1))
        agent.perform()
        _ = agent.take()
        agent.assign(assignment(task: t2, epoch: 2))
        #expect(agent.take() == ["signal "])
        agent.perform()
        #expect(agent.status(t2)?.message.contains("t1") == true)
        agent.pass(seconds: 3)
        #expect(agent.take() == [])
        agent.exit(t1)
        #expect(agent.take() == ["remove"])
        agent.perform()
        #expect(agent.take() == ["prepare", "start 1"])
        #expect(agent.status(t1)?.phase == .removed)
        #expect(agent.status(t2)?.phase == .running)
        #expect(agent.status(t2)?.message == "")
    }

    @Test("An older epoch of the same task changes nothing")
    func ignoresOlderList() {
        var agent = Scenario()
        agent.assign(assignment(epoch: 2))
        agent.perform()
        _ = agent.take()
        agent.assign(assignment(.stopped, epoch: 1))
        #expect(agent.take() == [])
    }
}

@Suite("Reporting")
struct ReportingTests {
    @Test("One report at a time; what happened meanwhile follows in one")
    func coalesces() {
        var agent = Scenario()
        agent.answersReports = false
        agent.assign(assignment())
        let count = agent.reports.count
        agent.perform()
        agent.exit(code: 1)
        #expect(agent.reports.count == count)
        agent.step(.reported(sequence: agent.reports[count - 1].sequence))
        #expect(agent.reports.count == count + 1)
        #expect(agent.status()?.phase == .exited)
        #expect(agent.events == ["start", "die"])
    }

    @Test("A report that failed is repeated with what it had, after a second or two")
    func repeats() {
        var agent = Scenario()
        agent.assign(assignment())
        agent.perform()
        agent.answersReports = false
        agent.exit(code: 4)
        let lost = agent.reports[agent.reports.count - 1]
        agent.step(.reportFailed(sequence: lost.sequence))
        let count = agent.reports.count
        agent.pass(seconds: 0.9)
        #expect(agent.reports.count == count)
        agent.pass(seconds: 1.2)
        #expect(agent.reports.count == count + 1)
        #expect(agent.reports[count].tasks == [t1])
        #expect(agent.events.filter { $0 == "die" }.count == 2)
    }

    @Test("After a reconnect everything is told, also what was told before")
    func fullAfterReconnect() {
        var agent = Scenario()
        agent.assign(assignment())
        agent.assign(assignment(task: t2, instance: i2))
        agent.perform()
        agent.step(.disconnected)
        let count = agent.reports.count
        agent.exit(t1)
        #expect(agent.reports.count == count)
        agent.step(.connected)
        #expect(agent.reports.count == count + 1)
        #expect(agent.reports[count].full)
        #expect(Set(agent.reports[count].tasks) == [t1, t2])
        #expect(agent.events.last == "die")
    }

    @Test("Nothing is told when nothing changed")
    func quiet() {
        var agent = Scenario()
        agent.assign(assignment())
        agent.perform()
        let count = agent.reports.count
        agent.pass(seconds: 60)
        #expect(agent.reports.count == count)
    }
}
