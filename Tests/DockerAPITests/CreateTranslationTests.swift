import JSON
import Model
import Testing
import Wire

@testable import DockerAPI

private typealias Fixture = CreateFixture

/// What of a request is taken from the image, and what over it.
@Suite struct CreateLaysTheRequestOverTheImage {
    @Test func nothingAskedIsAllTheImages() throws {
        let wish = try Fixture.create(
            image: Fixture.image {
                $0.entrypoint = ["/init"]
                $0.environment = ["A=1"]
                $0.user = "nobody"
                $0.workingDirectory = "/srv"
                $0.labels = ["x": "y"]
                $0.stopSignal = "SIGINT"
                $0.exposedPorts = ["80", "9000-9010/udp"]
            })
        let spec = wish.pod.containers[0]
        #expect(spec.image == "img:1")
        #expect(spec.entrypoint == ["/init"])
        #expect(spec.command == ["sleep", "100"])
        #expect(spec.environment == ["A=1"])
        #expect(spec.user == "nobody")
        #expect(spec.workingDirectory == "/srv")
        #expect(wish.labels == ["x": "y"])
        #expect(spec.stopSignal == "SIGINT")
        #expect(spec.exposedPorts == ["80/tcp", "9000-9010/udp"])
        #expect(!wish.start)
        #expect(!spec.noNewPrivileges)
        #expect(spec.stopGrace == 10)
    }

