import CKernel
import Glibc
import JSON
import Kernel
import OCISpec
import Testing

extension KernelSuite {
    /// The runtime in the hands of a user without privileges.
    @Suite(.serialized) struct RuntimeRootless {
        /// A runtime and a bundle that belong to a user who is nobody else on this machine.
        private struct User {
            static let id: UInt32 = 1000
            let fixture: RuntimeFixture
            let program: String
            let bundle: String

            init(
                _ script: String, runtime: RuntimeFixture.Runtime = .ours,
                _ shape: (inout ContainerSpec) -> Void = { _ in }
            ) throws {
                fixture = try RuntimeFixture(runtime)
                program = "\(fixture.directory)/runtime"
                try File.replace(program, with: File.read(try runtime.path(), limit: 256 << 20), mode: 0o755)
                try File.makeDirectories("\(fixture.directory)/user", mode: 0o700)
                bundle = try fixture.bundle(script) { spec in
                    spec.linux?.namespaces += [NamespaceSpec(.user), NamespaceSpec(.cgroup)]
                    spec.linux?.uidMappings = [IDMapping(containerID: 0, hostID: Self.id, size: 1)]
                    spec.linux?.gidMappings = [IDMapping(containerID: 0, hostID: Self.id, size: 1)]
                    spec.linux?.cgroupsPath = nil
                    for index in spec.mounts.indices {
                        spec.mounts[index].options.removeAll { $0.hasPrefix("gid=") }
                    }
                    // What `spec` writes: a rule for devices, no limits.
                    var resources = ResourcesSpec()
                    resources.devices = [DeviceRuleSpec(allow: false, access: "rwm")]
                    spec.linux?.resources = resources
                    shape(&spec)
                }
                chmod(fixture.directory, 0o711)
                for path in ["\(fixture.directory)/user", bundle] {
                    let owner = try Program("/bin/chown", ["-R", "\(Self.id):\(Self.id)", path]).run()
                    try #require(owner.status == .exited(0))
                }
            }

            func call(
                _ arguments: [String], through: [String] = [], marked mark: String? = nil
            ) throws -> RuntimeOutput {
                let user = ["--reuid", "\(Self.id)", "--regid", "\(Self.id)", "--clear-groups"] + through + [program]
                let result = try Program(
                    "/usr/bin/setpriv", user + arguments,
                    environment: fixture.environment + ["XDG_RUNTIME_DIR=\(fixture.directory)/user"]
                        + (mark.map { ["MARTLET_FAILPOINT=\($0)"] } ?? []),
                    timeoutMilliseconds: 60_000
                ).run()
                return RuntimeOutput(
                    code: result.status.shellCode, stdout: String(decoding: result.output, as: UTF8.self),
                    stderr: String(decoding: result.errors, as: UTF8.self))
            }

            func run() throws -> RuntimeOutput { try call(["run", "--bundle", bundle, "c1"]) }
        }

        @Test(arguments: RuntimeFixture.Runtime.allCases)
        func `a user runs a container in a user namespace that maps the user`(
            _ runtime: RuntimeFixture.Runtime
        ) throws {
            let script = """
                id -u; cat /proc/self/uid_map | tr -s ' '; cat /proc/self/setgroups; hostname
                touch /etc/mine && stat -c %u /etc/mine; head -c 2 /dev/zero | wc -c; touch /ro/x 2>/dev/null; echo $?
                """
            let user = try User(script, runtime: runtime) { spec in
                spec.mounts.append(
                    MountSpec(destination: "/ro", type: "bind", source: "rootfs/tmp", options: ["rbind", "ro"]))
            }
            let output = try user.run()
            #expect(output.lines == ["0", " 0 1000 1", "deny", "box", "0", "2", "1"], "\(output)")
            var info = stat()
            #expect(stat("\(user.bundle)/rootfs/etc/mine", &info) == 0 && info.st_uid == User.id)
        }

        @Test func `a whole life without cgroups`() throws {
            let user = try User("sleep 1000") { spec in
                spec.mounts.append(
                    MountSpec(destination: "/sys/fs/cgroup", type: "cgroup", source: "cgroup", options: ["ro"]))
            }
            defer { _ = try? user.call(["delete", "--force", "c1"]) }
            #expect(try user.call(["create", "--bundle", user.bundle, "c1"]).code == 0)
            #expect(try user.call(["start", "c1"]).code == 0)
            #expect(File.exists("\(user.fixture.directory)/user/martlet-runtime/c1"), "in the user's own directory")
            let state = try RuntimeState(parsing: Array(try user.call(["state", "c1"]).stdout.utf8))
            #expect(state.status == .running)
            #expect(try Proc.status(state.pid)?["Uid"]?.hasPrefix("1000\t") == true)
            let look = "id -u; tr '\\0' ' ' < /proc/1/cmdline; echo; ls /sys/fs/cgroup | wc -l; hostname"
            let inside = try user.call(["exec", "c1", "sh", "-c", look])
            #expect(inside.lines == ["0", "sleep 1000 ", "0", "box"], "\(inside)")
            #expect(try user.call(["exec", "--tty", "c1", "tty"]).text == "/dev/pts/0")
            for verb in [["ps"], ["pause"], ["update", "--memory", "1000000"]] {
                let output = try user.call(verb + ["c1"])
                #expect(output.code == 1)
                #expect(output.stderr.contains("has no cgroups"), "\(output.stderr)")
            }
            #expect(try user.call(["kill", "--all", "c1", "KILL"]).code == 0)
            #expect(user.fixture.wait(state.pid) == 137)
            #expect(try user.call(["delete", "c1"]).code == 0)
            #expect(try user.call(["list"]).lines.count == 1)
        }

