import AgentCore
import Kernel
import Model
import OCISpec
import Wire

extension SpecBuilder {
    /// Bytes of /dev/shm when nothing is said.
    private static let sharedMemory: Int64 = 64 << 20

    /// The file systems that every container has, then the pod's files, then what the user asked for.
    func mounts() throws(ExecutorFailure) -> [MountSpec] {
        let isWritable = container.privileged
        var mounts = [
            MountSpec(destination: "/proc", type: "proc", source: "proc", options: ["nosuid", "noexec", "nodev"]),
            MountSpec(
                destination: "/dev", type: "tmpfs", source: "tmpfs",
                options: ["nosuid", "strictatime", "mode=755", "size=65536k"]),
            MountSpec(
                destination: "/dev/pts", type: "devpts", source: "devpts",
                options: ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
            MountSpec(
                destination: "/sys", type: "sysfs", source: "sysfs",
                options: ["nosuid", "noexec", "nodev", isWritable ? "rw" : "ro"]),
            MountSpec(
                destination: "/sys/fs/cgroup", type: "cgroup", source: "cgroup",
                options: ["nosuid", "noexec", "nodev", "relatime", isWritable ? "rw" : "ro"]),
            MountSpec(
                destination: "/dev/mqueue", type: "mqueue", source: "mqueue", options: ["nosuid", "noexec", "nodev"]),
            sharedMemory(),
        ]
        for name in ["hosts", "resolv.conf", "hostname"] {
            // Names are those of whose network it is.
            let files = name == "hostname" ? paths.files : joined.networkFiles ?? paths.files
            mounts.append(
                MountSpec(
                    destination: "/etc/\(name)", type: "bind", source: "\(files)/\(name)",
                    options: ["bind", "rprivate"]))
        }
        if container.initProcess {
            mounts.append(
                MountSpec(
                    destination: Self.initTarget, type: "bind", source: initProgram,
                    options: ["bind", "rprivate", "ro", "nosuid", "nodev"]))
        }
        // A parent before what is mounted inside it, whatever the order in which they were given.
        return mounts + userMounts().sorted { Self.depth($0.destination) < Self.depth($1.destination) }
    }

    /// What belongs to the IPC namespace, beside what the kernel has for it.
    private func sharedMemory() -> MountSpec {
        let source: String?
        switch assignment.pod.namespaces.ipc {
        case .own: source = nil
        case .node: source = "/dev/shm"
        case .container: source = paths.sharedMemory
        }
        if let source {
            return MountSpec(
                destination: "/dev/shm", type: "bind", source: source,
                options: ["bind", "rprivate", "nosuid", "noexec", "nodev"])
        }
        return MountSpec(
            destination: "/dev/shm", type: "tmpfs", source: "shm",
            options: [
                "nosuid", "noexec", "nodev", "mode=1777",
                "size=\(container.limits.sharedMemory ?? Self.sharedMemory)",
            ])
    }

    private static func depth(_ path: String) -> Int { path.pathComponents.count }

    private func userMounts() -> [MountSpec] {
        var mounts = pod.mounts.map { mount in
            MountSpec(
                destination: mount.target, type: "bind",
                source: sources[mount.target].map(JoinedNamespaces.path) ?? mount.source,
                options: mount.options ?? ["rbind", "rprivate", mount.readOnly ? "ro" : "rw"])
        }
        for (index, mount) in container.mounts.enumerated() where mount.isFile {
            mounts.append(
                MountSpec(
                    destination: mount.target, type: "bind", source: paths.secret(index),
                    options: ["bind", "rprivate", "ro", "nosuid", "nodev", "noexec"]))
        }
        for mount in container.mounts {
            guard case .tmpfs(let size, let mode) = mount.source else { continue }
            var options = ["nosuid", "nodev", "noexec", "mode=\(mode ?? "1777")"]
            if let size { options.append("size=\(size)") }
            if mount.readOnly { options.append("ro") }
            for option in mount.options {
                let key = option.prefix { $0 != "=" }
                if key.count < option.count { options.removeAll { $0.hasPrefix("\(key)=") } }
                options.append(option)
            }
            mounts.append(MountSpec(destination: mount.target, type: "tmpfs", source: "tmpfs", options: options))
        }
        return mounts
    }
}
