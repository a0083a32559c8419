import Synchronization

/// A queue between one producer that must not wait (the fan-out of events to watchers) and one reader that may be slow.
/// A reader that falls behind by more than the bound loses the queue: better cut than served with gaps.
package final class BoundedQueue<Element: Sendable>: Sendable {
    /// The reader has fallen behind; it has to start again from a fresh state.
    package struct Lagged: Error, CustomStringConvertible {
        package let bound: Int
        package var description: String { "the reader fell more than \(bound) entries behind and was dropped" }
    }

    private struct State {
        var elements: [Element] = []
        var ended = false
        var lagged = false
        var waiting: CheckedContinuation<Void, Never>?

        mutating func takeWaiting() -> CheckedContinuation<Void, Never>? {
            defer { waiting = nil }
            return waiting
        }
    }

    private let bound: Int
    private let state = Mutex(State())

    /// - Parameter bound: how many elements may wait, at least 1.
    package init(bound: Int) {
        self.bound = max(1, bound)
    }

    /// Appends without waiting.
    ///
    /// - Returns: false when the queue has ended, by `finish` or because the reader has fallen behind: do not offer
    ///   more.
    @discardableResult
    package func offer(_ element: Element) -> Bool {
        let (accepted, waiting) = state.withLock { state in
            if state.ended { return (false, state.takeWaiting()) }
            if state.elements.count >= bound {
                state.ended = true
                state.lagged = true
                state.elements = []
                return (false, state.takeWaiting())
            }
            state.elements.append(element)
            return (true, state.takeWaiting())
        }
        waiting?.resume()
        return accepted
    }

    /// Ends the queue; what waits is still read.
    package func finish() {
        let waiting = state.withLock { state in
            state.ended = true
            return state.takeWaiting()
        }
        waiting?.resume()
    }

    /// All elements that wait, at least one; waits for the first. Empty at the end or when the task is cancelled.
    ///
    /// - Throws: `Lagged`.
    package func next() async throws(Lagged) -> [Element] {
        while true {
            let (batch, ended, lagged) = state.withLock { state in
                defer { state.elements = [] }
                return (state.elements, state.ended, state.lagged)
            }
            if lagged { throw Lagged(bound: bound) }
            if !batch.isEmpty || ended || Task.isCancelled { return batch }
            await arrival()
        }
    }

    private func arrival() async {
        await withTaskCancellationHandler {
            await withCheckedContinuation { continuation in
                let ready = state.withLock { state in
                    if !state.elements.isEmpty || state.ended || Task.isCancelled { return true }
                    state.waiting = continuation
                    return false
                }
                if ready { continuation.resume() }
            }
        } onCancel: {
            state.withLock { $0.takeWaiting() }?.resume()
        }
    }
}
