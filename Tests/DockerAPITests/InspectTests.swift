import JSON
import Model
import Testing
import Wire

@testable import DockerAPI

private typealias Fixture = CreateFixture

@Suite struct InspectTellsWhatWasAsked {
    private func inspect(
        _ members: String, version: Int = 41, _ change: (inout ContainerView) -> Void = { _ in }
    ) throws -> JSONValue {
        ContainerInspect(
            view: Fixture.view(try Fixture.create(members), change), version: APIVersion(minor: version)
        ).json
    }

    /// What clients look for without asking whether it is there, as dockerd of API 1.41 writes it.
    @Test func allMembersAreThere() throws {
        let json = try inspect("")
        func expect(_ value: JSONValue?, _ members: String, sourceLocation: SourceLocation = #_sourceLocation) {
            let keys = Set((value?.objectValue?.members ?? []).map(\.key))
            for key in members.split(whereSeparator: \.isWhitespace).map(String.init) {
                #expect(keys.contains(key), sourceLocation: sourceLocation)
            }
        }
        expect(
            json,
            """
            Id Created Path Args State Image ResolvConfPath HostnamePath HostsPath LogPath Name RestartCount Driver
            Platform MountLabel ProcessLabel AppArmorProfile ExecIDs HostConfig GraphDriver Mounts Config NetworkSettings
            """)
        expect(
            json["State"],
            "Status Running Paused Restarting OOMKilled Dead Pid ExitCode Error StartedAt FinishedAt")
        expect(
            json["HostConfig"],
            """
            AutoRemove Binds BlkioDeviceReadBps BlkioDeviceReadIOps BlkioDeviceWriteBps BlkioDeviceWriteIOps BlkioWeight
            BlkioWeightDevice CapAdd CapDrop Cgroup CgroupParent CgroupnsMode ConsoleSize ContainerIDFile CpuCount
            CpuPercent CpuPeriod CpuQuota CpuRealtimePeriod CpuRealtimeRuntime CpuShares CpusetCpus CpusetMems
            DeviceCgroupRules DeviceRequests Devices Dns DnsOptions DnsSearch ExtraHosts GroupAdd IOMaximumBandwidth
            IOMaximumIOps IpcMode Isolation KernelMemory KernelMemoryTCP Links LogConfig MaskedPaths Memory
            MemoryReservation MemorySwap MemorySwappiness NanoCpus NetworkMode OomKillDisable OomScoreAdj PidMode
            PidsLimit PortBindings Privileged PublishAllPorts ReadonlyPaths ReadonlyRootfs RestartPolicy Runtime
            SecurityOpt ShmSize UTSMode Ulimits UsernsMode VolumeDriver VolumesFrom
            """)
        expect(
            json["Config"],
            """
            AttachStderr AttachStdin AttachStdout Cmd Domainname Entrypoint Env Hostname Image Labels OnBuild OpenStdin
            StdinOnce Tty User Volumes WorkingDir
            """)
        expect(
            json["NetworkSettings"],
            """
            Bridge SandboxID HairpinMode LinkLocalIPv6Address LinkLocalIPv6PrefixLen Ports SandboxKey
            SecondaryIPAddresses SecondaryIPv6Addresses EndpointID Gateway GlobalIPv6Address GlobalIPv6PrefixLen
            IPAddress IPPrefixLen IPv6Gateway MacAddress Networks
            """)
        expect(
            json["NetworkSettings"]?["Networks"]?["bridge"],
            """
            IPAMConfig Links Aliases NetworkID EndpointID Gateway IPAddress IPPrefixLen IPv6Gateway GlobalIPv6Address
            GlobalIPv6PrefixLen MacAddress DriverOpts
            """)
    }

