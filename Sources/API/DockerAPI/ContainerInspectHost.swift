import CDISpec
import JSON
import Model
import Wire

/// HostConfig of an inspected container: what a user asked of the node.
extension ContainerInspect {
    var hostConfig: JSONValue {
        let limits = spec.limits
        func number(_ value: Int64?) -> JSONValue { .integer(value ?? 0) }
        var object: JSONObject = [
            "Binds": .listOrNull(spec.mounts.compactMap(Self.bind)), "ContainerIDFile": "", "LogConfig": logConfig,
            "NetworkMode": .string(networkMode), "PortBindings": portBindings,
            "RestartPolicy": [
                "Name": .string(view.restart.condition.rawValue),
                "MaximumRetryCount": .integer(Int64(view.restart.maximumRetries ?? 0)),
            ],
            "AutoRemove": .bool(view.removeOnExit), "VolumeDriver": "", "VolumesFrom": nil,
            "CapAdd": .listOrNull(spec.capabilitiesAdded), "CapDrop": .listOrNull(spec.capabilitiesDropped),
            "CgroupnsMode": .string(Self.word(view.pod.namespaces.cgroup, own: "private")),
            "Dns": .list(view.pod.nameService.servers), "DnsOptions": .list(view.pod.nameService.options),
            "DnsSearch": .list(view.pod.nameService.search), "ExtraHosts": .listOrNull(view.pod.extraHosts),
            "GroupAdd": .listOrNull(spec.groups),
            "IpcMode": .string(Self.word(view.pod.namespaces.ipc, own: "private")),
            "Cgroup": "", "Links": nil, "OomScoreAdj": .integer(Int64(spec.oomScoreAdjust ?? 0)),
            "PidMode": .string(Self.word(view.pod.namespaces.pid)), "Privileged": .bool(spec.privileged),
            "PublishAllPorts": false, "ReadonlyRootfs": .bool(spec.readOnlyRoot),
            "SecurityOpt": .listOrNull(securityOptions),
        ]
        let tmpfs = spec.mounts.compactMap(Self.tmpfs)
        if !tmpfs.isEmpty { object["Tmpfs"] = .texts(Dictionary(tmpfs) { first, _ in first }) }
        object["UTSMode"] = .string(Self.word(view.pod.namespaces.uts))
        object["UsernsMode"] = ""
        object["ShmSize"] = .integer(limits.sharedMemory ?? 64 << 20)
        if !spec.sysctls.isEmpty { object["Sysctls"] = .texts(spec.sysctls) }
        if !spec.annotations.isEmpty { object["Annotations"] = .texts(spec.annotations) }
        object["Runtime"] = "runc"
        object["ConsoleSize"] = [0, 0]
        object["Isolation"] = ""
        object["CpuShares"] = number(limits.cpuShares)
        object["Memory"] = number(limits.memory)
        object["NanoCpus"] = .integer(limits.cpu)
        object["CgroupParent"] = ""
        object["BlkioWeight"] = number(limits.blockWeight)
        for name in ["WeightDevice", "DeviceReadBps", "DeviceWriteBps", "DeviceReadIOps", "DeviceWriteIOps"] {
            object["Blkio\(name)"] = []
        }
        object["CpuPeriod"] = number(limits.cpuPeriod)
        object["CpuQuota"] = number(limits.cpuQuota)
        object["CpuRealtimePeriod"] = 0
        object["CpuRealtimeRuntime"] = 0
        object["CpusetCpus"] = .string(limits.cpus ?? "")
        object["CpusetMems"] = .string(limits.memoryNodes ?? "")
        let named = spec.devices.filter { CDIName($0) != nil }
        object["Devices"] = .array(spec.devices.filter { CDIName($0) == nil }.map(Self.device))
        object["DeviceCgroupRules"] = .listOrNull(spec.deviceRules)
        let requests = (named.isEmpty ? [] : [Self.request(named)]) + spec.deviceClaims.map(\.request)
        object["DeviceRequests"] = requests.isEmpty ? .null : .array(requests)
        if version < .v1_42 { object["KernelMemory"] = 0 }
        if version < .v1_52 { object["KernelMemoryTCP"] = 0 }
        object["MemoryReservation"] = number(limits.memoryReservation)
        object["MemorySwap"] = number(limits.memorySwap ?? limits.memory)
        object["MemorySwappiness"] = limits.swappiness.map { .integer($0) } ?? .null
        object["OomKillDisable"] = .bool(limits.disableOOMKill)
        object["PidsLimit"] = limits.pids.map { .integer($0) } ?? .null
        object["Ulimits"] = .array(spec.rlimits.map(Self.limit))
        for name in ["CpuCount", "CpuPercent", "IOMaximumIOps", "IOMaximumBandwidth"] { object[name] = 0 }
        let mounts = spec.mounts.compactMap(Self.mount)
        if !mounts.isEmpty { object["Mounts"] = .array(mounts) }
        object["MaskedPaths"] = .list(spec.maskedPaths ?? (spec.privileged ? [] : Self.maskedPaths))
        object["ReadonlyPaths"] = .list(spec.readOnlyPaths ?? (spec.privileged ? [] : Self.readOnlyPaths))
        if spec.initProcess { object["Init"] = true }
        return .object(object)
    }

