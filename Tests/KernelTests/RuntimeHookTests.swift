import Glibc
import JSON
import Kernel
import OCISpec
import Testing

extension KernelSuite {
    /// Programs that the runtime calls along a container's life.
    @Suite(.serialized) struct RuntimeHooks {
        private func hook(_ script: String, timeout: Int64? = nil) throws -> HookSpec {
            HookSpec(
                path: try RuntimeFixture.busybox(), args: ["sh", "-c", script],
                env: ["PATH=/usr/bin:/bin", "MARK=yes"],
                timeout: timeout)
        }

        @Test(arguments: RuntimeFixture.Runtime.allCases)
        func `hooks run in order, with the state on standard input`(_ runtime: RuntimeFixture.Runtime) throws {
            let fixture = try RuntimeFixture(runtime)
            let log = "\(fixture.directory)/hooks"
            func note(_ kind: String) throws -> HookSpec { try hook("echo \(kind) $MARK $(cat) >> \(log)") }
            let bundle = try fixture.bundle("echo program >> /log/hooks") { spec in
                var hooks = HooksSpec()
                hooks.prestart = [try note("prestart")]
                hooks.createRuntime = [try note("createRuntime"), try note("createRuntime2")]
                hooks.createContainer = [try note("createContainer")]
                hooks.startContainer = [
                    HookSpec(
                        path: "/bin/busybox", args: ["sh", "-c", "/bin/cat >> /log/hooks; /bin/echo >> /log/hooks"])
                ]
                hooks.poststart = [try note("poststart")]
                hooks.poststop = [try note("poststop")]
                spec.hooks = hooks
                spec.mounts.append(
                    MountSpec(destination: "/log", type: "bind", source: fixture.directory, options: ["bind"]))
            }
            func entries() throws -> [(String, JSONValue?)] {
                try File.text(log).split(separator: "\n").map { line in
                    let brace = line.firstIndex(of: "{") ?? line.endIndex
                    let name = line[..<brace].split(separator: " ").joined(separator: " ")
                    return (name, try? JSONValue.parse(String(line[brace...])))
                }
            }
            try fixture.must("create", "--bundle", bundle, "c1")
            let pid = try fixture.state("c1").pid
            // The runc at hand calls poststart hooks too early, and tells some of the others "created".
            let early = ["prestart yes", "createRuntime yes", "createRuntime2 yes", "createContainer yes"]
            guard runtime == .ours else {
                #expect(try entries().map(\.0).starts(with: early))
                return
            }
            var seen = try entries()
            #expect(seen.map(\.0) == early)
            for (name, state) in seen {
                #expect(state?["id"] == "c1")
                #expect(state?["status"] == "creating")
                #expect(state?["bundle"]?.stringValue == bundle)
                if name.contains("Runtime") { #expect(state?["pid"]?.intValue == Int64(pid)) }
            }
            try fixture.must("start", "c1")
            #expect(fixture.wait(pid) == 0)
            seen = try entries()
            // poststart and the program run beside each other.
            #expect(Set(seen[4...].map(\.0)) == ["", "program", "poststart yes"])
            #expect(seen[4].1?["status"] == "created")
            try fixture.must("delete", "c1")
            seen = try entries()
            #expect(seen.last?.0 == "poststop yes")
            #expect(seen.last?.1?["status"] == "stopped")
        }

        @Test func `hooks of the container's root run with the container's rights`() throws {
            let fixture = try RuntimeFixture()
            let bundle = try fixture.bundle("true") { spec in
                spec.process?.user = UserSpec(uid: 1000, gid: 1000)
                var hooks = HooksSpec()
                hooks.startContainer = [
                    HookSpec(
                        path: "/bin/busybox",
                        args: [
                            "sh", "-c", "/bin/busybox grep -E 'Uid|CapEff|CapBnd|NoNew' /proc/self/status >&2; exit 1",
                        ])
                ]
                spec.hooks = hooks
            }
            let output = try fixture.call(["run", "--bundle", bundle, "c1"])
            #expect(output.code == 1)
            #expect(output.stderr.contains("Uid:\t1000"), "\(output.stderr)")
            #expect(output.stderr.contains("CapEff:\t0000000000000000"))
            #expect(output.stderr.contains("NoNewPrivs:\t1"))
            #expect(try fixture.traces() == [])
        }

        @Test(arguments: ["prestart", "createRuntime", "createContainer", "startContainer", "poststart"])
        func `a hook that fails ends the container`(_ kind: String) throws {
            let fixture = try RuntimeFixture()
            let bundle = try fixture.bundle("sleep 1000") { spec in
                let failing = [
                    HookSpec(
                        path: kind == "startContainer" ? "/bin/busybox" : try RuntimeFixture.busybox(),
                        args: ["sh", "-c", "echo told you so >&2; exit 5"])
                ]
                var hooks = HooksSpec()
                switch kind {
                case "prestart": hooks.prestart = failing
                case "createRuntime": hooks.createRuntime = failing
                case "createContainer": hooks.createContainer = failing
                case "startContainer": hooks.startContainer = failing
                default: hooks.poststart = failing
                }
                spec.hooks = hooks
            }
            let output = try fixture.call(["run", "--bundle", bundle, "c1"])
            #expect(output.code == 1)
            #expect(output.stderr.contains(kind) && output.stderr.contains("exit status 5"), "\(output.stderr)")
            #expect(output.stderr.contains("told you so"))
            fixture.reap()
            #expect(try fixture.traces() == [])
        }

        /// The lifecycle goes on with them: what other hooks made has to be undone.
        @Test(arguments: RuntimeFixture.Runtime.allCases, ["prestart", "createRuntime", "createContainer", "mount"])
        func `poststop hooks run when a container could not be made`(
            _ runtime: RuntimeFixture.Runtime, _ failing: String
        ) throws {
            let fixture = try RuntimeFixture(runtime)
            let log = "\(fixture.directory)/hooks"
            func note(_ kind: String) throws -> HookSpec {
                try hook("echo \(kind) $(cat) >> \(log); \(kind == failing ? "exit 5" : "true")")
            }
            for verb in ["create", "run"] {
                let bundle = try fixture.bundle("echo program >> \(log)") { spec in
                    var hooks = HooksSpec()
                    hooks.prestart = [try note("prestart")]
                    hooks.createRuntime = [try note("createRuntime")]
                    hooks.createContainer = [try note("createContainer")]
                    hooks.poststop = [try note("poststop"), try note("poststop2")]
                    spec.hooks = hooks
                    if failing == "mount" { spec.mounts.append(MountSpec(destination: "/mnt", type: "nosuchfs")) }
                }
                #expect(try fixture.call([verb, "--bundle", bundle, "c1"]).code == 1)
                let entries = try File.text(log).split(separator: "\n")
                #expect(entries.suffix(2).map { $0.prefix { $0 != " " } } == ["poststop", "poststop2"])
                for entry in entries.suffix(2) where runtime == .ours {
                    let state = try JSONValue.parse(String(entry[(entry.firstIndex(of: "{") ?? entry.startIndex)...]))
                    #expect(state["id"] == "c1" && state["status"] == "stopped" && state["pid"] == 0)
                }
                #expect(entries.filter { $0.hasPrefix("poststop ") }.count == 1, "once")
                #expect(try fixture.call(["state", "c1"]).code == 1)
                #expect(try fixture.traces() == [])
                unlink(log)
            }
        }

        @Test func `a hook that takes too long is killed`() throws {
            let fixture = try RuntimeFixture()
            let output = try fixture.run("true") { spec in
                var hooks = HooksSpec()
                hooks.createRuntime = [try hook("exec sleep 1000", timeout: 1)]
                spec.hooks = hooks
            }
            #expect(output.code == 1)
            #expect(output.stderr.contains("within 1 seconds"), "\(output.stderr)")
            #expect(try fixture.traces() == [])
        }

        @Test func `a failing poststop hook is a warning, and the next one runs`() throws {
            let fixture = try RuntimeFixture()
            let mark = "\(fixture.directory)/mark"
            let output = try fixture.run("true") { spec in
                var hooks = HooksSpec()
                hooks.poststop = [try hook("exit 3"), try hook("echo > \(mark)")]
                spec.hooks = hooks
            }
            #expect(output.code == 0)
            #expect(output.stderr.contains("warning") && output.stderr.contains("poststop"), "\(output.stderr)")
            #expect(File.exists(mark))
        }
    }
}
