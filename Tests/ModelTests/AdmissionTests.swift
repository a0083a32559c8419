import Model
import Testing

@Suite struct AdmissionOfPods {
    let digest = "sha256:" + String(repeating: "1", count: 64)
    let admission = Admission()

    func admit(kind: Workload.Kind = .container, _ change: (inout PodSpec) -> Void) throws -> PodSpec {
        var pod = PodSpec(containers: [ContainerSpec(image: "busybox")])
        change(&pod)
        return try admission.pod(pod, kind: kind) { $0 == "missing" ? nil : .init(digest: digest) }
    }

    /// The field that the refusal names.
    func refusedField(_ change: (inout PodSpec) -> Void) -> String? {
        do {
            _ = try admit(change)
            return nil
        } catch let error as AdmissionError {
            return error.field
        } catch {
            return "\(error)"
        }
    }

    @Test func whatIsLeftOutIsFilledIn() throws {
        let pod = try admit {
            $0.containers[0].name = ""
            $0.containers[0].capabilitiesAdded = ["net_admin", "CAP_SYS_TIME", "all"]
        }
        #expect(pod.containers[0].name == "main")
        #expect(pod.containers[0].imageDigest == digest)
        #expect(pod.containers[0].capabilitiesAdded == ["CAP_NET_ADMIN", "CAP_SYS_TIME", "ALL"])
    }

    @Test func aServiceIsKeptRunning() throws {
        #expect(try admit(kind: .service) { _ in }.restart.condition == .always)
        #expect(try admit { _ in }.restart.condition == .no)
        #expect(try admit(kind: .service) { $0.restart = RestartPolicy(.onFailure) }.restart.condition == .onFailure)
    }

