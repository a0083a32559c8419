import CKernel
import Glibc
import JSON
import Kernel
import OCISpec
import Testing

extension KernelSuite {
    /// Calls that an agent outside of the container answers (SCMP_ACT_NOTIFY).
    @Suite(.serialized) struct RuntimeNotify {
        private static let mkdirs = ["mkdir", "mkdirat"]
        #if arch(x86_64)
            private static let numbers: [Int32] = [83, 258]
        #else
            private static let numbers: [Int32] = [34]
        #endif

        private func profile(_ agent: String, _ names: [String] = mkdirs) -> SeccompSpec {
            var profile = SeccompSpec(defaultAction: "SCMP_ACT_ALLOW")
            profile.syscalls = [SyscallRule(names: names, action: "SCMP_ACT_NOTIFY")]
            profile.listenerPath = agent
            profile.listenerMetadata = "what=ever"
            return profile
        }

        private func refuseMkdir(_ fixture: RuntimeFixture) throws -> SeccompAgent {
            try SeccompAgent("\(fixture.directory)/agent.sock") { Self.numbers.contains($0) ? EXDEV : 0 }
        }

        @Test(arguments: RuntimeFixture.Runtime.allCases)
        func `the agent gets the listener and the state, and its answer is the call's`(
            _ runtime: RuntimeFixture.Runtime
        ) throws {
            let fixture = try RuntimeFixture(runtime)
            let agent = try refuseMkdir(fixture)
            let bundle = try fixture.bundle("mkdir /tmp/x; echo $?; touch /tmp/y && echo made") { spec in
                spec.linux?.seccomp = profile(agent.path)
                spec.annotations = ["a": "b"]
            }
            let output = try fixture.call(["run", "--bundle", bundle, "c1"])
            #expect(output.code == 0 && output.lines == ["1", "made"], "\(output)")
            #expect(output.stderr.contains("link"), "EXDEV's text: \(output.stderr)")
            let (states, asked) = agent.finish()
            #expect(asked.count == 1)
            let state = try #require(states.first)
            #expect(states.count == 1)
            #expect(state["fds"] == ["seccompFd"])
            #expect(state["metadata"] == "what=ever")
            #expect(state["ociVersion"]?.stringValue != nil)
            #expect(state["pid"]?.intValue == state["state"]?["pid"]?.intValue)
            #expect((state["pid"]?.intValue ?? 0) > 1)
            #expect(state["state"]?["id"] == "c1")
            #expect(state["state"]?["bundle"]?.stringValue == bundle)
            #expect(state["state"]?["annotations"] == ["a": "b"])
            #expect(["creating", "created"].contains(state["state"]?["status"]?.stringValue))
            #expect(try fixture.traces() == [])
        }

        @Test(arguments: RuntimeFixture.Runtime.allCases)
        func `every process of exec has a listener of its own`(_ runtime: RuntimeFixture.Runtime) throws {
            let fixture = try RuntimeFixture(runtime)
            let agent = try refuseMkdir(fixture)
            try fixture.start("c1") { $0.linux?.seccomp = profile(agent.path) }
            let pid = try fixture.state("c1").pid
            for user in ["0", "1000"] {
                let output = try fixture.call(["exec", "--user", user, "c1", "mkdir", "/tmp/x"])
                #expect(output.code == 1 && output.stderr.contains("link"), "\(output)")
            }
            let file = "\(fixture.directory)/pid"
            try fixture.must("exec", "--detach", "--pid-file", file, "c1", "sleep", "1000")
            let detached = try #require(Int64(try File.text(file)))
            let (states, asked) = agent.finish()
            #expect(asked.count == 2)
            #expect(states.count == 4)
            #expect(states.first?["pid"]?.intValue == Int64(pid))
            for state in states.dropFirst() {
                #expect(state["state"]?["pid"]?.intValue == Int64(pid))
                #expect(state["state"]?["status"] == "running")
                #expect(state["pid"]?.intValue != Int64(pid))
            }
            #expect(states.last?["pid"]?.intValue == detached)
        }

        @Test(arguments: RuntimeFixture.Runtime.allCases)
        func `a container without an agent does not start`(_ runtime: RuntimeFixture.Runtime) throws {
            let fixture = try RuntimeFixture(runtime)
            // A socket that nobody listens on any more.
            let path = "\(fixture.directory)/agent.sock"
            _ = try UnixSocket.listen(path)
            let output = try fixture.run("echo ran") { $0.linux?.seccomp = profile(path) }
            #expect(output.code == 1 && output.stdout.isEmpty, "\(output)")
            #expect(output.stderr.contains(runtime == .ours ? "linux.seccomp.listenerPath" : path), "\(output)")
            #expect(try fixture.traces() == [])
        }

        @Test func `an agent that is gone when the container starts is told, and the container stopped`() throws {
            let fixture = try RuntimeFixture()
            let path = "\(fixture.directory)/agent.sock"
            _ = try UnixSocket.listen(path)
            try fixture.must(
                "create", "--bundle", fixture.bundle("echo ran") { $0.linux?.seccomp = profile(path) }, "c1")
            let pid = try fixture.state("c1").pid
            let output = try fixture.call(["start", "c1"])
            #expect(output.code == 1 && output.stderr.contains("linux.seccomp.listenerPath"), "\(output)")
            _ = fixture.wait(pid)
            #expect(try fixture.state("c1").status == .stopped)
        }

