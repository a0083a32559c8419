import CKernel
import Glibc
import JSON
import Kernel
import OCISpec
import Testing

extension KernelSuite {
    /// Further processes in a running container.
    @Suite(.serialized) struct RuntimeExec {
        @Test(arguments: RuntimeFixture.Runtime.allCases)
        func `exec passes status, user, environment and directory`(_ runtime: RuntimeFixture.Runtime) throws {
            let fixture = try RuntimeFixture(runtime)
            try fixture.start("c1")
            #expect(try fixture.call(["exec", "c1", "sh", "-c", "exit 9"]).code == 9)
            let output = try fixture.call([
                "exec", "--user", "1000:5", "-g", "7", "-e", "A=b", "--cwd", "/tmp", "c1", "sh", "-c",
                "id; pwd; echo $A; ps | wc -l; echo $$",
            ])
            #expect(output.code == 0)
            #expect(output.lines.prefix(3) == ["uid=1000 gid=5 groups=7", "/tmp", "b"], "\(output)")
            let missing = try fixture.call(["exec", "c1", "nosuch"])
            #expect(missing.code == 255)
            #expect(missing.stderr.contains("executable file not found in $PATH"))
        }

        @Test(arguments: RuntimeFixture.Runtime.allCases)
        func `exec shares every namespace and cgroup of the container`(_ runtime: RuntimeFixture.Runtime) throws {
            let fixture = try RuntimeFixture(runtime)
            try fixture.start("c1") { $0.linux?.namespaces.append(NamespaceSpec(.cgroup)) }
            let pid = try fixture.state("c1").pid
            let names = ["pid", "net", "ipc", "uts", "mnt", "cgroup", "user", "time"]
            let script = names.map { "readlink /proc/self/ns/\($0)" }.joined(separator: "; ")
            let inside = try fixture.must("exec", "c1", "sh", "-c", script).lines
            for (name, link) in zip(names, inside) {
                var buffer = [CChar](repeating: 0, count: 64)
                let length = readlink("/proc/\(pid)/ns/\(name)", &buffer, 63)
                #expect(link == String(decoding: buffer[..<length].map { UInt8(bitPattern: $0) }, as: UTF8.self))
            }
            let file = "\(fixture.directory)/pid"
            try fixture.must("exec", "--detach", "--pid-file", file, "c1", "sleep", "1000")
            let other = try #require(pid_t(try File.text(file)))
            #expect(try File.text("/proc/\(other)/cgroup") == File.text("/proc/\(pid)/cgroup"))
            #expect(other != pid)
        }

        /// The report of the failure races with the end of the process that sends it.
        @Test func `a missing program is told every time, detached or not`() throws {
            let fixture = try RuntimeFixture()
            try fixture.start("c1")
            for round in 0..<60 {
                let arguments = ["exec"] + (round % 2 == 0 ? ["--detach"] : []) + ["c1", "/bin/nothing-there"]
                let output = try fixture.call(arguments)
                #expect(output.code == 255 && output.stderr.contains("/bin/nothing-there"), "\(output)")
            }
        }

        @Test func `capabilities of exec are never inheritable or ambient`() throws {
            let fixture = try RuntimeFixture()
            try fixture.start("c1")
            for user in ["0", "1000"] {
                let output = try fixture.must(
                    "exec", "--user", user, "--cap", "CAP_NET_RAW", "c1", "grep", "Cap", "/proc/self/status")
                let sets = Dictionary(
                    output.lines.map { line in
                        let parts = line.split(separator: "\t")
                        return (String(parts[0]), UInt64(parts[1], radix: 16) ?? .max)
                    }, uniquingKeysWith: { first, _ in first })
                #expect(sets["CapInh:"] == 0)
                #expect(sets["CapAmb:"] == 0)
                #expect((sets["CapBnd:"] ?? 0) & 1 << 13 != 0)
                #expect(((sets["CapEff:"] ?? 0) & 1 << 13 != 0) == (user == "0"))
            }
        }

