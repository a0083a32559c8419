import JSON
import Model
import Testing
import Wire

@testable import AgentCore

@Suite struct WithoutContact {
    func leased(_ restart: RestartPolicy = RestartPolicy()) -> TaskAssignment {
        var assignment = assignment(restart: restart)
        assignment.pod.loss = LossPolicy(onDisconnect: .stopAfter(30))
        return assignment
    }

    func running(_ restart: RestartPolicy = RestartPolicy()) -> Scenario {
        var scenario = Scenario()
        scenario.assign(leased(restart))
        scenario.perform()
        #expect(scenario.status()?.phase == .running)
        _ = scenario.take()
        return scenario
    }

    @Test func itIsStoppedGracefullyWhenItsTimeIsOver() {
        var scenario = running()
        scenario.pass(seconds: 100)
        #expect(scenario.take() == [])
        scenario.step(.contact(at: scenario.now))
        scenario.step(.disconnected)
        scenario.pass(seconds: 29.9)
        #expect(scenario.take() == [])
        scenario.pass(seconds: 0.2)
        #expect(scenario.take() == ["signal "])
        scenario.pass(seconds: 10)
        #expect(scenario.take().contains("kill"))
    }

    @Test func itGoesOnWithTheNextContactWhateverItsPolicy() {
        var scenario = running()
        scenario.step(.contact(at: scenario.now))
        scenario.step(.disconnected)
        scenario.pass(seconds: 31)
        scenario.exit(code: 143)
        scenario.pass(seconds: 100)
        #expect(scenario.take() == ["signal "])
        scenario.answersReports = false
        scenario.step(.assignments([leased()]))
        scenario.step(.connected)
        // Not before the master has confirmed something.
        #expect(scenario.take() == [])
        #expect(scenario.container()?.reason == "lease")
        scenario.step(.contact(at: scenario.now))
        #expect(scenario.take() == ["start 2"])
    }

    @Test func anEndByTheShimIsNoCaseForTheRestartPolicy() {
        var scenario = running()
        scenario.step(.disconnected)
        scenario.step(
            .exited(t1, ContainerExit(start: 1, exitCode: 143, finishedAt: scenario.now, reason: ContainerExit.lease)))
        scenario.pass(seconds: 100)
        #expect(scenario.take() == [])
        scenario.step(.connected)
        #expect(scenario.take() == ["start 2"])
    }

    @Test func itIsNotRestartedWithoutContact() {
        var scenario = running(RestartPolicy(.always))
        scenario.step(.disconnected)
        scenario.exit(code: 1)
        scenario.pass(seconds: 100)
        #expect(scenario.take() == [])
        scenario.step(.connected)
        #expect(scenario.take() == ["start 2"])
    }

    @Test func aMasterThatIsSilentOnAnOpenConnectionStartsNothing() {
        var scenario = running()
        scenario.answersReports = false
        scenario.pass(seconds: 31)
        scenario.step(
            .exited(t1, ContainerExit(start: 1, exitCode: 143, finishedAt: scenario.now, reason: ContainerExit.lease)))
        scenario.pass(seconds: 60)
        #expect(scenario.take() == [])
        #expect(scenario.core[t1]?.start == 1)
        scenario.step(.contact(at: scenario.now))
        #expect(scenario.take() == ["start 2"])
    }

    @Test func aClockThatIsSetAheadEndsNothingAndHoldsAStartUpUntilTheNextContact() {
        var scenario = running()
        scenario.answersReports = false
        scenario.now = scenario.now.adding(seconds: 3600)
        scenario.step(.tick)
        #expect(scenario.take() == [])
        scenario.step(
            .assigned(
                {
                    var again = leased(); again.generation = 2; return again
                }()))
        #expect(scenario.take() == ["signal "])
        scenario.exit(code: 143)
        #expect(scenario.take() == [])
        scenario.step(.contact(at: scenario.now))
        #expect(scenario.take() == ["start 2"])
    }

    @Test func whatMayGoOnGoesOn() {
        var scenario = Scenario()
        scenario.assign(assignment(restart: RestartPolicy(.always)))
        scenario.perform()
        _ = scenario.take()
        scenario.step(.disconnected)
        scenario.pass(seconds: 1000)
        #expect(scenario.take() == [])
        scenario.exit(code: 1)
        scenario.pass(seconds: 1)
        #expect(scenario.take() == ["start 2"])
    }

    @Test func anAgentThatBeginsAnewGivesItItsTimeOnceMore() {
        var scenario = running()
        scenario.step(.disconnected)
        let found = RecoveredTask.Container.running(
            start: 1, StartedContainer(pid: 41, startedAt: scenario.now), paused: false)
        var next = Scenario(connected: false)
        next.now = scenario.now
        next.core = AgentCore()
        next.step(
            .recovered(
                scenario.records.values.map { RecoveredTask($0, prepared: PreparedPod(), container: found) },
                bootID: Scenario.boot))
        _ = next.take()
        next.pass(seconds: 29)
        #expect(next.take() == [])
        next.pass(seconds: 2)
        #expect(next.take() == ["signal "])
    }
}
