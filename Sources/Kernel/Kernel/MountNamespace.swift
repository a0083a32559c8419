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
        try run(in: namespace) { () throws(KernelError) in SharedFD(try Mounts.clone(path, recursive: false)) }
    }

    /// Runs `body` on a thread inside the namespace, with its root as root and working directory, and waits for it. The
    /// thread has an umask of its own, 022.
    ///
    /// - Parameter namespace: an open `/proc/<pid>/ns/mnt`.
    /// - Throws: what `body` throws, or `KernelError` when the namespace cannot be entered.
    package static func run<Result: Sendable>(
        in namespace: SharedFD, _ body: @escaping @Sendable () throws(KernelError) -> Result
    ) throws(KernelError) -> Result {
        try NetworkNamespace.onThread { () throws(KernelError) in
            // A thread that shares its root and working directory with others cannot enter one.
            try systemCall("unshare(CLONE_FS)") { unshare(0x200 /* CLONE_FS */) }
            umask(0o022)
            try systemCall("setns", "mount namespace") { setns(namespace.raw, Int32(CK_CLONE_NEWNS)) }
            return try body()
        }
    }
}
