import Glibc

/// An exclusive lock on a file (flock(2)), held as long as this value lives: keeps a second process away from what the
/// file stands for. The kernel lets it go when the process dies.
///
/// It is let go by a call and not only by closing: a child that another thread has just forked holds the same open file
/// until it executes its program, and would keep the lock that long.
package final class FileLock: Sendable {
    private let file: SharedFD

    /// Takes the lock, making the file when it is not there; nil when somebody else has it.
    ///
    /// - Throws: `KernelError` of open(2) and flock(2); ELOOP when the path is a symbolic link.
    package init?(_ path: String) throws(KernelError) {
        file = SharedFD(try File.open(path, O_RDWR | O_CREAT | O_NOFOLLOW))
        guard flock(file.raw, LOCK_EX | LOCK_NB) == 0 else {
            guard errno == EWOULDBLOCK else { throw KernelError("flock", path, errno: errno) }
            return nil
        }
    }

    deinit { flock(file.raw, LOCK_UN) }
}
