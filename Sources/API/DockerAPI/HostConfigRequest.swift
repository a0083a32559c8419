import JSON
import Model

/// HostConfig of Moby's `api/swagger.yaml`, its Resources with it, as far as something is done with it.
struct HostConfigRequest: Decodable, Sendable {
    var binds: [String]?
    var logConfig: LogConfig?
    var networkMode: String?
    var portBindings: [String: [PortBinding]?]?
    var restartPolicy: RestartPolicy?
    var autoRemove: Bool?
    var volumeDriver: String?
    var volumesFrom: [String]?
    var mounts: [MountRequest]?
    var annotations: [String: String]?
    var capAdd: [String]?
    var capDrop: [String]?
    var cgroupnsMode: String?
    var dns: [String]?
    var dnsOptions: [String]?
    var dnsSearch: [String]?
    var extraHosts: [String]?
    var groupAdd: [String]?
    var ipcMode: String?
    var links: [String]?
    var oomScoreAdj: Int?
    var pidMode: String?
    var privileged: Bool?
    var publishAllPorts: Bool?
    var readonlyRootfs: Bool?
    var securityOpt: [String]?
    var tmpfs: [String: String]?
    var utsMode: String?
    var usernsMode: String?
    var shmSize: Int64?
    var sysctls: [String: String]?
    var runtime: String?
    var isolation: String?
    var maskedPaths: [String]?
    var readonlyPaths: [String]?
    var cpuShares: Int64?
    var memory: Int64?
    var blkioWeight: Int64?
    var cpuPeriod: Int64?
    var cpuQuota: Int64?
    var cpusetCpus: String?
    var cpusetMems: String?
    var devices: [Device]?
    var deviceCgroupRules: [String]?
    var deviceRequests: [DeviceRequest]?
    var memoryReservation: Int64?
    var memorySwap: Int64?
    var memorySwappiness: Int64?
    var nanoCpus: Int64?
    var oomKillDisable: Bool?
    var initProcess: Bool?
    var pidsLimit: Int64?
    var ulimits: [Ulimit]?

    enum CodingKeys: String, CodingKey, CaseIterable {
        case binds = "Binds"
        case logConfig = "LogConfig"
        case networkMode = "NetworkMode"
        case portBindings = "PortBindings"
        case restartPolicy = "RestartPolicy"
        case autoRemove = "AutoRemove"
        case volumeDriver = "VolumeDriver"
        case volumesFrom = "VolumesFrom"
        case mounts = "Mounts"
        case annotations = "Annotations"
        case capAdd = "CapAdd"
        case capDrop = "CapDrop"
        case cgroupnsMode = "CgroupnsMode"
        case dns = "Dns"
        case dnsOptions = "DnsOptions"
        case dnsSearch = "DnsSearch"
        case extraHosts = "ExtraHosts"
        case groupAdd = "GroupAdd"
        case ipcMode = "IpcMode"
        case links = "Links"
        case oomScoreAdj = "OomScoreAdj"
        case pidMode = "PidMode"
        case privileged = "Privileged"
        case publishAllPorts = "PublishAllPorts"
        case readonlyRootfs = "ReadonlyRootfs"
        case securityOpt = "SecurityOpt"
        case tmpfs = "Tmpfs"
        case utsMode = "UTSMode"
        case usernsMode = "UsernsMode"
        case shmSize = "ShmSize"
        case sysctls = "Sysctls"
        case runtime = "Runtime"
        case isolation = "Isolation"
        case maskedPaths = "MaskedPaths"
        case readonlyPaths = "ReadonlyPaths"
        case cpuShares = "CpuShares"
        case memory = "Memory"
        case blkioWeight = "BlkioWeight"
        case cpuPeriod = "CpuPeriod"
        case cpuQuota = "CpuQuota"
        case cpusetCpus = "CpusetCpus"
        case cpusetMems = "CpusetMems"
        case devices = "Devices"
        case deviceCgroupRules = "DeviceCgroupRules"
        case deviceRequests = "DeviceRequests"
        case memoryReservation = "MemoryReservation"
        case memorySwap = "MemorySwap"
        case memorySwappiness = "MemorySwappiness"
        case nanoCpus = "NanoCpus"
        case oomKillDisable = "OomKillDisable"
        case initProcess = "Init"
        case pidsLimit = "PidsLimit"
        case ulimits = "Ulimits"
    }

    init() {}

    struct LogConfig: Decodable, Sendable {
        var type: String?
        var config: [String: String]?

