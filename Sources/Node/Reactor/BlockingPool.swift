import CKernel
import Glibc
import Kernel
import Synchronization

/// Why a blocking pool did not run a body.
package enum BlockingPoolError: Error, Sendable, Equatable, CustomStringConvertible {
    /// All threads are busy and as many bodies as the queue holds are waiting; try again later.
    case full(queue: Int)
    /// `shutdown()` was called.
    case closed

    package var description: String {
        switch self {
        case .full(let queue): "all blocking threads are busy and \(queue) calls are waiting; try again later"
        case .closed: "the blocking pool is shut down"
        }
    }
}

/// A bounded number of threads, with a bounded queue, for system calls that block: the cooperative pool has as many
/// threads as cores, and two blocked calls stop a two-core daemon.
package final class BlockingPool: Sendable {
    private let core: PoolCore

    /// Threads start when they are first needed and stay.
    ///
    /// - Parameters:
    ///   - threads: how many bodies run at once, at least 1.
    ///   - queue: how many more may wait, at least 1.
    /// - Throws: `KernelError` when the wake-up descriptor cannot be made.
    package init(threads: Int = 8, queue: Int = 1024) throws(KernelError) {
        core = try PoolCore(threads: max(1, threads), queue: max(1, queue))
    }

    deinit { core.close() }

    /// Runs `body` on a thread of the pool.
    ///
    /// A body that has started runs to its end even when the task is cancelled; one that still waits is dropped.
    ///
    /// - Throws: what `body` throws; `BlockingPoolError`; `CancellationError`.
    package func run<T: Sendable>(_ body: @escaping @Sendable () throws -> T) async throws -> T {
        let id = core.nextID()
        return try await withTaskCancellationHandler {
            try await withCheckedThrowingContinuation { (continuation: CheckedContinuation<T, any Error>) in
                let failure = core.submit(
                    PoolCore.Job(
                        id: id,
                        run: { continuation.resume(with: Result { try body() }) },
                        drop: { continuation.resume(throwing: $0) }))
                if let failure { return continuation.resume(throwing: failure) }
                // Cancelled before it was queued: the handler found nothing then, so look again here.
                if Task.isCancelled { core.cancel(id) }
            }
        } onCancel: {
            core.cancel(id)
        }
    }

    /// Refuses new bodies, drops the waiting ones with `BlockingPoolError.closed`, and returns when the running ones
    /// have ended.
    package func shutdown() async {
        core.close()
        await withCheckedContinuation { core.whenIdle($0) }
    }

    /// Bodies that run now and bodies that wait; for metrics.
    package var load: (running: Int, waiting: Int) { core.load }
}

// What threads and callers share; the pool itself is not among it, so that its end stops the threads.
private final class PoolCore: Sendable {
    struct Job: Sendable {
        let id: UInt64
        let run: @Sendable () -> Void
        let drop: @Sendable (any Error) -> Void
    }

    private struct State {
        var closed = false
        var next: UInt64 = 0
        var threads = 0
        var running = 0
        var queue: [Job] = []
        var idle: [CheckedContinuation<Void, Never>] = []
    }

    private let threadLimit: Int
    private let queueLimit: Int
    /// A semaphore (EFD_SEMAPHORE): one count for each body that was queued.
    private let semaphore: SharedFD
    private let state = Mutex(State())

    init(threads: Int, queue: Int) throws(KernelError) {
        threadLimit = threads
        queueLimit = queue
        semaphore = SharedFD(
            OwnedFD(
                adopting: try systemCall("eventfd") {
                    eventfd(0, Int32(EFD_CLOEXEC) | Int32(EFD_SEMAPHORE))
                }))
    }

    var load: (running: Int, waiting: Int) { state.withLock { ($0.running, $0.queue.count) } }

    func nextID() -> UInt64 {
        state.withLock { state in
            state.next += 1
            return state.next
        }
    }

    /// Queues a job; returns why it cannot.
    func submit(_ job: Job) -> (any Error)? {
        let (failure, needsThread) = state.withLock { state -> (BlockingPoolError?, Bool) in
            if state.closed { return (.closed, false) }
            let free = state.threads - state.running
            let grows = free <= state.queue.count && state.threads < threadLimit
            guard grows || state.queue.count < queueLimit + max(0, free) else {
                return (.full(queue: queueLimit), false)
            }
            state.queue.append(job)
            if grows { state.threads += 1 }
            return (nil, grows)
        }
        if let failure { return failure }
        eventfd_write(semaphore.raw, 1)
        guard needsThread else { return nil }
        do {
            try Thread.start(name: "blocking") { self.work() }
        } catch {
            let (alone, resumed) = state.withLock { state -> (Bool, [CheckedContinuation<Void, Never>]) in
                state.threads -= 1
                return (state.threads == 0, Self.takeIdle(&state))
            }
            for continuation in resumed { continuation.resume() }
            // With other threads the job merely waits; without any it would wait for ever.
            if alone, remove(job.id) != nil { return error }
        }
        return nil
    }

    func cancel(_ id: UInt64) { remove(id)?.drop(CancellationError()) }

    private func remove(_ id: UInt64) -> Job? {
        state.withLock { state in
            guard let index = state.queue.firstIndex(where: { $0.id == id }) else { return nil }
            return state.queue.remove(at: index)
        }
    }

    func close() {
        let (dropped, threads) = state.withLock { state -> ([Job], Int) in
            state.closed = true
            defer { state.queue = [] }
            return (state.queue, state.threads)
        }
        for job in dropped { job.drop(BlockingPoolError.closed) }
        if threads > 0 { eventfd_write(semaphore.raw, UInt64(threads)) }
    }

    func whenIdle(_ continuation: CheckedContinuation<Void, Never>) {
        let ready = state.withLock { state -> [CheckedContinuation<Void, Never>] in
            state.idle.append(continuation)
            return Self.takeIdle(&state)
        }
        for continuation in ready { continuation.resume() }
    }

    private static func takeIdle(_ state: inout State) -> [CheckedContinuation<Void, Never>] {
        guard state.closed, state.threads == 0 else { return [] }
        defer { state.idle = [] }
        return state.idle
    }

    private func work() {
        while true {
            var count: UInt64 = 0
            if eventfd_read(semaphore.raw, &count) != 0 { continue }  // EINTR
            let (job, ended, resumed) = state.withLock { state -> (Job?, Bool, [CheckedContinuation<Void, Never>]) in
                if state.closed {
                    state.threads -= 1
                    return (nil, true, Self.takeIdle(&state))
                }
                if state.queue.isEmpty { return (nil, false, []) }  // its job was cancelled
                state.running += 1
                return (state.queue.removeFirst(), false, [])
            }
            for continuation in resumed { continuation.resume() }
            if ended { return }
            guard let job else { continue }
            job.run()
            state.withLock { $0.running -= 1 }
        }
    }
}
