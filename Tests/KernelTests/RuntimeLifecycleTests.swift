import Glibc
import JSON
import Kernel
import OCISpec
import Testing

extension KernelSuite {
    /// From `create` to `delete`, as engines drive an OCI runtime.
    @Suite(.serialized) struct RuntimeLifecycle {
        @Test(arguments: RuntimeFixture.Runtime.allCases)
        func `a container is created, started, ends and is deleted`(_ runtime: RuntimeFixture.Runtime) throws {
            let fixture = try RuntimeFixture(runtime)
            let bundle = try fixture.bundle("echo ran > /tmp/mark; exit 3") { $0.annotations = ["a.b/c": "d"] }
            try fixture.must("create", "--bundle", bundle, "--pid-file", "\(fixture.directory)/pid", "c1")

            let created = try fixture.state("c1")
            #expect(created.status == .created)
            #expect(created.bundle == bundle)
            #expect(created.annotations == ["a.b/c": "d"])
            #expect(try File.text("\(fixture.directory)/pid") == "\(created.pid)")
            #expect(!File.exists("\(bundle)/rootfs/tmp/mark"), "the program does not run before start")

            try fixture.must("start", "c1")
            #expect(fixture.wait(created.pid) == 3)
            #expect(try File.text("\(bundle)/rootfs/tmp/mark") == "ran")
            #expect(try fixture.state("c1").status == .stopped)
            #expect(try fixture.call(["start", "c1"]).code == 1, "what has stopped is not started again")
            #expect(try fixture.call(["kill", "c1", "KILL"]).code == 1, "nor is anything sent to it")

            try fixture.must("delete", "c1")
            let gone = try fixture.call(["state", "c1"])
            #expect(gone.code == 1)
            #expect(gone.stderr.contains("does not exist"))
            #expect(try fixture.traces() == [])
        }

        @Test func `who is told of a process finds it in its own namespaces`() throws {
            let fixture = try RuntimeFixture()
            func namespaces(_ pid: String) throws -> [String] {
                try ["net", "ipc", "uts", "mnt"].map { name in
                    var info = stat()
                    try systemCall("stat", name) { stat("/proc/\(pid)/ns/\(name)", &info) }
                    return "\(name) \(info.st_ino)"
                }
            }
            let own = Set(try namespaces("self"))
            for round in 0..<RuntimeFixture.rounds(100, otherwise: 20) {
                let file = "\(fixture.directory)/pid\(round)"
                let bundle = try fixture.bundle("sleep 60")
                let runtime = try fixture.spawn(["run", "--bundle", bundle, "--pid-file", file, "c\(round)"])
                // At once, without a pause: the moment is what it is about.
                while try !File.exists(file) && runtime.poll() == nil {}
                let seen = try namespaces(try File.text(file))
                #expect(own.isDisjoint(with: seen), "\(seen)")
                try fixture.must("kill", "c\(round)", "KILL")
                _ = try runtime.wait()
            }
        }

        @Test(.enabled(if: !HostCgroups.isUnified, "needs cgroup v1"))
        func `a hierarchy that is mounted read-only is an error, after which nothing is left`() throws {
            let fixture = try RuntimeFixture()
            let bundle = try fixture.bundle("true")
            let hierarchy = HostCgroups.directory("freezer", "")
            try #require(mount(hierarchy, hierarchy, nil, UInt(MS_BIND), nil) == 0)
            defer { umount2(hierarchy, Int32(MNT_DETACH)) }
            try #require(mount(nil, hierarchy, nil, UInt(MS_BIND | MS_REMOUNT | MS_RDONLY), nil) == 0)
            let output = try fixture.call(["run", "--bundle", bundle, "c1"])
            #expect(output.code == 1)
            #expect(output.stderr.contains("mounted read-only"), "\(output.stderr)")
            #expect(try fixture.traces() == [])
        }

        @Test(arguments: RuntimeFixture.Runtime.allCases)
        func `run passes the exit status on and cleans up`(_ runtime: RuntimeFixture.Runtime) throws {
            let fixture = try RuntimeFixture(runtime)
            #expect(try fixture.run("exit 0").code == 0)
            #expect(try fixture.run("exit 7").code == 7)
            #expect(try fixture.run("kill -KILL $$; sleep 1") { $0.linux?.namespaces.removeFirst() }.code == 137)
            #expect(try fixture.traces() == [])
        }

