import AgentCore
import CDISpec
import Cgroups
import Confinement
import Glibc
import Images
import JSON
import Kernel
import Model
import OCISpec
import Testing
import Wire

@testable import Agent

@Suite("The OCI configuration of a container")
struct SpecTests {
    private static func image(
        entrypoint: [String]? = nil, command: [String]? = ["/bin/sh"]
    ) -> PodFile.Image {
        PodFile.Image(
            digest: "sha256:0", entrypoint: entrypoint, command: command, environment: ["PATH=/bin", "A=image"],
            workingDirectory: "", user: "", stopSignal: "")
    }

    private func builder(
        network: PodSpec.Network = .bridge, uid: UInt32 = 0, isUnified: Bool = false,
        image: PodFile.Image = Self.image(),
        _ change: (inout Model.ContainerSpec) -> Void = { _ in }
    ) -> SpecBuilder {
        var container = Model.ContainerSpec(image: "busybox")
        change(&container)
        let assignment = TaskAssignment(
            task: TaskID("t"), instance: InstanceID("i"), instanceName: "web", containers: [ContainerID("c")],
            workload: WorkloadID("w"), workloadName: "web", kind: .container, labels: [:], revision: 1, epoch: 1,
            desired: .running, generation: 1, stop: nil,
            pod: PodSpec(containers: [container], network: network), ports: [])
        return SpecBuilder(
            assignment: assignment, container: container,
            pod: PodFile(bootID: "b", image: image, mounts: [], addresses: [], hostname: "host1"),
            user: ContainerUser(uid: uid, gid: uid, groups: [uid], home: "/home/u"),
            paths: AgentPaths(data: "/data", run: "/run/m").task(TaskID("t")), cgroup: "/martlet/t",
            isUnified: isUnified)
    }

