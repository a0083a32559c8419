import ClusterSecurity
import JSON
import Kernel
import Logging
import MasterCore
import Model
import Storage
import Wire

/// The asynchronous shell around `MasterCore`: gives it what happens, and does what it decides.
package actor ClusterMaster {
    private(set) var core: MasterCore
    private let store: any Store
    let vault: SecretVault
    let logger: Logger
    private var random = SystemRandomNumberGenerator()
    private var clock = SteadyClock()

    private var lastRequest: RequestID = 0
    /// Copies of images that are being made, by the manifest's digest.
    var copies: [String: Task<Void, Never>] = [:]
    private var waiting: [RequestID: @Sendable (Result<MasterReply, APIProblem>) -> Void] = [:]
    let watches = WatchHub()
    private var wake: (at: Timestamp, task: Task<Void, Never>)?
    private let failure = AsyncStream<MasterFailure>.makeStream()
    private let startedAt = ContinuousClock.now
    private(set) var figures = Figures()
    /// The store is lost to this process, which is about to end.
    private var hasEnded = false

    /// nil until the cluster is reached from other machines.
    var authority: CertificateAuthority?
    let agents = AgentConnections()
    nonisolated let connections = OpenConnections()
    nonisolated let credentials = TokenBook()
    /// `MasterCore.tokenChanges` of those in `credentials`.
    private var toldTokens: Int?
    var settingsFollowers: [AsyncStream<ClusterSettings?>.Continuation] = []
    var toldSettings: ClusterSettings?
    /// By which settings other machines are served now, or why they are not although they should be.
    var listenOutcome: (settings: ClusterSettings, problem: String?)?

    /// Takes over what the store holds.
    ///
    /// - Throws: `StoreError`; `UnreadableRecord`.
    init(store: any Store, vault: SecretVault, logger: Logger) async throws {
        self.store = store
        self.vault = vault
        self.logger = logger
        core = try await Self.load(store)
        toldSettings = core.settings
        tellTokens()
    }

    private static func load(_ store: any Store) async throws -> MasterCore {
        let (entries, revision) = try await store.range(prefix: "")
        let records = entries.map {
            StoreRecord(key: $0.key, value: $0.value, modificationRevision: $0.modRevision)
        }
        return try MasterCore(records: records, revision: revision)
    }

    /// Decides and keeps time until it is cancelled.
    ///
    /// - Throws: `MasterFailure`.
    func run() async throws {
        step(.start)
        try await withThrowingTaskGroup(of: Void.self) { group in
            defer { group.cancelAll() }
            group.addTask {
                while true {
                    try await Task.sleep(for: .seconds(1))
                    await self.step(.tick)
                    await self.probe()
                    await self.cutStaleConnections()
                    self.watches.beat()
                }
            }
            let failures = failure.stream
            group.addTask { for await failure in failures { throw failure } }
            do {
                try await group.next()
            } catch is CancellationError {}
        }
        wake?.task.cancel()
        watches.endAll()
    }

    // MARK: Requests

    /// Has something changed; returns when it is durable.
    package func perform(_ command: MasterCommand) async throws(APIProblem) -> MasterReply {
        try await ask { .command($0, command, by: Subject.current) }
    }

    /// Reads committed state.
    package func query(_ query: MasterQuery) async throws(APIProblem) -> MasterReply {
        try await ask { .query($0, query, by: Subject.current) }
    }

    private func ask(_ event: (RequestID) -> MasterEvent) async throws(APIProblem) -> MasterReply {
        let request = try nextRequest()
        return try await withCheckedContinuation { continuation in
            waiting[request] = { continuation.resume(returning: $0) }
            step(event(request))
        }.get()
    }

    private func nextRequest() throws(APIProblem) -> RequestID {
        guard !hasEnded else { throw APIProblem(.unavailable, "the master has lost its store and ends") }
        lastRequest += 1
        return lastRequest
    }

    /// Asks, and takes the reply while the core stands still: nothing can change between the reply and what
    /// `receive` sets up.
    func ask<Value: Sendable>(
        _ event: (RequestID) -> MasterEvent,
        receive: @escaping @Sendable (MasterReply) -> Result<Value, APIProblem>
    ) async throws(APIProblem) -> Value {
        let request = try nextRequest()
        return try await withCheckedContinuation {
            (continuation: CheckedContinuation<Result<Value, APIProblem>, Never>) in
            waiting[request] = { result in continuation.resume(returning: result.flatMap(receive)) }
            step(event(request))
        }.get()
    }

    /// Like `perform`, for what names an image: a master that has just started waits for its nodes' first reports
    /// before it says that nobody has the image.
    package func performKnowingImages(_ command: MasterCommand) async throws(APIProblem) -> MasterReply {
        try await knowingImages { () async throws(APIProblem) in try await perform(command) }
    }

    /// The same for a question.
    package func queryKnowingImages(_ query: MasterQuery) async throws(APIProblem) -> MasterReply {
        try await knowingImages { () async throws(APIProblem) in try await self.query(query) }
    }

    private func knowingImages(
        _ ask: () async throws(APIProblem) -> MasterReply
    ) async throws(APIProblem) -> MasterReply {
        while true {
            do {
                return try await ask()
            } catch let problem {
                guard problem.code == .noSuchImage, core.awaitsReports, ContinuousClock.now - startedAt < Self.patience,
                    (try? await Task.sleep(for: .milliseconds(50))) != nil
                else { throw problem }
            }
        }
    }

    /// How long after its start the master waits for nodes that it knows.
    private static let patience = Duration.seconds(10)

    // MARK: The core

    func step(_ event: MasterEvent) {
        let effects = core.step(event, now: clock.now(), random: &random)
        // Before anybody hears of what was done: a token that was revoked does not count any more then.
        tellTokens()
        for effect in effects { carryOut(effect) }
        tellSettings()
    }

    private func tellTokens() {
        guard toldTokens != core.tokenChanges else { return }
        toldTokens = core.tokenChanges
        credentials.replace(with: core.tokens)
    }

    private func carryOut(_ effect: MasterEffect) {
        switch effect {
        case .commit(let number, let writes): commit(number, writes)
        case .changed(let changes): for change in changes { watches.tell(change) }
        case .assign(let node, let lines): watches.assign(node, lines)
        case .peers(let nodes, let lines): watches.tellPeers(nodes, lines)
        case .event(let event): watches.tell(event)
        case .reply(let request, let result): waiting.removeValue(forKey: request)?(result)
        case .wake(let time): setWake(time)
        case .replicate(let digest, let names, let from, let to): replicate(digest, names, from: from, to: to)
        case .untag(let node, let digest, let names): untag(digest, names, on: node)
        }
    }

    private func setWake(_ time: Timestamp) {
        if let wake, wake.at <= time, !wake.task.isCancelled { return }
        wake?.task.cancel()
        // A tick comes every second anyway, so that a jump of the clock delays nothing for long.
        let delay = max(0, min(time - clock.now(), 1_000_000_000))
        let task = Task {
            guard (try? await Task.sleep(for: .nanoseconds(delay))) != nil else { return }
            self.wakeUp()
        }
        wake = (time, task)
    }

    private func wakeUp() {
        wake = nil
        step(.tick)
    }

    // MARK: The store

    private func commit(_ number: TransactionNumber, _ writes: [StoreWrite]) {
        failpoint("master.after_accept")
        if writes.contains(where: { $0.expectedRevision == 0 && $0.key.hasPrefix("tasks/") }) {
            failpoint("master.after_placement")
        }
        let begun = ContinuousClock.now
        Task {
            do {
                let result = try await store.transaction(
                    writes.map { .modRevision(key: $0.key, $0.expectedRevision) },
                    then: writes.map { write in
                        write.value.map { .put(key: write.key, value: $0) } ?? .delete(key: write.key)
                    }, otherwise: [])
                failpoint("master.after_commit")
                committed(number, result, writes: writes.count, took: ContinuousClock.now - begun)
            } catch {
                await notCommitted(number, error)
            }
        }
    }

    private func committed(_ number: TransactionNumber, _ result: StoreResult, writes: Int, took: Duration) {
        guard result.succeeded else {
            let text = "another master has written to this store; this one ends, so that nothing is overwritten"
            step(.commitFailed(number, .conflict(text)))
            failure.continuation.yield(MasterFailure(description: text))
            return
        }
        figures.commits += 1
        figures.writes += writes
        figures.commitTime += took
        figures.storeProblem = nil
        step(.committed(number, revision: result.revision))
    }

    private func notCommitted(_ number: TransactionNumber, _ error: any Error) async {
        figures.failedCommits += 1
        figures.storeProblem = "\(error)"
        logger.error("a transaction was not committed", metadata: ["error": "\(error)"])
        switch error {
        case StoreError.unavailable(let text): await reload(after: text)
        case StoreError.full(let text): step(.commitFailed(number, .full(text)))
        case StoreError.failed(_, let text):
            // The disk may have the transaction or not: the core stays in the middle of it, nothing more is asked of
            // it, and the next process reads what there is.
            hasEnded = true
            giveUpWaiting(after: text)
            failure.continuation.yield(MasterFailure(description: "\(error)"))
        case StoreError.corrupted, StoreError.newerSchema, StoreError.locked:
            step(.commitFailed(number, .unavailable("\(error)")))
            failure.continuation.yield(MasterFailure(description: "\(error)"))
        default: step(.commitFailed(number, .unavailable("\(error)")))
        }
    }

    /// Nobody knows whether the transaction was done: everything is read anew, and everybody asks again.
    private func reload(after text: String) async {
        var delay = 100
        while !Task.isCancelled {
            do {
                let fresh = try await Self.load(store)
                // From here on nothing is awaited: no request falls between the two cores.
                core = fresh
                toldTokens = nil
                tellTokens()
                break
            } catch {
                figures.storeProblem = "\(error)"
                logger.error("the store cannot be read; trying again", metadata: ["error": "\(error)"])
                try? await Task.sleep(for: .milliseconds(delay))
                delay = min(5000, delay * 2)
            }
        }
        giveUpWaiting(after: text)
        // Agents register and report again when their watches end; clients see the end of theirs.
        watches.endAll()
        step(.start)
    }

    /// Tells everybody who waits for an answer that nobody knows it.
    private func giveUpWaiting(after text: String) {
        let problem = APIProblem(
            .unavailable, "the store did not answer, the outcome is unknown: \(text); look, then repeat")
        let unanswered = waiting
        waiting = [:]
        for (_, reply) in unanswered { reply(.failure(problem)) }
    }

    /// Says whether the store takes writes again, when it did not the last time and nobody has anything to write.
    private func probe() async {
        guard figures.storeProblem != nil, core.isSettled else { return }
        guard (try? await store.put("probe", [])) != nil else { return }
        figures.storeProblem = nil
    }
}