        /// Without cgroups nothing but the process itself knows whose it is.
        @Test(arguments: ["runtime.after_clone", "runtime.before_publish", "runtime.published"])
        func `a runtime that is killed while it creates leaves no process, without cgroups either`(
            _ mark: String
        ) throws {
            let user = try User("sleep 1000")
            let others = try Self.children()
            #expect(
                try user.call(["create", "--bundle", user.bundle, "c1"], marked: mark).code == 128 + SIGKILL)
            let none = try user.fixture.eventually {
                user.fixture.reap()
                return try Self.children().subtracting(others).isEmpty
            }
            #expect(none)
            for pid in try Self.children().subtracting(others) { kill(pid, SIGKILL) }
            user.fixture.reap()
            #expect(try user.call(["delete", "--force", "c1"]).code == 0)
            #expect(try user.call(["list"]).lines.count == 1)
        }

        /// The processes whose parent is this one: those that nobody else would wait for.
        private static func children() throws -> Set<pid_t> {
            let own = getpid()
            return Set(
                try File.list("/proc").compactMap { pid_t($0) }.filter { pid in
                    guard let stat = try Proc.stat(pid) else { return false }
                    return stat.parent == own
                })
        }

        @Test func `rules for devices hold nobody back who has no cgroups`() throws {
            let node = "/tmp/martlet-node-\(getpid())"
            try systemCall("mknod", node) { mknod(node, S_IFCHR | 0o666, dev_t(ck_makedev(1, 11))) }
            defer { unlink(node) }
            chmod(node, 0o666)
            // Opened for writing, the kernel's log asks for no rights but those of its node; nothing is written.
            let user = try User(": > /node && echo opened") { spec in
                spec.mounts.append(MountSpec(destination: "/node", type: "bind", source: node, options: ["bind"]))
            }
            #expect(try user.run().text == "opened")
        }

        @Test func `what a user cannot have is refused by its place`() throws {
            let cases: [(String, (inout ContainerSpec) -> Void)] = [
                ("linux.resources: cannot be applied", { $0.linux?.resources?.pidsLimit = 5 }),
                (
                    "without root, only the one id 1000",
                    { $0.linux?.uidMappings.append(IDMapping(containerID: 1, hostID: 2000, size: 1)) }
                ),
                (
                    "linux.namespaces: without root, a user namespace",
                    { spec in
                        spec.linux?.namespaces.removeAll { $0.type == .user }
                        spec.linux?.uidMappings = []
                        spec.linux?.gidMappings = []
                    }
                ),
                (
                    "linux.namespaces: without cgroups, a new pid namespace",
                    { spec in
                        spec.linux?.namespaces.removeAll { $0.type == .pid }
                        spec.mounts.removeAll { $0.type == "proc" }
                    }
                ),
                ("a new time namespace needs root", { $0.linux?.namespaces.append(NamespaceSpec(.time)) }),
                ("/named", { $0.linux?.cgroupsPath = "/named" }),
                (
                    "mounts[6]",
                    {
                        $0.mounts.append(
                            MountSpec(destination: "/m", type: "bind", source: "/tmp", options: ["bind", "idmap"]))
                    }
                ),
            ]
            for (place, shape) in cases {
                let user = try User("true", runtime: .ours, shape)
                let output = try user.run()
                #expect(output.code == 1)
                #expect(output.stderr.contains(place), "\(place): \(output.stderr)")
                #expect(output.stderr.split(separator: "\n").count == 1, "\(output.stderr)")
                #expect(try File.list("\(user.fixture.directory)/user").allSatisfy { $0 != "c1" })
                #expect(try user.call(["list"]).lines.count == 1, "nothing is left")
            }
        }

        @Test(arguments: RuntimeFixture.Runtime.allCases)
        func `what spec --rootless writes is run`(_ runtime: RuntimeFixture.Runtime) throws {
            let user = try User("true", runtime: runtime)
            unlink("\(user.bundle)/config.json")
            let made = try user.call(["spec", "--rootless", "--bundle", user.bundle])
            #expect(made.code == 0, "\(made)")
            let path = "\(user.bundle)/config.json"
            var spec = try ContainerSpec(parsing: File.read(path))
            #expect(spec.linux?.uidMappings == [IDMapping(containerID: 0, hostID: User.id, size: 1)])
            spec.process?.terminal = false
            spec.process?.args = ["sh", "-c", "id -u; touch /sys/fs/cgroup/pids/x 2>/dev/null; echo $?"]
            spec.process?.env = ["PATH=/bin"]
            try File.replace(path, with: spec.encoded(), mode: 0o644)
            #expect(try user.run().lines == ["0", "1"])
        }

        @Test(arguments: RuntimeFixture.Runtime.allCases)
        func `root of a user namespace runs a container in that same one`(_ runtime: RuntimeFixture.Runtime) throws {
            let user = try User("id -u; head -c 2 /dev/zero | wc -c; mknod /etc/x b 8 0; echo $?", runtime: runtime) {
                spec in
                spec.linux?.namespaces.removeAll { $0.type == .user }
                spec.linux?.uidMappings = []
                spec.linux?.gidMappings = []
            }
            let output = try user.call(
                ["--root", "\(user.fixture.directory)/user/state", "run", "--bundle", user.bundle, "c1"],
                through: ["/usr/bin/unshare", "--user", "--map-root-user"])
            #expect(output.lines == ["0", "2", "1"], "\(output)")
        }

        @Test func `--rootless says whether cgroups may be missing`() throws {
            let user = try User("true")
            for (value, code) in [("true", Int32(0)), ("auto", 0), ("false", 1)] {
                let output = try user.call(["--rootless", value, "run", "--bundle", user.bundle, "c1"])
                #expect(output.code == code, "\(value): \(output.stderr)")
            }
        }
    }
}
