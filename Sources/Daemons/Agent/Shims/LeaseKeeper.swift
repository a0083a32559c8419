import AgentCore
import Kernel
import Logging
import Model
import ShimProtocol
import Synchronization
import Wire

/// Renews the leases that shims hold of containers which must not outlive the contact with the master (`LeaseBook`).
///
/// It needs to do nothing at all when the contact is lost: the shims end such containers by themselves, also when this
/// process is dead or stopped. After a restart of the agent they keep the leases that they have until the first post
/// is answered.
final class LeaseKeeper: Sendable {
    /// Whoever is asked. In a struct for the sake of the mutex, see `PodExecutor.Listeners`.
    private struct Listeners: Sendable {
        var contactWanted: (@Sendable () -> Void)?
        var assignment: (@Sendable (TaskID) async throws -> TaskAssignment?)?
    }

    private let book = Mutex(LeaseBook())
    private let listeners = Mutex(Listeners())
    private let table: TaskTable
    private let contacts: AsyncStream<Void>
    private let noteContact: AsyncStream<Void>.Continuation
    private let logger: Logger

    init(_ table: TaskTable, _ logger: Logger) {
        self.table = table
        self.logger = logger
        (contacts, noteContact) = AsyncStream.makeStream(bufferingPolicy: .bufferingNewest(1))
    }

    /// The longest pause between two posts to the master.
    var period: Duration { LeaseBook.period(table.all) }

    /// Has `listener` called when a post is wanted sooner than that.
    func onContactWanted(_ listener: @escaping @Sendable () -> Void) {
        listeners.withLock { $0.contactWanted = listener }
    }

    /// Has `ask` asked what the master wants of a task; nil: nothing any more.
    func onAssignmentWanted(_ ask: @escaping @Sendable (TaskID) async throws -> TaskAssignment?) {
        listeners.withLock { $0.assignment = ask }
    }

    /// Milliseconds of CLOCK_BOOTTIME.
    static func now() -> Int64 { Proc.uptimeNanoseconds() / 1_000_000 }

    /// The master has answered a post that was sent at this moment, and everything that it wants of this node was known
    /// here by then.
    func confirm(sentAt moment: Int64) {
        book.withLock { $0.confirm(sentAt: moment) }
        noteContact.yield()
    }

    /// Renews leases as the master answers, until it is cancelled. One shim that hangs holds up no other.
    ///
    /// - Parameter give: gives a lease to the shim of a task, until the moment given.
    func run(_ give: @escaping @Sendable (TaskAssignment, Int64) async throws -> Void) async {
        await withDiscardingTaskGroup { group in
            for await _ in contacts {
                for renewal in book.withLock({ $0.renewals(self.table.all) }) {
                    group.addTask { await self.renew(renewal, give) }
                }
            }
        }
    }

    private func renew(
        _ renewal: LeaseBook.Renewal, _ give: @Sendable (TaskAssignment, Int64) async throws -> Void
    ) async {
        let task = renewal.assignment.task
        do {
            try await give(renewal.assignment, renewal.until)
            book.withLock { $0.renewed(task, until: renewal.until) }
        } catch {
            let isNews = book.withLock { $0.failed(task) }
            // What has just ended, or is not made yet, has no lease.
            guard isNews, table[task]?.isLive == true, !Task.isCancelled else { return }
            logger.warning(
                "a container's lease is not renewed, and it ends with the lease that it has, if any",
                metadata: ["container": "\(renewal.assignment.instanceName)", "task": "\(task)", "error": "\(error)"])
        }
    }

    /// Until when a container may run that is to be started now. Waits a little for contact to be made.
    ///
    /// What is known here of the master's wishes does not count: posts and the watch go separate ways, and when a partition
    /// heals an answer may be through long before the news that the task has been replaced. The master is asked after the
    /// post was answered that the lease counts from, and so decides on no replacement before the lease is over.
    ///
    /// - Parameter seconds: the policy's `stopAfter`.
    /// - Throws: `ExecutorFailure`, transient, when there is no contact, or when the master has changed its mind.
    func startDeadline(_ assignment: TaskAssignment, after seconds: Int) async throws -> Int64 {
        for round in 0..<40 {
            if let until = book.withLock({ $0.startDeadline(after: seconds, now: Self.now()) }) {
                guard let wish = try await askMaster(for: assignment.task), wish.epoch == assignment.epoch,
                    wish.desired == .running || wish.desired == .paused
                else { throw ExecutorFailure("it is not wanted here any more", isTransient: true) }
                return until
            }
            if round == 0 { listeners.withLock { $0 }.contactWanted?() }
            try await Task.sleep(for: .milliseconds(50))
        }
        throw ExecutorFailure(
            "this node is not in contact with the master, and the container may run no longer than \(seconds) s "
                + "without (onDisconnect: stopAfter): it starts when the contact is back", isTransient: true)
    }

    private func askMaster(for task: TaskID) async throws -> TaskAssignment? {
        let ask = listeners.withLock { $0 }.assignment
        do {
            return try await withThrowingTaskGroup(of: TaskAssignment?.self) { group in
                defer { group.cancelAll() }
                group.addTask { try await ask?(task) }
                group.addTask {
                    try await Task.sleep(for: Self.patience)
                    throw ExecutorFailure("no answer", isTransient: true)
                }
                return try await group.next().flatMap(\.self)
            }
        } catch {
            try Task.checkCancellation()
            throw ExecutorFailure(
                "the master does not say whether it is still wanted here: \(error)", isTransient: true)
        }
    }

    /// For the master's answer to a question.
    private static let patience = Duration.seconds(5)

    /// A start has given a lease to the task's shim.
    func gave(_ task: TaskID, until: Int64) { book.withLock { $0.gave(task, until: until) } }
}
