import AgentCore
import CDISpec
import DeviceNodes
import Glibc
import Kernel
import Model
import OCISpec
import Wire

/// What the container's cgroup allows.
extension SpecBuilder {
    func resources() throws(ExecutorFailure) -> ResourcesSpec {
        let limits = container.limits
        var resources = ResourcesSpec()
        resources.memory = memory(limits)
        resources.cpu = try processors(limits)
        resources.hugepageLimits = hugepages(limits)
        resources.pidsLimit = limits.pids
        if let weight = limits.blockWeight {
            resources.blockIO = BlockIOSpec()
            resources.blockIO?.weight = UInt16(clamping: weight)
        }
        return resources
    }

    private func memory(_ limits: Limits) -> MemorySpec? {
        // No swap unless it is said otherwise, where the kernel can see to that: a container that only has a limit on its
        // memory must start on other kernels too. What somebody has asked for by name is asked of the runtime, which
        // refuses it there.
        let standard = accountsSwap ? limits.memory : nil
        var memory = MemorySpec(
            limit: limits.memory, reservation: limits.memoryReservation,
            swap: limits.memory == nil ? nil : limits.memorySwap ?? standard)
        memory.swappiness = limits.swappiness.map { UInt64(max(0, $0)) }
        if limits.disableOOMKill { memory.disableOOMKiller = true }
        let isEmpty =
            limits.memory == nil && limits.memoryReservation == nil && limits.swappiness == nil
            && !limits.disableOOMKill
        return isEmpty ? nil : memory
    }

    /// Of sizes that it does not ask for it gets none, for others were promised them: but for a privileged container, which
    /// has all that the node has.
    private func hugepages(_ limits: Limits) -> [HugepageLimit] {
        let sizes = Set(limits.hugepages.keys).union(container.privileged ? [] : hugepageSizes)
        return sizes.sorted().map { size in
            HugepageLimit(pageSize: size.uppercased() + "B", limit: UInt64(max(0, limits.hugepages[size] ?? 0)))
        }
    }

    /// Those that it has alone are its limit: a quota beside them would only hold it up.
    private func processors(_ limits: Limits) throws(ExecutorFailure) -> CPUSpec? {
        let own = assignment.grantedProcessors.first { $0.container == container.name }
        guard limits.pinning == nil || own.map({ !$0.cpus.isEmpty }) == true else {
            throw ExecutorFailure("it wants processors of its own, and the master has given it none")
        }
        // The kernel would run it on what is left of them, or anywhere when nothing is.
        if let own, let allowed = allowedProcessors {
            let lost = ProcessorSet(Set(own.cpus.numbers).subtracting(allowed.numbers))
            guard lost.isEmpty else {
                throw ExecutorFailure(
                    "processors \(lost) were given to it alone, and containers may use only \(allowed) here now: "
                        + "bring them back, or make the container anew")
            }
        }
        let bandwidth = own == nil ? Bandwidth(limits) : Bandwidth(Limits())
        var cpu = CPUSpec(
            shares: limits.cpuShares.map { UInt64(max(2, $0)) }, quota: bandwidth.quota,
            period: bandwidth.period.map { UInt64(max(1000, $0)) })
        cpu.cpus = own?.cpus.description ?? sharedProcessors?.description ?? limits.cpus
        cpu.mems = own.flatMap { $0.memoryNodes.isEmpty ? nil : $0.memoryNodes.description } ?? limits.memoryNodes
        let isEmpty =
            cpu.shares == nil && cpu.quota == nil && cpu.period == nil && cpu.cpus == nil && cpu.mems == nil
        return isEmpty ? nil : cpu
    }

