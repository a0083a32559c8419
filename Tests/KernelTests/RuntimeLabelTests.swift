import Confinement
import Glibc
import Kernel
import OCISpec
import Testing

extension KernelSuite {
    /// The labels that security modules give a container's processes.
    @Suite(.serialized) struct RuntimeLabels {
        private static let parser = "/usr/sbin/apparmor_parser"
        private static let hasAppArmor = SecurityModule.appArmor.isEnabled() && access(parser, X_OK) == 0
        private static let hasNone = SecurityModule.allCases.allSatisfy { !$0.isEnabled() }

        /// An AppArmor profile that allows everything but one file, as long as this lives.
        private final class Profile {
            let name = "martlet-test"
            private let file: String

            init(_ fixture: RuntimeFixture) throws {
                file = "\(fixture.directory)/profile"
                let text = """
                    profile \(name) flags=(attach_disconnected,mediate_deleted) {
                      file, capability, network, mount, umount, pivot_root, ptrace, signal, unix,
                      deny /tmp/secret rwklx,
                    }

                    """
                try File.replace(file, with: Array(text.utf8))
                try call("--replace")
            }

            deinit { try? call("--remove") }

            private func call(_ verb: String) throws {
                let result = try Program(RuntimeLabels.parser, [verb, "--skip-cache", file]).run()
                try #require(result.status == .exited(0), "\(result.errorText)")
            }
        }

        /// The AppArmor label of a process.
        private func label(_ pid: pid_t) throws -> String { try File.text("/proc/\(pid)/attr/apparmor/current") }

        @Test(.enabled(if: hasAppArmor, "needs AppArmor and its parser"))
        func `the profile is that asked for, of the first process and of exec`() throws {
            let fixture = try RuntimeFixture()
            let profile = try Profile(fixture)
            try fixture.start("c1", "echo hidden > /tmp/plain; sleep 1000") { spec in
                spec.process?.apparmorProfile = profile.name
            }
            let confined = "\(profile.name) (enforce)"
            #expect(try label(fixture.state("c1").pid) == confined)
            let show = "cat /proc/self/attr/current; cat /tmp/plain; echo x > /tmp/secret && echo open"
            let output = try fixture.call(["exec", "c1", "sh", "-c", show])
            #expect(output.lines == [confined, "hidden"], "exec starts from config.json: \(output)")
            var process = ProcessSpec(args: ["/bin/cat", "/proc/self/attr/current"])
            let file = "\(fixture.directory)/process.json"
            try File.replace(file, with: process.encoded())
            #expect(try fixture.must("exec", "--process", file, "c1").text == confined, "nothing said is no way out")
            process.apparmorProfile = "unconfined"
            try File.replace(file, with: process.encoded())
            #expect(try fixture.must("exec", "--process", file, "c1").text == "unconfined")
            let freed = try fixture.must("exec", "--apparmor", "unconfined", "c1", "cat", "/proc/self/attr/current")
            #expect(freed.text == "unconfined")
            withExtendedLifetime(profile) {}
        }

        @Test(.enabled(if: hasAppArmor, "needs AppArmor and its parser"))
        func `a profile holds in a user namespace, and for hooks that run in the container`() throws {
            let fixture = try RuntimeFixture()
            let profile = try Profile(fixture)
            let output = try fixture.run("cat /proc/self/attr/current; cat /tmp/hook") { spec in
                spec.process?.apparmorProfile = profile.name
                spec.linux?.namespaces.append(NamespaceSpec(.user))
                spec.linux?.uidMappings = [IDMapping(containerID: 0, hostID: 0, size: 1000)]
                spec.linux?.gidMappings = [IDMapping(containerID: 0, hostID: 0, size: 1000)]
                var hooks = HooksSpec()
                hooks.startContainer = [
                    HookSpec(path: "/bin/sh", args: ["sh", "-c", "/bin/cat /proc/self/attr/current > /tmp/hook"])
                ]
                spec.hooks = hooks
            }
            let confined = "\(profile.name) (enforce)"
            #expect(output.lines == [confined, confined], "\(output)")
            withExtendedLifetime(profile) {}
        }

        @Test(.enabled(if: hasAppArmor, "needs AppArmor and its parser"))
        func `a profile that is not loaded is an error with its name`() throws {
            let fixture = try RuntimeFixture()
            let output = try fixture.run("true") { $0.process?.apparmorProfile = "martlet-nowhere" }
            #expect(output.code == 1)
            #expect(output.stderr.contains("process.apparmorProfile") && output.stderr.contains("martlet-nowhere"))
            #expect(try fixture.traces() == [])
        }

        @Test(
            .enabled(if: hasNone, "the kernel has a module for labels"))
        func `labels that the kernel cannot give are refused by name`() throws {
            let fixture = try RuntimeFixture()
            try fixture.start("c1") { $0.process?.apparmorProfile = "unconfined" }
            let profile = try fixture.call(["exec", "--apparmor", "box", "c1", "true"])
            #expect(profile.code == 255 && profile.stderr.contains("process.apparmorProfile"), "\(profile)")
            #expect(profile.stderr.contains("AppArmor"))
            let label = try fixture.call(["exec", "--process-label", "u:r:t:s0", "c1", "true"])
            #expect(label.code == 255 && label.stderr.contains("process.selinuxLabel"), "\(label)")
            #expect(label.stderr.contains("SELinux"))
            #expect(try fixture.call(["exec", "--apparmor", "unconfined", "c1", "true"]).code == 0)
        }

        @Test(
            .enabled(if: hasNone, "the kernel has a module for labels"))
        func `labels are written through a procfs that nobody else has`() throws {
            let procfs = try ProcessAttributeFiles.makePrivate()
            var own = stat()
            var common = stat()
            #expect(fstat(procfs.raw, &own) == 0 && stat("/proc", &common) == 0)
            #expect(own.st_dev != common.st_dev)
            #expect(faccessat(procfs.raw, "thread-self/attr/exec", W_OK, 0) == 0)
            #expect(faccessat(procfs.raw, "sysrq-trigger", F_OK, 0) != 0, "it has processes only")
            // The kernel itself answers, that it has nobody to ask.
            let files = ProcessAttributeFiles(procfs)
            do throws(KernelError) {
                try SecurityLabels(seLinuxContext: "u:r:t:s0").applyOnExecute(files)
                Issue.record("a label was taken")
            } catch {
                #expect(error.errno == EINVAL || error.errno == EOPNOTSUPP, "\(error)")
                #expect(error.subject == "/proc/thread-self/attr/exec")
            }
        }
    }
}
