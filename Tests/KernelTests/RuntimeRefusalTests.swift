import Glibc
import JSON
import Kernel
import OCISpec
import Testing

extension KernelSuite {
    /// Configurations that are wrong, or ask for what this runtime does not do: one sentence with the place, and
    /// nothing left behind.
    @Suite(.serialized) struct RuntimeRefusals {
        struct Case: CustomTestStringConvertible, Sendable {
            let place: String
            let change: @Sendable (inout ContainerSpec) -> Void
            var testDescription: String { place }

            init(_ place: String, _ change: @escaping @Sendable (inout ContainerSpec) -> Void) {
                self.place = place
                self.change = change
            }
        }

        @Test(arguments: [
            Case("ociVersion") { $0.ociVersion = "1.4.0" },
            Case("ociVersion") { $0.ociVersion = "2.0.0" },
            Case("ociVersion") { $0.ociVersion = "one" },
            Case("root") { $0.root = nil },
            Case("root.path") { $0.root?.path = "nowhere" },
            Case("process") { $0.process = nil },
            Case("process.args") { $0.process?.args = [] },
            Case("process.cwd") { $0.process?.cwd = "tmp" },
            Case("process.env[1]") { $0.process?.env.append("NOVALUE") },
            Case("process.apparmorProfile") { $0.process?.apparmorProfile = "docker-default" },
            Case("process.selinuxLabel") { $0.process?.selinuxLabel = "a:b:c:d" },
            Case("process.scheduler.policy") { $0.process?.scheduler = SchedulerSpec(policy: "SCHED_ISO") },
            Case("process.scheduler.nice") { $0.process?.scheduler = SchedulerSpec(policy: "SCHED_BATCH", nice: 20) },
            Case("process.scheduler.flags[0]") {
                $0.process?.scheduler = SchedulerSpec(policy: "SCHED_BATCH", flags: ["SCHED_FLAG_FAST"])
            },
            Case("process.ioPriority.class") {
                $0.process?.ioPriority = IOPrioritySpec(class: "IOPRIO_CLASS_NONE", priority: 0)
            },
            Case("process.execCPUAffinity.final") { $0.process?.execCPUAffinity = CPUAffinitySpec(final: "1-") },
            Case("process.oomScoreAdj") { $0.process?.oomScoreAdj = 1001 },
            Case("RLIMIT_NOSUCH") { $0.process?.rlimits = [RlimitSpec(type: "RLIMIT_NOSUCH", hard: 1, soft: 1)] },
            Case("RLIMIT_CORE") { $0.process?.rlimits = [RlimitSpec(type: "RLIMIT_CORE", hard: 1, soft: 2)] },
            Case("process.rlimits[1]") { spec in
                spec.process?.rlimits = [
                    RlimitSpec(type: "RLIMIT_CORE", hard: 1, soft: 1),
                    RlimitSpec(type: "RLIMIT_CORE", hard: 1, soft: 1),
                ]
            },
            Case("linux") { $0.linux = nil },
            Case("linux.namespaces") { $0.linux?.namespaces = [] },
            Case("linux.namespaces[5]") { $0.linux?.namespaces.append(NamespaceSpec(.pid)) },
            Case("linux.namespaces") { $0.linux?.namespaces[4].path = "/proc/self/ns/mnt" },
            Case("linux.namespaces[1].path") { $0.linux?.namespaces[1].path = "/nowhere" },
            Case("join the network namespace") { $0.linux?.namespaces[1].path = "/proc/self/ns/ipc" },
            Case("linux.namespaces[1].path") { $0.linux?.namespaces[1].path = "ns/net" },
            Case("hostname") { $0.linux?.namespaces.removeAll { $0.type == .uts } },
            Case("hostname: is longer than 64 bytes") { $0.hostname = String(repeating: "h", count: 65) },
            Case("domainname: is longer than 64 bytes") { $0.domainname = String(repeating: "d", count: 65) },
            Case("domainname") { spec in
                spec.hostname = nil
                spec.domainname = "example.org"
                spec.linux?.namespaces.removeAll { $0.type == .uts }
            },
            Case("linux.timeOffsets.realtime") { spec in
                spec.linux?.namespaces.append(NamespaceSpec(.time))
                spec.linux?.timeOffsets = ["realtime": TimeOffset(seconds: 1, nanoseconds: 0)]
            },
            Case("linux.uidMappings") { $0.linux?.namespaces.append(NamespaceSpec(.user)) },
            Case("linux.uidMappings") {
                $0.linux?.uidMappings = [IDMapping(containerID: 0, hostID: 0, size: 1)]
            },
            Case("linux.timeOffsets") { $0.linux?.timeOffsets = ["boottime": TimeOffset(seconds: 1, nanoseconds: 0)] },
            // The machine has no resctrl filesystem, and no RDMA controller.
            Case("linux.intelRdt") { $0.linux?.intelRdt = IntelRdtSpec() },
            Case("linux.intelRdt.memBwSchema") { spec in
                spec.linux?.intelRdt = IntelRdtSpec()
                spec.linux?.intelRdt?.memBwSchema = "L3:0=f"
            },
            Case("linux.memoryPolicy.mode") { $0.linux?.memoryPolicy = MemoryPolicySpec(mode: "MPOL_FAR") },
            Case("linux.memoryPolicy.nodes") { $0.linux?.memoryPolicy = MemoryPolicySpec(mode: "MPOL_BIND") },
            Case("linux.memoryPolicy: set_mempolicy") {
                $0.linux?.memoryPolicy = MemoryPolicySpec(mode: "MPOL_BIND", nodes: "1000")
            },
            Case("linux.netDevices.a/b") { $0.linux?.netDevices = ["a/b": NetDeviceSpec()] },
            Case("linux.netDevices.lo") { $0.linux?.netDevices = ["lo": NetDeviceSpec()] },
            Case("linux.netDevices.b.name") {
                $0.linux?.netDevices = ["a": NetDeviceSpec(name: "c"), "b": NetDeviceSpec(name: "c")]
            },
            Case("linux.netDevices") { spec in
                spec.linux?.namespaces.removeAll { $0.type == .network }
                spec.mounts.removeAll { $0.type == "sysfs" }
                spec.linux?.netDevices = ["a": NetDeviceSpec()]
            },
            Case("rdma") { spec in
                spec.linux?.resources = ResourcesSpec()
                spec.linux?.resources?.rdma = ["mlx5_0": RDMASpec(hcaHandles: 1)]
            },
            Case("linux.resources.rdma.mlx5_0") { spec in
                spec.linux?.resources = ResourcesSpec()
                spec.linux?.resources?.rdma = ["mlx5_0": RDMASpec()]
            },
            Case("linux.mountLabel") { $0.linux?.mountLabel = "a:b:c:d" },
            Case("linux.rootfsPropagation") { $0.linux?.rootfsPropagation = "sideways" },
            Case("linux.personality.flags[0]: 'X'") { spec in
                spec.linux?.personality = PersonalitySpec(domain: .linux)
                spec.linux?.personality?.flags = ["X"]
            },
            Case("linux.sysctl.vm.swappiness") { $0.linux?.sysctl = ["vm.swappiness": "1"] },
            Case("linux.sysctl.net/../vm/swappiness") { $0.linux?.sysctl = ["net/../vm/swappiness": "1"] },
            Case("linux.sysctl.net.ipv4.ip_forward") { spec in
                spec.linux?.namespaces.removeAll { $0.type == .network }
                spec.mounts.removeAll { $0.type == "sysfs" }
                spec.linux?.sysctl = ["net.ipv4.ip_forward": "1"]
            },
            Case("linux.cgroupsPath") { $0.linux?.cgroupsPath = "/a/../../b" },
            Case("linux.cgroupsPath") { $0.linux?.cgroupsPath = "system.slice:a:b" },
            Case("linux.maskedPaths[0]") { $0.linux?.maskedPaths = ["etc"] },
            Case("linux.devices[0].path") {
                $0.linux?.devices = [DeviceSpec(path: "x", type: .character, major: 1, minor: 1)]
            },
            Case("mounts[6].destination") { $0.mounts.append(MountSpec(destination: "mnt/..", type: "tmpfs")) },
            Case("mounts[6].destination") { $0.mounts.append(MountSpec(destination: "/", type: "tmpfs")) },
            Case("mounts[6].type") { $0.mounts.append(MountSpec(destination: "/mnt")) },
            Case("mounts[6].source") { $0.mounts.append(MountSpec(destination: "/mnt", type: "bind")) },
            Case("mounts[6].gidMappings") { spec in
                spec.mounts.append(MountSpec(destination: "/mnt", type: "bind", source: "/tmp"))
                spec.mounts[6].uidMappings = [IDMapping(containerID: 0, hostID: 0, size: 1)]
            },
            Case("mounts[6].options") {
                $0.mounts.append(MountSpec(destination: "/mnt", type: "bind", source: "/tmp", options: ["idmap"]))
            },
            Case("mounts[6].options") {
                $0.mounts.append(MountSpec(destination: "/mnt", type: "proc", source: "x", options: ["tmpcopyup"]))
            },
            Case("mounts[6].options") {
                $0.mounts.append(MountSpec(destination: "/sys", type: "cgroup", source: "x", options: ["remount"]))
            },
            Case("mounts[6].options[1] (move)") {
                $0.mounts.append(MountSpec(destination: "/mnt", type: "none", source: "/tmp", options: ["ro", "move"]))
            },
            Case("mounts[6]") { $0.mounts.append(MountSpec(destination: "/mnt", type: "nosuchfs")) },
            Case("mounts[6]") {
                $0.mounts.append(MountSpec(destination: "/mnt", type: "tmpfs", options: ["nosuch=1"]))
            },
            Case("mounts[6]") {
                $0.mounts.append(MountSpec(destination: "/mnt", type: "bind", source: "/nowhere", options: ["bind"]))
            },
            Case("linux.seccomp.listenerPath") { $0.linux?.seccomp = SeccompSpec(defaultAction: "SCMP_ACT_NOTIFY") },
            Case("linux.seccomp.listenerPath") { spec in
                spec.linux?.seccomp = SeccompSpec(defaultAction: "SCMP_ACT_NOTIFY")
                spec.linux?.seccomp?.listenerPath = "/etc/passwd"
            },
            Case("linux.seccomp.listenerPath") { spec in
                spec.linux?.seccomp = SeccompSpec(defaultAction: "SCMP_ACT_NOTIFY")
                spec.linux?.seccomp?.listenerPath = "agent.sock"
            },
            Case("linux.seccomp.listenerMetadata") { spec in
                spec.linux?.seccomp = SeccompSpec(defaultAction: "SCMP_ACT_ALLOW")
                spec.linux?.seccomp?.listenerMetadata = "x"
            },
            Case("linux.seccomp.syscalls[0].names") { spec in
                spec.linux?.seccomp = SeccompSpec(defaultAction: "SCMP_ACT_ALLOW")
                spec.linux?.seccomp?.syscalls = [SyscallRule(names: [], action: "SCMP_ACT_ERRNO")]
            },
            Case("SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV") { spec in
                spec.linux?.seccomp = SeccompSpec(defaultAction: "SCMP_ACT_ALLOW")
                spec.linux?.seccomp?.flags = ["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]
            },
            Case("hooks.startContainer") { spec in
                spec.linux?.seccomp = SeccompSpec(defaultAction: "SCMP_ACT_NOTIFY")
                spec.linux?.seccomp?.listenerPath = "/run/x.sock"
                spec.hooks = HooksSpec()
                spec.hooks?.startContainer = [HookSpec(path: "/bin/true")]
            },
            Case("linux.seccomp: syscalls[0]") { spec in
                spec.linux?.seccomp = SeccompSpec(defaultAction: "SCMP_ACT_ALLOW")
                spec.linux?.seccomp?.syscalls = [SyscallRule(names: ["read"], action: "SCMP_ACT_NOSUCH")]
            },
        ])
        func `is refused by its place`(_ refused: Case) throws {
            let fixture = try RuntimeFixture()
            let output = try fixture.run("true", refused.change)
            #expect(output.code == 1, "\(output)")
            #expect(output.stderr.contains(refused.place), "\(output.stderr)")
            #expect(output.stderr.split(separator: "\n").count == 1, "one line: \(output.stderr)")
            #expect(try fixture.traces() == [])
        }

        @Test func `a configuration that is no configuration`() throws {
            let fixture = try RuntimeFixture()
            let bundle = try fixture.bundle()
            let path = "\(bundle)/config.json"
            let deep = String(repeating: "[", count: 100_000)
            for text in [
                "", "{", "[]", "null", "{\"ociVersion\":1}", "{\"a\":1,\"a\":2}", deep,
                "{\"ociVersion\":\"1.0.2\u{0}\"}",
            ] {
                try File.replace(path, with: Array(text.utf8))
                let output = try fixture.call(["create", "--bundle", bundle, "c1"])
                #expect(output.code == 1)
                #expect(output.stderr.contains("config.json"), "\(output.stderr)")
            }
            try File.replace(path, with: [0x7b, 0x22, 0xff, 0x22, 0x3a, 0x31, 0x7d])
            #expect(try fixture.call(["create", "--bundle", bundle, "c1"]).code == 1)
            unlink(path)
            #expect(try fixture.call(["create", "--bundle", bundle, "c1"]).stderr.contains("not found"))
            #expect(try fixture.call(["create", "--bundle", "/nowhere", "c1"]).code == 1)
            #expect(try fixture.traces() == [])
        }

        @Test(arguments: [
            ["--nosuch", "list"], ["list", "--format", "xml"], ["checkpoint", "x"],
            ["restore", "x"], ["create"], ["create", "a", "b"], ["kill"], ["state"], ["start"], ["delete"],
            ["--root", "/", "list"],
            ["exec", "c1"], ["exec", "--cgroup", "a", "c1", "true"], ["--log-format", "xml", "list"],
            ["create", "--preserve-fds", "-1", "x"], ["--rootless", "maybe", "list"],
        ])
        func `a command line that cannot be understood`(_ arguments: [String]) throws {
            let fixture = try RuntimeFixture()
            let output = try fixture.call(arguments)
            #expect(output.code == (arguments[0] == "exec" ? 255 : 1))
            #expect(output.stderr.split(separator: "\n").count == 1, "\(output.stderr)")
            #expect(try fixture.traces() == [])
        }

        @Test func `a cgroup that somebody uses is refused`() throws {
            let fixture = try RuntimeFixture()
            try fixture.start("c1")
            let spec = try ContainerSpec(parsing: File.read("\(try fixture.state("c1").bundle)/config.json"))
            let output = try fixture.run("true") { $0.linux?.cgroupsPath = spec.linux?.cgroupsPath }
            #expect(output.code == 1)
            #expect(output.stderr.contains("has processes already"), "\(output.stderr)")
            #expect(try fixture.state("c1").status == .running)
        }

        @Test func `what spec writes is accepted, by us and by runc`() throws {
            let ours = try RuntimeFixture()
            for maker in RuntimeFixture.Runtime.allCases {
                let bundle = try ours.bundle()
                unlink("\(bundle)/config.json")
                let made = try Program(maker.path(), ["spec", "--bundle", bundle], environment: ours.environment).run()
                #expect(made.status == .exited(0))
                #expect(
                    try Program(maker.path(), ["spec", "--bundle", bundle]).run().status == .exited(1), "not over it")
                var spec = try ContainerSpec(parsing: File.read("\(bundle)/config.json"))
                spec.process?.terminal = false
                spec.process?.args = ["sh", "-c", "echo hello"]
                try File.replace("\(bundle)/config.json", with: spec.encoded())
                let output = try ours.call(["run", "--bundle", bundle, "c1"])
                #expect(output.text == "hello", "\(output)")
                if maker == .ours {
                    let theirs = try RuntimeFixture(.runc)
                    spec.ociVersion = "1.0.2"
                    try File.replace("\(bundle)/config.json", with: spec.encoded())
                    #expect(try theirs.call(["run", "--bundle", bundle, "c1"]).text == "hello")
                }
            }
        }