    @Test func anUnknownImageSaysHowToGetOne() {
        #expect {
            _ = try admit { $0.containers[0].image = "missing" }
        } throws: { error in
            guard let error = error as? AdmissionError else { return false }
            return error.kind == .unknownImage && error.message.contains("martlet image import")
                && error.message.contains("missing:latest")
        }
    }

    @Test func refusalsNameTheField() {
        let container = "$.pod.containers[0]"
        #expect(refusedField { $0.containers = [] } == "$.pod.containers")
        #expect(refusedField { $0.containers.append($0.containers[0]) } == "$.pod.containers")
        #expect(refusedField { $0.hostname = "no_name" } == "$.pod.hostname")
        #expect(refusedField { $0.containers[0].image = "Not An Image" } == "\(container).image")
        #expect(refusedField { $0.containers[0].environment = ["A=1", "B\u{0}=2"] } == "\(container).environment[1]")
        #expect(refusedField { $0.containers[0].environment = ["=x"] } == "\(container).environment[0]")
        #expect(refusedField { $0.containers[0].workingDirectory = "tmp" } == "\(container).workingDirectory")
        #expect(
            refusedField { $0.containers[0].capabilitiesDropped = ["FLY"] } == "\(container).capabilitiesDropped[0]")
        #expect(refusedField { $0.containers[0].stopSignal = "SIGNO" } == "\(container).stopSignal")
        #expect(refusedField { $0.containers[0].limits.memory = 1 << 20 } == "\(container).limits.memory")
        #expect(
            refusedField {
                $0.containers[0].limits.memory = 64 << 20
                $0.containers[0].limits.memorySwap = 32 << 20
            } == "\(container).limits.memorySwap")
        #expect(refusedField { $0.containers[0].limits.memorySwap = 64 << 20 } == "\(container).limits.memorySwap")
        #expect(refusedField { $0.containers[0].limits.cpu = -1 } == "\(container).limits.cpu")
        #expect(refusedField { $0.containers[0].limits.pids = 0 } == "\(container).limits.pids")
        #expect(refusedField { $0.containers[0].sysctls = ["kernel.panic": "1"] } == "\(container).sysctls")
        #expect(refusedField { $0.containers[0].sysctls = ["net/core": "1"] } == "\(container).sysctls")
        #expect(refusedField { $0.containers[0].devices = ["/etc/passwd"] } == "\(container).devices[0]")
        #expect(refusedField { $0.containers[0].devices = ["/dev/fuse:/dev/fuse:rx"] } == "\(container).devices[0]")
        #expect(refusedField { $0.containers[0].devices = ["vendor.com/class=a", "/dev/fuse"] } == nil)
        #expect(refusedField { $0.containers[0].devices = ["vendor.com/class"] } == "\(container).devices[0]")
        #expect(
            refusedField { $0.containers[0].devices = ["vendor.com/class=a", "vendor.com/class=a"] }
                == "\(container).devices[1]")
        #expect(
            refusedField { $0.containers[0].rlimits = [RLimit(name: "nofile", soft: 2, hard: 1)] }
                == "\(container).rlimits[0]")
        #expect(refusedField { $0.containers[0].labels = ["martlet.x": "1"] } == "\(container).labels")
        #expect(
            refusedField { $0.restart = RestartPolicy(.always, maximumRetries: 3) } == "$.pod.restart.maximumRetries")
        #expect(refusedField { $0.constraints = [Constraint(label: "", relation: .equal, value: "b")] } != nil)
    }

    @Test func mountsHaveUnambiguousTargets() {
        let container = "$.pod.containers[0]"
        func mounts(_ list: Mount...) -> String? { refusedField { $0.containers[0].mounts = list } }
        #expect(mounts(Mount(.bind(path: "/srv"), target: "/data")) == nil)
        #expect(mounts(Mount(.volume(name: "v"), target: "data")) == "\(container).mounts[0].target")
        #expect(mounts(Mount(.volume(name: "v"), target: "/")) == "\(container).mounts[0].target")
        #expect(mounts(Mount(.volume(name: "v"), target: "/a/../etc")) == "\(container).mounts[0].target")
        #expect(mounts(Mount(.bind(path: "srv"), target: "/data")) == "\(container).mounts[0].source.bind.path")
        #expect(mounts(Mount(.volume(name: "../x"), target: "/data")) == "\(container).mounts[0].source.volume.name")
        #expect(mounts(Mount(.tmpfs(size: 1, mode: nil), target: "/t")) == "\(container).mounts[0].source.tmpfs.size")
        #expect(mounts(Mount(.tmpfs(size: nil, mode: "9"), target: "/t")) == "\(container).mounts[0].source.tmpfs.mode")
        #expect(
            mounts(Mount(.volume(name: "v"), target: "/a"), Mount(.volume(name: "w"), target: "/a"))
                == "\(container).mounts[1].target")
    }

    @Test func portsNeedABridgeAndARange() {
        func ports(_ network: PodSpec.Network = .bridge, _ list: PortMapping...) -> String? {
            refusedField {
                $0.network = network
                $0.ports = list
            }
        }
        #expect(ports(.bridge, PortMapping(hostPort: 8080, hostPortEnd: 8090, containerPort: 80)) == nil)
        #expect(ports(.bridge, PortMapping(hostPort: 0, containerPort: 80)) == nil)
        #expect(ports(.none, PortMapping(hostPort: 1, containerPort: 80)) == "$.pod.ports")
        #expect(ports(.host, PortMapping(hostPort: 1, containerPort: 80)) == "$.pod.ports")
        #expect(ports(.bridge, PortMapping(hostPort: 9, hostPortEnd: 8, containerPort: 80)) == "$.pod.ports[0]")
        #expect(ports(.bridge, PortMapping(hostPort: 70000, containerPort: 80)) == "$.pod.ports[0].hostPort")
        #expect(ports(.bridge, PortMapping(hostPort: 1, containerPort: 0)) == "$.pod.ports[0].containerPort")
        // Zeros in front would be read differently by different programs.
        for address in [
            "1.2.3", "1.2.3.256", "010.0.0.1", "::1", "ff02::1", "fe80::1", "::ffff:192.0.2.1", "[::]", "224.0.0.1",
            "fd00::1%eth0",
        ] {
            #expect(
                ports(.bridge, PortMapping(hostAddress: address, hostPort: 1, containerPort: 1))
                    == "$.pod.ports[0].hostAddress", "\(address)")
        }
        #expect(
            ports(
                .bridge, PortMapping(hostPort: 8080, containerPort: 80), PortMapping(hostPort: 8080, containerPort: 81))
                == "$.pod.ports[1]")
        // A port is had by one at an address; all addresses are those of a family.
        for (one, two, isFree) in [
            ("", "", false), ("", "::", false), ("0.0.0.0", "", false), ("0.0.0.0", "::", true), ("::", "::", false),
            ("0.0.0.0", "192.0.2.1", false), ("192.0.2.1", "192.0.2.2", true), ("::", "2001:db8::5", false),
            ("2001:db8::5", "2001:DB8:0::5", false), ("2001:db8::5", "2001:db8::6", true), ("::", "192.0.2.1", true),
        ] {
            let field = ports(
                .bridge, PortMapping(hostAddress: one, hostPort: 8080, containerPort: 80),
                PortMapping(hostAddress: two, hostPort: 8080, containerPort: 81))
            #expect((field == nil) == isFree, "\(one) and \(two)")
            #expect(PortMapping.meet(two, one) == !isFree)
        }
    }

    @Test func healthChecksAreBounded() {
        func check(_ probe: HealthCheck.Probe, interval: Int = 1, network: PodSpec.Network = .bridge) -> String? {
            refusedField {
                $0.network = network
                $0.containers[0].healthCheck = HealthCheck(probe: probe, interval: interval)
            }
        }
        let path = "$.pod.containers[0].healthCheck"
        #expect(check(.command(["true"])) == nil)
        #expect(check(.command([])) == "\(path).probe.command")
        #expect(check(.tcp(port: 0)) == "\(path).probe.tcp.port")
        #expect(check(.tcp(port: 80), network: .none) == "\(path).probe.tcp")
        #expect(check(.http(port: 80, path: "x")) == "\(path).probe.http.path")
        #expect(check(.command(["true"]), interval: 0) == "\(path).interval")
    }

    @Test func policyRefusesWhatTheSubjectMayNot() {
        var policy = AdmissionPolicy()
        policy.bindMounts = false
        policy.hostNetwork = false
        let strict = Admission(policy: policy)
        var pod = PodSpec(containers: [ContainerSpec(image: "a")])
        pod.containers[0].mounts = [Mount(.bind(path: "/etc"), target: "/etc")]
        #expect { _ = try strict.pod(pod, kind: .container) { _ in nil } } throws: {
            ($0 as? AdmissionError)?.kind == .forbidden
        }
        pod.containers[0].mounts = []
        pod.network = .host
        #expect { _ = try strict.pod(pod, kind: .container) { _ in nil } } throws: {
            ($0 as? AdmissionError)?.kind == .forbidden
        }
    }

    @Test func whatTouchesTheNodeIsForbiddenToConfinedSubjects() throws {
        let strict = Admission(policy: .confined)
        let wishes: [(inout PodSpec) -> Void] = [
            { $0.containers[0].privileged = true },
            { $0.containers[0].deviceRules = ["c 10:229 rwm"] },
            { $0.containers[0].oomScoreAdjust = -1 },
            { $0.containers[0].maskedPaths = [] },
            { $0.containers[0].readOnlyPaths = [] },
            { $0.namespaces.pid = .node },
            { $0.namespaces.ipc = .node },
            { $0.namespaces.uts = .node },
            { $0.namespaces.cgroup = .node },
        ]
        for wish in wishes {
            var pod = PodSpec(containers: [ContainerSpec(image: "a")])
            wish(&pod)
            #expect { _ = try strict.pod(pod, kind: .container) { _ in .init(digest: digest) } } throws: {
                ($0 as? AdmissionError)?.kind == .forbidden
            }
            _ = try admission.pod(pod, kind: .container) { _ in .init(digest: digest) }
        }
        var harmless = PodSpec(containers: [ContainerSpec(image: "a")])
        harmless.containers[0].groups = ["audio", "1000"]
        harmless.containers[0].initProcess = true
        harmless.containers[0].oomScoreAdjust = 500
        _ = try strict.pod(harmless, kind: .container) { _ in .init(digest: digest) }
    }

    @Test func namesAndNamespacesFitEachOther() {
        #expect(
            refusedField {
                $0.namespaces.uts = .node
                $0.hostname = "a"
            } == "$.pod.hostname")
        #expect(
            refusedField {
                $0.network = .host
                $0.hostname = "a"
            } == nil)
        #expect(refusedField { $0.domainname = "a b" } == "$.pod.domainname")
        #expect(refusedField { $0.network = .container } == "$.pod.namespaces.network")
        #expect(refusedField { $0.namespaces.network = .container("x") } == "$.pod.namespaces.network")
        #expect(refusedField { $0.namespaces.network = .node } == "$.pod.namespaces.network")
        #expect(refusedField { $0.extraHosts = ["a:1.2.3.4", "b:::1", "c:host-gateway"] } == nil)
        #expect(refusedField { $0.extraHosts = ["a:1.2.3.4\nx"] } == "$.pod.extraHosts[0]")
        #expect(refusedField { $0.nameService.servers = ["dns"] } == "$.pod.nameService.servers[0]")
        #expect(refusedField { $0.nameService.search = ["a b"] } == "$.pod.nameService.search[0]")
    }

    @Test func furtherFieldsOfContainersAreBounded() {
        func refused(_ change: (inout ContainerSpec) -> Void) -> String? {
            refusedField { change(&$0.containers[0]) }
        }
        let path = "$.pod.containers[0]"
        #expect(refused { $0.deviceRules = ["c 10:229 rwm", "a *:* rwm", "b 8:* r"] } == nil)
        for rule in ["c 10:229", "d 1:1 r", "c 1:1 x", "c 1:1 rr", "c -1:1 r", "c 1 r", "c  1:1 r", ""] {
            #expect(refused { $0.deviceRules = [rule] } == "\(path).deviceRules[0]", "\(rule)")
        }
        #expect(refused { $0.oomScoreAdjust = 1001 } == "\(path).oomScoreAdjust")
        #expect(refused { $0.maskedPaths = ["proc"] } == "\(path).maskedPaths[0]")
        #expect(refused { $0.exposedPorts = ["80/tcp", "53/udp"] } == nil)
        #expect(refused { $0.exposedPorts = ["80"] } == "\(path).exposedPorts[0]")
        #expect(refused { $0.logging.maximumFiles = 0 } == "\(path).logging.maximumFiles")
        #expect(refused { $0.limits.cpus = "0-3,7" } == nil)
        for list in ["", "3-1", "a", "1,", "99999", "0-1-2"] {
            #expect(refused { $0.limits.cpus = list } == "\(path).limits.cpus", "\(list)")
        }
        #expect(refused { $0.limits.cpuQuota = 10 } == "\(path).limits.cpuQuota")
        #expect(refused { $0.limits.cpuPeriod = 10 } == "\(path).limits.cpuPeriod")
        #expect(refused { $0.limits.swappiness = 101 } == "\(path).limits.swappiness")
        #expect(refused { $0.limits.blockWeight = 5 } == "\(path).limits.blockWeight")
        #expect(refused { $0.limits.disableOOMKill = true } == "\(path).limits.disableOOMKill")
    }

    @Test func waysOfMountingFitWhatIsMounted() {
        func refused(_ source: Mount.Source, _ change: (inout Mount) -> Void) -> String? {
            refusedField {
                var mount = Mount(source, target: "/x")
                change(&mount)
                $0.containers[0].mounts = [mount]
            }
        }
        let path = "$.pod.containers[0].mounts[0]"
        #expect(refused(.bind(path: "/a")) { $0.propagation = "rslave" } == nil)
        #expect(refused(.bind(path: "/a")) { $0.propagation = "some" } == "\(path).propagation")
        #expect(refused(.volume(name: "v")) { $0.propagation = "shared" } == "\(path).propagation")
        #expect(refused(.volume(name: "v")) { $0.createSource = true } == "\(path).createSource")
        #expect(refused(.volume(name: "v")) { $0.subpath = "a/b" } == nil)
        #expect(refused(.volume(name: "v")) { $0.subpath = "../b" } == "\(path).subpath")
        #expect(refused(.bind(path: "/a")) { $0.subpath = "b" } == "\(path).subpath")
        #expect(refused(.tmpfs(size: nil, mode: nil)) { $0.options = ["exec", "uid=1000", "nr_inodes=10"] } == nil)
        #expect(refused(.bind(path: "/a")) { $0.options = ["uid=1"] } == "\(path).options[0]")
        #expect(refused(.tmpfs(size: nil, mode: nil)) { $0.options = ["lowerdir=/"] } == "\(path).options[0]")
    }

    @Test func removeOnExitAndRestartExcludeEachOther() throws {
        var pod = PodSpec(containers: [ContainerSpec(image: "a")])
        try admission.removeOnExit(pod)
        pod.restart = RestartPolicy(.always)
        #expect(throws: AdmissionError.self) { try admission.removeOnExit(pod) }
    }

    @Test(arguments: ["", "-a", "a b", "a/b", String(repeating: "a", count: 64), "ä"])
    func namesAreShortAndPlain(name: String) {
        #expect(throws: AdmissionError.self) { try admission.name(name) }
    }
}
