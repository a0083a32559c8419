import OCISpec
import Testing

@testable import ContainerRuntime

/// Which mounts wait until the container's process is in its groups.
@Suite struct MountGroupTests {
    private func needsGroup(_ type: String, _ options: [String] = [], source: String = "none") throws -> Bool {
        try MountPlan(
            MountSpec(destination: "/mnt", type: type, source: source, options: options), path: "mounts[0]",
            bundle: "/bundle"
        ).needsGroup
    }

    @Test func `filesystems of the kernel's own that are empty at first do not`() throws {
        for type in ["proc", "sysfs", "tmpfs", "devpts", "mqueue"] { #expect(try !needsGroup(type)) }
    }

    @Test func `memory that is filled and devices that are opened do`() throws {
        #expect(try needsGroup("tmpfs", ["tmpcopyup"]))
        #expect(try needsGroup("ext4", source: "/dev/sda1"))
        #expect(try needsGroup("overlay", ["lowerdir=/a:/b"]))
    }

    @Test func `the groups themselves do, and what is bound, which may be one`() throws {
        #expect(try needsGroup("cgroup"))
        #expect(try needsGroup("cgroup2"))
        #expect(try needsGroup("bind", source: "/sys/fs/cgroup/memory/x"))
        #expect(try needsGroup("none", ["rbind"], source: "/data"))
    }
}