        enum CodingKeys: String, CodingKey {
            case type = "Type"
            case config = "Config"
        }
    }

    struct PortBinding: Decodable, Sendable {
        var hostIP: String?
        var hostPort: String?

        enum CodingKeys: String, CodingKey {
            case hostIP = "HostIp"
            case hostPort = "HostPort"
        }
    }

    struct RestartPolicy: Decodable, Sendable {
        var name: String?
        var maximumRetryCount: Int?

        enum CodingKeys: String, CodingKey {
            case name = "Name"
            case maximumRetryCount = "MaximumRetryCount"
        }

        /// nil: nothing is said.
        ///
        /// - Throws: `DockerError` 400 for what is none.
        func policy() throws -> Model.RestartPolicy? {
            let retries = maximumRetryCount ?? 0
            let given = name.flatMap { $0.isEmpty ? nil : $0 }
            let known = given.map { Model.RestartPolicy.Condition(rawValue: $0) }
            guard let condition = known ?? .no else {
                throw DockerError.badRequest(
                    "invalid restart policy: unknown policy '\((given ?? "").prefix(40))': no, always, unless-stopped and "
                        + "on-failure are known")
            }
            guard retries == 0 || condition == .onFailure, retries >= 0 else {
                throw DockerError.badRequest(
                    "invalid restart policy: maximum retry count can only be used with 'on-failure', and is not negative"
                )
            }
            return given == nil ? nil : Model.RestartPolicy(condition, maximumRetries: retries > 0 ? retries : nil)
        }
    }

    struct Device: Decodable, Sendable {
        var pathOnHost: String?
        var pathInContainer: String?
        var cgroupPermissions: String?

        enum CodingKeys: String, CodingKey {
            case pathOnHost = "PathOnHost"
            case pathInContainer = "PathInContainer"
            case cgroupPermissions = "CgroupPermissions"
        }
    }

    /// Devices that a driver of the engine knows.
    struct DeviceRequest: Decodable, Sendable {
        var driver: String?
        var count: Int64?
        var deviceIDs: [String]?
        var capabilities: [[String]]?
        var options: [String: String]?

        enum CodingKeys: String, CodingKey {
            case driver = "Driver"
            case count = "Count"
            case deviceIDs = "DeviceIDs"
            case capabilities = "Capabilities"
            case options = "Options"
        }
    }

    struct Ulimit: Decodable, Sendable {
        var name: String?
        var soft: Int64?
        var hard: Int64?

        enum CodingKeys: String, CodingKey {
            case name = "Name"
            case soft = "Soft"
            case hard = "Hard"
        }
    }
}

/// An element of HostConfig.Mounts.
struct MountRequest: Decodable, Sendable {
    var target: String?
    var source: String?
    var type: String?
    var readOnly: Bool?
    /// Caching of shared folders in desktop products: nothing on Linux.
    var consistency: String?
    var bindOptions: BindOptions?
    var volumeOptions: VolumeOptions?
    var tmpfsOptions: TmpfsOptions?

    enum CodingKeys: String, CodingKey, CaseIterable {
        case target = "Target"
        case source = "Source"
        case type = "Type"
        case readOnly = "ReadOnly"
        case consistency = "Consistency"
        case bindOptions = "BindOptions"
        case volumeOptions = "VolumeOptions"
        case tmpfsOptions = "TmpfsOptions"
    }

    init() {}

    struct BindOptions: Decodable, Sendable {
        var propagation: String?
        var nonRecursive: Bool?
        var createMountpoint: Bool?

        enum CodingKeys: String, CodingKey, CaseIterable {
            case propagation = "Propagation"
            case nonRecursive = "NonRecursive"
            case createMountpoint = "CreateMountpoint"
        }
    }

    struct VolumeOptions: Decodable, Sendable {
        var noCopy: Bool?
        var subpath: String?
        var driverConfig: Driver?

        enum CodingKeys: String, CodingKey, CaseIterable {
            case noCopy = "NoCopy"
            case subpath = "Subpath"
            case driverConfig = "DriverConfig"
        }

        struct Driver: Decodable, Sendable {
            var name: String?

            enum CodingKeys: String, CodingKey {
                case name = "Name"
            }
        }
    }

    struct TmpfsOptions: Decodable, Sendable {
        var sizeBytes: Int64?
        var mode: Int?
        var options: [[String]]?

        enum CodingKeys: String, CodingKey, CaseIterable {
            case sizeBytes = "SizeBytes"
            case mode = "Mode"
            case options = "Options"
        }
    }
}