    /// A request made of what inspect tells makes the same container again.
    @Test(arguments: [
        "",
        #""Tty":true,"OpenStdin":true,"StdinOnce":true,"User":"1:2","WorkingDir":"/w","Hostname":"h","Domainname":"d""#,
        #""Entrypoint":["/e"],"Cmd":["c"],"Env":["A=1"],"Labels":{"a":"b"},"StopSignal":"SIGINT","StopTimeout":3"#,
        #""Healthcheck":{"Test":["CMD-SHELL","x"],"Interval":2000000000,"StartPeriod":1000000000}"#,
        #""Volumes":{"/v":{}},"HostConfig":{"Binds":["/a:/b:ro,rslave","v1:/c:nocopy"],"Tmpfs":{"/t":"noexec,size=65536"}}"#,
        #""HostConfig":{"Mounts":[{"Type":"bind","Source":"/a","Target":"/b","BindOptions":{"NonRecursive":true}},"#
            + #"{"Type":"volume","Source":"v1","Target":"/c","ReadOnly":true,"VolumeOptions":{"Subpath":"s"}}]}"#,
        #""HostConfig":{"PortBindings":{"80/tcp":[{"HostIp":"127.0.0.1","HostPort":"8080-8090"}],"53/udp":[{"HostPort":""}]}}"#,
        #""HostConfig":{"NanoCpus":500000000,"Memory":100000000,"MemorySwap":-1,"PidsLimit":10,"CpuShares":5,"ShmSize":4096}"#,
        #""HostConfig":{"CpuPeriod":1000,"CpuQuota":500,"CpusetCpus":"0","BlkioWeight":10,"MemorySwappiness":5,"OomKillDisable":true}"#,
        #""HostConfig":{"CapAdd":["NET_ADMIN"],"CapDrop":["MKNOD"],"SecurityOpt":["no-new-privileges","seccomp=unconfined"]}"#,
        #""HostConfig":{"Devices":[{"PathOnHost":"/dev/null"}],"Ulimits":[{"Name":"core","Soft":-1,"Hard":-1}],"Init":true}"#,
        #""HostConfig":{"Devices":[{"PathOnHost":"/dev/null"},{"PathOnHost":"v.com/c=a"}]}"#,
        #""HostConfig":{"DeviceRequests":[{"Count":-1,"Capabilities":[["gpu"]]},{"DeviceIDs":["0","1"],"Capabilities":[["gpu"]]}]}"#,
        #""HostConfig":{"DeviceRequests":[{"Driver":"nvidia","Count":2,"Capabilities":[["gpu","utility"]]}]}"#,
        #""HostConfig":{"DeviceRequests":[{"Count":1,"Capabilities":[["nvidia","gpu"]]}]}"#,
        #""HostConfig":{"PidMode":"host","IpcMode":"container:x","UTSMode":"host","CgroupnsMode":"host","Privileged":true}"#,
        #""HostConfig":{"NetworkMode":"host"}"#, #""HostConfig":{"NetworkMode":"container:x"}"#,
        #""HostConfig":{"RestartPolicy":{"Name":"on-failure","MaximumRetryCount":2},"LogConfig":{"Type":"none"}}"#,
        #""HostConfig":{"Dns":["1.1.1.1"],"ExtraHosts":["a:1.2.3.4"],"GroupAdd":["5"],"Sysctls":{"net.core.somaxconn":"9"}}"#,
        #""HostConfig":{"LogConfig":{"Config":{"max-size":"1m","max-file":"2"}},"Annotations":{"a":"b"},"OomScoreAdj":7}"#,
    ]) func whatIsToldMakesTheSameAgain(members: String) throws {
        let first = try Fixture.create(members)
        let told = try inspect(members)
        var body = try #require(told["Config"]?.objectValue)
        body["HostConfig"] = told["HostConfig"]
        var translation = CreateTranslation(try CreateRequest(.object(body)), image: Fixture.image())
        var second = try translation.translate()
        // What dockerd fills in is told as if it had been asked for; volumes without a name get new ones.
        for index in second.pod.containers[0].mounts.indices where second.pod.containers[0].mounts[index].isAnonymous {
            second.pod.containers[0].mounts[index].source = first.pod.containers[0].mounts[index].source
        }
        if first.pod.hostname.isEmpty { second.pod.hostname = "" }
        let limits = first.pod.containers[0].limits
        if limits.sharedMemory == nil { second.pod.containers[0].limits.sharedMemory = nil }
        if first.pod.containers[0].maskedPaths == nil { second.pod.containers[0].maskedPaths = nil }
        if first.pod.containers[0].readOnlyPaths == nil { second.pod.containers[0].readOnlyPaths = nil }
        #expect(second.pod == first.pod)
        #expect(second.labels == first.labels)
        #expect(second.removeOnExit == first.removeOnExit)
    }

