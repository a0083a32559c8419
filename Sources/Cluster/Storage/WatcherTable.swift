import Synchronization

/// Who wants to hear of changes.
final class WatcherTable: Sendable {
    typealias Stream = AsyncThrowingStream<StoreBatch, any Error>

    private struct Watcher {
        let prefix: String
        let from: Int64
        let continuation: Stream.Continuation
    }

    private struct State {
        var watchers: [Int: Watcher] = [:]
        var next = 0
    }

    private let bound: Int
    private let state = Mutex(State())

    /// - Parameter bound: how many batches may wait for a reader before it is dropped.
    init(bound: Int) {
        self.bound = bound
    }

    /// A stream that begins with `past`. Must not run beside `tell`.
    func add(prefix: String, from: Int64, past: [StoreBatch]) -> Stream {
        let (stream, continuation) = Stream.makeStream(bufferingPolicy: .bufferingOldest(bound))
        for batch in past { continuation.yield(batch) }
        let id = state.withLock { state in
            state.next += 1
            state.watchers[state.next] = Watcher(prefix: prefix, from: from, continuation: continuation)
            return state.next
        }
        continuation.onTermination = { [weak self] _ in self?.remove(id) }
        return stream
    }

    private func remove(_ id: Int) {
        state.withLock { _ = $0.watchers.removeValue(forKey: id) }
    }

    /// Hands a batch to everybody whom it concerns; in the order of revisions.
    func tell(_ batch: StoreBatch) {
        let watchers = state.withLock { $0.watchers.values.filter { $0.from <= batch.revision } }
        for watcher in watchers {
            let changes = batch.changes.filter { $0.key.utf8.starts(with: watcher.prefix.utf8) }
            if changes.isEmpty { continue }
            let result = watcher.continuation.yield(StoreBatch(revision: batch.revision, changes: changes))
            if case .dropped = result {
                watcher.continuation.finish(throwing: StoreError.compacted(oldest: batch.revision + 1))
            }
        }
    }

    /// Ends all streams.
    func finish() {
        let watchers = state.withLock { state in
            defer { state.watchers = [:] }
            return state.watchers.values
        }
        for watcher in watchers { watcher.continuation.finish() }
    }
}
