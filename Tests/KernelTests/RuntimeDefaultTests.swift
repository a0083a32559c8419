import Glibc
import JSON
import Kernel
import OCISpec
import Testing

extension KernelSuite {
    /// What a container has where its configuration says nothing, or says what has no effect: nothing of it comes from
    /// the caller by accident.
    @Suite(.serialized) struct RuntimeDefaults {
        /// Runs a container through a program that changes what the runtime inherits.
        private func run(
            _ fixture: RuntimeFixture, through: [String], _ script: String,
            _ shape: (inout ContainerSpec) throws -> Void = { _ in }
        ) throws -> RuntimeOutput {
            let command = [try fixture.runtime.path(), "--root", fixture.root, "run", "--bundle"]
            let bundle = try fixture.bundle(script, shape)
            let all = through.dropFirst() + command + [bundle, "c1"]
            let result = try Program(
                through[0], Array(all), environment: fixture.environment, timeoutMilliseconds: 60_000
            ).run()
            return RuntimeOutput(
                code: result.status.shellCode, stdout: String(decoding: result.output, as: UTF8.self),
                stderr: String(decoding: result.errors, as: UTF8.self))
        }

        @Test(arguments: RuntimeFixture.Runtime.allCases)
        func `the mask of a program is 022, whatever its caller's is`(_ runtime: RuntimeFixture.Runtime) throws {
            let caller = ["/bin/sh", "-c", "umask 077; exec \"$@\"", "sh"]
            let output = try run(RuntimeFixture(runtime), through: caller, "umask")
            #expect(output.text == "0022", "\(output)")
        }

        @Test(arguments: RuntimeFixture.Runtime.allCases)
        func `the inclination to be killed is the caller's, unless it is said`(
            _ runtime: RuntimeFixture.Runtime
        ) throws {
            let caller = ["/bin/sh", "-c", "echo 17 > /proc/self/oom_score_adj; exec \"$@\"", "sh"]
            let output = try run(RuntimeFixture(runtime), through: caller, "cat /proc/self/oom_score_adj")
            #expect(output.text == "17", "\(output)")
        }

        @Test func `a personality of LINUX is not the caller's`() throws {
            #if arch(x86_64)
                let fixture = try RuntimeFixture()
                let caller = ["/usr/bin/setarch", "i686"]
                #expect(try run(fixture, through: caller, "/bin/busybox uname -m").text == "i686", "the control")
                let output = try run(fixture, through: caller, "/bin/busybox uname -m") { spec in
                    spec.linux?.personality = PersonalitySpec(domain: .linux)
                }
                #expect(output.text == "x86_64", "\(output)")
            #endif
        }

        @Test(arguments: RuntimeFixture.Runtime.allCases)
        func `a size of the console without a terminal has no effect`(_ runtime: RuntimeFixture.Runtime) throws {
            let output = try RuntimeFixture(runtime).run("test -t 1; echo $?") { spec in
                spec.process?.consoleSize = ConsoleSize(height: 10, width: 20)
            }
            #expect(output.text == "1", "\(output)")
        }

        @Test func `filesystems are mounted where the configuration lists them, and nowhere else`() throws {
            let fixture = try RuntimeFixture()
            let script = "for d in proc sys dev/pts dev/shm dev/mqueue; do echo $d: /$d/*; done; echo /dev/nul*"
            let output = try fixture.run(script) { spec in
                spec.mounts = []
                spec.linux?.maskedPaths = []
                spec.linux?.readonlyPaths = []
            }
            #expect(
                output.lines == [
                    "proc: /proc/*", "sys: /sys/*", "dev/pts: /dev/pts/*", "dev/shm: /dev/shm/*",
                    "dev/mqueue: /dev/mqueue/*", "/dev/null",
                ], "\(output)")
        }

        @Test(arguments: RuntimeFixture.Runtime.allCases)
        func `mandatory locks are passed on to the kernel, which has none any more`(
            _ runtime: RuntimeFixture.Runtime
        ) throws {
            let output = try RuntimeFixture(runtime).run("grep ' /mnt ' /proc/self/mountinfo | wc -l") { spec in
                spec.mounts.append(MountSpec(destination: "/mnt", type: "tmpfs", source: "x", options: ["mand"]))
            }
            #expect(output.text == "1", "\(output)")
        }

        @Test func `a container without a cgroup path has a cgroup of its own name`() throws {
            let fixture = try RuntimeFixture()
            let id = "nameless-\(fixture.directory.suffix(6))"
            let bundle = try fixture.bundle("cat /proc/self/cgroup") { $0.linux?.cgroupsPath = nil }
            let output = try fixture.call(["run", "--bundle", bundle, id])
            #expect(output.lines.contains { $0.hasSuffix("/martlet-\(id)") }, "\(output)")
            #expect(HostCgroups.directories("martlet-\(id)").allSatisfy { !File.exists($0) })
        }
    }
}
