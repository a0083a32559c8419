import Synchronization

/// Measures how a transfer gets on, so that one that does not is ended: whatever the other side does, it cannot hold a
/// pull for ever by saying nothing, or a byte now and then.
///
/// Only time that is spent waiting for the other side counts; what the disk takes is no fault of a server.
final class TransferWatch: Sendable {
    private struct State {
        /// Since when the other side is waited for; nil while what came is dealt with.
        var waitingSince: ContinuousClock.Instant?
        /// How long that may take now.
        var patience: Duration
        /// Spent waiting in this period, before the present wait; negative when a period began within it.
        var waited = Duration.zero
        /// What this period has brought.
        var bytes = 0
    }

    private let settings: TransferSettings
    private let state: Mutex<State>

    init(_ settings: TransferSettings) {
        self.settings = settings
        state = Mutex(State(waitingSince: .now, patience: settings.answerTimeout))
    }

    /// The other side is waited for from now on.
    func wait() {
        state.withLock { state in
            state.waitingSince = .now
            state.patience = settings.idleTimeout
        }
    }

    /// Something came.
    func got(_ bytes: Int) {
        state.withLock { state in
            if let since = state.waitingSince { state.waited += ContinuousClock.now - since }
            state.waitingSince = nil
            state.bytes += bytes
        }
    }

    /// What is wrong with the transfer, to be read after its subject; nil when it gets on.
    fileprivate func fault(at now: ContinuousClock.Instant) -> String? {
        state.withLock { state in
            guard let since = state.waitingSince else { return nil }
            let silence = now - since
            guard silence < state.patience else { return "no byte came in time" }
            guard state.waited + silence >= settings.ratePeriod else { return nil }
            guard state.bytes >= settings.rateFloor else {
                return "only \(state.bytes) bytes came in \(settings.ratePeriod.components.seconds) s"
            }
            state.waited = .zero - silence
            state.bytes = 0
            return nil
        }
    }
}

extension TransferSettings {
    /// Does a transfer, and ends it when it does not get on.
    ///
    /// - Parameter body: tells the watch what comes, and when it waits; it begins as waiting for the answer's head.
    /// - Throws: what `body` throws; `TransferFailure` when it was ended.
    func watching<Result: Sendable>(
        _ subject: String, _ body: @escaping @Sendable (TransferWatch) async throws -> Result
    ) async throws -> Result {
        let watch = TransferWatch(self)
        let tick = min(.seconds(1), idleTimeout / 4)
        return try await withThrowingTaskGroup(of: Result.self) { group in
            defer { group.cancelAll() }
            group.addTask { try await body(watch) }
            group.addTask {
                while true {
                    try await Task.sleep(for: tick)
                    if let fault = watch.fault(at: .now) {
                        throw TransferFailure("\(subject) was given up: \(fault)")
                    }
                }
            }
            guard let result = try await group.next() else { throw CancellationError() }
            return result
        }
    }

    /// The same for something small, which has to come as a whole in the time that an answer may take.
    func promptly<Result: Sendable>(
        _ subject: String, _ body: @escaping @Sendable () async throws -> Result
    ) async throws -> Result {
        try await watching(subject) { _ in try await body() }
    }
}
