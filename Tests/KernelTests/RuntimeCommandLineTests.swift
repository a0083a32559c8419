import CKernel
import Glibc
import JSON
import Kernel
import OCISpec
import Testing

extension KernelSuite {
    /// runc's command line: flags, what is passed to a program, what is printed, and how calls end.
    @Suite(.serialized) struct RuntimeCommandLine {
        typealias Runtime = RuntimeFixture.Runtime

        @Test(
            arguments: Runtime.allCases,
            [
                (["nosuch"], 3), (["--nosuch", "list"], 1), (["list", "--nosuch"], 1),
                (["exec", "--nosuch", "c", "x"], 1),
                (["exec"], 1), (["exec", "nosuch"], 255), (["exec", "nosuch", "true"], 255), (["state"], 1),
                (["state", "nosuch"], 1), (["start", "a", "b"], 1), (["kill", "nosuch"], 1), (["delete", "nosuch"], 1),
                (["delete", "--force", "nosuch"], 0), (["list", "--format", "xml"], 1), (["ps", "nosuch"], 1),
                (["run", "--bundle", "/nosuch", "c"], 1), (["events", "nosuch"], 1), (["checkpoint", "nosuch"], 1),
                (["restore", "nosuch"], 1), (["update", "nosuch"], 1), (["resume", "nosuch"], 1),
                (["spec", "extra"], 1),
                (["--log-format", "xml", "list"], 1), (["--help"], 0), (["exec", "--help"], 0), (["--version"], 0),
                (["features"], 0), (["list"], 0),
            ] as [([String], Int32)])
        func `a call ends with runc's status`(_ runtime: Runtime, _ call: ([String], Int32)) throws {
            let fixture = try RuntimeFixture(runtime)
            let output = try fixture.call(call.0)
            #expect(output.code == call.1, "\(call.0): \(output)")
        }

        // MARK: Descriptors

        /// Starts the runtime with more descriptors than three, and gives back what it and the program wrote.
        private func spawn(
            _ fixture: RuntimeFixture, _ runtime: Runtime, _ arguments: [String], extra: Int,
            environment: [String] = []
        ) throws -> (code: Int32, text: String) {
            let path = "\(fixture.directory)/out"
            let out = SharedFD(try File.open(path, O_RDWR | O_CREAT | O_TRUNC))
            let extra = try (0..<extra).map { _ in SharedFD(try File.open("/dev/zero", O_RDONLY)) }
            // The descriptors of socket activation are for one process, whose number only that knows.
            let words = ["sh", "-c", "test -z \"$LISTEN_FDS\" || export LISTEN_PID=$$; exec \"$@\"", "sh"]
            let child = try Spawn(
                "/bin/sh", words + [runtime.path(), "--root", fixture.root] + arguments,
                environment: fixture.environment + environment,
                descriptors: [out, out, out].map(\.raw) + extra.map(\.raw)
            ).start()
            let code = try child.wait().shellCode
            return (code, try File.text(path))
        }

        @Test(arguments: Runtime.allCases)
        func `descriptors are kept when they are asked for, and must be there`(_ runtime: Runtime) throws {
            let fixture = try RuntimeFixture(runtime)
            // The highest one is ls's own.
            for (count, expected) in [(0, "0 1 2 3"), (2, "0 1 2 3 4 5")] {
                let bundle = try fixture.bundle("echo $(ls /proc/self/fd)")
                let run = try spawn(
                    fixture, runtime, ["run", "--preserve-fds", "\(count)", "--bundle", bundle, "c\(count)"], extra: 2)
                #expect(run.code == 0 && run.text == expected, "\(run)")
            }
            let bundle = try fixture.bundle("true")
            let missing = try spawn(
                fixture, runtime, ["run", "--preserve-fds", "60", "--bundle", bundle, "c"], extra: 2)
            #expect(missing.code == 1, "\(missing)")
            #expect(missing.text.contains("preserve"), "\(missing)")
            #expect(try fixture.traces() == [])
        }

