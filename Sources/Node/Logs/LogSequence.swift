import JSON
import Kernel
import Reactor
import ShimProtocol

/// A log as an asynchronous sequence of batches of records, none empty. It holds no thread while it waits.
///
/// It ends at the end of the log; when following, after `LogReader.finish`, when `until` is past, or by cancellation
/// (with `CancellationError`).
package struct LogSequence: AsyncSequence, Sendable {
    package typealias Element = [LogRecord]

    private let reader: LogReader
    private let until: Timestamp?
    private let reactor: Reactor
    private let pool: BlockingPool

    /// Opens the log.
    ///
    /// - Throws: as `LogReader.init`; `BlockingPoolError`.
    package init(path: String, query: LogQuery, reactor: Reactor, pool: BlockingPool) async throws {
        reader = try await pool.run { try LogReader(path: path, query: query) }
        until = query.until
        self.reactor = reactor
        self.pool = pool
    }

    /// Nothing more will be written: a follower ends when it has read what is there.
    package func finish() { reader.finish() }

    package func makeAsyncIterator() -> Iterator {
        Iterator(reader: reader, until: until, reactor: reactor, pool: pool)
    }

    package struct Iterator: AsyncIteratorProtocol {
        fileprivate let reader: LogReader
        fileprivate let until: Timestamp?
        fileprivate let reactor: Reactor
        fileprivate let pool: BlockingPool

        /// The next records; nil at the end. Not inlined into the frame of a task that may follow for days.
        @inline(never)
        package mutating func next() async throws -> [LogRecord]? {
            while true {
                switch try await pool.run({ [reader] in try reader.next() }) {
                case .records(let records):
                    if !records.isEmpty { return records }
                case .idle: try await wait()
                case .end: return nil
                }
            }
        }

        private func wait() async throws {
            guard let until else { return try await reactor.waitReadable(reader.waitDescriptor) }
            try await wait(until: until)
        }

        @inline(never)
        private func wait(until: Timestamp) async throws {
            // Whichever comes first; the loser is cancelled.
            try await withThrowingTaskGroup(of: Void.self) { [reader, reactor] group in
                group.addTask { try await reactor.waitReadable(reader.waitDescriptor) }
                group.addTask {
                    let left = Swift.max(0, until - Timestamp.now())
                    try await Task.sleep(for: .nanoseconds(left) + .milliseconds(1))
                }
                defer { group.cancelAll() }
                try await group.next()
            }
        }
    }
}
