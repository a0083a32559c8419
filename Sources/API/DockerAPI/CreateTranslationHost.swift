import CDISpec
import Confinement
import JSON
import Model
import Wire

/// What separates the container from its node, and what it may use.
extension CreateTranslation {
    mutating func confinement() throws {
        let host = host
        spec.privileged = host.privileged ?? false
        spec.groups = host.groupAdd ?? []
        spec.initProcess = host.initProcess ?? false
        spec.readOnlyRoot = host.readonlyRootfs ?? false
        spec.capabilitiesAdded = host.capAdd ?? []
        spec.capabilitiesDropped = host.capDrop ?? []
        spec.maskedPaths = host.maskedPaths
        spec.readOnlyPaths = host.readonlyPaths
        spec.annotations = host.annotations ?? [:]
        spec.sysctls = host.sysctls ?? [:]
        spec.deviceRules = host.deviceCgroupRules ?? []
        spec.noNewPrivileges = false
        for option in host.securityOpt ?? [] { try security(option) }
        spec.devices = try (host.devices ?? []).map { device in
            guard let path = device.pathOnHost, !path.isEmpty else {
                throw DockerError.badRequest("HostConfig.Devices: PathOnHost is empty")
            }
            // Clients before 25 send a CDI device as they send a path.
            if CDIName(path) != nil {
                // A name may have a colon in it, at which a client may have split it.
                guard [nil, "", path].contains(device.pathInContainer),
                    [nil, "", "rwm"].contains(device.cgroupPermissions)
                else {
                    throw DockerError.badRequest(
                        "HostConfig.Devices: the CDI device \(path) takes neither PathInContainer nor CgroupPermissions"
                    )
                }
                return path
            }
            let target = device.pathInContainer.flatMap { $0.isEmpty ? nil : $0 } ?? path
            let rights = device.cgroupPermissions.flatMap { $0.isEmpty ? nil : $0 } ?? "rwm"
            return "\(path):\(target):\(rights)"
        }
        try deviceRequests(host.deviceRequests ?? [])
        spec.rlimits = try (host.ulimits ?? []).map { limit in
            guard let name = limit.name, let soft = limit.soft, let hard = limit.hard, soft >= -1, hard >= -1 else {
                throw DockerError.badRequest("HostConfig.Ulimits: Name, Soft and Hard are wanted, -1 for no limit")
            }
            func number(_ value: Int64) -> UInt64 { value == -1 ? .max : UInt64(value) }
            return RLimit(name: name, soft: number(soft), hard: number(hard))
        }
        try accept("HostConfig.Runtime", host.runtime, ["runc", "io.containerd.runc.v2", "martlet"])
        try accept("HostConfig.Isolation", host.isolation, ["default"])
        try accept("HostConfig.VolumeDriver", host.volumeDriver, ["local"])
        try accept("HostConfig.UsernsMode", host.usernsMode, ["host"])
    }

    private func accept(_ field: String, _ value: String?, _ known: [String]) throws {
        guard let value, !value.isEmpty, !known.contains(value) else { return }
        throw DockerError.unsupported(
            field, "\(Admission.quoted(value)) is not there, only \(known.joined(separator: ", "))")
    }

    /// `no-new-privileges[=true]`, `seccomp=…`, `apparmor=…`, `label=…`, `systempaths=unconfined`; `:` may stand for `=`.
    private mutating func security(_ option: String) throws {
        let parts = option.split(maxSplits: 1, omittingEmptySubsequences: false) { $0 == "=" || $0 == ":" }
        let (key, value) = (parts.first ?? "", parts.count == 2 ? String(parts[1]) : nil)
        let field = "HostConfig.SecurityOpt \(key.prefix(40))"
        switch (key, value) {
        case ("no-new-privileges", nil), ("no-new-privileges", "true"): spec.noNewPrivileges = true
        case ("no-new-privileges", "false"): spec.noNewPrivileges = false
        case ("seccomp", "unconfined"): spec.seccomp = .unconfined
        case ("seccomp", "builtin"): spec.seccomp = .default
        case ("seccomp", let profile?):
            spec.seccomp = .profile(
                json: try SeccompText.translate(
                    profile, capabilities: capabilities, architecture: image.image.platform.architecture))
        case ("apparmor", "unconfined"), ("label", "disable"): break
        case ("apparmor", _): throw DockerError.unsupported(field, "AppArmor profiles are not set, only unconfined is")
        case ("label", _): throw DockerError.unsupported(field, "SELinux labels are not set, only disable is")
        case ("systempaths", "unconfined"):
            spec.maskedPaths = []
            spec.readOnlyPaths = []
        default: throw DockerError.badRequest("invalid --security-opt: \(Admission.quoted(option))")
        }
    }

