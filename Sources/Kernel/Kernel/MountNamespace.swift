import CKernel
import Glibc

/// Mount namespaces of other processes, entered by a short-lived thread of its own.
package enum MountNamespace {
    /// A detached copy of a mount that another mount namespace has, without what is mounted below it.
    ///
    /// - Parameters:
    ///   - path: absolute, looked up from the other namespace's root; a symbolic link there leads nowhere else.
    ///   - namespace: an open `/proc/<pid>/ns/mnt`.
    /// - Throws: `KernelError`; EINVAL when nothing is mounted at `path`.
    package static func clone(_ path: String, in namespace: SharedFD) throws(KernelError) -> SharedFD {
        try NetworkNamespace.onThread { () throws(KernelError) in
            // A thread that shares its root and working directory with others cannot enter one.
            try systemCall("unshare(CLONE_FS)") { unshare(0x200 /* CLONE_FS */) }
            try systemCall("setns", "mount namespace") { setns(namespace.raw, Int32(CK_CLONE_NEWNS)) }
            return SharedFD(try Mounts.clone(path, recursive: false))
        }
    }
}
