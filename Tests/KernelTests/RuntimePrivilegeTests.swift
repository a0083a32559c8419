import CKernel
import Glibc
import JSON
import Kernel
import OCISpec
import Testing

extension KernelSuite {
    /// What a container's process may do, and as whom it runs.
    @Suite(.serialized) struct RuntimePrivileges {
        @Test(arguments: RuntimeFixture.Runtime.allCases)
        func `the user is exactly as asked`(_ runtime: RuntimeFixture.Runtime) throws {
            let fixture = try RuntimeFixture(runtime)
            let output = try fixture.run("id; umask; grep NoNewPrivs /proc/self/status; echo $HOME") { spec in
                spec.process?.user = UserSpec(uid: 1000, gid: 1001, umask: 0o077, additionalGids: [7, 70_000])
            }
            #expect(
                output.lines == ["uid=1000 gid=1001 groups=7,70000", "0077", "NoNewPrivs:\t1", "/"], "\(output)")
        }

        @Test(arguments: RuntimeFixture.Runtime.allCases)
        func `home comes from the container's own password file`(_ runtime: RuntimeFixture.Runtime) throws {
            let fixture = try RuntimeFixture(runtime)
            let bundle = try fixture.bundle("echo $HOME") { $0.process?.user.uid = 12 }
            let passwords = "root:x:0:0::/root:/bin/sh\nmail:x:12:12::/var/mail:/bin/sh\n"
            try File.replace("\(bundle)/rootfs/etc/passwd", with: Array(passwords.utf8), mode: 0o644)
            #expect(try fixture.call(["run", "--bundle", bundle, "c1"]).text == "/var/mail")
        }

        private func capabilities(_ output: RuntimeOutput) -> [String: UInt64] {
            Dictionary(
                output.lines.compactMap { line in
                    let parts = line.split(separator: "\t")
                    guard parts.count == 2 else { return nil }
                    return (String(parts[0].dropLast()), UInt64(parts[1], radix: 16) ?? .max)
                }, uniquingKeysWith: { first, _ in first })
        }

        @Test(arguments: RuntimeFixture.Runtime.allCases)
        func `capabilities are those asked for and no others`(_ runtime: RuntimeFixture.Runtime) throws {
            let fixture = try RuntimeFixture(runtime)
            for uid in [UInt32(0), 1000] {
                let output = try fixture.run("grep Cap /proc/self/status") { spec in
                    spec.process?.user.uid = uid
                    spec.process?.capabilities = CapabilitiesSpec(
                        bounding: ["CAP_CHOWN", "CAP_KILL"], effective: ["CAP_KILL"],
                        permitted: ["CAP_CHOWN", "CAP_KILL"])
                }
                let sets = capabilities(output)
                #expect(sets["CapBnd"] == 1 << 0 | 1 << 5, "\(output)")
                #expect(sets["CapInh"] == 0 && sets["CapAmb"] == 0)
                // The program was executed by the shell: root has what is permitted, others have nothing left.
                #expect(sets["CapPrm"] == (uid == 0 ? 1 << 0 | 1 << 5 : 0))
            }
        }

        @Test func `ambient capabilities survive execution as another user`() throws {
            let fixture = try RuntimeFixture()
            let output = try fixture.run("grep Cap /proc/self/status") { spec in
                spec.process?.user.uid = 1000
                let kill = ["CAP_KILL"]
                spec.process?.capabilities = CapabilitiesSpec(
                    bounding: kill, effective: kill, inheritable: kill, permitted: kill, ambient: kill)
            }
            let sets = capabilities(output)
            #expect(sets["CapAmb"] == 1 << 5 && sets["CapEff"] == 1 << 5, "\(output)")
        }

        @Test func `no capabilities at all means none`() throws {
            let fixture = try RuntimeFixture()
            let output = try fixture.run("grep Cap /proc/self/status") { $0.process?.capabilities = nil }
            #expect(capabilities(output).values.allSatisfy { $0 == 0 }, "\(output)")
        }

        @Test func `capabilities that are unknown or not to be had are warned of`() throws {
            let fixture = try RuntimeFixture()
            let output = try fixture.run("true") { spec in
                spec.process?.capabilities?.bounding.append("CAP_NO_SUCH")
            }
            #expect(output.code == 0)
            #expect(output.stderr.contains("warning") && output.stderr.contains("CAP_NO_SUCH"), "\(output)")
        }

        @Test(arguments: RuntimeFixture.Runtime.allCases)
        func `resource limits hold`(_ runtime: RuntimeFixture.Runtime) throws {
            let fixture = try RuntimeFixture(runtime)
            let output = try fixture.run("grep -E 'open files|core file' /proc/self/limits | tr -s ' '") { spec in
                spec.process?.rlimits = [
                    RlimitSpec(type: "RLIMIT_NOFILE", hard: 256, soft: 128),
                    RlimitSpec(type: "RLIMIT_CORE", hard: 0, soft: 0),
                ]
            }
            #expect(output.stdout.contains("Max core file size 0 0"), "\(output)")
            #expect(output.stdout.contains("Max open files 128 256"), "\(output)")
        }

        @Test func `a limit that the host refuses is named with the reason`() throws {
            let fixture = try RuntimeFixture()
            let path = "/proc/sys/fs/nr_open"
            let beyond = try #require(UInt64(try File.text(path))) + 1
            let output = try fixture.run("true") { spec in
                spec.process?.rlimits = [RlimitSpec(type: "RLIMIT_NOFILE", hard: beyond, soft: 10)]
            }
            #expect(output.code == 1)
            #expect(output.stderr.contains("RLIMIT_NOFILE") && output.stderr.contains("\(beyond)"), "\(output)")
            #expect(try fixture.traces() == [])
        }

