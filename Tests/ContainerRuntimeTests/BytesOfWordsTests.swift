import OCISpec
import Testing

@testable import ContainerRuntime

/// Words are bytes to the kernel, whatever characters they make: marks that join with the character before them, and
/// letters that look or compare like those of ASCII.
@Suite struct BytesOfWordsTests {
    @Test func `a value may begin with a mark that joins with the sign before it`() throws {
        var process = ProcessSpec(args: ["a"])
        process.env = ["MARK=\u{301}x", "NOT\u{338}=y"]
        #expect(throws: Never.self) { try Validation.check(process, path: "process") }
        for wrong in ["=\u{301}x", "NAME", "\u{2260}", ""] {
            process.env = [wrong]
            #expect(throws: RefusedField.self, "\(wrong)") { try Validation.check(process, path: "process") }
        }
    }

    @Test func `dots before a slash and a mark lead up as they do for the kernel`() throws {
        let mount = MountSpec(destination: "/a/../\u{301}b/../c", type: "tmpfs")
        let plan = try MountPlan(mount, path: "mounts[0]", bundle: "/bundle")
        #expect(plan.destination == "/c")
        let linked = try MountPlan(
            MountSpec(destination: "/a/b/../\u{301}c", type: "tmpfs"), path: "mounts[0]", bundle: "/bundle")
        #expect(Array(linked.destination.utf8) == Array("/a/\u{301}c".utf8))
    }

    @Test func `a sysctl does not lead up`() {
        #expect(SysctlCheck.place(of: "net/../\u{301}kernel/x") == nil)
        #expect(SysctlCheck.place(of: "net.//.x") == nil)
        #expect(SysctlCheck.place(of: "net.ipv4.conf.eth0/1.tag") == "net/ipv4/conf/eth0.1/tag")
    }

    @Test func `signals and sizes are written in ASCII`() throws {
        #expect(try SignalName.number(of: "sigkill") == 9)
        for wrong in ["\u{17f}igkill", "\u{17f}ys", "SIG\u{212a}ILL"] {
            #expect(throws: RuntimeError.self, "\(wrong)") { try SignalName.number(of: wrong) }
        }
        #expect(ByteSize.parse("1k") == 1024)
        #expect(ByteSize.parse("1\u{212a}") == nil)
    }

    @Test func `a file of a group lies in the group`() throws {
        var resources = ResourcesSpec()
        for file in ["cpu.x/\u{301}y", "cpu.x/y", "memory", ".high"] {
            resources.unified = [file: "1"]
            #expect(throws: RefusedField.self, "\(file)") { try Validation.check(resources, path: "resources") }
        }
        resources.unified = ["memory.high": "max"]
        #expect(throws: Never.self) { try Validation.check(resources, path: "resources") }
    }
}