        /// Whatever the runtime and its child have to say to each other is said without a call that might be asked about.
        @Test(arguments: [["write", "sendmsg", "read", "recvmsg", "close"], ["execve", "exit_group"], []])
        func `the runtime's own calls may be notified too`(_ names: [String]) throws {
            let fixture = try RuntimeFixture()
            let agent = try SeccompAgent("\(fixture.directory)/agent.sock") { _ in 0 }
            func shape(_ spec: inout ContainerSpec) {
                spec.linux?.seccomp = profile(agent.path, names)
                if names.isEmpty {
                    spec.linux?.seccomp?.defaultAction = "SCMP_ACT_NOTIFY"
                    spec.linux?.seccomp?.syscalls = []
                }
            }
            #expect(try fixture.run("echo one", shape).text == "one")
            try fixture.start("c1", "sleep 1000", shape)
            #expect(try fixture.must("exec", "c1", "echo", "two").text == "two")
            let missing = try fixture.call(["exec", "c1", "/bin/nothing"])
            #expect(missing.code == 255 && missing.stderr.contains("/bin/nothing"), "\(missing)")
            try fixture.must("kill", "c1", "KILL")
            #expect(!agent.finish().asked.isEmpty)
        }

        /// The flags that reach the kernel beside the listener's.
        @Test func `flags go with a listener where the kernel knows them`() throws {
            let fixture = try RuntimeFixture()
            let agent = try refuseMkdir(fixture)
            defer { _ = agent.finish() }
            let features = try JSONValue.parse(try fixture.must("features").stdout)["linux"]?["seccomp"]
            let known = features?["knownFlags"]?.arrayValue?.compactMap(\.stringValue) ?? []
            let supported = features?["supportedFlags"]?.arrayValue?.compactMap(\.stringValue) ?? []
            #expect(known.count == 4)
            for flag in known {
                let output = try fixture.run("mkdir /tmp/x; echo $?") { spec in
                    spec.linux?.seccomp = profile(agent.path)
                    spec.linux?.seccomp?.flags = [flag]
                }
                if supported.contains(flag) {
                    #expect(output.text == "1", "\(flag): \(output)")
                } else {
                    #expect(output.code == 1 && output.stderr.contains(flag), "\(output)")
                }
            }
        }

        /// Limits that would refuse a page of memory or kill who makes one hold for the program, not for what comes before.
        @Test func `the limits of the program do not keep the agent from getting its listener`() throws {
            let fixture = try RuntimeFixture()
            let agent = try refuseMkdir(fixture)
            func shape(_ spec: inout ContainerSpec) {
                spec.linux?.seccomp = profile(agent.path)
                spec.process?.rlimits = [
                    RlimitSpec(type: "RLIMIT_AS", hard: 16 << 20, soft: 16 << 20),
                    RlimitSpec(type: "RLIMIT_FSIZE", hard: 0, soft: 0),
                ]
            }
            let output = try fixture.run("mkdir /tmp/x; echo $?; grep 'Max file size' /proc/self/limits", shape)
            #expect(output.code == 0 && output.lines.first == "1", "\(output)")
            #expect(output.lines.last?.split(separator: " ").dropFirst(3).first == "0", "\(output)")
            try fixture.start("c1", "sleep 1000", shape)
            #expect(try fixture.call(["exec", "c1", "mkdir", "/tmp/x"]).code == 1)
            #expect(agent.finish().asked.count == 2)
        }

        @Test func `a container of another user, and without no_new_privs, is no different`() throws {
            let fixture = try RuntimeFixture()
            let agent = try refuseMkdir(fixture)
            for noNewPrivileges in [true, false] {
                let output = try fixture.run("mkdir /tmp/x; id -u; grep NoNewPrivs /proc/self/status") { spec in
                    spec.process?.user.uid = 1000
                    spec.process?.noNewPrivileges = noNewPrivileges
                    spec.linux?.seccomp = profile(agent.path)
                }
                #expect(output.lines == ["1000", "NoNewPrivs:\t\(noNewPrivileges ? 1 : 0)"], "\(output)")
            }
            let output = try fixture.run("mkdir /tmp/x; echo $?") { spec in
                spec.linux?.namespaces.append(NamespaceSpec(.user))
                spec.linux?.uidMappings = [IDMapping(containerID: 0, hostID: 100_000, size: 65536)]
                spec.linux?.gidMappings = [IDMapping(containerID: 0, hostID: 100_000, size: 65536)]
                spec.linux?.seccomp = profile(agent.path)
                chmod(fixture.directory, 0o755)
            }
            #expect(output.text == "1" && output.stderr.contains("link"), "\(output)")
            #expect(agent.finish().asked.count == 3)
        }

        @Test func `a filter whose listener the kernel refuses ends the container with its reason`() throws {
            let fixture = try RuntimeFixture()
            let agent = try refuseMkdir(fixture)
            defer { _ = agent.finish() }
            let output = try fixture.run("echo ran") { spec in
                spec.linux?.seccomp = profile(agent.path)
                // No descriptor is left for the listener.
                spec.process?.rlimits = [RlimitSpec(type: "RLIMIT_NOFILE", hard: 3, soft: 3)]
            }
            #expect(output.code == 1 && output.stdout.isEmpty, "\(output)")
            #expect(output.stderr.contains("listener"), "\(output)")
            #expect(try fixture.traces() == [])
        }
    }
}
