import CKernel
import Glibc
import Kernel

/// Starts the detached threads of daemons.
package enum Thread {
    private final class Body: Sendable {
        let run: @Sendable () -> Void
        init(_ run: @escaping @Sendable () -> Void) { self.run = run }
    }

    /// Runs `body` on a new detached thread. The thread blocks all signals: handlers belong to the program's own
    /// threads, and a write to a closed pipe then fails with EPIPE instead of ending the process.
    ///
    /// - Parameter name: at most 15 bytes, see pthread_setname_np(3).
    /// - Throws: `KernelError` (EAGAIN: the limit on threads is reached).
    package static func start(name: String, _ body: @escaping @Sendable () -> Void) throws(KernelError) {
        var attributes = pthread_attr_t()
        pthread_attr_init(&attributes)
        pthread_attr_setdetachstate(&attributes, Int32(PTHREAD_CREATE_DETACHED))
        defer { pthread_attr_destroy(&attributes) }
        var all = sigset_t()
        var before = sigset_t()
        sigfillset(&all)
        pthread_sigmask(SIG_SETMASK, &all, &before)
        defer { pthread_sigmask(SIG_SETMASK, &before, nil) }
        var thread = pthread_t()
        let context = Unmanaged.passRetained(Body(body))
        let number = pthread_create(
            &thread, &attributes,
            { context in
                guard let context else { return nil }
                Unmanaged<Body>.fromOpaque(context).takeRetainedValue().run()
                return nil
            }, context.toOpaque())
        guard number == 0 else {
            context.release()
            throw KernelError("pthread_create", name, errno: number)
        }
        // Not pthread_setname_np from outside: a detached thread may have ended already.
    }
}