    /// What the container will be given, for conditions in a seccomp profile.
    private var capabilities: Set<String> {
        func full(_ name: String) -> String {
            let upper = name.uppercased()
            return upper == "ALL" || upper.hasPrefix("CAP_") ? upper : "CAP_" + upper
        }
        let added = Set((host.capAdd ?? []).map(full))
        let dropped = Set((host.capDrop ?? []).map(full))
        if spec.privileged || added.contains("ALL") { return Set(Model.Capability.names).subtracting(dropped) }
        let usual = dropped.contains("ALL") ? [] : CapabilitySet.containerDefaults.names
        return Set(usual).union(added).subtracting(dropped)
    }

    mutating func limits() throws {
        let host = host
        func positive(_ value: Int64?) -> Int64? { value.flatMap { $0 == 0 ? nil : $0 } }
        func text(_ value: String?) -> String? { value.flatMap { $0.isEmpty ? nil : $0 } }
        var limits = Limits()
        limits.cpu = host.nanoCpus ?? 0
        limits.cpuShares = positive(host.cpuShares)
        limits.cpuPeriod = positive(host.cpuPeriod)
        limits.cpuQuota = host.cpuQuota.flatMap { $0 <= 0 ? nil : $0 }
        if limits.cpu != 0, limits.cpuPeriod != nil || limits.cpuQuota != nil {
            throw DockerError.badRequest("Conflicting options: NanoCpus and CpuPeriod or CpuQuota cannot both be set")
        }
        limits.cpus = text(host.cpusetCpus)
        limits.memoryNodes = text(host.cpusetMems)
        limits.memory = positive(host.memory)
        limits.memoryReservation = positive(host.memoryReservation)
        limits.memorySwap = positive(host.memorySwap)
        if let memory = limits.memory, memory > 0, limits.memorySwap == nil {
            // As much swap as memory is what Docker gives when nothing is said.
            limits.memorySwap = memory > .max / 2 ? -1 : memory * 2
        }
        limits.swappiness = host.memorySwappiness.flatMap { $0 == -1 ? nil : $0 }
        limits.pids = host.pidsLimit.flatMap { $0 <= 0 ? nil : $0 }
        limits.blockWeight = positive(host.blkioWeight)
        limits.disableOOMKill = host.oomKillDisable ?? false
        limits.sharedMemory = positive(host.shmSize)
        spec.limits = limits
        if let score = host.oomScoreAdj, score != 0 {
            guard (-1000...1000).contains(score) else {
                throw DockerError.badRequest(
                    "Invalid value \(score), range for HostConfig.OomScoreAdj is [-1000, 1000]")
            }
            spec.oomScoreAdjust = score
        }
    }

    /// Namespaces that are the node's or another container's.
    mutating func sharing() throws {
        let host = host
        pod.namespaces.pid = try source("PidMode", host.pidMode, own: [""])
        pod.namespaces.ipc = try source("IpcMode", host.ipcMode, own: ["", "private", "shareable"])
        pod.namespaces.uts = try source("UTSMode", host.utsMode, own: [""], others: false)
        pod.namespaces.cgroup = try source("CgroupnsMode", host.cgroupnsMode, own: ["", "private"], others: false)
        if pod.namespaces.uts == .node, !pod.hostname.isEmpty {
            throw DockerError.badRequest("conflicting options: hostname and the UTS mode")
        }
        pod.nameService = NameService(
            servers: host.dns ?? [], search: host.dnsSearch ?? [], options: host.dnsOptions ?? [])
        pod.extraHosts = try (host.extraHosts ?? []).map { entry in
            // Later clients write `name=address`.
            guard let parting = entry.firstIndex(where: { $0 == ":" || $0 == "=" }), parting != entry.startIndex else {
                throw DockerError.badRequest(
                    "invalid host-to-IP mapping \(Admission.quoted(entry)): write name:address")
            }
            return "\(entry[..<parting]):\(entry[entry.index(after: parting)...])"
        }
    }

    private func source(
        _ field: String, _ mode: String?, own: Set<String>, others: Bool = true
    ) throws -> Namespaces.Source {
        let mode = mode ?? ""
        if own.contains(mode) { return .own }
        if mode == "host" { return .node }
        if others, let ref = Self.containerReference(mode) { return .container(ref) }
        if field == "IpcMode", mode == "none" {
            throw DockerError.unsupported("HostConfig.IpcMode none", "a container always has /dev/shm: leave it out")
        }
        throw DockerError.badRequest("invalid HostConfig.\(field): \(Admission.quoted(mode))")
    }

    /// What stands behind `container:`.
    static func containerReference(_ mode: String) -> String? {
        guard mode.hasPrefix("container:"), mode.utf8.count > 10 else { return nil }
        return String(mode.dropFirst(10))
    }
}
