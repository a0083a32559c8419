import CKernel
import Glibc
import Kernel

/// One thread's loop over descriptors and timers, see epoll(7). Level-triggered.
///
/// A handler stays registered, and holds what it captures, until `forget` is called; that must happen before the
/// descriptor is closed.
final class EventLoop {
    private struct Entry {
        var events: UInt32
        /// Tells a descriptor from an earlier one of the same number, within one batch of events.
        let generation: UInt32
        let handler: (UInt32) -> Void
    }

    private struct Timer {
        let id: Int
        let deadline: Int64
        let body: () -> Void
    }

    static let readable = UInt32(EPOLLIN.rawValue)
    static let writable = UInt32(EPOLLOUT.rawValue)
    static let hangUp = UInt32(EPOLLHUP.rawValue)
    /// Always reported; asked for alone, only the end of a connection wakes the handler.
    static let failed = UInt32(EPOLLERR.rawValue)

    private let epoll: OwnedFD
    private var entries: [Int32: Entry] = [:]
    private var timers: [Timer] = []
    private var generation: UInt32 = 0
    private var nextTimer = 0
    private var isStopped = false

    init() throws(KernelError) {
        epoll = OwnedFD(adopting: try systemCall("epoll_create1") { epoll_create1(Int32(EPOLL_CLOEXEC)) })
    }

    /// Registers a handler; with no events it is not called until `setEvents`.
    func watch(_ fd: Int32, _ events: UInt32, _ handler: @escaping (UInt32) -> Void) throws(KernelError) {
        generation &+= 1
        entries[fd] = Entry(events: 0, generation: generation, handler: handler)
        do {
            try setEvents(fd, events)
        } catch {
            entries[fd] = nil
            throw error
        }
    }

    /// Changes what a registered descriptor waits for. With no events it leaves the epoll set: otherwise a hang-up that
    /// nobody reacts to would be reported for ever.
    func setEvents(_ fd: Int32, _ events: UInt32) throws(KernelError) {
        guard let entry = entries[fd], entry.events != events else { return }
        let operation = entry.events == 0 ? EPOLL_CTL_ADD : events == 0 ? EPOLL_CTL_DEL : EPOLL_CTL_MOD
        var event = epoll_event()
        event.events = events
        event.data.u64 = UInt64(entry.generation) << 32 | UInt64(UInt32(bitPattern: fd))
        let raw = epoll.raw
        try systemCall("epoll_ctl") { epoll_ctl(raw, operation, fd, &event) }
        entries[fd]?.events = events
    }

    /// Takes a descriptor out; no handler of it is called afterwards.
    func forget(_ fd: Int32) {
        // Leaving the set can only fail for a descriptor that is not in it.
        try? setEvents(fd, 0)
        entries[fd] = nil
    }

    /// Calls `body` once after so many milliseconds; cancel with the number returned.
    @discardableResult
    func after(milliseconds: Int64, _ body: @escaping () -> Void) -> Int {
        nextTimer += 1
        timers.append(Timer(id: nextTimer, deadline: Self.now() + milliseconds, body: body))
        return nextTimer
    }

    func cancel(_ timer: Int?) {
        guard let timer else { return }
        timers.removeAll { $0.id == timer }
    }

    /// Ends `run` after the present round.
    func stop() { isStopped = true }

    /// Serves until `stop`.
    func run() throws(KernelError) {
        var events = [epoll_event](repeating: epoll_event(), count: 64)
        let raw = epoll.raw
        while !isStopped {
            let timeout = self.timeout()
            let count = try systemCall("epoll_wait") { epoll_wait(raw, &events, Int32(events.count), timeout) }
            for event in events[..<Int(count)] {
                let fd = Int32(truncatingIfNeeded: event.data.u64)
                let generation = UInt32(truncatingIfNeeded: event.data.u64 >> 32)
                guard let entry = entries[fd], entry.generation == generation, entry.events != 0 else { continue }
                entry.handler(event.events)
            }
            fireTimers()
        }
    }

    /// Milliseconds until the next timer, -1 without one.
    private func timeout() -> Int32 {
        guard let next = timers.min(by: { $0.deadline < $1.deadline }) else { return -1 }
        return Int32(clamping: max(0, next.deadline - Self.now()))
    }

    private func fireTimers() {
        let now = Self.now()
        let due = timers.filter { $0.deadline <= now }.sorted { $0.deadline < $1.deadline }
        for timer in due {
            // One that fired before may have cancelled this one.
            guard let index = timers.firstIndex(where: { $0.id == timer.id }) else { continue }
            timers.remove(at: index)
            timer.body()
        }
    }

    /// Milliseconds of a clock that only runs forward.
    static func now() -> Int64 {
        var time = timespec()
        clock_gettime(CLOCK_MONOTONIC, &time)
        return Int64(time.tv_sec) * 1000 + Int64(time.tv_nsec) / 1_000_000
    }
}
