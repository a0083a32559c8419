import CKernel
import Glibc
import Kernel

extension RootFilesystem {
    /// Makes the container's root this process's without pivot_root(2), which refuses the first ramfs of a machine
    /// (`--no-pivot`): the root is moved on top of the host's.
    ///
    /// The host's files stay mounted below, where a process with CAP_SYS_CHROOT might find them; its procfs and sysfs,
    /// through which the host could be changed, are taken away first.
    func moveToRoot() throws {
        let rootfs = plan.rootfs
        func isOurs(_ place: String) -> Bool { place == rootfs || place.isPath(inside: rootfs) }
        // A root that is shared may have left the host's mounts peers of these: what is unmounted here must stay there.
        for entry in try MountInfo.read() where !isOurs(entry.mountPoint) {
            do throws(KernelError) {
                try Mounts.setPropagation(.slave, at: entry.mountPoint, recursive: false)
            } catch {
                // Hidden below another mount.
                guard error.errno == ENOENT || error.errno == EINVAL else { throw error }
            }
        }
        for entry in try MountInfo.read().reversed() where ["proc", "sysfs"].contains(entry.type) {
            if isOurs(entry.mountPoint) { continue }
            try hide(entry.mountPoint)
        }
        // What goes on top of it must not appear on the host's.
        try Mounts.setPropagation(.private, at: "/", recursive: false)
        try systemCall("fchdir", plan.rootfs) { fchdir(root.directory.raw) }
        try systemCall("mount(MS_MOVE)", plan.rootfs) { mount(".", "/", nil, UInt(MS_MOVE), nil) }
        try systemCall("chroot", plan.rootfs) { chroot(".") }
        try systemCall("chdir", "/") { chdir("/") }
    }

    /// Unmounts; where that is refused because another user namespace mounted it, something empty goes on top.
    private func hide(_ path: String) throws(KernelError) {
        if umount2(path, Int32(MNT_DETACH)) == 0 || errno == ENOENT { return }
        guard errno == EINVAL || errno == EPERM else { throw KernelError("umount2", path, errno: errno) }
        try systemCall("mount(tmpfs)", path) {
            mount("tmpfs", path, "tmpfs", UInt(MS_RDONLY), "size=0k,nr_inodes=2")
        }
    }
}
