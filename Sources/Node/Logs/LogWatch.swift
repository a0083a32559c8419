import CKernel
import Glibc
import Kernel
import Reactor
import Synchronization

/// Tells when a log may have grown: its directory is watched, since rotation gives the name to other files.
///
/// One follower costs one eventfd(2): the kernel lets a user have few instances of inotify(7), so they share one.
final class LogWatch: Sendable {
    private let signal: SharedFD
    private let hub: WatchedDirectories
    private let ticket: WatchedDirectories.Ticket

    init(_ path: String) throws(KernelError) {
        let directory = path.lastSlash.map { String(path[..<$0]) } ?? "."
        signal = SharedFD(
            OwnedFD(adopting: try systemCall("eventfd") { eventfd(0, Int32(EFD_CLOEXEC) | Int32(EFD_NONBLOCK)) }))
        hub = try WatchedDirectories.shared()
        ticket = try hub.watch(directory.isEmpty ? "/" : directory, signal)
    }

    deinit { hub.leave(ticket) }

    var descriptor: Int32 { signal.raw }

    func wake() { eventfd_write(signal.raw, 1) }

    /// Takes the signal; what it says is found by looking at the files.
    func drain() {
        var count: UInt64 = 0
        eventfd_read(signal.raw, &count)
    }

    func wait(milliseconds: Int32) throws(KernelError) {
        var wait = pollfd(fd: signal.raw, events: Int16(POLLIN), revents: 0)
        try systemCall("poll", "a log") { poll(&wait, 1, milliseconds) }
    }
}

/// The directories of all logs that this process follows, behind one inotify(7) instance and one thread.
private final class WatchedDirectories: Sendable {
    /// A follower's place.
    struct Ticket: Sendable {
        fileprivate let directory: Int32
        fileprivate let number: Int
    }

    private struct State: Sendable {
        var next = 0
        /// By inotify's number of the directory.
        var followers: [Int32: [Int: SharedFD]] = [:]
    }

    private static let made = Mutex<WatchedDirectories?>(nil)
    private static let mask = UInt32(
        IN_MODIFY | IN_CREATE | IN_MOVED_TO | IN_MOVED_FROM | IN_DELETE | IN_DELETE_SELF | IN_ONLYDIR)

    private let inotify: SharedFD
    private let state = Mutex(State())

    /// The one of this process, made at the first call.
    static func shared() throws(KernelError) -> WatchedDirectories {
        try made.withLock { made throws(KernelError) in
            if let made { return made }
            let new = try WatchedDirectories()
            try Thread.start(name: "logs") { new.read() }
            made = new
            return new
        }
    }

    private init() throws(KernelError) {
        inotify = SharedFD(
            OwnedFD(adopting: try systemCall("inotify_init1") { inotify_init1(Int32(IN_CLOEXEC)) }))
    }

    func watch(_ directory: String, _ signal: SharedFD) throws(KernelError) -> Ticket {
        try state.withLock { state throws(KernelError) in
            // The same number as before for a directory that is watched already.
            let number = try systemCall("inotify_add_watch", directory) {
                inotify_add_watch(inotify.raw, directory, Self.mask)
            }
            state.next += 1
            state.followers[number, default: [:]][state.next] = signal
            return Ticket(directory: number, number: state.next)
        }
    }

    func leave(_ ticket: Ticket) {
        state.withLock { state in
            state.followers[ticket.directory]?[ticket.number] = nil
            guard state.followers[ticket.directory]?.isEmpty == true else { return }
            state.followers[ticket.directory] = nil
            inotify_rm_watch(inotify.raw, ticket.directory)
        }
    }

    /// Passes events on, for as long as the process lives.
    private func read() {
        // Aligned as inotify_event is.
        var buffer = [UInt64](repeating: 0, count: 2048)
        while true {
            let count = Glibc.read(inotify.raw, &buffer, buffer.count * 8)
            guard count > 0 else {
                if errno == EINTR { continue }
                return
            }
            var changed: Set<Int32> = []
            var gone: Set<Int32> = []
            buffer.withUnsafeBytes { bytes in
                var offset = 0
                while offset + MemoryLayout<inotify_event>.size <= count {
                    // SAFETY: the kernel writes whole events, one behind the other, and pads names for alignment.
                    let event = bytes.loadUnaligned(fromByteOffset: offset, as: inotify_event.self)
                    changed.insert(event.wd)
                    if event.mask & UInt32(IN_IGNORED) != 0 { gone.insert(event.wd) }
                    offset += MemoryLayout<inotify_event>.size + Int(event.len)
                }
            }
            tell(changed, gone)
        }
    }

    private func tell(_ changed: Set<Int32>, _ gone: Set<Int32>) {
        state.withLock { state in
            // -1: events were lost.
            let directories = changed.contains(-1) ? Set(state.followers.keys) : changed
            for directory in directories {
                for signal in state.followers[directory, default: [:]].values { eventfd_write(signal.raw, 1) }
            }
            for directory in gone { state.followers[directory] = nil }
        }
    }
}
