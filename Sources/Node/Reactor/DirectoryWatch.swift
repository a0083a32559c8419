import CKernel
import Glibc
import Kernel

/// Has directories looked at when something in them may have changed, by inotify(7) and, for file systems and cases
/// that it does not serve, every ten seconds. Ends with this value.
package final class DirectoryWatch: Sendable {
    private let stop: SharedFD

    /// Several changes in a row are one: nothing is looked at before it has been quiet for so long, or the tenfold is over.
    private static let quiet: Int32 = 100
    private static let longest: Int32 = 10_000

    /// - Parameters:
    ///   - directories: absolute paths; they need not be there.
    ///   - thread: the name of the thread, see `Thread.start`.
    ///   - look: called on that thread, first at once, then after changes. What it returns are more directories to
    ///     watch, those that it found for instance.
    /// - Throws: `KernelError` when inotify, the wake-up descriptor or the thread cannot be made.
    package init(
        _ directories: [String], thread: String, _ look: @escaping @Sendable () -> [String]
    ) throws(KernelError) {
        stop = SharedFD(OwnedFD(adopting: try systemCall("eventfd") { eventfd(0, Int32(EFD_CLOEXEC)) }))
        let inotify = SharedFD(
            OwnedFD(adopting: try systemCall("inotify_init1") { inotify_init1(Int32(IN_CLOEXEC | IN_NONBLOCK)) }))
        let stop = stop
        try Thread.start(name: thread) { Self.work(directories, inotify, stop, look) }
    }

    deinit { eventfd_write(stop.raw, 1) }

    private static func work(_ directories: [String], _ inotify: SharedFD, _ stop: SharedFD, _ look: () -> [String]) {
        while true {
            // Before the look, so that nothing happens between. The same place again is no second watch.
            for directory in directories { watch(directory, inotify) }
            for directory in look() { watch(directory, inotify) }
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

    /// One that is not there is looked for again every ten seconds, or when another that is watched changes.
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