        @Test(arguments: Runtime.allCases)
        func `sockets of a service manager reach the first process`(_ runtime: Runtime) throws {
            let fixture = try RuntimeFixture(runtime)
            let script = "echo $(ls /proc/self/fd) $(env | grep LISTEN_[FP][DI] | grep -v NAMES)"
            let given = ["LISTEN_FDS=2", "LISTEN_FDNAMES=web:admin"]
            let run = try spawn(
                fixture, runtime, ["run", "--preserve-fds", "1", "--bundle", try fixture.bundle(script), "c1"],
                extra: 3,
                environment: given)
            let words = run.text.split(separator: " ").map { String($0) }
            #expect(words.prefix(7) == ["0", "1", "2", "3", "4", "5", "6"], "\(run)")
            #expect(words.dropFirst(7).sorted() == ["LISTEN_FDS=2", "LISTEN_PID=1"], "\(run)")
            guard runtime == .ours else { return }
            let named = try spawn(
                fixture, runtime, ["run", "--bundle", try fixture.bundle("echo $LISTEN_FDNAMES"), "c2"], extra: 2,
                environment: given)
            #expect(named.text == "web:admin", "\(named)")
        }

        @Test(arguments: Runtime.allCases)
        func `sockets that are somebody else's are not passed on`(_ runtime: Runtime) throws {
            let fixture = try RuntimeFixture(runtime)
            fixture.environment += ["LISTEN_FDS=2", "LISTEN_PID=1"]
            let output = try fixture.run("echo $(ls /proc/self/fd) $(env | grep LISTEN)")
            #expect(output.code == 0 && output.text == "0 1 2 3", "\(output)")
        }