        @Test func `a process can be described in a file`() throws {
            let fixture = try RuntimeFixture()
            try fixture.start("c1")
            var process = ProcessSpec(args: ["sh", "-c", "id -u; umask; grep NoNewPrivs /proc/self/status"])
            process.env = ["PATH=/bin"]
            process.user = UserSpec(uid: 4, gid: 4, umask: 0o027)
            let path = "\(fixture.directory)/process.json"
            try File.replace(path, with: process.encoded())
            #expect(try fixture.must("exec", "--process", path, "c1").lines == ["4", "0027", "NoNewPrivs:\t0"])
            #expect(try fixture.must("exec", "-p", path, "--no-new-privs", "c1").lines.last == "NoNewPrivs:\t1")
        }

        @Test(arguments: [
            "", ":", "1:", ":1", "-1", "+1", "4294967295", "4294967296", "18446744073709551616", "00", "01", "0x0",
            " 1", "1 ", "１", "root", "1:2:3", "1:root", "0:-1",
        ])
        func `a user that is no number is an error, never another user`(_ text: String) throws {
            let fixture = try RuntimeFixture()
            try fixture.start("c1")
            let output = try fixture.call(["exec", "--user=\(text)", "c1", "id"])
            #expect(output.code == 255)
            #expect(output.stdout.isEmpty)
            #expect(output.stderr.contains("--user"), "\(output.stderr)")
        }

        @Test func `the first words of a command line are the runtime's, the rest is the program's`() throws {
            let fixture = try RuntimeFixture()
            try fixture.start("c1")
            #expect(try fixture.must("exec", "c1", "echo", "-t", "--user", "5").text == "-t --user 5")
        }

        @Test func `a container that has ended takes no exec`() throws {
            let fixture = try RuntimeFixture()
            try fixture.must("create", "--bundle", try fixture.bundle("exit 0"), "c1")
            let pid = try fixture.state("c1").pid
            try fixture.must("start", "c1")
            #expect(fixture.wait(pid) == 0)
            let output = try fixture.call(["exec", "c1", "true"])
            #expect(output.code == 255)
            #expect(output.stderr.contains("stopped container"))
        }

        @Test func `the filter of the container holds for exec`() throws {
            let fixture = try RuntimeFixture()
            try fixture.start("c1") { spec in
                var filter = SeccompSpec(defaultAction: "SCMP_ACT_ALLOW")
                filter.syscalls = [SyscallRule(names: ["mkdir", "mkdirat"], action: "SCMP_ACT_ERRNO", errnoRet: 13)]
                spec.linux?.seccomp = filter
            }
            let output = try fixture.call(["exec", "c1", "mkdir", "/tmp/x"])
            #expect(output.code == 1)
            #expect(output.stderr.contains("Permission denied"), "\(output.stderr)")
        }

        @Test func `extra descriptors are passed only when asked for`() throws {
            let fixture = try RuntimeFixture()
            try fixture.start("c1")
            let program = try RuntimeFixture.program("martlet-runtime")
            let extra = SharedFD(try File.open("/dev/zero", O_RDONLY))
            for (flags, expected) in [
                ([], ["0", "1", "2", "3"]), (["--preserve-fds", "1"], ["0", "1", "2", "3", "4"]),
            ] {
                let path = "\(fixture.directory)/out"
                let out = SharedFD(try File.open(path, O_RDWR | O_CREAT | O_TRUNC))
                let arguments = [program, "--root", fixture.root, "exec"] + flags + ["c1", "ls", "/proc/self/fd"]
                let child = try Spawn(program, arguments, descriptors: [out.raw, out.raw, out.raw, extra.raw]).start()
                #expect(try child.wait() == .exited(0))
                // The highest one is ls's own, of the directory it reads.
                #expect(try File.text(path).split(separator: "\n").map { String($0) } == expected)
            }
        }
    }
}
