import Model
import Testing
import Wire

@testable import AgentCore

/// A device goes from one task to another only when nothing of the first is left, whatever the master knows of it.
@Suite struct DeviceHandover {
    private func claiming(
        _ desired: DesiredState = .running, _ task: TaskID, _ instance: String, _ device: String,
        _ sharing: DeviceClaim.Sharing = .whole
    ) -> TaskAssignment {
        var assignment = assignment(desired, task: task, instance: InstanceID(instance))
        assignment.grantedDevices = [DeviceGrant(container: "main", claim: 0, devices: [device], sharing: sharing)]
        return assignment
    }

    @Test func theNextWaitsForWhatIsOnItsWayOut() {
        var scenario = Scenario()
        scenario.assign(claiming(.running, t1, "a", "GPU-1"))
        scenario.perform()
        // The master has forgotten it.
        scenario.step(.unassigned(t1))
        _ = scenario.take()
        scenario.assign(claiming(.running, t2, "b", "GPU-1"))
        #expect(scenario.take() == [])
        scenario.exit(t1)
        scenario.perform()
        scenario.pass(seconds: 1)
        scenario.perform()
        #expect(scenario.status(t2)?.phase == .running)
    }

    @Test(arguments: [("GPU-2", DeviceClaim.Sharing.whole), ("GPU-1", .share)])
    func othersAndSharesDoNotWait(device: String, sharing: DeviceClaim.Sharing) {
        var scenario = Scenario()
        scenario.assign(claiming(.running, t1, "a", "GPU-1", .share))
        scenario.perform()
        scenario.step(.unassigned(t1))
        _ = scenario.take()
        scenario.assign(claiming(.running, t2, "b", device, sharing))
        #expect(scenario.take() == ["prepare"])
    }

    private func own(_ task: TaskID, _ instance: String, _ cpus: [Int]) -> TaskAssignment {
        var assignment = assignment(.running, task: task, instance: InstanceID(instance))
        assignment.grantedProcessors = [
            ProcessorGrant(container: "main", cpus: ProcessorSet(cpus), memoryNodes: ProcessorSet())
        ]
        return assignment
    }

    @Test func nobodyStartsOnAProcessorThatSomebodyElseRunsOn() {
        var scenario = Scenario()
        scenario.assign(own(t1, "a", [1]))
        scenario.perform()
        _ = scenario.take()
        scenario.assign(own(t2, "b", [1, 2]))
        #expect(scenario.take() == [])
        scenario.exit(t1)
        #expect(scenario.take().contains("prepare"))
    }

    @Test(arguments: [([0, 1], false), ([2], true)])
    func processorsAreHandedOverAlike(cpus: [Int], starts: Bool) {
        var scenario = Scenario()
        scenario.assign(own(t1, "a", [1]))
        scenario.perform()
        scenario.step(.unassigned(t1))
        _ = scenario.take()
        scenario.assign(own(t2, "b", cpus))
        #expect(scenario.take() == (starts ? ["prepare"] : []))
    }
}