        @Test(arguments: RuntimeFixture.Runtime.allCases)
        func `a filter decides over system calls`(_ runtime: RuntimeFixture.Runtime) throws {
            let fixture = try RuntimeFixture(runtime)
            for noNewPrivileges in [true, false] {
                let output = try fixture.run("mkdir /tmp/a; echo $?; chmod 700 /tmp; grep Seccomp: /proc/self/status") {
                    spec in
                    spec.process?.noNewPrivileges = noNewPrivileges
                    spec.process?.user.uid = 1000
                    var filter = SeccompSpec(defaultAction: "SCMP_ACT_ALLOW")
                    filter.syscalls = [
                        SyscallRule(names: ["mkdir", "mkdirat"], action: "SCMP_ACT_ERRNO", errnoRet: 28),
                        SyscallRule(
                            names: ["chmod", "fchmodat", "fchmodat2"], action: "SCMP_ACT_ERRNO", errnoRet: 28),
                    ]
                    // The runc at hand asks for its working directory after it has loaded the filter.
                    if runtime == .ours {
                        filter.syscalls.append(SyscallRule(names: ["getcwd"], action: "SCMP_ACT_ERRNO"))
                    }
                    spec.linux?.seccomp = filter
                }
                #expect(output.lines == ["1", "Seccomp:\t2"], "\(output)")
                #expect(output.stderr.contains("No space left on device"), "\(output)")
                // The right to load the filter is gone when the program runs.
                #expect(!output.stderr.contains("capset"), "\(output)")
            }
        }

        @Test func `the inclination to be killed is set`() throws {
            let fixture = try RuntimeFixture()
            let output = try fixture.run("cat /proc/self/oom_score_adj") { $0.process?.oomScoreAdj = 321 }
            #expect(output.text == "321", "\(output)")
        }

        @Test(arguments: RuntimeFixture.Runtime.allCases)
        func `the program gets standard input, output and error, and nothing else`(
            _ runtime: RuntimeFixture.Runtime
        ) throws {
            let fixture = try RuntimeFixture(runtime)
            // The highest one is ls's own, of the directory it reads.
            let output = try fixture.run("") { $0.process?.args = ["ls", "/proc/self/fd"] }
            #expect(output.lines == ["0", "1", "2", "3"], "\(output)")
        }

        @Test(arguments: ["run", "create", "exec"])
        func `the caller's signal settings are not the container's`(_ verb: String) throws {
            let fixture = try RuntimeFixture()
            let look = ["grep", "-E", "Sig(Blk|Ign|Cgt)", "/proc/self/status"]
            let bundle = try fixture.bundle { $0.process?.args = verb == "exec" ? ["sleep", "60"] : look }
            if verb == "exec" { try fixture.must("run", "--detach", "--bundle", bundle, "c1") }
            let words = verb == "exec" ? ["exec", "c1"] + look : [verb, "--bundle", bundle, "c1"]
            let program = try RuntimeFixture.program("martlet-runtime")
            // nohup(1) ignores SIGHUP, the shell's trap the others, one of them a real-time signal.
            let seen = "\(bundle)/signals"
            let script = "trap '' TERM PIPE 40; exec nohup \"$@\" > \(seen) 2> /dev/null"
            let call = ["-c", script, "sh", program, "--root", fixture.root] + words
            #expect(try Program("/bin/sh", call, environment: fixture.environment).run().status == .exited(0))
            if verb == "create" { try fixture.must("start", "c1") }
            let none = "0000000000000000"
            #expect(
                fixture.eventually {
                    (try? File.text(seen)) == "SigBlk:\t\(none)\nSigIgn:\t\(none)\nSigCgt:\t\(none)"
                }, "\((try? File.text(seen)) ?? "")")
        }

        @Test func `closed standard descriptors are the null device in the container`() throws {
            let fixture = try RuntimeFixture()
            try fixture.start("c1")
            let program = try RuntimeFixture.program("martlet-runtime")
            let script = "for n in 0 1 2; do readlink /proc/self/fd/$n; done > /tmp/fds; ls /proc/self/fd >> /tmp/fds"
            let child = try Spawn(
                program, [program, "--root", fixture.root, "exec", "c1", "sh", "-c", script], descriptors: [-1, -1, -1]
            ).start()
            #expect(try child.wait() == .exited(0))
            let seen = try File.text("\(try fixture.state("c1").bundle)/rootfs/tmp/fds").split(separator: "\n")
            #expect(seen.prefix(3).filter { $0 == "/dev/null" }.count >= 2, "\(seen)")
            #expect(seen.suffix(4) == ["0", "1", "2", "3"])
        }

        @Test func `a 32-bit personality is set`() throws {
            let fixture = try RuntimeFixture()
            let bundle = try fixture.bundle("cat /proc/self/personality") { spec in
                spec.linux?.personality = PersonalitySpec(domain: .linux32)
                // Reading /proc/<pid>/personality is a matter of ptrace rights.
                spec.process?.capabilities?.bounding.append("CAP_SYS_PTRACE")
            }
            #expect(try fixture.call(["run", "--bundle", bundle, "c1"]).text == "00000008")
        }
    }
}
