import CKernel
import Glibc
import Kernel

/// The network namespace of `CNI_NETNS`.
package enum ContainerNamespace {
    /// - Throws: `KernelError` with EINVAL when the path is that of something else: a pin that outlived its namespace is
    ///   an ordinary file.
    package static func open(_ path: String) throws(KernelError) -> OwnedFD {
        let file = try File.open(path, O_RDONLY)
        let descriptor = file.raw
        var info = statfs()
        try systemCall("fstatfs", path) { fstatfs(descriptor, &info) }
        guard Int(info.f_type) == Int(CK_NSFS_MAGIC) else {
            throw KernelError("open", path, errno: EINVAL, hint: "it is no network namespace")
        }
        return file
    }

    /// The thread's own, to come back to.
    package static func own() throws(KernelError) -> SharedFD {
        SharedFD(try File.open("/proc/thread-self/ns/net", O_RDONLY))
    }

    /// The thread is in it afterwards, as with `enter(_:)`.
    package static func enter(_ namespace: SharedFD) throws(KernelError) {
        try systemCall("setns", "network namespace") { setns(namespace.raw, Int32(CK_CLONE_NEWNET)) }
    }

    /// The thread is in it afterwards; sockets that it has stay where they were opened.
    package static func enter(_ path: String) throws(KernelError) {
        let namespace = try open(path)
        try systemCall("setns", path) { setns(namespace.raw, Int32(CK_CLONE_NEWNET)) }
    }

    /// The same for DEL, where a namespace that is gone is no error.
    ///
    /// - Returns: whether it is there.
    package static func enterIfThere(_ path: String) throws(KernelError) -> Bool {
        if path.isEmpty { return false }
        do throws(KernelError) {
            try enter(path)
            return true
        } catch {
            if [ENOENT, ENOTDIR, EINVAL].contains(error.errno) { return false }
            throw error
        }
    }
}