    @Test func aContainerThatWasNeverStarted() throws {
        let json = try inspect("")
        #expect(json["Id"]?.stringValue?.utf8.count == 64)
        #expect(json["Name"] == "/web")
        #expect(json["Path"] == "sleep" && json["Args"] == ["100"])
        #expect(json["Created"] == "2023-11-14T22:13:20.123456789Z")
        #expect(json["State"]?["Status"] == "created" && json["State"]?["Running"] == false)
        #expect(json["State"]?["StartedAt"] == "0001-01-01T00:00:00Z")
        #expect(json["State"]?["Health"] == nil)
        #expect(json["NetworkSettings"]?["Ports"] == [:])
        #expect(json["SizeRw"] == nil && json["Node"] == nil)
        #expect(json["Config"]?["Hostname"] == "0123456789ab")
    }

    private func run(_ view: inout ContainerView) {
        view.desired = .running
        view.status.phase = .running
        view.status.endpoints = [
            NetworkEndpoint(network: "bridge", address: "10.1.0.5/16", gateway: "10.1.0.1", mac: "02:42:0a:01:00:05")
        ]
        view.container.state = .running
        view.container.start = 1
        view.container.pid = 42
        view.container.startedAt = Timestamp(nanoseconds: 1_700_000_001_000_000_000)
        view.container.health = .healthy
        view.status.containers = [view.container]
    }