    @Test func variablesReplaceTheImagesAndTakeThemAway() throws {
        let image = Fixture.image { $0.environment = ["A=1", "B=2", "C=3"] }
        let spec = try Fixture.spec(#""Env":["B=x","C","D=4"]"#, image: image)
        #expect(spec.environment == ["B=x", "D=4", "A=1"])
        #expect(spec.environmentIsWhole, "the image's C stays away")
    }

    @Test func labelsAreTheContainersBeforeTheImages() throws {
        let image = Fixture.image { $0.labels = ["a": "image", "b": "image"] }
        #expect(try Fixture.create(#""Labels":{"a":"own"}"#, image: image).labels == ["a": "own", "b": "image"])
    }

    @Test func anEntrypointVoidsTheImagesCommand() throws {
        let image = Fixture.image { $0.entrypoint = ["/init"] }
        let other = try Fixture.spec(#""Entrypoint":["/bin/x"]"#, image: image)
        #expect(other.entrypoint == ["/bin/x"] && other.command == [])
        let arguments = try Fixture.spec(#""Cmd":["1","2"]"#, image: image)
        #expect(arguments.entrypoint == ["/init"] && arguments.command == ["1", "2"])
        let none = try Fixture.spec(#""Entrypoint":[""],"Cmd":["x"]"#, image: image)
        #expect(none.entrypoint == [] && none.command == ["x"])
        let word = try Fixture.spec(#""Entrypoint":"/bin/x","Cmd":"y""#, image: image)
        #expect(word.entrypoint == ["/bin/x"] && word.command == ["y"])
    }

    @Test func noCommandAtAllIsRefused() {
        for members in ["", #""Entrypoint":[""]"#] {
            #expect(throws: DockerError.self) {
                try Fixture.create(members, image: Fixture.image { $0.command = [] })
            }
        }
    }

    @Test func healthChecksCountInWholeSecondsAndInherit() throws {
        let image = Fixture.image {
            $0.healthCheck = ImageHealthCheck(test: ["CMD", "probe"])
            $0.healthCheck?.interval = 5_000_000_000
        }
        let inherited = try #require(try Fixture.spec("", image: image).healthCheck)
        #expect(inherited.probe == .command(["probe"]))
        #expect(inherited.interval == 5 && inherited.timeout == nil && inherited.retries == nil)
        #expect(inherited.startInterval == nil && inherited.onUnhealthy == .tell)
        let own = try #require(
            try Fixture.spec(
                #""Healthcheck":{"Test":["CMD-SHELL","a b"],"Timeout":1500000000,"StartPeriod":1000000,"Retries":7}"#,
                image: image
            ).healthCheck)
        #expect(own.probe == .command(["/bin/sh", "-c", "a b"]))
        #expect(own.interval == 5 && own.timeout == 2 && own.retries == 7)
        #expect(own.startPeriod == 1 && own.startInterval == nil)
        #expect(try Fixture.spec(#""Healthcheck":{"Test":["NONE"]}"#, image: image).healthCheck == nil)
        let shell = try Fixture.spec(#""Shell":["/bin/ash"],"Healthcheck":{"Test":["CMD-SHELL","x"]}"#).healthCheck
        #expect(shell?.probe == .command(["/bin/ash", "x"]))
    }

    @Test(arguments: [
        #"{"Test":["WHAT","x"]}"#, #"{"Test":["CMD"]}"#, #"{"Test":["CMD","x"],"Interval":100}"#,
        #"{"Test":["CMD","x"],"Timeout":-1}"#, #"{"Test":["CMD","x"],"Retries":-1}"#,
    ]) func otherHealthChecksAreRefused(text: String) {
        #expect(throws: DockerError.self) { try Fixture.create(#""Healthcheck":\#(text)"#) }
    }

    @Test func imagesPlacesForDataBecomeVolumesWithoutAName() throws {
        let image = Fixture.image { $0.volumes = ["/data", "/var/lib/x/"] }
        let spec = try Fixture.spec(
            #""Volumes":{"/own":{}},"HostConfig":{"Binds":["named:/data"]}"#, image: image)
        #expect(spec.mounts.map(\.target) == ["/data", "/own", "/var/lib/x"])
        #expect(spec.mounts.map(\.isAnonymous) == [false, true, true])
        guard case .volume(let name) = spec.mounts[1].source else { throw DockerError.badRequest("no volume") }
        #expect(name.utf8.count == 64)
    }
}

/// What of the machine's.
@Suite struct CreateTranslatesHostConfig {
    @Test func limits() throws {
        let limits = try Fixture.hostSpec(
            #"""
            "NanoCpus":500000000,"Memory":100000000,"MemoryReservation":50000000,"PidsLimit":100,"CpuShares":512,
            "CpusetCpus":"0-1","CpusetMems":"0","BlkioWeight":300,"ShmSize":1048576,"OomKillDisable":true,
            "MemorySwappiness":10
            """#
        ).limits
        #expect(limits.cpu == 500_000_000)
        #expect(limits.memory == 100_000_000)
        #expect(limits.memorySwap == 200_000_000, "as much swap as memory, as Docker does")
        #expect(limits.memoryReservation == 50_000_000)
        #expect(limits.pids == 100 && limits.cpuShares == 512 && limits.cpus == "0-1" && limits.memoryNodes == "0")
        #expect(limits.blockWeight == 300 && limits.sharedMemory == 1_048_576 && limits.disableOOMKill)
        #expect(limits.swappiness == 10)
    }

    @Test func zeroAndMinusOneAreNoLimits() throws {
        let limits = try Fixture.hostSpec(
            #"""
            "NanoCpus":0,"Memory":0,"MemorySwap":-1,"MemorySwappiness":-1,"PidsLimit":-1,"CpuShares":0,"CpuQuota":-1,
            "CpusetCpus":"","ShmSize":0
            """#
        ).limits
        var expected = Limits()
        expected.memorySwap = -1
        #expect(limits == expected)
    }

    @Test func coresAndQuotasExcludeEachOther() {
        #expect(throws: DockerError.self) { try Fixture.host(#""NanoCpus":500000000,"CpuQuota":1000"#) }
    }

    @Test func confinement() throws {
        let spec = try Fixture.hostSpec(
            #"""
            "Privileged":true,"GroupAdd":["5","audio"],"Init":true,"ReadonlyRootfs":true,"CapAdd":["NET_ADMIN"],
            "CapDrop":["ALL"],"Sysctls":{"net.core.somaxconn":"100"},"DeviceCgroupRules":["c 1:3 rwm"],
            "SecurityOpt":["no-new-privileges","seccomp=unconfined","apparmor=unconfined","label:disable"],
            "Devices":[{"PathOnHost":"/dev/null","PathInContainer":"/dev/nn","CgroupPermissions":"rw"},
            {"PathOnHost":"/dev/zero"}],"Ulimits":[{"Name":"nofile","Soft":100,"Hard":-1}],"OomScoreAdj":-5,
            "Annotations":{"a":"b"},"MaskedPaths":["/x"],"ReadonlyPaths":[]
            """#)
        #expect(spec.privileged && spec.initProcess && spec.readOnlyRoot && spec.noNewPrivileges)
        #expect(spec.groups == ["5", "audio"])
        #expect(spec.capabilitiesAdded == ["NET_ADMIN"] && spec.capabilitiesDropped == ["ALL"])
        #expect(spec.sysctls == ["net.core.somaxconn": "100"] && spec.deviceRules == ["c 1:3 rwm"])
        #expect(spec.seccomp == .unconfined)
        #expect(spec.devices == ["/dev/null:/dev/nn:rw", "/dev/zero:/dev/zero:rwm"])
        #expect(spec.rlimits == [RLimit(name: "nofile", soft: 100, hard: .max)])
        #expect(spec.oomScoreAdjust == -5 && spec.annotations == ["a": "b"])
        #expect(spec.maskedPaths == ["/x"] && spec.readOnlyPaths == [])
    }

    @Test func devicesByTheirNamesComeAsPathsAndAsRequests() throws {
        let spec = try Fixture.hostSpec(
            #"""
            "Devices":[{"PathOnHost":"vendor.com/class=a","PathInContainer":"vendor.com/class=a","CgroupPermissions":"rwm"},
            {"PathOnHost":"/dev/null"}],"DeviceRequests":[{"Driver":"cdi","Count":0,"DeviceIDs":["vendor.com/class=b",
            "vendor.com/o=0"],"Capabilities":null,"Options":null}]
            """#)
        #expect(
            spec.devices == ["vendor.com/class=a", "/dev/null:/dev/null:rwm", "vendor.com/class=b", "vendor.com/o=0"])
        #expect(try Fixture.hostSpec(#""DeviceRequests":null"#).devices == [])
    }

    @Test func gpusAreClaims() throws {
        func claims(_ requests: String) throws -> [DeviceClaim] {
            try Fixture.hostSpec("\"DeviceRequests\":[\(requests)]").deviceClaims
        }
        // `--gpus all`, `--gpus 2`, `--gpus '"device=0,GPU-1"'`, `--gpus driver=nvidia,capabilities=utility`.
        #expect(
            try claims(#"{"Driver":"","Count":-1,"DeviceIDs":null,"Capabilities":[["gpu"]],"Options":{}}"#)
                == [DeviceClaim(all: true)])
        #expect(try claims(#"{"Count":2,"Capabilities":[["gpu"]]}"#) == [DeviceClaim(count: 2)])
        #expect(
            try claims(#"{"DeviceIDs":["0","GPU-1"],"Capabilities":[["gpu"]]}"#) == [DeviceClaim(ids: ["0", "GPU-1"])])
        #expect(
            try claims(#"{"Driver":"nvidia","Count":1,"Capabilities":[["gpu","utility"]]}"#)
                == [DeviceClaim(count: 1, vendor: "nvidia", driverFeatures: ["utility"])])
        // The first alternative that can be met; a driver needs none.
        #expect(
            try claims(#"{"Count":1,"Capabilities":[["tpu"],["gpu","amd"]]}"#)
                == [DeviceClaim(count: 1, vendor: "amd", driverFeatures: ["amd"])])
        #expect(try claims(#"{"Driver":"nvidia","Count":-1}"#) == [DeviceClaim(all: true, vendor: "nvidia")])
    }

    @Test func whoCannotBeServedIsToldAsByTheEngine() throws {
        #expect {
            _ = try Fixture.hostSpec(#""DeviceRequests":[{"Driver":"","Count":-1,"Capabilities":[["gpu","x"],["y"]]}]"#)
        } throws: {
            "\($0)" == #"could not select device driver "" with capabilities: [[gpu x] [y]]"#
        }
    }

    @Test func systemPathsCanBeLeftOpen() throws {
        let spec = try Fixture.hostSpec(#""SecurityOpt":["systempaths=unconfined"]"#)
        #expect(spec.maskedPaths == [] && spec.readOnlyPaths == [])
    }

    @Test(arguments: [
        #""SecurityOpt":["apparmor=strict"]"#, #""SecurityOpt":["label=level:s0"]"#, #""SecurityOpt":["nonsense"]"#,
        #""SecurityOpt":["seccomp={}"]"#, #""Runtime":"kata""#, #""Isolation":"hyperv""#, #""VolumeDriver":"nfs""#,
        #""UsernsMode":"private""#, #""IpcMode":"none""#, #""PidMode":"own""#, #""UTSMode":"container:x""#,
        #""OomScoreAdj":5000"#, #""Devices":[{}]"#,
        #""DeviceRequests":[{"Driver":"","Count":-1}]"#,
        #""DeviceRequests":[{"Driver":"tpu","Count":-1,"Capabilities":[["gpu"]]}]"#,
        #""DeviceRequests":[{"Driver":"","Count":-1,"Capabilities":[["tpu"]]}]"#,
        #""DeviceRequests":[{"Driver":"","Count":-1,"Capabilities":[["gpu","teleport"]]}]"#,
        #""DeviceRequests":[{"Driver":"","Count":0,"Capabilities":[["gpu"]]}]"#,
        #""DeviceRequests":[{"Driver":"","Count":1,"DeviceIDs":["0"],"Capabilities":[["gpu"]]}]"#,
        #""DeviceRequests":[{"Driver":"","Count":1,"Capabilities":[["gpu"]],"Options":{"a":"b"}}]"#,
        #""DeviceRequests":[{"Driver":"cdi"}]"#,
        #""DeviceRequests":[{"Driver":"cdi","DeviceIDs":["/dev/null"]}]"#,
        #""DeviceRequests":[{"Driver":"cdi","DeviceIDs":["v.com/c=a"],"Count":1}]"#,
        #""DeviceRequests":[{"Driver":"cdi","DeviceIDs":["v.com/c=a"],"Options":{"a":"b"}}]"#,
        #""Ulimits":[{"Name":"nofile"}]"#,
        #""LogConfig":{"Type":"syslog"}"#, #""LogConfig":{"Config":{"compress":"true"}}"#,
        #""LogConfig":{"Config":{"max-size":"big"}}"#, #""RestartPolicy":{"Name":"sometimes"}"#,
        #""RestartPolicy":{"Name":"always","MaximumRetryCount":3}"#,
        #""AutoRemove":true,"RestartPolicy":{"Name":"always"}"#, #""ExtraHosts":["nothing"]"#,
    ]) func whatCannotBeDoneIsRefused(members: String) {
        let refusal = #expect(throws: DockerError.self) { try Fixture.host(members) }
        #expect(refusal?.status == 400)
    }

    @Test func namespacesAreTheNodesOrAnothersOnes() throws {
        let pod = try Fixture.host(
            #""PidMode":"host","IpcMode":"container:db","UTSMode":"host","CgroupnsMode":"host""#
        ).pod
        #expect(pod.namespaces.pid == .node && pod.namespaces.uts == .node && pod.namespaces.cgroup == .node)
        #expect(pod.namespaces.ipc == .container("db"))
        let own = try Fixture.host(#""PidMode":"","IpcMode":"shareable","CgroupnsMode":"private""#).pod
        #expect(own.namespaces == Namespaces())
    }

    @Test func logs() throws {
        let kept = try Fixture.hostSpec(#""LogConfig":{"Type":"local","Config":{"max-size":"1.5m","max-file":"3"}}"#)
        #expect(kept.logging == LogPolicy(maximumBytes: 1_572_864, maximumFiles: 3))
        #expect(try Fixture.hostSpec(#""LogConfig":{"Type":"none"}"#).logging.isKept == false)
    }

    @Test func aRestartPolicyMakesItMoveWhenItsNodeIsLost() throws {
        let restarting = try Fixture.host(#""RestartPolicy":{"Name":"on-failure","MaximumRetryCount":3}"#).pod
        #expect(restarting.restart == RestartPolicy(.onFailure, maximumRetries: 3))
        #expect(restarting.loss == LossPolicy(replaceAfter: 60))
        #expect(try Fixture.host(#""RestartPolicy":{"Name":"no"}"#).pod.loss == nil)
        let off = try Fixture.create(
            #""Labels":{"com.docker.swarm.reschedule-policies":"[\"off\"]"},"HostConfig":{"RestartPolicy":{"Name":"always"}}"#
        )
        #expect(off.pod.loss == nil)
        let asked = try Fixture.create(#""Env":["reschedule:on-node-failure"]"#)
        #expect(asked.pod.loss == LossPolicy(replaceAfter: 60))
        #expect(asked.pod.containers[0].environment == [])
    }

    @Test func namesOfHosts() throws {
        let pod = try Fixture.host(
            #""Dns":["1.1.1.1"],"DnsSearch":["x"],"DnsOptions":["ndots:2"],"ExtraHosts":["a:1.2.3.4","b=::1","c:host-gateway"]"#
        ).pod
        #expect(pod.nameService == NameService(servers: ["1.1.1.1"], search: ["x"], options: ["ndots:2"]))
        #expect(pod.extraHosts == ["a:1.2.3.4", "b:::1", "c:host-gateway"])
    }
}

@Suite struct CreateNames {
    @Test func aSlashBeforeANameIsDockers() throws {
        #expect(try DockerAPI.containerName("/web") == "web")
        #expect(try DockerAPI.containerName("Web_1.a-b") == "Web_1.a-b")
    }

    @Test(arguments: ["", "/", "a", "-web", "web!", "a/b", "ü1"]) func othersAreRefused(name: String) {
        let refusal = #expect(throws: DockerError.self) { try DockerAPI.containerName(name) }
        #expect(
            refusal?.message
                == "Invalid container name (\(name)), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")
    }

    @Test func theClustersBoundIsSaid() {
        let refusal = #expect(throws: DockerError.self) {
            try DockerAPI.containerName(String(repeating: "a", count: 64))
        }
        #expect(refusal?.message.contains("at most 63") == true)
    }
}

@Suite struct SizesInOptions {
    @Test(arguments: [
        ("512", 512), ("10k", 10240), ("10K", 10240), ("1.5m", 1_572_864), ("2gb", 2 << 30), ("1GiB", 1 << 30),
        ("3b", 3),
    ]) func areRead(text: String, bytes: Int64) { #expect(ByteCount.parse(text) == bytes) }

    @Test(arguments: ["", "m", "x", "-1", "1.2.3", "9999999999t", "1e5", "nan"]) func othersAreNone(text: String) {
        #expect(ByteCount.parse(text) == nil)
    }
}

@Suite struct SeccompProfilesInDockersForm {
    private let profile = #"""
        {"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":1,
        "archMap":[{"architecture":"SCMP_ARCH_X86_64","subArchitectures":["SCMP_ARCH_X86"]},
        {"architecture":"SCMP_ARCH_AARCH64","subArchitectures":["SCMP_ARCH_ARM"]}],
        "syscalls":[{"names":["read"],"action":"SCMP_ACT_ALLOW","comment":"x"},
        {"names":["mount"],"action":"SCMP_ACT_ALLOW","includes":{"caps":["CAP_SYS_ADMIN"]}},
        {"names":["clone"],"action":"SCMP_ACT_ALLOW","excludes":{"caps":["CAP_SYS_ADMIN"]}},
        {"names":["arm_only"],"action":"SCMP_ACT_ALLOW","includes":{"arches":["arm64"]}},
        {"names":["ptrace"],"action":"SCMP_ACT_ALLOW","includes":{"minKernel":"4.8"}}]}
        """#

    private func names(_ members: String) throws -> [String] {
        let text = try JSONCoding.encode([profile])
        let option = String(decoding: text.dropFirst().dropLast(), as: UTF8.self)
        let quoted = "\"seccomp=" + option.dropFirst()
        guard case .profile(let json) = try Fixture.hostSpec(#""SecurityOpt":[\#(quoted)]\#(members)"#).seccomp else {
            return []
        }
        let value = try JSONValue.parse(json)
        #expect(value["architectures"] == ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"])
        return (value["syscalls"]?.arrayValue ?? []).compactMap { $0["names"]?.arrayValue?.first?.stringValue }
    }

    @Test func conditionsAreDecidedByWhatTheContainerHas() throws {
        #expect(try names("") == ["read", "clone", "ptrace"])
        #expect(try names(#","CapAdd":["SYS_ADMIN"]"#) == ["read", "mount", "ptrace"])
        #expect(try names(#","Privileged":true"#) == ["read", "mount", "ptrace"])
    }
}
