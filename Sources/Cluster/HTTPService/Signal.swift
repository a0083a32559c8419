import Synchronization

/// Something that happens once, and that any number of tasks wait for.
package final class Signal: Sendable {
    private struct State {
        var fired = false
        var next = 0
        var waiting: [Int: CheckedContinuation<Void, Never>] = [:]
    }

    private let state = Mutex(State())

    package init() {}

    /// Whether it has happened.
    package var isFired: Bool { state.withLock { $0.fired } }

    /// Lets all waiting tasks go on, now and in future. A second call does nothing.
    package func fire() {
        let waiting = state.withLock { state in
            state.fired = true
            defer { state.waiting = [:] }
            return state.waiting.values
        }
        for continuation in waiting { continuation.resume() }
    }

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
