import Kernel
import Reactor
import Synchronization

/// Tells when the lists of a directory have changed, see `DirectoryWatch`. Ends with this value.
package final class CNIDirectoryWatch: Sendable {
    private let watch: DirectoryWatch

    /// - Parameter changed: called on a thread of its own, first with what is there now, then after each change of
    ///   lists or warnings.
    /// - Throws: `KernelError` when inotify, the wake-up descriptor or the thread cannot be made.
    package init(
        _ directory: CNIDirectory, _ changed: @escaping @Sendable (CNILists) -> Void
    ) throws(KernelError) {
        // Of one thread alone: the lock is never waited for.
        let last = Mutex<CNILists?>(nil)
        watch = try DirectoryWatch([directory.path], thread: "cni-lists") {
            let lists = directory.refresh()
            if last.withLock({ $0 != lists }) { changed(lists) }
            last.withLock { $0 = lists }
            return lists.names.map { "\(directory.path)/\($0)" }
        }
    }
}
