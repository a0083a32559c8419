import Synchronization

/// Something that happens once, and that any number of tasks wait for.
package final class Signal: Sendable {
    private struct State {
        var fired = false
        var next = 0
        var waiting: [Int: CheckedContinuation<Void, Never>] = [:]
        var calls: [Int: Call] = [:]
    }

    private struct Call: Sendable {
        let body: @Sendable () -> Void
    }

    private let state = Mutex(State())

    package init() {}

    /// Whether it has happened.
    package var isFired: Bool { state.withLock { $0.fired } }

    /// Lets all waiting tasks go on, now and in future. A second call does nothing.
    package func fire() {
        let (waiting, calls) = state.withLock { state in
            state.fired = true
            defer {
                state.waiting = [:]
                state.calls = [:]
            }
            return (state.waiting.values, state.calls.values)
        }
        for continuation in waiting { continuation.resume() }
        for call in calls { call.body() }
    }

    /// Does `work` in a task that is cancelled when one of two happens, or the calling task is cancelled.
    ///
    /// One task, whatever it waits for: a stream that is idle for hours costs little more than what it holds itself.
    static func cancelling<Result: Sendable>(
        at one: Signal, or other: Signal, _ work: @escaping @Sendable () async throws -> Result
    ) async throws -> Result {
        let task = Task(operation: work)
        let places = (one.whenFired { task.cancel() }, other.whenFired { task.cancel() })
        defer {
            one.forget(places.0)
            other.forget(places.1)
        }
        return try await withTaskCancellationHandler {
            try await task.value
        } onCancel: {
            task.cancel()
        }
    }

    /// Calls `body` when it has happened, at once if it has already.
    ///
    /// - Returns: for `forget`.
    @discardableResult
    package func whenFired(_ body: @escaping @Sendable () -> Void) -> Int {
        let (id, done) = state.withLock { state in
            state.next += 1
            if !state.fired { state.calls[state.next] = Call(body: body) }
            return (state.next, state.fired)
        }
        if done { body() }
        return id
    }

    /// The call of `whenFired` is not to come any more.
    package func forget(_ id: Int) { state.withLock { _ = $0.calls.removeValue(forKey: id) } }

    /// Returns when it has happened or the calling task is cancelled.
    package func wait() async {
        let id = state.withLock { state in
            state.next += 1
            return state.next
        }
        await withTaskCancellationHandler {
            await withCheckedContinuation { continuation in
                let done = state.withLock { state in
                    // The cancelled flag is set before the handler below runs, so one of the two sees the other.
                    if state.fired || Task.isCancelled { return true }
                    state.waiting[id] = continuation
                    return false
                }
                if done { continuation.resume() }
            }
        } onCancel: {
            state.withLock { $0.waiting.removeValue(forKey: id) }?.resume()
        }
    }
}
