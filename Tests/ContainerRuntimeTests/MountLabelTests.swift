import OCISpec
import Testing

@testable import ContainerRuntime

/// Which mounts get the SELinux context of `linux.mountLabel`.
@Suite struct MountLabelTests {
    private let label = "u:object_r:t:s0:c1,c2"

    private func options(_ type: String, _ options: [String] = [], label: String?) throws -> [String] {
        try MountPlan(
            MountSpec(destination: "/mnt", type: type, source: "/tmp", options: options), path: "mounts[0]",
            bundle: "/bundle"
        ).labelled(label).options.data
    }

    @Test func `filesystems that are mounted for the container have the context`() throws {
        for type in ["tmpfs", "devpts", "ext4"] {
            #expect(try options(type, label: label) == ["context=\(label)"])
        }
        #expect(try options("tmpfs", ["size=1m", "ro"], label: label) == ["size=1m", "context=\(label)"])
    }

    @Test func `without a label there is none, and one of the mount's own stays`() throws {
        #expect(try options("tmpfs", label: nil) == [])
        #expect(try options("tmpfs", label: "") == [])
        #expect(try options("tmpfs", ["context=a:b:c"], label: label) == ["context=a:b:c"])
    }

    @Test func `what the policy labels itself, and what is not mounted anew, is left alone`() throws {
        for type in ["proc", "sysfs", "mqueue"] { #expect(try options(type, label: label) == []) }
        #expect(try options("bind", label: label) == [])
        #expect(try options("none", ["rbind"], label: label) == [])
    }

    @Test func `the commas of a context do not end it in one string`() throws {
        let plan = try MountPlan(
            MountSpec(destination: "/mnt", type: "tmpfs", options: ["size=1m"]), path: "mounts[0]", bundle: "/bundle"
        ).labelled(label)
        #expect(MountPlan.joined(plan.options.data) == "size=1m,context=\"\(label)\"")
    }
}
