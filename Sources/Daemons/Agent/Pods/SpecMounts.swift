import AgentCore
import Model
import OCISpec

extension SpecBuilder {
    /// Bytes of /dev/shm when nothing is said.
    private static let sharedMemory: Int64 = 64 << 20

    /// The file systems that every container has, then the pod's files, then what the user asked for.
    func mounts() throws(ExecutorFailure) -> [MountSpec] {
        let shared = container.limits.sharedMemory ?? Self.sharedMemory
        var mounts = [
            MountSpec(destination: "/proc", type: "proc", source: "proc", options: ["nosuid", "noexec", "nodev"]),
            MountSpec(
                destination: "/dev", type: "tmpfs", source: "tmpfs",
                options: ["nosuid", "strictatime", "mode=755", "size=65536k"]),
            MountSpec(
                destination: "/dev/pts", type: "devpts", source: "devpts",
                options: ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
            MountSpec(
                destination: "/sys", type: "sysfs", source: "sysfs", options: ["nosuid", "noexec", "nodev", "ro"]),
            MountSpec(
                destination: "/sys/fs/cgroup", type: "cgroup", source: "cgroup",
                options: ["nosuid", "noexec", "nodev", "relatime", "ro"]),
            MountSpec(
                destination: "/dev/mqueue", type: "mqueue", source: "mqueue", options: ["nosuid", "noexec", "nodev"]),
            MountSpec(
                destination: "/dev/shm", type: "tmpfs", source: "shm",
                options: ["nosuid", "noexec", "nodev", "mode=1777", "size=\(shared)"]),
        ]
        for name in ["hosts", "resolv.conf", "hostname"] {
            mounts.append(
                MountSpec(
                    destination: "/etc/\(name)", type: "bind", source: "\(paths.files)/\(name)",
                    options: ["bind", "rprivate"]))
        }
        // A parent before what is mounted inside it, whatever the order in which they were given.
        return mounts + userMounts().sorted { Self.depth($0.destination) < Self.depth($1.destination) }
    }

    private static func depth(_ path: String) -> Int { path.split(separator: "/").count }

    private func userMounts() -> [MountSpec] {
        var mounts = pod.mounts.map { mount in
            MountSpec(
                destination: mount.target, type: "bind", source: mount.source,
                options: ["rbind", "rprivate", mount.readOnly ? "ro" : "rw"])
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
            mounts.append(MountSpec(destination: mount.target, type: "tmpfs", source: "tmpfs", options: options))
        }
        return mounts
    }
}