        @Test(arguments: RuntimeFixture.Runtime.allCases)
        func `a running container is deleted only with force`(_ runtime: RuntimeFixture.Runtime) throws {
            let fixture = try RuntimeFixture(runtime)
            try fixture.start("c1")
            let pid = try fixture.state("c1").pid
            let refused = try fixture.call(["delete", "c1"])
            #expect(refused.code == 1)
            #expect(refused.stderr.contains("not stopped"))
            #expect(try fixture.state("c1").status == .running)
            try fixture.must("delete", "--force", "c1")
            #expect(fixture.wait(pid) == 137)
            #expect(try fixture.traces() == [])
            #expect(try fixture.call(["delete", "c1"]).stderr.contains("does not exist"))
            try fixture.must("delete", "--force", "c1")
        }

        @Test(arguments: RuntimeFixture.Runtime.allCases)
        func `a created container is deleted without force`(_ runtime: RuntimeFixture.Runtime) throws {
            let fixture = try RuntimeFixture(runtime)
            try fixture.must("create", "--bundle", try fixture.bundle(), "c1")
            try fixture.must("delete", "c1")
            fixture.reap()
            #expect(try fixture.traces() == [])
        }

        @Test(arguments: RuntimeFixture.Runtime.allCases)
        func `signals reach the first process`(_ runtime: RuntimeFixture.Runtime) throws {
            let fixture = try RuntimeFixture(runtime)
            try fixture.start("c1", "trap 'exit 42' USR1; echo ready > /tmp/ready; while :; do sleep 0.01; done")
            let state = try fixture.state("c1")
            fixture.eventually { File.exists("\(state.bundle)/rootfs/tmp/ready") }
            try fixture.must("kill", "c1", "SIGUSR1")
            #expect(fixture.wait(state.pid) == 42)
            let late = try fixture.call(["kill", "c1", "TERM"])
            #expect(late.code == 1)
            #expect(late.stderr.contains("container not running"))
            #expect(try fixture.call(["kill", "c1", "NOSUCH"]).code == 1)
            #expect(try fixture.call(["kill", "c2", "TERM"]).stderr.contains("does not exist"))
        }

        @Test(arguments: RuntimeFixture.Runtime.allCases)
        func `all processes of a container without a pid namespace are killed`(
            _ runtime: RuntimeFixture.Runtime
        ) throws {
            let fixture = try RuntimeFixture(runtime)
            let bundle = try fixture.bundle("sleep 1000 & echo $! > /tmp/other; exec sleep 1000") { spec in
                spec.linux?.namespaces.removeAll { $0.type == .pid }
            }
            try fixture.must("create", "--bundle", bundle, "c1")
            try fixture.must("start", "c1")
            fixture.eventually { (try? File.text("\(bundle)/rootfs/tmp/other"))?.isEmpty == false }
            let first = try fixture.state("c1").pid
            let other = try #require(pid_t(try File.text("\(bundle)/rootfs/tmp/other")))
            try fixture.must("kill", "--all", "c1", "KILL")
            #expect(fixture.wait(first) == 137)
            #expect(fixture.wait(other) == 137)
            try fixture.must("delete", "c1")
            #expect(try fixture.traces() == [])
        }

        @Test(arguments: RuntimeFixture.Runtime.allCases)
        func `a paused container stands still until it is resumed`(_ runtime: RuntimeFixture.Runtime) throws {
            let fixture = try RuntimeFixture(runtime)
            try fixture.start("c1", "n=0; while :; do n=$((n+1)); echo $n > /tmp/n; done")
            let count = "\(try fixture.state("c1").bundle)/rootfs/tmp/n"
            fixture.eventually { File.exists(count) }
            try fixture.must("pause", "c1")
            #expect(try fixture.state("c1").status == .paused)
            let before = try File.text(count)
            usleep(100_000)
            #expect(try File.text(count) == before)
            #expect(try fixture.call(["exec", "c1", "true"]).stderr.contains("paused"))
            try fixture.must("resume", "c1")
            #expect(try fixture.state("c1").status == .running)
            #expect(try fixture.eventually { try File.text(count) != before })
            try fixture.must("pause", "c1")
            try fixture.must("delete", "--force", "c1")
            fixture.reap()
            #expect(try fixture.traces() == [])
        }

