import JSON

/// Members of a create request with which nothing is done: those that say nothing here are accepted, the others are
/// refused by name unless they have their zero value.
enum CreateMembers {
    struct Object: Sendable {
        /// What stands before the member's name in a refusal: `HostConfig.`.
        let prefix: String
        /// With why nothing is lost.
        let accepted: [String: String]
        /// With why not.
        let refused: [String: String]
    }

    private static let windows = "it means something on Windows only"

    static let config = Object(
        prefix: "",
        accepted: [
            "AttachStdin": "the client says at attach what it wants", "AttachStdout": "as AttachStdin",
            "AttachStderr": "as AttachStdin", "ArgsEscaped": windows,
        ],
        refused: ["OnBuild": "it belongs to images: give it to commit"])

    static let hostConfig = Object(
        prefix: "HostConfig.",
        accepted: [
            "ContainerIDFile": "the client writes it", "ConsoleSize": "the client sets the size when it attaches",
        ],
        refused: [
            "BlkioWeightDevice": "weights and rates of single devices are not set, only BlkioWeight",
            "BlkioDeviceReadBps": "rates of block devices are not limited",
            "BlkioDeviceWriteBps": "rates of block devices are not limited",
            "BlkioDeviceReadIOps": "rates of block devices are not limited",
            "BlkioDeviceWriteIOps": "rates of block devices are not limited",
            "Capabilities": "say with CapAdd and CapDrop what is to be added and dropped",
            "Cgroup": "a container's cgroup is made by its node",
            "CgroupParent": "the node's own cgroup is the parent, see `martlet up --cgroup-parent`",
            "CpuCount": windows, "CpuPercent": windows, "IOMaximumBandwidth": windows, "IOMaximumIOps": windows,
            "CpuRealtimePeriod": "real-time scheduling is not given to containers",
            "CpuRealtimeRuntime": "real-time scheduling is not given to containers",
            "DiskQuota": windows,
            "KernelMemory": "kernels have no such limit any more: it is a part of Memory",
            "StorageOpt": "the writable layer has no quota",
        ])

    /// What 1.52 has taken away: a container's address is that of its networks.
    static let configSince52 = Object(
        prefix: "", accepted: [:],
        refused: [
            "MacAddress": "say it of the network, NetworkingConfig.EndpointsConfig: since API 1.52 a container has none"
        ])

    /// What 1.52 has taken away: it says nothing from then on.
    static let hostConfigUntil51 = Object(
        prefix: "HostConfig.", accepted: [:],
        refused: ["KernelMemoryTCP": "kernels have no such limit any more: it is a part of Memory"])

    /// What `docker update` names and cannot change.
    static let update = Object(
        prefix: "", accepted: [:],
        refused: Dictionary(
            uniqueKeysWithValues: [
                "KernelMemory", "CpuRealtimePeriod", "CpuRealtimeRuntime", "CgroupParent", "OomKillDisable",
                "BlkioWeightDevice", "BlkioDeviceReadBps", "BlkioDeviceWriteBps", "BlkioDeviceReadIOps",
                "BlkioDeviceWriteIOps", "Devices", "DeviceCgroupRules", "DeviceRequests", "Ulimits",
            ].map { ($0, whileItExists) }))

    private static let whileItExists = "it cannot be changed while the container exists"

    static let updateUntil51 = Object(
        prefix: "", accepted: [:], refused: ["KernelMemoryTCP": whileItExists])

    static let endpoint = Object(
        prefix: "EndpointSettings.",
        accepted: [
            "NetworkID": "the server tells it", "EndpointID": "the server tells it", "Gateway": "the server tells it",
            "IPAddress": "the server tells it", "IPPrefixLen": "the server tells it",
            "IPv6Gateway": "the server tells it", "GlobalIPv6Address": "the server tells it",
            "GlobalIPv6PrefixLen": "the server tells it", "DNSNames": "the server tells it",
        ],
        refused: ["DriverOpts": "an endpoint has no options of a driver's own"])

    static let ipam = Object(
        prefix: "IPAMConfig.", accepted: [:],
        refused: ["LinkLocalIPs": "networks give one address of a family to an endpoint"])

    static let mount = Object(
        prefix: "Mounts.", accepted: [:],
        refused: [
            "ImageOptions": "images are not mounted: copy what is wanted into a volume",
            "ClusterOptions": "there are no cluster volumes",
        ])

    static let bindOptions = Object(
        prefix: "Mounts.BindOptions.",
        accepted: ["ReadOnlyNonRecursive": "what is mounted below a read-only bind stays as it is anyway"],
        refused: ["ReadOnlyForceRecursive": "what is mounted below a read-only bind stays as it is"])

    static let volumeOptions = Object(
        prefix: "Mounts.VolumeOptions.", accepted: [:],
        refused: ["Labels": "make the volume with its labels first (`docker volume create`)"])

    static let driverConfig = Object(
        prefix: "Mounts.VolumeOptions.DriverConfig.", accepted: [:],
        refused: ["Options": "make the volume with its options first (`docker volume create`)"])

    /// - Throws: `DockerError` 400 that names the first member that is refused.
    static func check(_ body: JSONValue, _ version: APIVersion) throws {
        try config.check(body)
        if version >= .v1_52 { try configSince52.check(body) }
        let host = body["HostConfig"]
        try hostConfig.check(host)
        if version < .v1_52 { try hostConfigUntil51.check(host) }
        for mount in host?["Mounts"]?.arrayValue ?? [] {
            try Self.mount.check(mount)
            try bindOptions.check(mount["BindOptions"])
            try volumeOptions.check(mount["VolumeOptions"])
            try driverConfig.check(mount["VolumeOptions"]?["DriverConfig"])
        }
        for member in body["NetworkingConfig"]?["EndpointsConfig"]?.objectValue?.members ?? [] {
            try checkEndpoint(member.value)
        }
    }

    /// Checks an update.
    static func checkUpdate(_ body: JSONValue, _ version: APIVersion) throws {
        try update.check(body)
        if version < .v1_52 { try updateUntil51.check(body) }
    }

    /// Checks an EndpointSettings.
    static func checkEndpoint(_ endpoint: JSONValue?) throws {
        try Self.endpoint.check(endpoint)
        try ipam.check(endpoint?["IPAMConfig"])
    }
}

extension CreateMembers.Object {
    func check(_ object: JSONValue?) throws {
        for member in object?.objectValue?.members ?? [] {
            guard let why = refused[member.key], !member.value.saysNothing else { continue }
            throw DockerError.unsupported(prefix + member.key, why)
        }
    }
}

extension JSONValue {
    /// Whether it is its type's zero value; an object also when all of its members are.
    fileprivate var saysNothing: Bool {
        switch self {
        case .null: true
        case .bool(let value): !value
        case .integer(let value): value == 0
        case .unsigned: false
        case .double(let value): value == 0
        case .string(let text): text.isEmpty
        case .array(let elements): elements.isEmpty
        case .object(let object): object.members.allSatisfy { $0.value.saysNothing }
        }
    }
}
