import AgentCore
import Confinement
import Model
import OCISpec
import Wire

/// Namespaces, and what of the kernel a container sees.
extension SpecBuilder {
    func linux(_ capabilities: CapabilitySet) throws(ExecutorFailure) -> LinuxSpec {
        var linux = LinuxSpec()
        linux.namespaces = namespaces()
        if ownsNetwork {
            // Ports below 1024 and ping need no capability in a network of one's own.
            linux.sysctl["net.ipv4.ip_unprivileged_port_start"] = "0"
            linux.sysctl["net.ipv4.ping_group_range"] = "0 2147483647"
        }
        for (name, value) in container.sysctls { linux.sysctl[name] = value }
        linux.cgroupsPath = cgroup
        linux.maskedPaths = container.maskedPaths ?? (container.privileged ? [] : Self.maskedPaths)
        linux.readonlyPaths = container.readOnlyPaths ?? (container.privileged ? [] : Self.readOnlyPaths)
        linux.seccomp = try seccomp(capabilities)
        linux.rootfsPropagation = rootPropagation
        var resources = try resources()
        try Self.addDevices(of: container, to: &linux, &resources)
        linux.resources = resources
        return linux
    }

    private var ownsNetwork: Bool {
        switch assignment.pod.network {
        case .bridge, .attached, .none: true
        case .host, .container: false
        }
    }

    private func namespaces() -> [NamespaceSpec] {
        let shared = assignment.pod.namespaces
        var namespaces = [NamespaceSpec(.mount)]
        func add(_ kind: NamespaceSpec.Kind, _ source: Namespaces.Source) {
            switch source {
            case .own: namespaces.append(NamespaceSpec(kind))
            case .node: break
            case .container: namespaces.append(NamespaceSpec(kind, path: joined.paths[kind]))
            }
        }
        add(.pid, shared.pid)
        add(.ipc, shared.ipc)
        add(.uts, shared.uts)
        // On cgroup v1 there is none unless it is another's.
        if isUnified || shared.cgroup != .own { add(.cgroup, shared.cgroup) }
        if ownsNetwork { namespaces.append(NamespaceSpec(.network, path: paths.namespace)) }
        if assignment.pod.network == .container { add(.network, shared.network) }
        return namespaces
    }

    /// A bind that passes mounts on to the node, or takes them over from it, needs a root that does.
    private var rootPropagation: String? {
        let wanted = container.mounts.compactMap(\.propagation)
        if wanted.contains(where: { $0.hasSuffix("shared") }) { return "shared" }
        return wanted.contains { $0.hasSuffix("slave") } ? "rslave" : nil
    }

    /// Of the host they tell or steer too much.
    static let maskedPaths = [
        "/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
        "/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats", "/sys/devices/virtual/powercap",
        "/sys/firmware",
    ]
    static let readOnlyPaths = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
}