        @Test(arguments: RuntimeFixture.Runtime.allCases)
        func `containers are listed`(_ runtime: RuntimeFixture.Runtime) throws {
            let fixture = try RuntimeFixture(runtime)
            try fixture.must("create", "--bundle", try fixture.bundle(), "one")
            try fixture.start("two")
            #expect(try fixture.must("list", "--quiet").lines == ["one", "two"])
            let table = try fixture.must("list").lines
            #expect(table.first?.split(separator: " ") == ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"])
            #expect(table.count == 3)
            let list = try JSONValue.parse(try fixture.must("list", "--format", "json").stdout).arrayValue ?? []
            #expect(list.map { $0["id"]?.stringValue } == ["one", "two"])
            #expect(list.map { $0["status"]?.stringValue } == ["created", "running"])
            #expect(list.allSatisfy { $0["owner"]?.stringValue == "root" })
            let processes = try JSONValue.parse(try fixture.must("ps", "--format", "json", "two").stdout)
            #expect(processes.arrayValue?.compactMap(\.intValue) == [Int64(try fixture.state("two").pid)])
            #expect(try fixture.must("ps", "two").stdout.contains("sleep 1000"))
        }

        @Test(arguments: RuntimeFixture.Runtime.allCases)
        func `limits are changed while the container runs`(_ runtime: RuntimeFixture.Runtime) throws {
            let fixture = try RuntimeFixture(runtime)
            try fixture.start("c1")
            try fixture.must("update", "--memory", "33554432", "--pids-limit", "21", "c1")
            func memoryLimit() throws -> String {
                let directory = fixture.cgroup("memory")
                let old = "\(directory)/memory.limit_in_bytes"
                return try File.text(File.exists(old) ? old : "\(directory)/memory.max")
            }
            #expect(try memoryLimit() == "33554432")
            #expect(try File.text("\(fixture.cgroup("pids"))/pids.max") == "21")
            let path = "\(fixture.directory)/resources.json"
            try File.replace(path, with: Array(#"{"pids":{"limit":22}}"#.utf8))
            try fixture.must("update", "--resources", path, "c1")
            #expect(try File.text("\(fixture.cgroup("pids"))/pids.max") == "22")
            #expect(try memoryLimit() == "33554432")
            #expect(try fixture.call(["update", "--memory", "much", "c1"]).code == 1)
        }

        @Test(arguments: RuntimeFixture.Runtime.allCases)
        func `what is created is ended by a signal, and then not started`(_ runtime: RuntimeFixture.Runtime) throws {
            let fixture = try RuntimeFixture(runtime)
            try fixture.must("create", "--bundle", fixture.bundle("sleep 1000"), "c1")
            let pid = try fixture.state("c1").pid
            try fixture.must("kill", "c1", "KILL")
            #expect(fixture.wait(pid) == 137)
            #expect(try fixture.state("c1").status == .stopped)
            #expect(try fixture.call(["start", "c1"]).code == 1)
            try fixture.must("delete", "c1")
            #expect(try fixture.traces() == [])
        }

        @Test func `what is created ends on a polite signal too`() throws {
            let fixture = try RuntimeFixture()
            try fixture.must("create", "--bundle", fixture.bundle("sleep 1000"), "c1")
            let pid = try fixture.state("c1").pid
            try fixture.must("kill", "c1")
            #expect(fixture.wait(pid) == 128 + SIGTERM)
        }

        @Test(arguments: RuntimeFixture.Runtime.allCases)
        func `what runs is not started again, and goes on`(_ runtime: RuntimeFixture.Runtime) throws {
            let fixture = try RuntimeFixture(runtime)
            try fixture.start("c1")
            let before = try fixture.state("c1")
            #expect(try fixture.call(["start", "c1"]).code == 1)
            let after = try fixture.state("c1")
            #expect(after.status == .running && after.pid == before.pid)
        }

        @Test(arguments: RuntimeFixture.Runtime.allCases)
        func `what is paused before its start is resumed before its start`(
            _ runtime: RuntimeFixture.Runtime
        ) throws {
            let fixture = try RuntimeFixture(runtime)
            try fixture.must("create", "--bundle", fixture.bundle("sleep 1000"), "c1")
            try fixture.must("pause", "c1")
            let refused = try fixture.call(["start", "c1"], seconds: 10)
            #expect(refused.code == 1 && refused.stderr.contains("paused"), "\(refused)")
            try fixture.must("resume", "c1")
            try fixture.must("start", "c1")
            #expect(try fixture.state("c1").status == .running)
        }

        @Test func `what runs is running, also when who started it was killed`() throws {
            let fixture = try RuntimeFixture()
            try fixture.must("create", "--bundle", fixture.bundle("sleep 1000"), "c1")
            #expect(try fixture.state("c1").status == .created)
            fixture.environment.append("MARTLET_FAILPOINT=runtime.starting")
            #expect(try fixture.call(["start", "c1"]).code == 137)
            fixture.environment.removeLast()
            #expect(try fixture.eventually { try fixture.state("c1").status == .running })
            #expect(try fixture.call(["start", "c1"]).code == 1)
            #expect(try fixture.call(["delete", "c1"]).stderr.contains("not stopped"))
            try fixture.must("delete", "--force", "c1")
            fixture.reap()
            #expect(try fixture.traces() == [])
        }

        @Test func `who waited for a container does not take another of its name for it`() throws {
            let fixture = try RuntimeFixture()
            try fixture.must("create", "--bundle", fixture.bundle("sleep 1000"), "c1")
            let place = "\(fixture.root)/c1"
            func hold() throws -> SharedFD {
                let held = SharedFD(try File.open(place, O_RDONLY | O_DIRECTORY))
                try systemCall("flock") { flock(held.raw, LOCK_EX) }
                return held
            }
            func isAwaited(_ lock: SharedFD) throws -> Bool {
                var info = stat()
                fstat(lock.raw, &info)
                return try File.text("/proc/locks").split(separator: "\n")
                    .contains { $0.contains("-> FLOCK") && $0.contains(":\(info.st_ino) ") }
            }
            let first = try hold()
            let null = SharedFD(try File.open("/dev/null", O_RDWR))
            let program = try fixture.runtime.path()
            let start = try Spawn(
                program, [program, "--root", fixture.root, "start", "c1"],
                descriptors: [null.raw, null.raw, null.raw]
            ).start()
            #expect(try fixture.eventually { try isAwaited(first) })
            // What is there afterwards is another directory, which somebody else has locked.
            let aside = "\(fixture.directory)/aside"
            rename(place, aside)
            try File.makeDirectories(place)
            for name in try File.list(aside) { rename("\(aside)/\(name)", "\(place)/\(name)") }
            let second = try hold()
            flock(first.raw, LOCK_UN)
            #expect(try fixture.eventually { try isAwaited(second) })
            #expect(try fixture.state("c1").status == .created)
            flock(second.raw, LOCK_UN)
            #expect(try start.wait() == .exited(0))
            #expect(try fixture.state("c1").status == .running)
        }

        @Test(arguments: RuntimeFixture.Runtime.allCases)
        func `what is created does not change with its configuration`(_ runtime: RuntimeFixture.Runtime) throws {
            let fixture = try RuntimeFixture(runtime)
            let bundle = try fixture.bundle("echo old > /tmp/mark; hostname >> /tmp/mark")
            try fixture.must("create", "--bundle", bundle, "c1")
            let state = try fixture.state("c1")
            // The runc at hand says its own.
            if runtime == .ours { #expect(state.ociVersion == "1.0.2", "that of config.json") }
            var spec = try ContainerSpec(parsing: File.read("\(bundle)/config.json"))
            spec.ociVersion = "1.0.1"
            spec.hostname = "new"
            spec.process?.args = ["/bin/sh", "-c", "echo new > /tmp/mark"]
            try File.replace("\(bundle)/config.json", with: spec.encoded())
            try fixture.must("start", "c1")
            #expect(fixture.wait(state.pid) == 0)
            #expect(try File.text("\(bundle)/rootfs/tmp/mark") == "old\nbox")
            #expect(try fixture.state("c1").ociVersion == state.ociVersion)
        }

        @Test(arguments: RuntimeFixture.Runtime.allCases)
        func `an empty cgroup that was there before is taken, and goes with the container`(
            _ runtime: RuntimeFixture.Runtime
        ) throws {
            let fixture = try RuntimeFixture(runtime)
            let bundle = try fixture.bundle("true")
            for directory in fixture.cgroups { try File.makeDirectories(directory, mode: 0o755) }
            #expect(try !fixture.traces().isEmpty)
            #expect(try fixture.call(["run", "--bundle", bundle, "c1"]).code == 0)
            #expect(try fixture.traces() == [])
        }

        @Test func `an id is taken once, and is a plain name`() throws {
            let fixture = try RuntimeFixture()
            let bundle = try fixture.bundle()
            try fixture.must("create", "--bundle", bundle, "c1")
            let twice = try fixture.call(["create", "--bundle", try fixture.bundle(), "c1"])
            #expect(twice.code == 1)
            #expect(twice.stderr.contains("already exists"))
            #expect(try fixture.state("c1").status == .created, "the first one is not touched")
            for id in ["", ".", "..", "a/b", "../c", ".a", "a b", "ä", "a\u{7}", String(repeating: "x", count: 256)] {
                let refused = try fixture.call(["create", "--bundle", bundle, id])
                #expect(refused.code == 1, "\(id)")
                #expect(refused.stderr.contains("invalid container id"), "\(id): \(refused.stderr)")
            }
        }

        @Test(arguments: [
            ("nosuch", "executable file not found in $PATH"), ("/bin/nosuch", "no such file or directory"),
            ("/etc/plain", "permission denied"), ("/etc", "permission denied"),
        ])
        func `a program that cannot be executed is named, and nothing is left`(
            program: String, reason: String
        ) throws {
            let fixture = try RuntimeFixture()
            let bundle = try fixture.bundle { $0.process?.args = [program] }
            try File.replace("\(bundle)/rootfs/etc/plain", with: [], mode: 0o644)
            for verb in ["run", "create"] {
                let output = try fixture.call([verb, "--bundle", bundle, "c1"])
                #expect(output.code == 1)
                #expect(output.stderr.contains("\"\(program)\"") && output.stderr.contains(reason), "\(output.stderr)")
                #expect(output.stderr.split(separator: "\n").count == 1, "one line")
                #expect(try fixture.traces() == [])
            }
        }

        @Test func `a program that the kernel refuses is reported by start`() throws {
            let fixture = try RuntimeFixture()
            let bundle = try fixture.bundle { $0.process?.args = ["/bin/broken"] }
            try File.replace("\(bundle)/rootfs/bin/broken", with: Array("\u{7f}ELF".utf8), mode: 0o755)
            try fixture.must("create", "--bundle", bundle, "c1")
            let output = try fixture.call(["start", "c1"])
            #expect(output.code == 1)
            #expect(output.stderr.contains("exec /bin/broken: Exec format error"), "\(output.stderr)")
            fixture.reap()
            #expect(try fixture.state("c1").status == .stopped)
        }

        @Test func `a recycled process number is not taken for the container`() throws {
            let fixture = try RuntimeFixture()
            try fixture.start("c1")
            let path = "\(fixture.root)/c1/state.json"
            let pid = try fixture.state("c1").pid
            guard case .object(var record) = try JSONValue.parse(try File.read(path)) else { return }
            let start = try #require(record["startTime"]?.intValue)
            record["startTime"] = .integer(start - 1)
            try File.replace(path, with: JSONValue.object(record).serialized())
            #expect(try fixture.state("c1").status == .stopped)
            #expect(try fixture.call(["kill", "c1", "KILL"]).stderr.contains("container not running"))
            #expect(kill(pid, 0) == 0, "the stranger is not signalled")
            record["startTime"] = .integer(start)
            try File.replace(path, with: JSONValue.object(record).serialized())
        }

        @Test func `errors go to the log in the wanted format`() throws {
            let fixture = try RuntimeFixture()
            let log = "\(fixture.directory)/log"
            let output = try fixture.call(["--log", log, "--log-format", "json", "state", "nosuch"])
            #expect(output.code == 1)
            let entry = try JSONValue.parse(try File.read(log))
            #expect(entry["level"] == "error")
            #expect(entry["msg"]?.stringValue?.contains("does not exist") == true)
            #expect(Timestamp(rfc3339: entry["time"]?.stringValue ?? "") != nil)
            #expect(output.stderr.contains("does not exist"))
        }
    }
}
