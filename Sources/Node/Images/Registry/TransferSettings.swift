import Synchronization

/// Bounds of what is transferred over a network.
package struct TransferSettings: Sendable, Equatable {
    /// Layers of one image that are transferred at once.
    package var parallel = 3
    /// Tries of one request, or of one layer without a mebibyte of progress between them.
    package var attempts = 5
    /// Before the second try; doubled before each further one, and varied by a fifth.
    package var firstDelay = Duration.milliseconds(500)
    package var longestDelay = Duration.seconds(20)
    /// A server that asks for more patience than this (`Retry-After`) is given up.
    package var longestRetryAfter = Duration.seconds(60)
    /// To establish a connection, TLS included.
    package var connectTimeout = Duration.seconds(10)
    /// Without a byte; there is no bound on the whole, since a large layer on a slow line is no fault.
    package var idleTimeout = Duration.seconds(30)
    /// Until a blob's answer begins, and until a manifest or a configuration is there; redirects and tokens included.
    package var answerTimeout: Duration { idleTimeout * 2 }
    /// Time spent waiting for a blob in which at least `rateFloor` bytes have to come.
    package var ratePeriod = Duration.seconds(60)
    package var rateFloor = 64 << 10
    /// Redirects of one request.
    package var redirects = 5
    /// Blobs larger than this are pushed in pieces of this many bytes, so that a cut costs one piece.
    package var chunkBytes = 32 << 20

    package init() {}

    /// The same with what a configuration says.
    package func with(_ configuration: RegistryConfiguration) -> TransferSettings {
        var settings = self
        settings.parallel = configuration.parallel ?? parallel
        settings.idleTimeout = configuration.idleTimeout.map { .seconds($0) } ?? idleTimeout
        return settings
    }

    /// How long to wait before a try; `attempt` counts from 1, which is the second one.
    func delay(_ attempt: Int) -> Duration {
        let doubled = firstDelay * (1 << min(max(attempt, 1) - 1, 16))
        return min(doubled, longestDelay) * Double.random(in: 0.8...1.2)
    }
}

/// A transfer that failed in a way that may pass: it is tried again, and `error` is thrown after the last try.
package struct TransferFailure: Error, Sendable {
    package let error: ImageError
    /// How long the server asks to wait.
    package let retryAfter: Duration?

    package init(_ message: String, retryAfter: Duration? = nil) {
        error = ImageError(.unavailable, message)
        self.retryAfter = retryAfter
    }
}

extension TransferSettings {
    /// Waits before another try.
    ///
    /// - Throws: the failure's error when there were enough tries, or the server asks for too much patience;
    ///   `CancellationError`.
    func wait(after failure: TransferFailure, attempt: Int) async throws {
        guard attempt < attempts else {
            throw ImageError(.unavailable, failure.error.message + (attempts > 1 ? " (tried \(attempts) times)" : ""))
        }
        if let wanted = failure.retryAfter, wanted > longestRetryAfter {
            throw ImageError(
                .unavailable,
                "\(failure.error.message); it asks to wait \(wanted.components.seconds) s, longer than is waited here")
        }
        try await Task.sleep(for: failure.retryAfter ?? delay(attempt))
    }

    /// Repeats what fails in passing.
    func retrying<Result: Sendable>(_ body: @Sendable () async throws -> Result) async throws -> Result {
        var attempt = 1
        while true {
            do {
                return try await body()
            } catch let failure as TransferFailure {
                try await wait(after: failure, attempt: attempt)
                attempt += 1
            }
        }
    }
}

/// Where calls run that block for as long as the disk takes; the cooperative threads must not.
package protocol BlockingExecutor: Sendable {
    func run<Result: Sendable>(_ body: @escaping @Sendable () throws -> Result) async throws -> Result
}

/// How far the transfer of one blob has come.
package struct TransferProgress: Codable, Sendable, Equatable {
    package enum Phase: String, Codable, Sendable {
        case downloading
        /// Down, and waiting for the layers below it.
        case downloaded
        case unpacking
        case uploading
        /// On both sides already.
        case present
        case done
    }

    package let digest: Digest
    package let phase: Phase
    /// Bytes of this phase that are done.
    package let done: UInt64
    /// Bytes of the blob.
    package let total: UInt64
}

/// Called on any thread, at most about once for a mebibyte of a blob.
package typealias TransferProgressHandler = @Sendable (TransferProgress) -> Void

/// A bounded number of holders at a time for each key, one unless said otherwise; the others wait without a thread, in
/// order.
final class KeyedLock<Key: Hashable & Sendable>: Sendable {
    private struct Waiter: Sendable {
        let id: UInt64
        let continuation: CheckedContinuation<Void, any Error>
    }

    private struct Queue: Sendable {
        var holders = 0
        var waiters: [Waiter] = []
    }

    private struct State: Sendable {
        var nextID: UInt64 = 0
        /// Of each key that is held.
        var held: [Key: Queue] = [:]
    }

    private let holders: Int
    private let state = Mutex(State())

    /// - Parameter holders: of one key at a time, at least 1.
    init(holders: Int = 1) { self.holders = holders }

    /// Runs `body` while it holds the key.
    ///
    /// - Throws: what `body` throws; `CancellationError` when the task is cancelled while it waits.
    func withLock<Result: Sendable>(
        _ key: Key, _ body: @Sendable () async throws -> Result
    ) async throws -> Result {
        try await acquire(key)
        defer { release(key) }
        return try await body()
    }

    private func acquire(_ key: Key) async throws {
        let id = state.withLock { state in
            state.nextID += 1
            return state.nextID
        }
        try await withTaskCancellationHandler {
            try await withCheckedThrowingContinuation { (continuation: CheckedContinuation<Void, any Error>) in
                // Looked at with the lock held: the handler below either finds the waiter or came before this.
                let (isFree, isCancelled) = state.withLock { state in
                    guard !Task.isCancelled else { return (false, true) }
                    guard state.held[key, default: Queue()].holders >= holders else {
                        state.held[key, default: Queue()].holders += 1
                        return (true, false)
                    }
                    state.held[key]?.waiters.append(Waiter(id: id, continuation: continuation))
                    return (false, false)
                }
                if isCancelled { continuation.resume(throwing: CancellationError()) }
                if isFree { continuation.resume() }
            }
        } onCancel: {
            let waiter = state.withLock { state -> Waiter? in
                guard let place = state.held[key]?.waiters.firstIndex(where: { $0.id == id }) else { return nil }
                return state.held[key]?.waiters.remove(at: place)
            }
            waiter?.continuation.resume(throwing: CancellationError())
        }
    }

    private func release(_ key: Key) {
        let next = state.withLock { state -> Waiter? in
            guard let queue = state.held[key] else { return nil }
            if !queue.waiters.isEmpty { return state.held[key]?.waiters.removeFirst() }
            if queue.holders > 1 { state.held[key]?.holders -= 1 } else { state.held[key] = nil }
            return nil
        }
        next?.continuation.resume()
    }
}