    @Test("Entrypoint and command: the user's before the image's, and a new entrypoint voids the image's command")
    func arguments() throws {
        #expect(try builder().arguments() == ["/bin/sh"])
        #expect(try builder { $0.command = ["ls", "-l"] }.arguments() == ["ls", "-l"])
        #expect(
            try builder(image: Self.image(entrypoint: ["/init"])) { $0.command = ["ls"] }.arguments() == [
                "/init", "ls",
            ])
        #expect(try builder { $0.entrypoint = ["/tool"] }.arguments() == ["/tool"])
        #expect(throws: ExecutorFailure.self) { try builder(image: Self.image(command: nil)).arguments() }
    }

    @Test("The user's variables win over the image's, which win over ours; HOME is there")
    func environment() throws {
        let environment = builder { $0.environment = ["A=user", "B=1"] }.environment(terminal: true)
        #expect(environment == ["PATH=/bin", "HOSTNAME=host1", "TERM=xterm", "A=user", "B=1", "HOME=/home/u"])
        let whole = builder {
            $0.environment = ["B=1"]
            $0.environmentIsWhole = true
        }.environment(terminal: false)
        #expect(whole == [SpecBuilder.path, "HOSTNAME=host1", "B=1", "HOME=/home/u"], "A was taken away")
    }

    @Test(
        "Processors of its own without a quota; else what is shared, or what the user said; huge pages only as asked for"
    )
    func processors() throws {
        var own = builder {
            $0.limits.cpu = 2_000_000_000
            $0.limits.pinning = .cores
            $0.limits.hugepages = ["1g": 1 << 30]
        }
        #expect(throws: ExecutorFailure.self, "the master has given it none") { try own.resources() }
        own = SpecBuilder(
            assignment: own.assignment.granting(
                ProcessorGrant(container: "main", cpus: ProcessorSet([1, 3]), memoryNodes: ProcessorSet([1]))),
            container: own.container, pod: own.pod, user: own.user, paths: own.paths, cgroup: own.cgroup,
            isUnified: own.isUnified, sharedProcessors: ProcessorSet([0]), hugepageSizes: ["2m"])
        let resources = try own.resources()
        #expect(resources.cpu?.cpus == "1,3" && resources.cpu?.mems == "1")
        #expect(resources.cpu?.quota == nil)
        #expect(resources.hugepageLimits.map { "\($0.pageSize) \($0.limit)" } == ["1GB 1073741824", "2MB 0"])
        own.allowedProcessors = ProcessorSet(0..<4)
        #expect(try own.resources().cpu?.cpus == "1,3")
        own.allowedProcessors = ProcessorSet(0..<3)
        let lost = #expect(throws: ExecutorFailure.self) { try own.resources() }
        #expect(lost?.description.contains("processors 3 were given to it alone") == true)
        var other = builder { $0.limits.cpus = "0-1" }
        #expect(try other.resources().cpu?.cpus == "0-1")
        #expect(try other.resources().hugepageLimits.isEmpty)
        other.sharedProcessors = ProcessorSet([0])
        #expect(try other.resources().cpu?.cpus == "0")
        var privileged = builder { $0.privileged = true }
        privileged.hugepageSizes = ["2m"]
        #expect(try privileged.resources().hugepageLimits.isEmpty)
    }

    @Test("14 capabilities, no new privileges and our filter of system calls, unless it is said otherwise")
    func confinement() throws {
        let spec = try builder().build()
        #expect(spec.process?.capabilities?.bounding.count == 14)
        #expect(spec.process?.capabilities?.inheritable == [])
        #expect(spec.process?.noNewPrivileges == true)
        #expect(spec.linux?.seccomp?.defaultAction == "SCMP_ACT_ERRNO")
        #expect(spec.linux?.maskedPaths.contains("/proc/kcore") == true)

        let changed = try builder {
            $0.capabilitiesDropped = ["ALL"]
            $0.capabilitiesAdded = ["net_admin"]
            $0.seccomp = .unconfined
            $0.noNewPrivileges = false
        }.build()
        #expect(changed.process?.capabilities?.bounding == ["CAP_NET_ADMIN"])
        #expect(changed.linux?.seccomp == nil)
        #expect(changed.process?.noNewPrivileges == false)
        #expect(throws: ExecutorFailure.self) { try builder { $0.capabilitiesAdded = ["FLY"] }.build() }
    }

    @Test("Who is not root has no effective capabilities")
    func user() throws {
        let capabilities = try #require(try builder(uid: 1000).build().process?.capabilities)
        #expect(capabilities.bounding.count == 14)
        #expect(capabilities.effective.isEmpty && capabilities.permitted.isEmpty)
    }

    @Test("Memory and swap together are the memory limit unless it is said otherwise; half a core is half a period")
    func limits() throws {
        let resources = try #require(
            try builder {
                $0.limits.memory = 64 << 20
                $0.limits.cpu = 500_000_000
                $0.limits.pids = 10
            }.build().linux?.resources)
        #expect(resources.memory?.limit == 64 << 20 && resources.memory?.swap == 64 << 20)
        #expect(resources.cpu?.quota == 50_000 && resources.cpu?.period == 100_000)
        #expect(resources.pidsLimit == 10)
        let free = try builder {
            $0.limits.memory = 64 << 20
            $0.limits.memorySwap = -1
        }.build()
        #expect(free.linux?.resources?.memory?.swap == -1)
        // Where swap cannot be limited, only who asks for a limit on it by name is told so.
        for (asked, wanted) in [(nil, nil), (128 << 20, 128 << 20), (-1, -1)] as [(Int64?, Int64?)] {
            var other = builder {
                $0.limits.memory = 64 << 20
                $0.limits.memorySwap = asked
            }
            other.accountsSwap = false
            let memory = try other.build().linux?.resources?.memory
            #expect(memory?.limit == 64 << 20 && memory?.swap == wanted)
        }
        #expect(try builder().build().linux?.resources?.memory == nil)
        #expect(try builder().build().linux?.resources?.devices.first == DeviceRuleSpec(allow: false, access: "rwm"))
    }

    @Test("A network of its own comes with its parameters; the node's own with none")
    func network() throws {
        let own = try #require(try builder().build().linux)
        #expect(own.namespaces.contains(NamespaceSpec(.network, path: "/run/m/netns/t")))
        #expect(own.sysctl["net.ipv4.ip_unprivileged_port_start"] == "0")
        #expect(!own.namespaces.contains { $0.type == .cgroup })
        let host = try #require(try builder(network: .host, isUnified: true).build().linux)
        #expect(!host.namespaces.contains { $0.type == .network })
        #expect(host.sysctl.isEmpty)
        #expect(host.namespaces.contains { $0.type == .cgroup })
    }

    @Test("Mounts are in the order of their depth, after those that every container has")
    func mounts() throws {
        let spec = try builder {
            $0.mounts = [
                Mount(.tmpfs(size: 1024, mode: "0700"), target: "/a/b/c"),
                Mount(.tmpfs(size: nil, mode: nil), target: "/a"),
            ]
            $0.limits.sharedMemory = 1 << 20
        }.build()
        let targets = spec.mounts.map(\.destination)
        #expect(targets.suffix(2) == ["/a", "/a/b/c"])
        #expect(targets.contains("/etc/resolv.conf"))
        #expect(spec.mounts.last?.options.contains("size=1024") == true)
        #expect(spec.mounts.first { $0.destination == "/dev/shm" }?.options.contains("size=1048576") == true)
    }

    @Test("The default filter survives being written as OCI JSON: rules, arguments and error numbers")
    func seccomp() throws {
        let profile = DefaultSeccompProfile.profile(capabilities: .containerDefaults)
        let spec = try SeccompSpec(parsing: SeccompSpec(profile).encoded())
        #expect(spec.syscalls.count == profile.rules.count)
        #expect(spec.defaultErrnoRet == 1)
        #expect(spec.syscalls.contains { !$0.args.isEmpty })
    }

    @Test("A profile that would have the node's root connect to a socket is refused")
    func seccompAgent() throws {
        let silent = #"{"defaultAction":"SCMP_ACT_ALLOW"}"#
        #expect(
            try builder { $0.seccomp = .profile(json: silent) }.build().linux?.seccomp?.defaultAction
                == "SCMP_ACT_ALLOW")
        for profile in [
            #"{"defaultAction":"SCMP_ACT_NOTIFY"}"#,
            #"{"defaultAction":"SCMP_ACT_ALLOW","listenerPath":"/run/x.sock"}"#,
            #"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir"],"action":"SCMP_ACT_NOTIFY"}]}"#,
        ] {
            #expect(throws: ExecutorFailure.self) { try builder { $0.seccomp = .profile(json: profile) }.build() }
        }
    }

    @Test("The words of an OCI runtime tell 127 from 126 from the rest")
    func exitCodes() {
        #expect(ExecutorFailure.shellCode(#"exec: "x": executable file not found in $PATH"#) == 127)
        #expect(ExecutorFailure.shellCode(#"exec: "/x": stat /x: no such file or directory"#) == 127)
        #expect(ExecutorFailure.shellCode(#"exec: "/etc": permission denied"#) == 126)
        #expect(ExecutorFailure.shellCode("cannot mount /proc: no such file or directory") == 125)
    }

    @Test("A privileged container has every device and no filter; what it drops is dropped all the same")
    func privilegedIsAll() throws {
        let spec = try builder {
            $0.privileged = true
            $0.capabilitiesDropped = ["CAP_NET_RAW"]
        }.build()
        let linux = try #require(spec.linux)
        #expect(linux.seccomp == nil && linux.maskedPaths.isEmpty && linux.readonlyPaths.isEmpty)
        #expect(linux.devices.contains { $0.path == "/dev/null" } && !linux.devices.contains { $0.path == "/dev/tty" })
        #expect(linux.resources?.devices.last?.type == "a")
        #expect(spec.process?.capabilities?.bounding.contains("CAP_NET_RAW") == false)
        #expect(spec.mounts.first { $0.destination == "/sys" }?.options.contains("rw") == true)
    }

    @Test(
        "What devices change by their CDI names is made in the whole configuration; nodes that are not there are named")
    func namedDevices() throws {
        var made = builder {
            $0.devices = ["vendor.com/class=a", "/dev/zero"]
            $0.environment = ["A=user"]
        }
        made.deviceEdits = CDIEdits(
            env: ["A=device", "B=2"],
            deviceNodes: [CDIDeviceNode(path: "/dev/mine", hostPath: "/dev/null", permissions: "rw")],
            mounts: [CDIMount(hostPath: "/lib", containerPath: "/lib/mine", options: ["ro", "bind"])],
            hooks: [CDIHook(.createContainer, HookSpec(path: "/hook"))])
        let spec = try made.build()
        #expect(spec.process?.env.contains("A=device") == true && spec.process?.env.contains("A=user") == false)
        #expect(spec.linux?.devices.map(\.path) == ["/dev/zero", "/dev/mine"])
        #expect(
            spec.linux?.resources?.devices.last
                == DeviceRuleSpec(allow: true, type: "c", major: 1, minor: 3, access: "rw"))
        #expect(spec.mounts.contains { $0.destination == "/lib/mine" && $0.source == "/lib" })
        #expect(spec.hooks?.createContainer == [HookSpec(path: "/hook")])
        made.deviceEdits = CDIEdits(deviceNodes: [CDIDeviceNode(path: "/dev/none-such")])
        let failure = #expect(throws: ExecutorFailure.self) { try made.build() }
        #expect(failure?.message.contains("/dev/none-such") == true)
    }

    @Test("An init is bound read-only and comes before the program")
    func initProcess() throws {
        let spec = try builder {
            $0.initProcess = true
            $0.command = ["ls"]
        }.build()
        #expect(spec.process?.args == ["/dev/init", "init", "--", "ls"])
        #expect(spec.mounts.first { $0.destination == "/dev/init" }?.options.contains("ro") == true)
    }

    @Test("Quota and period: an explicit quota before the cores that the scheduler counts")
    func bandwidth() throws {
        func cpu(_ change: (inout Limits) -> Void) throws -> CPUSpec? {
            try builder { change(&$0.limits) }.build().linux?.resources?.cpu
        }
        let both = try cpu {
            $0.cpu = 2_000_000_000
            $0.cpuQuota = 30_000
        }
        #expect(both?.quota == 30_000)
        let cores = try cpu {
            $0.cpu = 500_000_000
            $0.cpuPeriod = 50_000
        }
        #expect(cores?.quota == 25_000 && cores?.period == 50_000)
        #expect(try cpu { _ in } == nil)
    }

    @Test("A bind that stays connected to the node's mounts is made from what the agent has opened")
    func connectedBind() throws {
        let image = Self.image()
        let mounts = ["/a", "/b"].map {
            PodFile.HostMount(source: "/srv", target: $0, readOnly: false, options: ["rbind", "rslave", "rw"])
        }
        let plain = builder(image: image)
        var builder = SpecBuilder(
            assignment: plain.assignment, container: plain.container,
            pod: PodFile(bootID: "b", image: image, mounts: mounts, addresses: [], hostname: "host1"),
            user: plain.user, paths: plain.paths, cgroup: plain.cgroup, isUnified: false)
        builder.sources["/b"] = SharedFD(try File.open("/", O_RDONLY))
        let made = try builder.build().mounts
        #expect(made.first { $0.destination == "/a" }?.source == "/srv")
        #expect(made.first { $0.destination == "/b" }?.source?.hasPrefix("/proc/\(getpid())/fd/") == true)
    }

    @Test("A limit that is lifted goes to the kernel too")
    func liftedWeight() throws {
        var old = Limits()
        old.blockWeight = 500
        let group = try CgroupManager(layout: CgroupLayout([]), path: "/martlet/none")
        let lifted = try LimitChange(from: old, to: Limits()).resources(for: group)
        #expect(lifted.blockIO.isWeightLifted && lifted.blockIO.weight == nil)
        let set = try LimitChange(from: Limits(), to: old).resources(for: group)
        #expect(!set.blockIO.isWeightLifted && set.blockIO.weight == 500)
    }

    @Test("The node's namespaces are left out, and with them the names of one's own")
    func nodeNamespaces() throws {
        let plain = try builder().build()
        #expect(plain.linux?.namespace(.pid) != nil && plain.hostname == "host1")
        var shared = builder(network: .host)
        var assignment = shared.assignment
        assignment.pod.namespaces = Namespaces(pid: .node, ipc: .node, uts: .node)
        shared = SpecBuilder(
            assignment: assignment, container: shared.container, pod: shared.pod, user: shared.user,
            paths: shared.paths, cgroup: shared.cgroup, isUnified: true)
        let spec = try shared.build()
        for kind in [NamespaceSpec.Kind.pid, .ipc, .uts, .network] { #expect(spec.linux?.namespace(kind) == nil) }
        #expect(spec.hostname == nil)
        #expect(spec.mounts.first { $0.destination == "/dev/shm" }?.source == "/dev/shm")
    }
}

extension TaskAssignment {
    fileprivate func granting(_ grant: ProcessorGrant) -> TaskAssignment {
        var granted = self
        granted.grantedProcessors = [grant]
        return granted
    }
}
