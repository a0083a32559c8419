import Confinement
import Glibc
import Kernel
import Testing

/// Labels of security modules, with a directory in the place of procfs and sysfs.
@Suite struct SecurityLabelTests {
    /// A directory like the root of a procfs: the thread is 43 of process 42.
    private final class FakeProcfs {
        let path: String

        init(_ files: [String]) throws {
            var template = Array("/tmp/martlet-labels-XXXXXX".utf8CString)
            path = String(cString: try #require(mkdtemp(&template)))
            try File.makeDirectories("\(path)/42/task/43/attr/apparmor")
            #expect(symlink("42/task/43", "\(path)/thread-self") == 0)
            for file in files { try File.replace("\(path)/42/task/43/attr/\(file)", with: []) }
        }

        deinit { _ = try? Tree.remove(path) }

        func attributes() throws -> ProcessAttributeFiles {
            ProcessAttributeFiles(try File.open(path, O_RDONLY | O_DIRECTORY))
        }

        func text(_ file: String) throws -> String { try File.text("\(path)/42/task/43/attr/\(file)") }
    }

    @Test func `a profile goes to its module's own file, where there is one`() throws {
        let procfs = try FakeProcfs(["exec", "apparmor/exec"])
        try SecurityLabels(appArmorProfile: "box (enforce)").applyOnExecute(procfs.attributes())
        #expect(try procfs.text("apparmor/exec") == "exec box (enforce)")
        #expect(try procfs.text("exec") == "")
        let old = try FakeProcfs(["exec"])
        try SecurityLabels(appArmorProfile: "box").applyOnExecute(old.attributes())
        #expect(try old.text("exec") == "exec box")
    }

    @Test func `a context goes to the common file`() throws {
        let procfs = try FakeProcfs(["exec", "apparmor/exec", "keycreate"])
        let labels = SecurityLabels(appArmorProfile: "", seLinuxContext: "u:r:t:s0:c1,c2")
        try labels.applyOnExecute(procfs.attributes())
        #expect(try procfs.text("exec") == "u:r:t:s0:c1,c2")
        #expect(try procfs.text("apparmor/exec") == "")
        var during = ""
        try labels.withKeyLabel(procfs.attributes()) { during = try procfs.text("keycreate") }
        #expect(during == "u:r:t:s0:c1,c2")
    }

    @Test func `links on the way are not followed, and what is not there is an error`() throws {
        let procfs = try FakeProcfs(["elsewhere"])
        #expect(symlink("elsewhere", "\(procfs.path)/42/task/43/attr/exec") == 0)
        #expect(throws: KernelError.self) {
            try SecurityLabels(seLinuxContext: "a:b:c").applyOnExecute(procfs.attributes())
        }
        #expect(try procfs.text("elsewhere") == "")
        let none = try FakeProcfs([])
        #expect(throws: KernelError.self) {
            try SecurityLabels(appArmorProfile: "box").applyOnExecute(none.attributes())
        }
    }

    @Test func `a module is there when its files say so`() throws {
        var template = Array("/tmp/martlet-sysfs-XXXXXX".utf8CString)
        let sysfs = String(cString: try #require(mkdtemp(&template)))
        defer { _ = try? Tree.remove(sysfs) }
        for module in SecurityModule.allCases { #expect(!module.isEnabled(sysfs: sysfs)) }
        try File.makeDirectories("\(sysfs)/module/apparmor/parameters")
        try File.makeDirectories("\(sysfs)/fs/selinux")
        for (text, enabled) in [("N\n", false), ("Y\n", true)] {
            try File.replace("\(sysfs)/module/apparmor/parameters/enabled", with: Array(text.utf8))
            #expect(SecurityModule.appArmor.isEnabled(sysfs: sysfs) == enabled)
        }
        // The directory alone is there without the filesystem.
        #expect(!SecurityModule.seLinux.isEnabled(sysfs: sysfs))
        try File.replace("\(sysfs)/fs/selinux/enforce", with: Array("0".utf8))
        #expect(SecurityModule.seLinux.isEnabled(sysfs: sysfs))
    }

    @Test func `labels are one line of at most a page`() {
        #expect(SecurityLabels.objection(to: "u:r:t:s0") == nil)
        #expect(SecurityLabels.objection(to: "a\nb") != nil)
        #expect(SecurityLabels.objection(to: String(repeating: "a", count: 4001)) != nil)
        #expect(SecurityLabels(appArmorProfile: "", seLinuxContext: "").isEmpty)
    }
}