    @Test func aContainerThatRuns() throws {
        let json = try inspect(
            #""ExposedPorts":{"90/tcp":{}},"HostConfig":{"PortBindings":{"80/tcp":[{"HostPort":"8080"}]}}"#, run)
        let state = json["State"]
        #expect(state?["Status"] == "running" && state?["Running"] == true && state?["Pid"] == 42)
        #expect(state?["StartedAt"] == "2023-11-14T22:13:21Z")
        #expect(state?["Health"]?["Status"] == "healthy" && state?["Health"]?["Log"] == [])
        let settings = json["NetworkSettings"]
        #expect(settings?["IPAddress"] == "10.1.0.5" && settings?["IPPrefixLen"] == 16)
        #expect(settings?["Networks"]?["bridge"]?["Gateway"] == "10.1.0.1")
        #expect(settings?["Ports"]?["80/tcp"] == [["HostIp": "0.0.0.0", "HostPort": "8080"]])
        #expect(settings?["Ports"]?["90/tcp"] == .some(.null))
    }

    @Test func aContainerThatEnded() throws {
        let json = try inspect("") { view in
            run(&view)
            view.status.phase = .exited
            view.container.exitCode = 137
            view.container.outOfMemory = true
            view.container.finishedAt = Timestamp(nanoseconds: 1_700_000_002_000_000_000)
        }
        let state = json["State"]
        #expect(state?["Status"] == "exited" && state?["Running"] == false && state?["Pid"] == 0)
        #expect(state?["ExitCode"] == 137 && state?["OOMKilled"] == true)
        #expect(state?["FinishedAt"] == "2023-11-14T22:13:22Z")
        #expect(json["NetworkSettings"]?["IPAddress"] == "")
    }

    @Test func oneThatCouldNotBeStartedSaysWhy() throws {
        let json = try inspect("") { view in
            view.status.phase = .failed
            view.status.message = "no such program"
            view.container.exitCode = 127
        }
        #expect(json["State"]?["Status"] == "created" && json["State"]?["ExitCode"] == 127)
        #expect(json["State"]?["Error"] == "no such program")
    }

    @Test func aHealthCheckSaysWhatWasGivenAndWhatItsProbesSaid() throws {
        let members = #""Healthcheck":{"Test":["CMD","probe"],"Interval":2000000000,"Retries":2}"#
        #expect(
            try inspect(members)["Config"]?["Healthcheck"] == [
                "Test": ["CMD", "probe"], "Interval": 2_000_000_000, "Retries": 2,
            ])
        var inspect = ContainerInspect(view: Fixture.view(try Fixture.create(members), run), version: .newest)
        inspect.probes = [
            ProbeResult(
                start: Timestamp(nanoseconds: 1_700_000_002_000_000_000),
                end: Timestamp(nanoseconds: 1_700_000_003_000_000_000), exitCode: 3, output: "no\n")
        ]
        #expect(
            inspect.json["State"]?["Health"]?["Log"] == [
                [
                    "Start": "2023-11-14T22:13:22Z", "End": "2023-11-14T22:13:23Z", "ExitCode": 3, "Output": "no\n",
                ]
            ])
    }

    @Test func volumesHaveTheModesOfDockerd() throws {
        let json = try inspect(#""Volumes":{"/a":{}},"HostConfig":{"Binds":["data:/b","data:/c:ro","/x:/d"]}"#)
        let modes = json["Mounts"]?.arrayValue?.map { $0["Mode"]?.stringValue }
        #expect(modes == ["", "z", "ro", ""])
    }

    @Test func networksOfUsersGoByTheirNames() throws {
        let view = Fixture.view(
            try Fixture.create(
                #""HostConfig":{"NetworkMode":"n1"},"NetworkingConfig":{"EndpointsConfig":{"n1":{"Aliases":["al"]}}}"#)
        ) { view in
            run(&view)
            view.pod.attachments[0].network = "id1"
            view.status.endpoints = [
                NetworkEndpoint(
                    network: "id1", address: "172.20.0.2/16", gateway: "172.20.0.1", mac: "02:42:ac:14:00:02")
            ]
        }
        for version in [41, 48] {
            var inspect = ContainerInspect(view: view, version: APIVersion(minor: version))
            inspect.networkNames = ["id1": "n1"]
            let network = inspect.json["NetworkSettings"]?["Networks"]?["n1"]
            #expect(inspect.json["HostConfig"]?["NetworkMode"] == "n1")
            #expect(network?["NetworkID"] == "id1" && network?["IPAddress"] == "172.20.0.2")
            #expect(network?["Aliases"] == (version == 41 ? ["al", "0123456789ab"] : ["al"]))
            #expect(network?["DNSNames"] == (version == 41 ? nil : ["web", "al", "0123456789ab"]))
        }
    }

    @Test func itsNodeIsToldWhereThereAreSeveral() throws {
        var inspect = ContainerInspect(view: Fixture.view(try Fixture.create(), run), version: .newest)
        inspect.node = Node(
            id: NodeID("n"), name: "n1", labels: ["zone": "b"], platform: Platform(os: "linux", architecture: "amd64"),
            capacity: Resources(cpu: 4_000_000_000, memory: 1 << 30), address: "192.0.2.7", streamEndpoint: "",
            agentVersion: "1", kernelVersion: "6", bootID: "b", createdAt: Timestamp(nanoseconds: 0))
        #expect(
            inspect.json["Node"] == [
                "ID": "n", "IP": "192.0.2.7", "Addr": "192.0.2.7", "Name": "n1", "Cpus": 4, "Memory": 1_073_741_824,
                "Labels": ["zone": "b"],
            ])
    }

    @Test func sizesAreToldWhenAskedFor() throws {
        var inspect = ContainerInspect(view: Fixture.view(try Fixture.create()), version: .newest)
        inspect.measures = true
        inspect.imageSize = 1000
        inspect.written = 24
        #expect(inspect.json["SizeRw"] == 24 && inspect.json["SizeRootFs"] == 1024)
    }
}