        @Test func `features says what there is`() throws {
            let fixture = try RuntimeFixture()
            let features = try JSONValue.parse(try fixture.must("features").stdout)
            #expect(features["ociVersionMin"] == "1.0.0" && features["ociVersionMax"] == "1.3.0")
            let options = features["mountOptions"]?.arrayValue?.compactMap(\.stringValue) ?? []
            #expect(features["linux"]?["mountExtensions"]?["idmap"]?["enabled"] == true)
            // Each option that is promised is taken.
            for option in options where option != "mand" {
                let output = try fixture.run("true") { spec in
                    if option == "remount" {
                        return spec.mounts.append(
                            MountSpec(destination: "/dev/shm", type: "tmpfs", source: "shm", options: ["remount"]))
                    }
                    let bind = MountSpec(destination: "/mnt", type: "bind", source: "/tmp", options: ["bind", option])
                    let tmpfs = MountSpec(destination: "/mnt", type: "tmpfs", source: "x", options: [option])
                    let isBind = option.hasSuffix("bind") || option.hasPrefix("r") || option == "idmap"
                    spec.mounts.append(isBind ? bind : tmpfs)
                    if option.hasSuffix("idmap") {
                        spec.mounts[6].uidMappings = [IDMapping(containerID: 0, hostID: 1, size: 1)]
                        spec.mounts[6].gidMappings = [IDMapping(containerID: 0, hostID: 1, size: 1)]
                    }
                }
                #expect(output.code == 0, "\(option): \(output.stderr)")
            }
        }
    }
}
