import Glibc
import JSON
import Kernel
import OCISpec

extension Verb {
    static let spec = Verb(
        name: "spec", usage: "[command options]", summary: "write a configuration to start from",
        flags: {
            [
                Flag("bundle", "b", value: "DIR", help: "where to (default: the current directory)"),
                Flag(
                    "rootless", help: "for a user namespace in which the caller is root, without a network of its own"),
            ]
        }
    ) { call in
        try call.arguments.require("spec", atLeast: 0, atMost: 0)
        let path = "\(call.arguments.value("bundle") ?? ".")/config.json"
        let file: OwnedFD
        do throws(KernelError) {
            file = try File.open(path, O_WRONLY | O_CREAT | O_EXCL, mode: 0o666)
        } catch {
            guard error.errno == EEXIST else { throw error }
            throw RuntimeError("File \(path) exists. Remove it first")
        }
        let spec = call.arguments.has("rootless") ? StarterSpec.rootless : StarterSpec.spec
        try file.writeAll(spec.encoded(pretty: true) + [10], subject: path)
        return 0
    }
}

/// The configuration that `spec` writes: a shell with few rights.
enum StarterSpec {
    static var spec: ContainerSpec {
        var spec = ContainerSpec(ociVersion: Validation.highestVersion)
        spec.process = process
        spec.root = RootSpec(path: "rootfs", readonly: true)
        spec.hostname = "martlet"
        spec.mounts = mounts
        var linux = LinuxSpec()
        linux.namespaces = [.pid, .network, .ipc, .uts, .mount, .cgroup].map { NamespaceSpec($0) }
        var resources = ResourcesSpec()
        resources.devices = [DeviceRuleSpec(allow: false, access: "rwm")]
        linux.resources = resources
        linux.maskedPaths = [
            "/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
            "/proc/timer_stats", "/proc/sched_debug", "/sys/firmware", "/proc/scsi",
        ]
        linux.readonlyPaths = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
        spec.linux = linux
        return spec
    }

    /// The same for a user namespace of the caller's: what needs more rights is left out.
    static var rootless: ContainerSpec {
        var spec = Self.spec
        spec.linux?.namespaces.removeAll { $0.type == .network }
        spec.linux?.namespaces.append(NamespaceSpec(.user))
        spec.linux?.uidMappings = [IDMapping(containerID: 0, hostID: geteuid(), size: 1)]
        spec.linux?.gidMappings = [IDMapping(containerID: 0, hostID: getegid(), size: 1)]
        spec.linux?.resources = nil
        for index in spec.mounts.indices {
            // Only one group is mapped; and sysfs belongs to the network namespace, which is the host's.
            spec.mounts[index].options.removeAll { $0.hasPrefix("gid=") || $0.hasPrefix("uid=") }
            if spec.mounts[index].destination == "/sys" {
                spec.mounts[index] = MountSpec(
                    destination: "/sys", type: "none", source: "/sys",
                    options: ["rbind", "nosuid", "noexec", "nodev", "ro"])
            }
        }
        return spec
    }

    private static var process: ProcessSpec {
        var process = ProcessSpec(args: ["sh"])
        process.terminal = true
        process.env = ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"]
        let capabilities = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]
        process.capabilities = CapabilitiesSpec(
            bounding: capabilities, effective: capabilities, permitted: capabilities)
        process.rlimits = [RlimitSpec(type: "RLIMIT_NOFILE", hard: 1024, soft: 1024)]
        process.noNewPrivileges = true
        return process
    }

    private static var mounts: [MountSpec] {
        let safe = ["nosuid", "noexec", "nodev"]
        return [
            MountSpec(destination: "/proc", type: "proc", source: "proc"),
            MountSpec(
                destination: "/dev", type: "tmpfs", source: "tmpfs",
                options: ["nosuid", "strictatime", "mode=755", "size=65536k"]),
            MountSpec(
                destination: "/dev/pts", type: "devpts", source: "devpts",
                options: ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
            MountSpec(
                destination: "/dev/shm", type: "tmpfs", source: "shm", options: safe + ["mode=1777", "size=65536k"]),
            MountSpec(destination: "/dev/mqueue", type: "mqueue", source: "mqueue", options: safe),
            MountSpec(destination: "/sys", type: "sysfs", source: "sysfs", options: safe + ["ro"]),
            MountSpec(
                destination: "/sys/fs/cgroup", type: "cgroup", source: "cgroup", options: safe + ["relatime", "ro"]),
        ]
    }
}