        @Test func `a pidfd of the process goes to a socket`() throws {
            let fixture = try RuntimeFixture()
            let path = "\(fixture.directory)/pidfd.sock"
            let listener = try UnixSocket.listen(path)
            func received() throws -> (kind: String, pid: pid_t) {
                let connection = try UnixSocket.accept(listener.raw)
                let message = try UnixSocket.receive(connection.raw, limit: 100, maximumDescriptors: 1)
                let pidfd = try #require(message.descriptors.first)
                let lines = try File.text("/proc/self/fdinfo/\(pidfd.raw)").split(separator: "\n")
                let pid = lines.first { $0.hasPrefix("Pid:") }?.split(separator: "\t").last.flatMap { pid_t($0) }
                return (String(decoding: message.bytes, as: UTF8.self), try #require(pid))
            }
            try fixture.must("create", "--pidfd-socket", path, "--bundle", fixture.bundle("sleep 1000"), "c1")
            let first = try received()
            #expect(try first.kind == "standard" && first.pid == fixture.state("c1").pid)
            try fixture.must("start", "c1")
            let file = "\(fixture.directory)/pid"
            try fixture.must("exec", "--detach", "--pidfd-socket", path, "--pid-file", file, "c1", "sleep", "1000")
            let second = try received()
            #expect(try second.kind == "setns" && String(second.pid) == File.text(file))
            try fixture.must("run", "--detach", "--pidfd-socket", path, "--bundle", fixture.bundle("sleep 1000"), "c2")
            #expect(try received().pid == fixture.state("c2").pid)
            let output = try fixture.call(["exec", "--pidfd-socket", "/nosuch.sock", "c1", "true"])
            #expect(output.code == 255 && output.stderr.contains("--pidfd-socket"), "\(output)")
        }

        // MARK: Where a process runs

        @Test(arguments: Runtime.allCases)
        func `exec runs in a group below the container's`(_ runtime: Runtime) throws {
            let fixture = try RuntimeFixture(runtime)
            try fixture.start("c1")
            let pid = try fixture.state("c1").pid
            func groups(_ text: String) -> [String: String] {
                var result: [String: String] = [:]
                for line in text.split(separator: "\n") {
                    let parts = line.split(separator: ":", maxSplits: 2, omittingEmptySubsequences: false)
                    if parts.count == 3 { result[String(parts[1])] = String(parts[2]) }
                }
                return result
            }
            let own = groups(try File.text("/proc/\(pid)/cgroup"))
            let name = own["pids"] == nil ? "" : "pids"
            let group = try #require(own[name])
            let mounted = name.isEmpty ? "/sys/fs/cgroup" : "/sys/fs/cgroup/pids"
            try #require(mkdir("\(mounted)\(group)/inner", 0o755) == 0)
            let flag = name.isEmpty ? "inner" : "pids:inner"
            let inside = groups(try fixture.must("exec", "--cgroup", flag, "c1", "cat", "/proc/self/cgroup").stdout)
            #expect(inside[name] == "\(group)/inner")
            for (controllers, path) in own where controllers != name && !controllers.isEmpty {
                #expect(inside[controllers] == path)
            }
            for bad in [name.isEmpty ? "nosuch" : "pids:nosuch", ":inner", "nosuch:inner", "\(flag)/../.."] {
                let output = try fixture.call(["exec", "--cgroup", bad, "c1", "cat", "/proc/self/cgroup"])
                // runc takes the last one, which is inside again, and on cgroup v2 a list of no controllers.
                if runtime == .runc, bad.hasSuffix("..") || bad == ":inner" && name.isEmpty { continue }
                #expect(output.code == 255 && output.stdout.isEmpty, "\(bad): \(output)")
            }
        }

        @Test(arguments: Runtime.allCases)
        func `a root that is moved instead of pivoted to is the container's all the same`(_ runtime: Runtime) throws {
            let fixture = try RuntimeFixture(runtime)
            let script = "ls /; readlink /proc/self/root; cat /proc/1/comm; ls /host 2>&1"
            let bundle = try fixture.bundle(script) { $0.root?.readonly = true }
            let before = try MountInfo.read().count
            let output = try fixture.call(["run", "--no-pivot", "--bundle", bundle, "c1"])
            #expect(output.code == 0 || output.code == 1, "\(output)")
            #expect(output.lines.prefix(7) == ["bin", "dev", "etc", "proc", "root", "sys", "tmp"], "\(output)")
            #expect(output.lines.dropFirst(7).prefix(2) == ["/", "sh"], "\(output)")
            #expect(try MountInfo.read().count == before)
            let other = try fixture.bundle("sleep 1000")
            try fixture.must("run", "--detach", "--no-pivot", "--bundle", other, "c2")
            #expect(try fixture.must("exec", "c2", "ls", "/").lines.first == "bin")
        }

        // MARK: What is printed

        @Test(arguments: Runtime.allCases)
        func `events prints what a container uses`(_ runtime: Runtime) throws {
            let fixture = try RuntimeFixture(runtime)
            try fixture.start("c1", "sleep 1000") { spec in
                var resources = ResourcesSpec()
                resources.memory = MemorySpec(limit: 64 << 20)
                resources.pidsLimit = 50
                spec.linux?.resources = resources
            }
            let line = try JSONValue.parse(try fixture.must("events", "--stats", "c1").stdout)
            #expect(line["type"] == "stats" && line["id"] == "c1")
            let data = try #require(line["data"])
            #expect((data["cpu"]?["usage"]?["total"]?.intValue ?? 0) > 0)
            #expect(
                data["cpu"]?["usage"]?["kernel"]?.intValue != nil && data["cpu"]?["usage"]?["user"]?.intValue != nil)
            #expect(data["cpu"]?["throttling"]?.objectValue != nil)
            #expect((data["memory"]?["usage"]?["usage"]?.intValue ?? 0) > 0)
            #expect(data["memory"]?["usage"]?["limit"] == .integer(64 << 20))
            #expect(data["memory"]?["usage"]?["failcnt"] == 0)
            #expect((data["memory"]?["raw"]?["pgfault"]?.intValue ?? 0) > 0)
            #expect((data["pids"]?["current"]?.intValue ?? 0) >= 1 && data["pids"]?["limit"] == 50)
            // Debian's runc does not read it from cgroup v2.
            if runtime == .ours || !HostCgroups.isUnified { #expect(data["cpuset"]?["cpus"]?.arrayValue?.first == 0) }
            for name in ["blkio", "hugetlb", "intel_rdt"] { #expect(data[name]?.objectValue != nil, "\(name)") }
            #expect(data["network_interfaces"] == .null)
            for interval in ["0", "-1s", "x", "0s"] {
                #expect(
                    try fixture.call(["events", "--interval=\(interval)", "--stats", "c1"]).code == 1, "\(interval)")
            }
        }

        @Test func `events goes on until the container ends, and tells when memory runs out`() throws {
            let fixture = try RuntimeFixture()
            let script = """
                until test -e /tmp/go; do sleep 0.02; done
                dd if=/dev/zero of=/dev/shm/x bs=1M count=64 2>/dev/null
                until test -e /tmp/end; do sleep 0.02; done
                """
            let bundle = try fixture.bundle(script) { spec in
                var resources = ResourcesSpec()
                resources.memory = MemorySpec(limit: 16 << 20, swap: 16 << 20)
                spec.linux?.resources = resources
            }
            try fixture.must("create", "--bundle", bundle, "c1")
            try fixture.must("start", "c1")
            let path = "\(fixture.directory)/events"
            let out = SharedFD(try File.open(path, O_RDWR | O_CREAT | O_TRUNC))
            let null = SharedFD(try File.open("/dev/null", O_RDWR))
            let program = try Runtime.ours.path()
            let child = try Spawn(
                program, [program, "--root", fixture.root, "events", "--interval", "50ms", "c1"],
                descriptors: [null.raw, out.raw, out.raw]
            ).start()
            func types() throws -> [String] {
                try File.text(path).split(separator: "\n").map {
                    try JSONValue.parse(String($0))["type"]?.stringValue ?? ""
                }
            }
            #expect(try fixture.eventually { try types().count > 1 })
            try File.replace("\(bundle)/rootfs/tmp/go", with: [])
            #expect(try fixture.eventually { try types().contains("oom") })
            try File.replace("\(bundle)/rootfs/tmp/end", with: [])
            #expect(try child.wait() == .exited(0))
            #expect(try Set(types()) == ["stats", "oom"])
            #expect(try fixture.call(["events", "c1"]).code == 1, "a container that has ended")
        }

        @Test(arguments: Runtime.allCases)
        func `update takes sizes with units and runc's names`(_ runtime: Runtime) throws {
            let fixture = try RuntimeFixture(runtime)
            try fixture.start("c1") { spec in
                var resources = ResourcesSpec()
                resources.memory = MemorySpec(limit: 64 << 20)
                spec.linux?.resources = resources
            }
            try fixture.must("update", "--memory", "32m", "--cpu-share", "512", "--pids-limit", "77", "c1")
            let data = try JSONValue.parse(try fixture.must("events", "--stats", "c1").stdout)["data"]
            #expect(data?["memory"]?["usage"]?["limit"] == .integer(32 << 20))
            #expect(data?["pids"]?["limit"] == 77)
            for bad in [
                ["--memory", "x"], ["--memory", "5q"], ["--cpu-share", "-1"], ["--l3-cache-schema", "L3:0=f"],
            ] {
                #expect(try fixture.call(["update"] + bad + ["c1"]).code == 1, "\(bad)")
            }
            guard runtime == .ours else { return }
            for flag in ["--l3-cache-schema", "--mem-bw-schema"] {
                let output = try fixture.call(["update", flag, "L3:0=f", "--memory", "64m", "c1"])
                #expect(output.code == 1 && output.stderr.contains("\(flag): "), "\(output)")
                #expect(output.stderr.contains("without linux.intelRdt"), "\(output)")
            }
            let after = try JSONValue.parse(try fixture.must("events", "--stats", "c1").stdout)["data"]
            #expect(after?["memory"]?["usage"]?["limit"] == .integer(32 << 20), "nothing of a refused update holds")
        }

        @Test func `events tells of what ends the container`() throws {
            let fixture = try RuntimeFixture()
            let script = """
                until test -e /tmp/go; do sleep 0.02; done
                exec dd if=/dev/zero of=/dev/shm/x bs=1M count=64 2>/dev/null
                """
            let bundle = try fixture.bundle(script) { spec in
                var resources = ResourcesSpec()
                resources.memory = MemorySpec(limit: 16 << 20, swap: 16 << 20)
                spec.linux?.resources = resources
            }
            try fixture.must("create", "--bundle", bundle, "c1")
            try fixture.must("start", "c1")
            let path = "\(fixture.directory)/events"
            let out = SharedFD(try File.open(path, O_RDWR | O_CREAT | O_TRUNC))
            let null = SharedFD(try File.open("/dev/null", O_RDWR))
            let program = try Runtime.ours.path()
            let child = try Spawn(
                program, [program, "--root", fixture.root, "events", "--interval", "100ms", "c1"],
                descriptors: [null.raw, out.raw, out.raw]
            ).start()
            #expect(try fixture.eventually { try File.text(path).contains("stats") })
            try File.replace("\(bundle)/rootfs/tmp/go", with: [])
            #expect(try child.wait() == .exited(0))
            #expect(try File.text(path).contains(#""type":"oom""#))
        }

        @Test func `spec for a user namespace of the caller's is accepted`() throws {
            let fixture = try RuntimeFixture()
            for maker in Runtime.allCases {
                let bundle = try fixture.bundle()
                unlink("\(bundle)/config.json")
                _ = try Program(
                    maker.path(), ["spec", "--rootless", "--bundle", bundle], environment: fixture.environment
                ).run()
                var spec = try ContainerSpec(parsing: File.read("\(bundle)/config.json"))
                #expect(spec.linux?.uidMappings == [IDMapping(containerID: 0, hostID: geteuid(), size: 1)])
                #expect(spec.linux?.namespace(.user) != nil && spec.linux?.namespace(.network) == nil)
                #expect(spec.linux?.resources == nil)
                #expect(!spec.mounts.contains { $0.options.contains { $0.hasPrefix("gid=") } })
                spec.process?.terminal = false
                spec.process?.args = ["sh", "-c", "id -u; ls /sys/kernel >/dev/null && echo sysfs"]
                try File.replace("\(bundle)/config.json", with: spec.encoded())
                let output = try fixture.call(["run", "--bundle", bundle, "c1"])
                #expect(output.lines == ["0", "sysfs"], "\(maker): \(output)")
            }
        }

        @Test func `features has every object of the specification`() throws {
            let fixture = try RuntimeFixture()
            let features = try JSONValue.parse(try fixture.must("features").stdout)
            for name in ["hooks", "mountOptions", "potentiallyUnsafeConfigAnnotations"] {
                #expect(features[name]?.arrayValue != nil, "\(name)")
            }
            #expect(features["annotations"]?["io.github.seccomp.libseccomp.version"]?.stringValue != nil)
            let linux = try #require(features["linux"])
            for name in ["namespaces", "capabilities"] { #expect(linux[name]?.arrayValue?.isEmpty == false) }
            let members = [
                "cgroup": ["v1", "v2", "systemd", "systemdUser", "rdma"], "seccomp": ["enabled"],
                "apparmor": ["enabled"],
                "selinux": ["enabled"], "intelRdt": ["enabled", "schemata", "monitoring"], "netDevices": ["enabled"],
            ]
            for (name, booleans) in members {
                for member in booleans { #expect(linux[name]?[member]?.boolValue != nil, "\(name).\(member)") }
            }
            #expect(linux["mountExtensions"]?["idmap"]?["enabled"]?.boolValue != nil)
            #expect(linux["memoryPolicy"]?.objectValue != nil)
            let seccomp = try #require(linux["seccomp"])
            for name in ["actions", "operators", "archs", "knownFlags", "supportedFlags"] {
                #expect(seccomp[name]?.arrayValue?.isEmpty == false, "\(name)")
            }
        }

        // MARK: A service manager

        @Test(arguments: Runtime.allCases)
        func `a service manager learns that the container is ready`(_ runtime: Runtime) throws {
            let fixture = try RuntimeFixture(runtime)
            let path = "\(fixture.directory)/host.sock"
            let host = SharedFD(OwnedFD(adopting: socket(AF_UNIX, Int32(SOCK_DGRAM.rawValue), 0)))
            try #require(ck_unix_bind(host.raw, path) == 0)
            fixture.environment.append("NOTIFY_SOCKET=\(path)")
            let script = "echo $NOTIFY_SOCKET > /tmp/told; ls /run/notify >> /tmp/told; sleep 1000"
            let bundle = try fixture.bundle(script)
            try fixture.must("create", "--bundle", bundle, "c1")
            let pid = try fixture.state("c1").pid
            let null = SharedFD(try File.open("/dev/null", O_RDWR))
            let start = try Spawn(
                runtime.path(), [runtime.path(), "--root", fixture.root, "start", "c1"],
                environment: fixture.environment,
                descriptors: [null.raw, null.raw, null.raw]
            ).start()
            #expect(
                fixture.eventually {
                    (try? File.text("\(bundle)/rootfs/tmp/told")) == "/run/notify/notify.sock\nnotify.sock"
                })
            #expect(try start.poll() == nil, "it waits for READY=1")
            // The container's program would write to its own name of the socket.
            let client = SharedFD(OwnedFD(adopting: socket(AF_UNIX, Int32(SOCK_DGRAM.rawValue), 0)))
            let inside = "\(fixture.root)/c1/notify/notify.sock"
            try #require(ck_unix_connect(client.raw, inside) == 0)
            try UnixSocket.send(client.raw, Array("STATUS=soon".utf8))
            try UnixSocket.send(client.raw, Array("READY=1\nMAINPID=1\nSTATUS=now".utf8))
            func message() throws -> String {
                let received = try UnixSocket.receive(host.raw, limit: 4096, maximumDescriptors: 1)
                return String(decoding: received.bytes, as: UTF8.self).filter { $0 != "\n" }
            }
            #expect(try message() == "READY=1")
            #expect(try message() == "MAINPID=\(pid)")
            // The descriptor that comes along is closed at once: that is the answer.
            if runtime == .ours { #expect(try message() == "BARRIER=1") }
            #expect(try start.wait() == .exited(0))
        }

        @Test func `run waits for a container's readiness too, until it ends`() throws {
            let fixture = try RuntimeFixture()
            let path = "\(fixture.directory)/host.sock"
            let host = SharedFD(OwnedFD(adopting: socket(AF_UNIX, Int32(SOCK_DGRAM.rawValue), 0)))
            try #require(ck_unix_bind(host.raw, path) == 0)
            fixture.environment.append("NOTIFY_SOCKET=\(path)")
            #expect(try fixture.run("exit 7").code == 7)
            #expect(try fixture.call(["run", "--detach", "--bundle", fixture.bundle("true"), "c1"]).code == 0)
            // A service manager that is not there is an error, and nothing is left.
            fixture.environment[fixture.environment.count - 1] = "NOTIFY_SOCKET=/nosuch.sock"
            let output = try fixture.run("true")
            #expect(output.code == 1 && output.stderr.contains("NOTIFY_SOCKET"), "\(output)")
        }
    }
}
