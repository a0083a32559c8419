import AgentCore
import JSON
import Kernel
import Logging
import Model
import Reactor
import Wire

/// The shell around `AgentCore`: events in, effects out.
///
/// The effects of each task run in order, in a worker of its own; see `AgentEffect`.
final class CoreLoop: Sendable {
    private let inbox: AsyncStream<AgentEvent>
    private let continuation: AsyncStream<AgentEvent>.Continuation
    private let executor: any Executor
    private let store: TaskStore
    private let pool: BlockingPool
    private let timer: WakeTimer
    private let table: TaskTable
    private let report: @Sendable (AgentEffect) -> Void
    private let logger: Logger

    init(
        executor: any Executor, store: TaskStore, pool: BlockingPool, timer: WakeTimer, table: TaskTable,
        logger: Logger, report: @escaping @Sendable (AgentEffect) -> Void
    ) {
        (inbox, continuation) = AsyncStream.makeStream()
        self.executor = executor
        self.store = store
        self.pool = pool
        self.timer = timer
        self.table = table
        self.report = report
        self.logger = logger
    }

    /// Gives the core an event.
    func tell(_ event: AgentEvent) { continuation.yield(event) }

    /// Runs until it is cancelled.
    func run() async throws {
        var core = AgentCore()
        var random = SystemRandomNumberGenerator()
        try await withThrowingDiscardingTaskGroup { group in
            var workers: [TaskID: AsyncStream<AgentEffect>.Continuation] = [:]
            group.addTask { try await self.timer.run { self.tell(.tick) } }
            for await event in inbox {
                for effect in core.step(event, now: Timestamp.now(), random: &random) {
                    switch effect {
                    case .wake(let moment): timer.set(moment)
                    case .report: report(effect)
                    case .probe(let assignment, let start, let check):
                        group.addTask {
                            let outcome = await self.executor.probe(assignment, check)
                            self.tell(.probed(assignment.task, start: start, outcome))
                        }
                    default:
                        guard let task = effect.task else { continue }
                        note(effect)
                        if workers[task] == nil {
                            let (effects, worker) = AsyncStream<AgentEffect>.makeStream()
                            workers[task] = worker
                            group.addTask {
                                for await effect in effects { await self.carryOut(effect) }
                            }
                        }
                        workers[task]?.yield(effect)
                        if case .forget = effect { workers.removeValue(forKey: task)?.finish() }
                    }
                }
            }
            for worker in workers.values { worker.finish() }
        }
    }

    private func note(_ effect: AgentEffect) {
        switch effect {
        case .persist(let record, _): table.put(record)
        case .forget(let task): table.remove(task)
        default: break
        }
    }

    private func carryOut(_ effect: AgentEffect) async {
        switch effect {
        case .persist(let record, let sync): await persist(record, sync)
        case .forget(let task):
            // What cannot be removed now is a leftover that the next start removes.
            do {
                try await pool.run { [store] in try store.forget(task) }
            } catch {
                logger.warning("a task's directory stays behind", metadata: ["task": "\(task)", "error": "\(error)"])
            }
        default: await operate(effect)
        }
    }

    /// Writes until it succeeds: nothing that relies on the record happens before.
    private func persist(_ record: TaskRecord, _ sync: Bool) async {
        let task = record.assignment.task
        failpoint("agent.before_record")
        var delayed = false
        while !Task.isCancelled {
            do {
                try await pool.run { [store] in try store.write(record, sync: sync) }
                if delayed { tell(.delayed(task, nil)) }
                return failpoint("agent.after_record")
            } catch is CancellationError {
                return
            } catch {
                if !delayed {
                    logger.error("a task's record is not written", metadata: ["task": "\(task)", "error": "\(error)"])
                    tell(.delayed(task, "the record of the task cannot be written, it waits: \(error)"))
                }
                delayed = true
                try? await Task.sleep(for: .milliseconds(500))
            }
        }
    }

    /// Has the executor do it, and tells the core what came of it.
    private func operate(_ effect: AgentEffect) async {
        guard let outcome = await outcome(of: effect) else { return }
        // What is cut off by the end of the daemon has no outcome: the next one looks for itself.
        if !Task.isCancelled { tell(outcome) }
    }

    private func outcome(of effect: AgentEffect) async -> AgentEvent? {
        let executor = executor
        switch effect {
        case .prepare(let task):
            let result = await Self.result { () throws(ExecutorFailure) in try await executor.prepare(task) }
            failpoint("agent.after_prepare")
            return .prepared(task.task, result)
        case .start(let task, let start):
            let result = await Self.result { () throws(ExecutorFailure) in
                try await executor.start(task, start: start)
            }
            failpoint("agent.after_start")
            return .started(task.task, start: start, result)
        case .signal(let task, let start, let signal):
            let failure = await Self.failure { () throws(ExecutorFailure) in
                try await executor.signal(task, signal: signal)
            }
            failpoint("agent.during_stop")
            return .signalled(task.task, start: start, failure)
        case .kill(let task, let start):
            let failure = await Self.failure { () throws(ExecutorFailure) in try await executor.kill(task) }
            failpoint("agent.after_kill")
            return .killed(task.task, start: start, failure)
        case .pause(let task, let start):
            let failure = await Self.failure { () throws(ExecutorFailure) in try await executor.pause(task) }
            return .paused(task.task, start: start, failure)
        case .resume(let task, let start):
            let failure = await Self.failure { () throws(ExecutorFailure) in try await executor.resume(task) }
            return .resumed(task.task, start: start, failure)
        case .update(let task, let previous):
            let failure = await Self.failure { () throws(ExecutorFailure) in
                try await executor.update(task, previous: previous)
            }
            return .updated(task.task, failure)
        case .remove(let task):
            let failure = await Self.failure { () throws(ExecutorFailure) in try await executor.remove(task) }
            failpoint("agent.after_removal")
            return .removed(task.task, failure)
        case .persist, .forget, .probe, .report, .wake: return nil
        }
    }

    private static func failure(_ body: () async throws(ExecutorFailure) -> Void) async -> ExecutorFailure? {
        do throws(ExecutorFailure) {
            try await body()
            return nil
        } catch {
            return error
        }
    }

    private static func result<Value: Sendable>(
        _ body: () async throws(ExecutorFailure) -> Value
    ) async -> Result<Value, ExecutorFailure> {
        do throws(ExecutorFailure) {
            return .success(try await body())
        } catch {
            return .failure(error)
        }
    }
}
