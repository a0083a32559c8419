import CKernel
import Glibc
import Kernel
import Synchronization

/// Why a wait ended without what it waited for.
package enum ReactorError: Error, Sendable, Equatable, CustomStringConvertible {
    /// `shutdown()` was called.
    case closed

    package var description: String { "the reactor is shut down" }
}

/// One thread with one epoll(7): asynchronous functions wait for descriptors without blocking the cooperative pool.
///
/// Every wait is one shot and owns a duplicate of the descriptor until it ends. So several tasks may wait for the same
/// descriptor, and the caller may close its own meanwhile: the wait then ends by event, cancellation or shutdown, and
/// never by another file that got the same number.
package final class Reactor: Sendable {
    private let core: Core

    /// Starts the thread.
    ///
    /// - Throws: `KernelError` when epoll, the wake-up descriptor or the thread cannot be made.
    package init() throws(KernelError) {
        let core = try Core()
        self.core = core
        try Thread.start(name: "reactor") { core.loop() }
    }

    deinit { core.close() }

    /// Ends every wait with `ReactorError.closed` and stops the thread. Further waits fail at once.
    package func shutdown() { core.close() }

    /// How many waits are open now; for tests and metrics.
    package var waits: Int { core.count }

    /// Returns when `fd` can be read without blocking, is at end of file or has failed.
    ///
    /// A descriptor that epoll does not serve (a regular file) is always ready.
    ///
    /// - Throws: `CancellationError`, `ReactorError.closed`, `KernelError`.
    package func waitReadable(_ fd: Int32) async throws {
        try await core.wait(fd, events: UInt32(EPOLLIN.rawValue))
    }

    /// Returns when `fd` can be written without blocking or has failed; otherwise as `waitReadable`.
    package func waitWritable(_ fd: Int32) async throws {
        try await core.wait(fd, events: UInt32(EPOLLOUT.rawValue))
    }

    /// Waits for the end of a child of this process and reaps it.
    ///
    /// - Parameter pidfd: of a child; see pidfd_open(2). It stays the caller's.
    /// - Throws: as `waitReadable`; `KernelError` with ECHILD when someone else reaped it. After cancellation the child
    ///   is not reaped.
    package func waitExit(_ pidfd: Int32) async throws -> ExitStatus {
        while true {
            try await waitReadable(pidfd)
            var code: Int32 = 0
            var status: Int32 = 0
            try systemCall("waitid", "pidfd \(pidfd)") { ck_waitid_pidfd(pidfd, WEXITED | WNOHANG, &code, &status) }
            if code != 0 { return ExitStatus(code: code, status: status) }
        }
    }

    /// Waits for the end of a process that need not be our child; nothing is reaped.
    package func waitEnd(_ pidfd: Int32) async throws { try await waitReadable(pidfd) }
}

// What the thread and the waiters share. The reactor itself is not among it, so that its end stops the thread.
private final class Core: Sendable {
    private struct Wait {
        let descriptor: SharedFD
        let continuation: CheckedContinuation<Void, any Error>
    }

    private struct State {
        var closed = false
        var next: UInt64 = 1
        var waits: [UInt64: Wait] = [:]
    }

    private let epoll: SharedFD
    private let wake: SharedFD
    private let state = Mutex(State())

    /// Identifies the wake-up descriptor among the events; waits start at 1.
    private static let wakeID: UInt64 = 0

    init() throws(KernelError) {
        epoll = SharedFD(
            OwnedFD(adopting: try systemCall("epoll_create1") { epoll_create1(Int32(EPOLL_CLOEXEC)) }))
        wake = SharedFD(
            OwnedFD(
                adopting: try systemCall("eventfd") {
                    eventfd(0, Int32(EFD_CLOEXEC) | Int32(EFD_NONBLOCK))
                }))
        var event = epoll_event(events: UInt32(EPOLLIN.rawValue), data: epoll_data_t(u64: Core.wakeID))
        let (epoll, wake) = (epoll.raw, wake.raw)
        try systemCall("epoll_ctl") { epoll_ctl(epoll, EPOLL_CTL_ADD, wake, &event) }
    }

    var count: Int { state.withLock { $0.waits.count } }

    func close() {
        let waits = state.withLock { state in
            state.closed = true
            defer { state.waits = [:] }
            return Array(state.waits.values)
        }
        for wait in waits { finish(wait, .failure(ReactorError.closed)) }
        eventfd_write(wake.raw, 1)
    }

    func wait(_ fd: Int32, events: UInt32) async throws {
        let id = state.withLock { state in
            defer { state.next += 1 }
            return state.next
        }
        try await withTaskCancellationHandler {
            try await withCheckedThrowingContinuation { (continuation: CheckedContinuation<Void, any Error>) in
                register(id, fd, events, continuation)
                // Cancelled before it was registered: the handler found nothing then, so look again here.
                if Task.isCancelled { cancel(id) }
            }
        } onCancel: {
            cancel(id)
        }
    }

    private func register(
        _ id: UInt64, _ fd: Int32, _ events: UInt32, _ continuation: CheckedContinuation<Void, any Error>
    ) {
        let failure: (any Error)?
        let ready: Bool
        do {
            let copy = SharedFD(
                OwnedFD(adopting: try systemCall("fcntl(F_DUPFD_CLOEXEC)") { ck_fcntl(fd, F_DUPFD_CLOEXEC, 3) }))
            (failure, ready) = state.withLock { state -> ((any Error)?, Bool) in
                guard !state.closed else { return (ReactorError.closed, false) }
                // Under the lock: the thread cannot look for the id before it is in the table.
                var event = epoll_event(
                    events: events | UInt32(EPOLLONESHOT.rawValue), data: epoll_data_t(u64: id))
                if epoll_ctl(epoll.raw, EPOLL_CTL_ADD, copy.raw, &event) != 0 {
                    if errno == EPERM { return (nil, true) }
                    return (KernelError("epoll_ctl", "descriptor \(fd)", errno: errno), false)
                }
                state.waits[id] = Wait(descriptor: copy, continuation: continuation)
                return (nil, false)
            }
        } catch {
            return continuation.resume(throwing: error)
        }
        if let failure {
            continuation.resume(throwing: failure)
        } else if ready {
            continuation.resume()
        }
    }

    private func cancel(_ id: UInt64) {
        guard let wait = state.withLock({ $0.waits.removeValue(forKey: id) }) else { return }
        finish(wait, .failure(CancellationError()))
    }

    private func finish(_ wait: Wait, _ result: Result<Void, any Error>) {
        // Explicitly, because the entry belongs to the open file: closing our duplicate alone would leave it behind.
        epoll_ctl(epoll.raw, EPOLL_CTL_DEL, wait.descriptor.raw, nil)
        wait.continuation.resume(with: result)
    }

    func loop() {
        var events = [epoll_event](repeating: epoll_event(), count: 64)
        while true {
            let count = epoll_wait(epoll.raw, &events, Int32(events.count), -1)
            guard count >= 0 else { continue }  // EINTR is the only error that a valid call can meet
            for event in events[..<Int(count)] {
                let id = event.data.u64
                if id == Core.wakeID {
                    if state.withLock({ $0.closed }) { return }
                    continue
                }
                guard let wait = state.withLock({ $0.waits.removeValue(forKey: id) }) else { continue }
                finish(wait, .success(()))
            }
        }
    }
}
