import CKernel
import Glibc
import Kernel

/// `linux.mountLabel`: the SELinux context of filesystems that are mounted for the container.
extension MountPlan {
    /// Filesystems that take no context: what is in /proc and /sys has labels by the policy, and a message queue's root
    /// is labelled by itself.
    private static let unlabelled: Set<String> = ["proc", "sysfs", "mqueue"]

    /// The mount with the context among its options, unless it is a bind mount, a remount, or says one itself.
    func labelled(_ label: String?) -> MountPlan {
        guard let label, !label.isEmpty, !options.remount, case .filesystem(let type, _) = kind,
            !Self.unlabelled.contains(type),
            !options.data.contains(where: { $0.hasPrefix("context=") })
        else { return self }
        var result = self
        result.options.data.append("context=\(label)")
        return result
    }

    /// Options in one string, as mount(2) takes them. A context has commas of its own.
    static func joined(_ data: [String]) -> String {
        data.map { $0.hasPrefix("context=") ? "context=\"\($0.dropFirst("context=".utf8.count))\"" : $0 }
            .joined(separator: ",")
    }
}

extension ContainerPlan {
    /// Adds the context to a filesystem that the runtime mounts on its own account.
    func setLabel(of context: borrowing FilesystemContext) throws {
        if let mountLabel { try context.set("context", mountLabel) }
    }

    /// Labels the root of a mount whose filesystem takes no context.
    func labelRoot(of mount: borrowing OwnedFD) throws {
        guard let mountLabel else { return }
        let raw = mount.raw
        let root = OwnedFD(
            adopting: try systemCall("openat", "mqueue") {
                ck_openat(raw, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0)
            })
        try ExtendedAttribute(name: Array("security.selinux".utf8), value: Array(mountLabel.utf8) + [0]).set(
            on: root.raw)
    }
}
