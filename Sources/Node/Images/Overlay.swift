import CKernel
import Glibc
import Kernel

/// Mounting of overlayfs (Linux: Documentation/filesystems/overlayfs.rst).
enum Overlay {
    /// The directories that containers write to.
    struct Writable {
        var upper: String
        var work: String
    }

    /// Mounts layers over each other on `target`.
    ///
    /// Layers are handed over one by one where the kernel can (Linux 6.8); before, through /proc/self/fd, so that 127 of
    /// them fit into the one page that mount(2) takes, whatever their paths are.
    ///
    /// - Parameters:
    ///   - lowers: the topmost first; at least one, and two without `writable`.
    ///   - writable: nil for a read-only mount.
    /// - Throws: `KernelError`.
    static func mount(lowers: [String], writable: Writable?, on target: String) throws {
        do throws(KernelError) {
            try mountOneByOne(lowers: lowers, writable: writable, on: target)
        } catch {
            guard error.errno == EINVAL || error.errno == ENAMETOOLONG else { throw error }
            try mountThroughDescriptors(lowers: lowers, writable: writable, on: target)
        }
    }

    static func mountOneByOne(lowers: [String], writable: Writable?, on target: String) throws(KernelError) {
        let paths = lowers + (writable.map { [$0.upper, $0.work] } ?? [])
        guard paths.allSatisfy({ $0.utf8.count <= FilesystemContext.maximumValue && !$0.contains("\\") }) else {
            throw KernelError("mount of overlay", target, errno: ENAMETOOLONG)
        }
        let context = try FilesystemContext("overlay")
        try context.set("source", "overlay")
        for lower in lowers { try context.set("lowerdir+", lower) }
        if let writable {
            try context.set("upperdir", writable.upper)
            try context.set("workdir", writable.work)
            try context.set("index", "off")
        }
        // A directory that is renamed is copied, so that the upper layer is whole without the ones below.
        try context.set("redirect_dir", "off")
        try context.set("metacopy", "off")
        let mount = try context.create(writable == nil ? .readOnly : [])
        try Mounts.attach(mount, at: target)
    }

    static func mountThroughDescriptors(lowers: [String], writable: Writable?, on target: String) throws {
        let flags = Int32(CK_O_PATH) | O_DIRECTORY | O_NOFOLLOW
        let open = { (path: String) throws in SharedFD(try File.open(path, flags)) }
        let layers = try lowers.map(open)
        let place = try open(target)
        var options = [
            "lowerdir=" + layers.map { "/proc/self/fd/\($0.raw)" }.joined(separator: ":"), "redirect_dir=off",
            "metacopy=off",
        ]
        var held = layers
        if let writable {
            let (upper, work) = (try open(writable.upper), try open(writable.work))
            held += [upper, work]
            options += ["upperdir=/proc/self/fd/\(upper.raw)", "workdir=/proc/self/fd/\(work.raw)", "index=off"]
        }
        do throws(KernelError) {
            try withExtendedLifetime(held) { () throws(KernelError) in
                try Mounts.mount(
                    type: "overlay", source: "overlay", on: place.raw, flags: writable == nil ? UInt(MS_RDONLY) : 0,
                    data: options.joined(separator: ","), subject: target)
            }
        } catch {
            guard error.errno == EINVAL else { throw error }
            throw KernelError(
                error.operation, target, errno: EINVAL,
                hint: "the data directory must be on a file system that can hold overlay's upper directories, "
                    + "such as ext4, xfs or tmpfs, not on overlayfs itself")
        }
    }

    /// True when an overlay is mounted on this very directory.
    static func isMounted(on target: String) throws -> Bool {
        var info = stat()
        guard lstat(target, &info) == 0 else {
            if errno == ENOENT { return false }
            throw KernelError("lstat", target, errno: errno)
        }
        var above = stat()
        let parent = target + "/.."
        try systemCall("lstat", parent) { lstat(parent, &above) }
        guard info.st_dev != above.st_dev else { return false }
        var system = statfs()
        try systemCall("statfs", target) { statfs(target, &system) }
        return Int(system.f_type) == Int(CK_OVERLAYFS_SUPER_MAGIC)
    }
}
