import AgentCore
import Cgroups
import Confinement
import DeviceNodes
import Images
import JSON
import Model
import OCISpec
import Wire

/// Writes the OCI configuration of one start: what the user asked for, the image's defaults, and ours.
struct SpecBuilder: Sendable {
    let assignment: TaskAssignment
    let container: Model.ContainerSpec
    let pod: PodFile
    let user: ContainerUser
    let paths: TaskPaths
    /// The container's cgroup below every hierarchy's root.
    let cgroup: String
    /// All controllers are on cgroup v2: containers get a cgroup namespace of their own.
    let isUnified: Bool

    static let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

    /// - Throws: `ExecutorFailure` naming what cannot be honoured.
    func build() throws(ExecutorFailure) -> OCISpec.ContainerSpec {
        let capabilities = try grantedCapabilities()
        var spec = OCISpec.ContainerSpec()
        spec.root = RootSpec(path: paths.rootfs, readonly: container.readOnlyRoot)
        spec.hostname = pod.hostname
        spec.process = try process(capabilities)
        spec.mounts = try mounts()
        spec.linux = try linux(capabilities)
        return spec
    }

    // MARK: The process

    /// Entrypoint and command, the user's before the image's. A new entrypoint voids the image's command.
    func arguments() throws(ExecutorFailure) -> [String] {
        let entrypoint = container.entrypoint ?? pod.image.entrypoint ?? []
        let command = container.command ?? (container.entrypoint == nil ? pod.image.command : nil) ?? []
        let all = entrypoint + command
        guard let program = all.first, !program.isEmpty else {
            throw ExecutorFailure(
                "image \(container.image) says no command to run; give one after its name", exitCode: 127)
        }
        return all
    }

    /// The image's variables under the user's, with what a process expects to find.
    func environment(terminal: Bool) -> [String] {
        var entries = [Self.path, "HOSTNAME=\(pod.hostname)"]
        if terminal { entries.append("TERM=xterm") }
        return Self.merge(entries + pod.image.environment, container.environment, home: user.home)
    }

    /// Later entries win, at the place of the first; HOME is added when nobody gave one.
    static func merge(_ entries: [String], _ more: [String], home: String) -> [String] {
        var result: [String] = []
        var places: [Substring: Int] = [:]
        for entry in entries + more {
            let key = entry.prefix { $0 != "=" }
            if let place = places[key] {
                result[place] = entry
            } else {
                places[key] = result.count
                result.append(entry)
            }
        }
        if places["HOME"] == nil { result.append("HOME=\(home)") }
        return result
    }

    var workingDirectory: String {
        let given = container.workingDirectory.isEmpty ? pod.image.workingDirectory : container.workingDirectory
        if given.isEmpty { return "/" }
        return given.hasPrefix("/") ? given : "/" + given
    }

    private func process(_ capabilities: CapabilitySet) throws(ExecutorFailure) -> ProcessSpec {
        var process = ProcessSpec(args: try arguments(), cwd: workingDirectory)
        process.terminal = container.terminal
        process.user = UserSpec(uid: user.uid, gid: user.gid, additionalGids: user.groups)
        process.env = environment(terminal: container.terminal)
        process.noNewPrivileges = container.noNewPrivileges
        process.capabilities = Self.capabilities(capabilities, isRoot: user.uid == 0)
        for limit in container.rlimits {
            process.rlimits.append(
                RlimitSpec(type: "RLIMIT_\(limit.name.uppercased())", hard: limit.hard, soft: limit.soft))
        }
        return process
    }

    /// Who is not root gets them in the bounding set only, as execve(2) of such a user would leave it.
    static func capabilities(_ set: CapabilitySet, isRoot: Bool) -> CapabilitiesSpec {
        let names = set.names
        return CapabilitiesSpec(
            bounding: names, effective: isRoot ? names : [], permitted: isRoot ? names : [])
    }

    private func grantedCapabilities() throws(ExecutorFailure) -> CapabilitySet {
        var set = CapabilitySet.containerDefaults
        func named(_ names: [String]) throws(ExecutorFailure) -> (all: Bool, set: CapabilitySet) {
            var result: [Confinement.Capability] = []
            for name in names where name.uppercased() != "ALL" {
                let full = name.uppercased().hasPrefix("CAP_") ? name.uppercased() : "CAP_" + name.uppercased()
                guard let capability = Confinement.Capability(name: full) else {
                    throw ExecutorFailure("capability \(name) is not known to this node's kernel")
                }
                result.append(capability)
            }
            return (names.contains { $0.uppercased() == "ALL" }, CapabilitySet(result))
        }
        let added = try named(container.capabilitiesAdded)
        let dropped = try named(container.capabilitiesDropped)
        if dropped.all { set = [] }
        if added.all { set = CapabilitySet.known() }
        set.formUnion(added.set)
        set.subtract(dropped.set)
        return set
    }