    /// What agents hide, and hold read-only, when a user says nothing.
    private static let maskedPaths = [
        "/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
        "/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats", "/sys/devices/virtual/powercap",
        "/sys/firmware",
    ]
    private static let readOnlyPaths = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]

    private static func word(_ source: Namespaces.Source, own: String = "") -> String {
        switch source {
        case .own: own
        case .node: "host"
        case .container(let id): "container:\(id)"
        }
    }

    private var networkMode: String {
        switch view.network {
        case .bridge: return "bridge"
        case .host, .none: return view.network.rawValue
        case .attached: return view.pod.attachments.first.map { networkNames[$0.network] ?? $0.network } ?? "none"
        case .container: return Self.word(view.pod.namespaces.network)
        }
    }

    private var logConfig: JSONValue {
        guard spec.logging.isKept else { return ["Type": "none", "Config": [:]] }
        var options: [String: String] = [:]
        options["max-size"] = spec.logging.maximumBytes.map { "\($0)" }
        options["max-file"] = spec.logging.maximumFiles.map { "\($0)" }
        return ["Type": "json-file", "Config": .texts(options)]
    }

    private var securityOptions: [String] {
        var options: [String] = []
        if spec.noNewPrivileges { options.append("no-new-privileges") }
        switch spec.seccomp {
        case .default: break
        case .unconfined: options.append("seccomp=unconfined")
        case .profile(let json): options.append("seccomp=\(json)")
        }
        return options
    }

    private var portBindings: JSONValue {
        var object = JSONObject()
        for port in view.pod.ports {
            let key = "\(port.containerPort)/\(port.transport.rawValue)"
            let last = port.hostPortEnd == port.hostPort ? "" : "-\(port.hostPortEnd)"
            let binding: JSONValue = [
                "HostIp": .string(port.hostAddress),
                "HostPort": .string(port.hostPort == 0 ? "" : "\(port.hostPort)\(last)"),
            ]
            object[key] = .array((object[key]?.arrayValue ?? []) + [binding])
        }
        return .object(object)
    }

    // MARK: Mounts, as they are written

    /// What `-v` makes; nil for what it cannot say.
    private static func bind(_ mount: Mount) -> String? {
        let source: String
        switch mount.source {
        case .bind(let path) where mount.createSource && mount.recursive && !path.contains(":"): source = path
        case .volume(let name) where !mount.isAnonymous && mount.subpath == nil: source = name
        default: return nil
        }
        guard !mount.target.contains(":") else { return nil }
        let mode = mode(of: mount)
        return "\(source):\(mount.target)" + (mode.isEmpty ? "" : ":\(mode)")
    }

    private static func mount(_ mount: Mount) -> JSONValue? {
        guard bind(mount) == nil, !mount.isAnonymous else { return nil }
        var object: JSONObject
        switch mount.source {
        case .bind(let path):
            object = ["Type": "bind", "Source": .string(path), "Target": .string(mount.target)]
            var options = JSONObject()
            if let propagation = mount.propagation { options["Propagation"] = .string(propagation) }
            if !mount.recursive { options["NonRecursive"] = true }
            if mount.createSource { options["CreateMountpoint"] = true }
            if !options.isEmpty { object["BindOptions"] = .object(options) }
        case .volume(let name):
            object = ["Type": "volume", "Source": .string(name), "Target": .string(mount.target)]
            var options = JSONObject()
            if !mount.copyUp { options["NoCopy"] = true }
            if let subpath = mount.subpath { options["Subpath"] = .string(subpath) }
            if !options.isEmpty { object["VolumeOptions"] = .object(options) }
        case .tmpfs, .secret, .config: return nil
        }
        if mount.readOnly { object["ReadOnly"] = true }
        return .object(object)
    }

    private static func tmpfs(_ mount: Mount) -> (String, String)? {
        guard case .tmpfs(let size, let mode) = mount.source else { return nil }
        var options = mount.options
        if mount.readOnly { options.append("ro") }
        if let size { options.append("size=\(size)") }
        if let mode { options.append("mode=\(mode)") }
        return (mount.target, options.joined(separator: ","))
    }

    /// As clients from 25 on ask for CDI devices.
    private static func request(_ names: [String]) -> JSONValue {
        [
            "Driver": "cdi", "Count": 0, "DeviceIDs": .array(names.map { .string($0) }), "Capabilities": nil,
            "Options": nil,
        ]
    }

    private static func device(_ text: String) -> JSONValue {
        let parts = text.split(separator: ":", omittingEmptySubsequences: false).map(String.init)
        return [
            "PathOnHost": .string(parts[0]), "PathInContainer": .string(parts.count > 1 ? parts[1] : parts[0]),
            "CgroupPermissions": .string(parts.count > 2 ? parts[2] : "rwm"),
        ]
    }

    private static func limit(_ limit: RLimit) -> JSONValue {
        func number(_ value: UInt64) -> JSONValue { .integer(Int64(exactly: value) ?? -1) }
        return ["Name": .string(limit.name), "Hard": number(limit.hard), "Soft": number(limit.soft)]
    }
}
