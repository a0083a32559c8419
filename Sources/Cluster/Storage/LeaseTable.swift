import Synchronization

/// The leases' clocks. They run from the opening of the store anew: nobody could keep a lease alive while no one had
/// the store open.
final class LeaseTable: Sendable {
    private struct Lease {
        var seconds: Int
        var expires: ContinuousClock.Instant
        /// Its end has begun: it cannot be renewed any more, even if the disk does not let it end yet.
        var ending = false
    }

    private struct State {
        var leases: [Int64: Lease] = [:]
        /// The task that waits for the next lease to run out, and until when it waits.
        var timer: (deadline: ContinuousClock.Instant, task: Task<Void, Never>)?
        var end: (@Sendable (Int64) async throws -> Void)?
    }

    private let state = Mutex(State())

    /// Sets what ends a lease when it is due. If it throws, it is tried again every second.
    func whenDue(_ end: @escaping @Sendable (Int64) async throws -> Void) {
        state.withLock { $0.end = end }
        schedule()
    }

    func stop() {
        state.withLock { state in
            state.timer?.task.cancel()
            state.timer = nil
            state.end = nil
        }
    }

    func add(_ id: Int64, seconds: Int) {
        state.withLock { $0.leases[id] = Lease(seconds: seconds, expires: .now + .seconds(seconds)) }
        schedule()
    }

    func isLive(_ id: Int64) -> Bool {
        state.withLock { $0.leases[id]?.ending == false }
    }

    /// Gives a lease its whole time again.
    ///
    /// - Returns: false when it has run out or never was.
    func renew(_ id: Int64) -> Bool {
        state.withLock { state in
            guard let lease = state.leases[id], !lease.ending, lease.expires > .now else { return false }
            state.leases[id]?.expires = .now + .seconds(lease.seconds)
            return true
        }
    }

    /// Marks a lease as ending; false when it is or is not there.
    func beginEnding(_ id: Int64) -> Bool {
        state.withLock { state in
            guard state.leases[id]?.ending == false else { return false }
            state.leases[id]?.ending = true
            return true
        }
    }

    /// Ends a lease that is marked. If that fails it is tried again later.
    func finishEnding(_ id: Int64, _ end: (Int64) async throws -> Void) async throws {
        do {
            try await end(id)
            state.withLock { _ = $0.leases.removeValue(forKey: id) }
        } catch {
            state.withLock { $0.leases[id]?.expires = .now + .seconds(1) }
            schedule()
            throw error
        }
    }

    /// Sees to it that a task waits for the lease that runs out next.
    private func schedule() {
        state.withLock { state in
            guard state.end != nil, let next = state.leases.values.map(\.expires).min() else { return }
            if let timer = state.timer, timer.deadline <= next { return }
            state.timer?.task.cancel()
            let task = Task { [weak self] in
                try? await Task.sleep(until: next, clock: .continuous)
                if !Task.isCancelled { await self?.timeUp() }
            }
            state.timer = (next, task)
        }
    }

    private func timeUp() async {
        let (due, end) = state.withLock { state in
            state.timer = nil
            let now = ContinuousClock.now
            let due = state.leases.filter { $0.value.expires <= now }.keys.sorted()
            for id in due {
                state.leases[id]?.ending = true
                // Until its end is done it is not due again at once.
                state.leases[id]?.expires = now + .seconds(1)
            }
            return (due, state.end)
        }
        if let end {
            for id in due { try? await finishEnding(id, end) }
        }
        schedule()
    }
}