    // MARK: Namespaces, cgroup and resources

    private func linux(_ capabilities: CapabilitySet) throws(ExecutorFailure) -> LinuxSpec {
        var linux = LinuxSpec()
        linux.namespaces = [NamespaceSpec(.pid), NamespaceSpec(.ipc), NamespaceSpec(.uts), NamespaceSpec(.mount)]
        if isUnified { linux.namespaces.append(NamespaceSpec(.cgroup)) }
        if assignment.pod.network != .host {
            linux.namespaces.append(NamespaceSpec(.network, path: paths.namespace))
            // Ports below 1024 and ping need no capability in a network of one's own.
            linux.sysctl["net.ipv4.ip_unprivileged_port_start"] = "0"
            linux.sysctl["net.ipv4.ping_group_range"] = "0 2147483647"
        }
        for (name, value) in container.sysctls { linux.sysctl[name] = value }
        linux.cgroupsPath = cgroup
        linux.maskedPaths = Self.maskedPaths
        linux.readonlyPaths = Self.readOnlyPaths
        linux.seccomp = try seccomp(capabilities)
        var resources = self.resources
        for text in container.devices { try add(device: text, to: &linux, &resources) }
        linux.resources = resources
        return linux
    }

    /// Of the host they tell or steer too much.
    static let maskedPaths = [
        "/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
        "/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats", "/sys/devices/virtual/powercap",
        "/sys/firmware",
    ]
    static let readOnlyPaths = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]

    /// The processor's period in microseconds; quotas are counted in it.
    private static let period: Int64 = 100_000

    private var resources: ResourcesSpec {
        let limits = container.limits
        var resources = ResourcesSpec()
        resources.devices = [DeviceRuleSpec(allow: false, access: "rwm")]
        if limits.memory != nil || limits.memoryReservation != nil {
            resources.memory = MemorySpec(
                limit: limits.memory, reservation: limits.memoryReservation,
                swap: limits.memory == nil ? nil : limits.memorySwap ?? limits.memory)
        }
        if limits.cpu > 0 || limits.cpuShares != nil {
            // The kernel takes no quota below a millisecond.
            let quota = limits.cpu > 0 ? max(1000, limits.cpu / 1000 * Self.period / 1_000_000) : nil
            resources.cpu = CPUSpec(
                shares: limits.cpuShares.map { UInt64(max(2, $0)) }, quota: quota,
                period: quota == nil ? nil : UInt64(Self.period))
        }
        resources.pidsLimit = limits.pids
        return resources
    }

    /// `/dev/x[:/dev/y[:rwm]]`.
    private func add(
        device text: String, to linux: inout LinuxSpec, _ resources: inout ResourcesSpec
    ) throws(ExecutorFailure) {
        let parts = text.split(separator: ":", omittingEmptySubsequences: false).map(String.init)
        guard let access = DeviceAccess(parts.count > 2 ? parts[2] : "rwm"), parts.count <= 3 else {
            throw ExecutorFailure("device \(text) is not of the form /dev/x[:/dev/y[:rwm]]")
        }
        do {
            let node = try DeviceNode.discover(parts[0])
            guard let kind = DeviceSpec.Kind(rawValue: node.kind.rawValue), let rule = node.rule(access) else {
                throw ExecutorFailure("\(parts[0]) is not a device that a container can have")
            }
            let target = parts.count > 1 && !parts[1].isEmpty ? parts[1] : parts[0]
            var spec = DeviceSpec(path: target, type: kind, major: node.major, minor: node.minor)
            spec.fileMode = UInt32(node.mode & 0o777)
            spec.uid = node.uid
            spec.gid = node.gid
            linux.devices.append(spec)
            resources.devices.append(
                DeviceRuleSpec(
                    allow: true, type: rule.device.rawValue, major: rule.major.map(Int64.init),
                    minor: rule.minor.map(Int64.init), access: rule.access.description))
        } catch let error as DeviceError {
            throw ExecutorFailure("device \(parts[0]) cannot be given to the container: \(error)")
        } catch let error as ExecutorFailure {
            throw error
        } catch {
            throw ExecutorFailure("device \(parts[0]): \(error)")
        }
    }
}
