import JSON
import Testing
import Wire

@testable import DockerAPI

/// Members of a create request in the API's versions 1.24 to 1.56: each is honoured, or accepted because nothing is lost
/// without it, or refused by name.
@Suite struct CreateMembersAreAllKnown {
    struct Table: Sendable, CustomTestStringConvertible {
        let name: String
        let members: String
        let honoured: [String]
        let object: CreateMembers.Object
        /// The request's JSON around such an object.
        let request: @Sendable (String) -> String

        var testDescription: String { name }
        var all: [String] { members.split(whereSeparator: \.isWhitespace).map(String.init) }
    }

    static let tables = [
        Table(
            name: "Config",
            members: """
                ArgsEscaped AttachStderr AttachStdin AttachStdout Cmd Domainname Entrypoint Env ExposedPorts Healthcheck
                Hostname Image Labels MacAddress NetworkDisabled OnBuild OpenStdin Shell StdinOnce StopSignal StopTimeout
                Tty User Volumes WorkingDir HostConfig NetworkingConfig
                """, honoured: CreateRequest.CodingKeys.allCases.map(\.rawValue), object: CreateMembers.config,
            request: { $0 }),
        Table(
            name: "HostConfig",
            members: """
                Annotations AutoRemove Binds BlkioDeviceReadBps BlkioDeviceReadIOps BlkioDeviceWriteBps
                BlkioDeviceWriteIOps BlkioWeight BlkioWeightDevice CapAdd CapDrop Capabilities Cgroup CgroupParent
                CgroupnsMode ConsoleSize ContainerIDFile CpuCount CpuPercent CpuPeriod CpuQuota CpuRealtimePeriod
                CpuRealtimeRuntime CpuShares CpusetCpus CpusetMems DeviceCgroupRules DeviceRequests Devices DiskQuota
                Dns DnsOptions DnsSearch ExtraHosts GroupAdd IOMaximumBandwidth IOMaximumIOps Init IpcMode Isolation
                KernelMemory KernelMemoryTCP Links LogConfig MaskedPaths Memory MemoryReservation MemorySwap
                MemorySwappiness Mounts NanoCpus NetworkMode OomKillDisable OomScoreAdj PidMode PidsLimit PortBindings
                Privileged PublishAllPorts ReadonlyPaths ReadonlyRootfs RestartPolicy Runtime SecurityOpt ShmSize
                StorageOpt Sysctls Tmpfs UTSMode Ulimits UsernsMode VolumeDriver VolumesFrom
                """, honoured: HostConfigRequest.CodingKeys.allCases.map(\.rawValue), object: CreateMembers.hostConfig,
            request: { #"{"HostConfig":\#($0)}"# }),
        Table(
            name: "NetworkingConfig", members: "EndpointsConfig",
            honoured: NetworkingConfigRequest.CodingKeys.allCases.map(\.rawValue),
            object: CreateMembers.Object(prefix: "NetworkingConfig.", accepted: [:], refused: [:]),
            request: { #"{"NetworkingConfig":\#($0)}"# }),
        Table(
            name: "EndpointSettings",
            members: """
                Aliases DNSNames DriverOpts EndpointID Gateway GlobalIPv6Address GlobalIPv6PrefixLen GwPriority
                IPAMConfig IPAddress IPPrefixLen IPv6Gateway Links MacAddress NetworkID
                """, honoured: EndpointRequest.CodingKeys.allCases.map(\.rawValue), object: CreateMembers.endpoint,
            request: { #"{"NetworkingConfig":{"EndpointsConfig":{"n":\#($0)}}}"# }),
        Table(
            name: "IPAMConfig", members: "IPv4Address IPv6Address LinkLocalIPs",
            honoured: EndpointRequest.IPAM.CodingKeys.allCases.map(\.rawValue), object: CreateMembers.ipam,
            request: { #"{"NetworkingConfig":{"EndpointsConfig":{"n":{"IPAMConfig":\#($0)}}}}"# }),
        Table(
            name: "Mount",
            members: """
                BindOptions ClusterOptions Consistency ImageOptions ReadOnly Source Target TmpfsOptions Type
                VolumeOptions
                """, honoured: MountRequest.CodingKeys.allCases.map(\.rawValue), object: CreateMembers.mount,
            request: { #"{"HostConfig":{"Mounts":[\#($0)]}}"# }),
        Table(
            name: "BindOptions",
            members: "CreateMountpoint NonRecursive Propagation ReadOnlyForceRecursive ReadOnlyNonRecursive",
            honoured: MountRequest.BindOptions.CodingKeys.allCases.map(\.rawValue), object: CreateMembers.bindOptions,
            request: { #"{"HostConfig":{"Mounts":[{"BindOptions":\#($0)}]}}"# }),
        Table(
            name: "VolumeOptions", members: "DriverConfig Labels NoCopy Subpath",
            honoured: MountRequest.VolumeOptions.CodingKeys.allCases.map(\.rawValue),
            object: CreateMembers.volumeOptions,
            request: { #"{"HostConfig":{"Mounts":[{"VolumeOptions":\#($0)}]}}"# }),
        Table(
            name: "DriverConfig", members: "Name Options", honoured: ["Name"], object: CreateMembers.driverConfig,
            request: { #"{"HostConfig":{"Mounts":[{"VolumeOptions":{"DriverConfig":\#($0)}}]}}"# }),
        Table(
            name: "TmpfsOptions", members: "Mode Options SizeBytes",
            honoured: MountRequest.TmpfsOptions.CodingKeys.allCases.map(\.rawValue),
            object: CreateMembers.Object(prefix: "", accepted: [:], refused: [:]),
            request: { #"{"HostConfig":{"Mounts":[{"TmpfsOptions":\#($0)}]}}"# }),
        Table(
            name: "HealthConfig", members: "Interval Retries StartInterval StartPeriod Test Timeout",
            honoured: CreateRequest.Healthcheck.CodingKeys.allCases.map(\.rawValue),
            object: CreateMembers.Object(prefix: "", accepted: [:], refused: [:]),
            request: { #"{"Healthcheck":\#($0)}"# }),
    ]

    @Test(arguments: tables) func eachHasOnePlace(table: Table) {
        var places = table.honoured + table.object.accepted.keys + table.object.refused.keys
        if table.name == "HostConfig" { places += CreateMembers.hostConfigUntil51.refused.keys }
        #expect(Set(places) == Set(table.all))
        #expect(places.count == Set(places).count)
    }

    @Test(arguments: tables) func whatIsRefusedIsNamed(table: Table) throws {
        for member in table.object.refused.keys {
            for value in ["null", "0", #""""#, "[]", "{}", "false"] {
                _ = try CreateRequest(try JSONValue.parse(table.request(#"{"\#(member)":\#(value)}"#)))
            }
            for value in ["7", #""x""#, #"["x"]"#, #"{"a":"b"}"#, "true"] {
                let body = try JSONValue.parse(table.request(#"{"\#(member)":\#(value)}"#))
                let refusal = #expect(throws: DockerError.self) { try CreateRequest(body) }
                #expect(refusal?.status == 400)
                #expect(refusal?.message.hasPrefix("\(table.object.prefix)\(member) is not supported: ") == true)
            }
        }
    }

    @Test(arguments: [
        (#"{"MacAddress":"02:42:0a:00:00:01"}"#, 51, true), (#"{"MacAddress":"02:42:0a:00:00:01"}"#, 52, false),
        (#"{"MacAddress":""}"#, 52, true),
        (#"{"HostConfig":{"KernelMemoryTCP":7}}"#, 51, false), (#"{"HostConfig":{"KernelMemoryTCP":7}}"#, 52, true),
    ])
    func whatAVersionHasTakenAway(body: String, minor: Int, isTaken: Bool) throws {
        let body = try JSONValue.parse(body)
        let version = APIVersion(minor: minor)
        if isTaken {
            _ = try CreateRequest(body, version: version)
        } else {
            #expect(throws: DockerError.self) { try CreateRequest(body, version: version) }
        }
    }

    @Test(arguments: [
        (#"{"BlkioDeviceReadBps":[{"Path":"/dev/vda","Rate":1}]}"#, 55, false),
        (#"{"BlkioDeviceReadBps":[]}"#, 55, true),
        (#"{"BlkioWeightDevice":null}"#, 55, true), (#"{"KernelMemoryTCP":7}"#, 51, false),
        (#"{"KernelMemoryTCP":7}"#, 52, true), (#"{"MemorySwappiness":-1}"#, 41, true),
        (#"{"MemorySwappiness":5}"#, 41, false), (#"{"Ulimits":[{"Name":"core"}]}"#, 41, false),
    ])
    func whatCannotChangeIsRefused(body: String, minor: Int, isTaken: Bool) throws {
        let body = try JSONValue.parse(body)
        let version = APIVersion(minor: minor)
        if isTaken {
            _ = try UpdateRequest(body, version: version)
        } else {
            #expect(throws: DockerError.self) { try UpdateRequest(body, version: version) }
        }
    }

    @Test func oneThatIsConnectedHasItsAddressOnTheNetwork() throws {
        func connection(_ endpoint: String) throws -> ConnectNetwork {
            try NetworkConnectRequest(
                try JSONValue.parse(#"{"Container":"c","EndpointConfig":\#(endpoint)}"#)
            ).connection(of: "c")
        }
        let made = try connection(
            #"{"MacAddress":"02:42:0a:00:00:01","IPAMConfig":{"IPv4Address":"10.0.0.5","IPv6Address":"fd00::5"},"Aliases":["a"]}"#
        )
        #expect(made.mac == "02:42:0a:00:00:01" && made.address == "10.0.0.5" && made.aliases == ["a"])
        #expect(made.address6 == "fd00::5")
        for refused in [
            #"{"Links":["a"]}"#, #"{"GwPriority":1}"#, #"{"DriverOpts":{"a":"b"}}"#,
            #"{"IPAMConfig":{"LinkLocalIPs":["169.254.0.1"]}}"#,
        ] { #expect(throws: DockerError.self) { try connection(refused) } }
    }

    @Test func unknownMembersAreIgnored() throws {
        _ = try CreateRequest(try JSONValue.parse(#"{"Nonsense":1,"HostConfig":{"Nonsense":{"a":1}}}"#))
    }

    @Test(arguments: ["[]", "3", #"{"HostConfig":[]}"#, #"{"Env":"A=b"}"#, #"{"HostConfig":{"Memory":"1g"}}"#])
    func anotherShapeIsRefused(text: String) throws {
        let body = try JSONValue.parse(text)
        let refusal = #expect(throws: DockerError.self) { try CreateRequest(body) }
        #expect(refusal?.status == 400)
    }
}