    /// The node's devices that a container gets by their paths, and the rules to use them: no others.
    static func addDevices(
        of container: Model.ContainerSpec, to linux: inout LinuxSpec, _ resources: inout ResourcesSpec
    ) throws(ExecutorFailure) {
        resources.devices = [DeviceRuleSpec(allow: false, access: "rwm")]
        if container.privileged {
            linux.devices = nodeDevices()
            resources.devices.append(DeviceRuleSpec(allow: true, type: "a", access: "rwm"))
        }
        // Those of CDI are given with all that belongs to them: `deviceEdits`.
        for text in container.devices where CDIName(text) == nil { try add(device: text, to: &linux, &resources) }
        for text in container.deviceRules {
            guard let rule = DeviceRuleText(text) else {
                throw ExecutorFailure("'\(text)' is no rule for devices: write it as 'c 10:229 rwm'")
            }
            resources.devices.append(
                DeviceRuleSpec(
                    allow: true, type: rule.type, major: rule.major, minor: rule.minor, access: rule.access))
        }
    }

    /// `/dev/x[:/dev/y[:rwm]]`.
    private static func add(
        device text: String, to linux: inout LinuxSpec, _ resources: inout ResourcesSpec
    ) throws(ExecutorFailure) {
        let parts = text.split(separator: ":", omittingEmptySubsequences: false).map(String.init)
        guard let access = DeviceAccess(parts.count > 2 ? parts[2] : "rwm"), parts.count <= 3 else {
            throw ExecutorFailure("device \(text) is not of the form /dev/x[:/dev/y[:rwm]]")
        }
        do {
            let node = try DeviceNode.discover(parts[0])
            let target = parts.count > 1 && !parts[1].isEmpty ? parts[1] : parts[0]
            guard let spec = DeviceSpec(node, at: target), let rule = node.rule(access) else {
                throw ExecutorFailure("\(parts[0]) is not a device that a container can have")
            }
            linux.devices.removeAll { $0.path == target }
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

    /// Places in /dev that are file systems of their own or belong to the node's own programs.
    private static let ownDirectories: Set = [
        "pts", "shm", "fd", "mqueue", "hugepages", ".lxc", ".lxd-mounts", ".udev",
    ]

    /// Nodes that every container has its own of.
    private static let ownNodes: Set = ["/dev/console", "/dev/ptmx", "/dev/tty"]

    /// The most that are handed on; a machine has some hundreds.
    private static let deviceLimit = 4096

    /// All devices below /dev. What goes while it is looked at is left out.
    static func nodeDevices() -> [DeviceSpec] {
        var found: [DeviceSpec] = []
        let root = "/dev"
        var directories = [root]
        while let directory = directories.popLast(), found.count < deviceLimit, directories.count < deviceLimit {
            for name in (try? File.list(directory)) ?? [] {
                let path = "\(directory)/\(name)"
                switch FileKind(path) {
                case .directory: if directory != root || !ownDirectories.contains(name) { directories.append(path) }
                case .device:
                    if !ownNodes.contains(path), let node = try? DeviceNode.discover(path),
                        let spec = DeviceSpec(node, at: path)
                    {
                        found.append(spec)
                    }
                case .other: break
                }
            }
        }
        return found.sorted { $0.path < $1.path }
    }
}

extension DeviceSpec {
    /// A node as the machine has it; nil for a pipe.
    fileprivate init?(_ node: DeviceNode, at path: String) {
        guard node.kind != .fifo, let kind = DeviceSpec.Kind(rawValue: node.kind.rawValue) else { return nil }
        self.init(
            path: path, type: kind, major: node.major, minor: node.minor, fileMode: UInt32(node.mode & 0o777),
            uid: node.uid, gid: node.gid)
    }
}

/// What a path is, links not followed.
private enum FileKind {
    case directory, device, other

    init(_ path: String) {
        var information = stat()
        guard lstat(path, &information) == 0 else {
            self = .other
            return
        }
        switch information.st_mode & S_IFMT {
        case S_IFDIR: self = .directory
        case S_IFCHR, S_IFBLK: self = .device
        default: self = .other
        }
    }
}
