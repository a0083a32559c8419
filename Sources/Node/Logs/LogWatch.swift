import CKernel
import Glibc
import Kernel

/// Tells when a log may have grown: inotify(7) on its directory, since rotation gives the name to other files, and a
/// wake-up of our own, behind one descriptor (an epoll instance is itself pollable).
struct LogWatch: Sendable {
    private let epoll: SharedFD
    private let inotify: SharedFD
    private let signal: SharedFD

    init(_ path: String) throws(KernelError) {
        let directory = path.lastIndex(of: "/").map { String(path[..<$0]) } ?? "."
        let (epoll, inotify, signal) = (
            SharedFD(OwnedFD(adopting: try systemCall("epoll_create1") { epoll_create1(Int32(EPOLL_CLOEXEC)) })),
            SharedFD(
                OwnedFD(
                    adopting: try systemCall("inotify_init1") {
                        inotify_init1(Int32(IN_NONBLOCK) | Int32(IN_CLOEXEC))
                    })),
            SharedFD(
                OwnedFD(adopting: try systemCall("eventfd") { eventfd(0, Int32(EFD_CLOEXEC) | Int32(EFD_NONBLOCK)) }))
        )
        let events = IN_MODIFY | IN_CREATE | IN_MOVED_TO | IN_MOVED_FROM | IN_DELETE | IN_DELETE_SELF
        try systemCall("inotify_add_watch", directory) {
            inotify_add_watch(inotify.raw, directory, UInt32(events) | UInt32(IN_ONLYDIR))
        }
        for descriptor in [inotify.raw, signal.raw] {
            var event = epoll_event(events: UInt32(EPOLLIN.rawValue), data: epoll_data_t(fd: descriptor))
            try systemCall("epoll_ctl") { epoll_ctl(epoll.raw, EPOLL_CTL_ADD, descriptor, &event) }
        }
        self.epoll = epoll
        self.inotify = inotify
        self.signal = signal
    }

    var descriptor: Int32 { epoll.raw }

    func wake() { eventfd_write(signal.raw, 1) }

    /// Takes the events; what they say is found by looking at the files.
    func drain() {
        var buffer = [UInt8](repeating: 0, count: 4096)
        while read(inotify.raw, &buffer, buffer.count) > 0 {}
        var count: UInt64 = 0
        eventfd_read(signal.raw, &count)
    }

    func wait(milliseconds: Int32) throws(KernelError) {
        var wait = pollfd(fd: epoll.raw, events: Int16(POLLIN), revents: 0)
        try systemCall("poll", "a log") { poll(&wait, 1, milliseconds) }
    }
}
