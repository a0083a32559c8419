import CKernel
import Glibc

/// Network namespaces from a threaded program: a namespace belongs to a thread, so what happens inside one runs on a
/// short-lived pthread of its own, never on a caller's thread.
package enum NetworkNamespace {
    /// Makes a network namespace with `lo` up and pins it at `path` (an empty file is made there; a bind mount holds
    /// the namespace). What already exists at `path` is an error (EEXIST).
    package static func create(at path: String) throws(KernelError) {
        do {
            _ = try File.open(path, O_RDONLY | O_CREAT | O_EXCL | O_NOFOLLOW, mode: 0o600)
        }
        do throws(KernelError) {
            try onThread { () throws(KernelError) in
                try systemCall("unshare", "network namespace") { unshare(Int32(CK_CLONE_NEWNET)) }
                try systemCall("ioctl(SIOCSIFFLAGS)", "lo") { ck_interface_up("lo") }
                try systemCall("mount(bind)", path) {
                    mount("/proc/thread-self/ns/net", path, nil, UInt(MS_BIND), nil)
                }
            }
        } catch {
            unlink(path)
            throw error
        }
    }

    /// Lets go of the namespace pinned at `path` and removes the file; one that is not there is no error.
    package static func remove(at path: String) throws(KernelError) {
        // MNT_DETACH | UMOUNT_NOFOLLOW. EINVAL: the file is there, nothing is mounted on it.
        if umount2(path, 2 | 8) != 0 && errno != EINVAL && errno != ENOENT {
            throw KernelError("umount", path, errno: errno)
        }
        try File.removeFile(path)
    }

    /// Runs `body` on a thread inside the namespace at `path` (a pinned file or /proc/<pid>/ns/net) and waits for it.
    /// Sockets it makes stay in that namespace wherever they are used.
    package static func run<Result: Sendable>(
        in path: String, _ body: @escaping @Sendable () throws(KernelError) -> Result
    ) throws(KernelError) -> Result {
        let namespace = SharedFD(try File.open(path, O_RDONLY))
        return try onThread { () throws(KernelError) in
            try systemCall("setns", path) { setns(namespace.raw, Int32(CK_CLONE_NEWNET)) }
            return try body()
        }
    }

    /// Runs `body` on a fresh pthread and waits for its end.
    static func onThread<Result: Sendable>(
        _ body: @escaping @Sendable () throws(KernelError) -> Result
    ) throws(KernelError) -> Result {
        let work = ThreadWork(body)
        var thread = pthread_t()
        let argument = Unmanaged.passRetained(work as ThreadWorkBase).toOpaque()
        let number = pthread_create(
            &thread, nil,
            { argument in
                // SAFETY: the pointer was made by passRetained just before; pthread_create passes it on unchanged.
                guard let argument else { return nil }
                Unmanaged<ThreadWorkBase>.fromOpaque(argument).takeRetainedValue().perform()
                return nil
            }, argument)
        guard number == 0 else {
            Unmanaged<ThreadWorkBase>.fromOpaque(argument).release()
            throw KernelError("pthread_create", errno: number)
        }
        pthread_join(thread, nil)
        guard let outcome = work.outcome else { throw KernelError("pthread_join", errno: ESRCH) }
        return try outcome.get()
    }
}

/// A closure and its outcome, handed to one thread. The fields need no lock: the maker looks at them only after
/// pthread_join, which orders the memory accesses of both threads.
private class ThreadWorkBase {
    func perform() {}
}

private final class ThreadWork<Value: Sendable>: ThreadWorkBase {
    private let body: @Sendable () throws(KernelError) -> Value
    var outcome: Result<Value, KernelError>?

    init(_ body: @escaping @Sendable () throws(KernelError) -> Value) { self.body = body }

    override func perform() {
        do throws(KernelError) {
            outcome = .success(try body())
        } catch {
            outcome = .failure(error)
        }
    }
}
