import CKernel
import CNISpec
import Glibc
import Kernel
import Reactor

/// Tells when the lists of a directory have changed, by inotify(7) and, for file systems and cases that it does not
/// serve, by a look every ten seconds. Ends with this value.
package final class CNIDirectoryWatch: Sendable {
    private let stop: SharedFD

    /// Several changes in a row are one: nothing is looked at before it has been quiet for so long, or the tenfold is over.
    private static let quiet: Int32 = 100
    private static let longest: Int32 = 10_000

    /// - Parameter changed: called on a thread of its own, first with what is there now, then after each change of
    ///   lists or warnings.
    /// - Throws: `KernelError` when inotify, the wake-up descriptor or the thread cannot be made.
    package init(
        _ directory: CNIDirectory, _ changed: @escaping @Sendable (CNILists) -> Void
    ) throws(KernelError) {
        stop = SharedFD(OwnedFD(adopting: try systemCall("eventfd") { eventfd(0, Int32(EFD_CLOEXEC)) }))
        let inotify = SharedFD(
            OwnedFD(adopting: try systemCall("inotify_init1") { inotify_init1(Int32(IN_CLOEXEC | IN_NONBLOCK)) }))
        let stop = stop
        try Thread.start(name: "cni-lists") { Self.work(directory, inotify, stop, changed) }
    }

    deinit { eventfd_write(stop.raw, 1) }

    private static func work(
        _ directory: CNIDirectory, _ inotify: SharedFD, _ stop: SharedFD, _ changed: (CNILists) -> Void
    ) {
        var last: CNILists?
        while true {
            // Before the look, so that nothing happens between. The same place again is no second watch.
            watch(directory.path, inotify)
            let lists = directory.refresh()
            for name in lists.names { watch("\(directory.path)/\(name)", inotify) }
            if lists != last { changed(lists) }
            last = lists
            var events = [
                pollfd(fd: stop.raw, events: Int16(POLLIN), revents: 0),
                pollfd(fd: inotify.raw, events: Int16(POLLIN), revents: 0),
            ]
            poll(&events, 2, longest)
            if events[0].revents != 0 { return }
            for _ in 0..<10 where events[1].revents != 0 {
                drain(inotify)
                poll(&events, 2, quiet)
                if events[0].revents != 0 { return }
            }
        }
    }

    /// One that is not there is looked for again every ten seconds, or when its parent changes.
    private static func watch(_ path: String, _ inotify: SharedFD) {
        let mask = UInt32(
            IN_CLOSE_WRITE | IN_CREATE | IN_MOVED_TO | IN_MOVED_FROM | IN_DELETE | IN_ATTRIB | IN_DELETE_SELF
                | IN_MOVE_SELF | IN_ONLYDIR)
        inotify_add_watch(inotify.raw, path, mask)
    }

    /// What changed is found by looking.
    private static func drain(_ inotify: SharedFD) {
        var buffer = [UInt8](repeating: 0, count: 4096)
        while read(inotify.raw, &buffer, buffer.count) > 0 {}
    }
}
