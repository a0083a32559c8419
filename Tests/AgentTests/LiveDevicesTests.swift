import CDISpec
import Glibc
import Kernel
import OCISpec
import Testing

@testable import Agent

/// What is between two configurations of a container that runs, as far as devices go.
@Suite struct DevicesOfRunningContainers {
    /// A node of the machine that no container has by itself.
    private static let node = CDIDeviceNode(
        path: "/dev/kmsg", type: .character, major: 1, minor: 11, permissions: "rw")

    private func base() -> ContainerSpec {
        var spec = ContainerSpec()
        spec.process = ProcessSpec(args: ["true"])
        spec.linux = LinuxSpec()
        spec.linux?.resources = ResourcesSpec()
        spec.linux?.resources?.devices = [DeviceRuleSpec(allow: false, access: "rwm")]
        return spec
    }

    private let claimed = CDIEdits(
        deviceNodes: [node],
        mounts: [CDIMount(hostPath: "/lib/a", containerPath: "/usr/lib/a", options: ["ro", "bind"])])

    @Test func whatIsGivenIsInTheConfigurationAndTheRules() throws {
        let change = try LiveDevices(from: base(), to: base(), with: claimed)
        #expect(!change.isMade)
        #expect(change.configuration.linux?.devices.map(\.path) == ["/dev/kmsg"])
        #expect(change.configuration.mounts.map(\.destination) == ["/usr/lib/a"])
        #expect(change.rules.map { "\($0)" }.contains("allow c 1:11 rw"))
        #expect(try LiveDevices(from: change.configuration, to: base(), with: claimed).isMade)
    }

    /// An attempt that fails at any step may have left what it was to bring about, and what it was to take away.
    @Test func whatAnAttemptMayHaveLeftIsTakenAwayByTheNext() throws {
        let first = try LiveDevices(from: base(), to: base(), with: claimed)
        let back = try LiveDevices(from: first.attempt, to: base(), with: CDIEdits())
        #expect(!back.isMade)
        #expect(back.configuration.linux?.devices == [] && back.configuration.mounts.isEmpty)
        #expect(!back.rules.contains { "\($0)".contains("1:11") })
        let again = try LiveDevices(from: back.attempt, to: base(), with: claimed)
        #expect(!again.isMade, "the node may be gone by now")
        #expect(try LiveDevices(from: again.configuration, to: base(), with: claimed).isMade)
    }

    @Test func whatAProcessHasOpenIsNotGivenBack() throws {
        let had = try LiveDevices(from: base(), to: base(), with: claimed).configuration
        let change = try LiveDevices(from: had, to: base(), with: CDIEdits())
        do {
            let file = try File.open("/dev/kmsg", O_RDONLY | O_NONBLOCK)
            #expect {
                try change.expectUnused(by: [getpid()])
            } throws: {
                "\($0)".contains("the process \(getpid()) of the container has /dev/kmsg open")
            }
            // What stays its own may be open.
            try LiveDevices(from: had, to: base(), with: claimed).expectUnused(by: [getpid()])
            _ = consume file
        } catch let error as KernelError where error.errno == EPERM || error.errno == ENOENT || error.errno == EACCES {
            return
        }
        try change.expectUnused(by: [getpid()])
    }
}
