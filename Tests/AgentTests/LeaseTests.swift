import AgentCore
import JSON
import Kernel
import Logging
import Model
import ShimProtocol
import Synchronization
import Testing
import Wire

@testable import Agent

/// An assignment whose container may run so many seconds without contact; nil: for ever.
func leased(
    _ task: String, _ seconds: Int?, epoch: Int = 1, desired: DesiredState = .running
) -> TaskAssignment {
    TaskAssignment(
        task: TaskID(task), instance: InstanceID("i"), instanceName: "web", containers: [ContainerID("c")],
        workload: WorkloadID("w"), workloadName: "web", kind: .container, labels: [:], revision: 1, epoch: epoch,
        desired: desired, generation: 1, stop: nil,
        pod: PodSpec(
            containers: [], loss: LossPolicy(onDisconnect: seconds.map { .stopAfter($0) } ?? .keep)), ports: [])
}

private func record(_ assignment: TaskAssignment, _ state: ContainerStatus.State = .running) -> TaskRecord {
    var record = TaskRecord(assignment, bootID: "b")
    record.container.state = state
    return record
}

@Suite("Leases that follow from contact with the master")
struct LeaseBookTests {
    @Test("What runs gets its lease from the moment of the newest post that was answered")
    func renewals() {
        var book = LeaseBook()
        let records = [record(leased("a", 10)), record(leased("b", 30)), record(leased("keeps", nil))]
        // After a restart of the agent: the shims keep what they have.
        #expect(book.renewals(records) == [])
        book.confirm(sentAt: 1_000_000)
        #expect(
            book.renewals(records) == [
                .init(assignment: records[0].assignment, until: 1_010_000),
                .init(assignment: records[1].assignment, until: 1_030_000),
            ])
    }

    @Test("Answers that come in another order than their posts were sent take nothing back")
    func order() {
        var book = LeaseBook()
        book.confirm(sentAt: 5000)
        book.confirm(sentAt: 3000)
        #expect(book.contact == 5000)
    }

    @Test("Each shim is asked once at a time, and again only for something worth it")
    func pacing() {
        var book = LeaseBook()
        let records = [record(leased("a", 10))]
        book.confirm(sentAt: 0)
        #expect(book.renewals(records).map(\.until) == [10_000])
        book.confirm(sentAt: 3000)
        // A shim that hangs is not asked by another request.
        #expect(book.renewals(records) == [])
        book.renewed(TaskID("a"), until: 10_000)
        #expect(book.renewals(records).map(\.until) == [13_000])
        book.renewed(TaskID("a"), until: 13_000)
        book.confirm(sentAt: 3999)
        #expect(book.renewals(records) == [])
        book.confirm(sentAt: 4000)
        #expect(book.renewals(records).map(\.until) == [14_000])
        // What was not taken is asked again, and is news once.
        let isNews = book.failed(TaskID("a"))
        #expect(isNews)
        #expect(book.renewals(records).map(\.until) == [14_000])
        let isStillNews = book.failed(TaskID("a"))
        #expect(!isStillNews)
    }

    @Test("Only what runs, or is about to with a lease, is renewed")
    func whatRuns() {
        var book = LeaseBook()
        book.confirm(sentAt: 1000)
        var pending = record(leased("a", 10), .created)
        pending.startPending = true
        var removed = record(leased("d", 10))
        removed.removed = true
        let records = [pending, record(leased("b", 10), .exited), record(leased("c", 10), .paused), removed]
        #expect(book.renewals(records).map(\.assignment.task.text) == ["c"])
        book.gave(TaskID("a"), until: 5000)
        #expect(book.renewals(records).map(\.assignment.task.text) == ["a"])
    }

    @Test("A start needs contact that leaves at least half of the time")
    func starts() {
        var book = LeaseBook()
        #expect(book.startDeadline(after: 10, now: 0) == nil)
        book.confirm(sentAt: 1000)
        #expect(book.startDeadline(after: 10, now: 1000) == 11_000)
        #expect(book.startDeadline(after: 10, now: 6000) == 11_000)
        #expect(book.startDeadline(after: 10, now: 6001) == nil)
    }

    @Test(
        "Posts are as frequent as the shortest lease asks for",
        arguments: [([nil], 5000), ([60], 5000), ([nil, 15], 5000), ([60, 9], 3000), ([5], 1666), ([0], 333)]
            as [([Int?], Int)])
    func period(_ seconds: [Int?], _ milliseconds: Int) {
        let records = seconds.map { record(leased("a", $0)) }
        #expect(LeaseBook.period(records) == .milliseconds(milliseconds))
    }
}

@Suite("The keeper of leases")
struct LeaseKeeperTests {
    private let logger = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }

    @Test("Without contact nothing starts that must not run without it, and contact is asked for")
    func noContact() async throws {
        let table = TaskTable()
        let keeper = LeaseKeeper(table, logger)
        let assignment = leased("a", 10)
        table.put(record(assignment, .created))
        let failure = await #expect(throws: ExecutorFailure.self) {
            try await keeper.startDeadline(assignment, after: 10)
        }
        #expect(failure?.isTransient == true)
        #expect(failure?.message.contains("not in contact with the master") == true)

        // The heartbeat that was asked for is answered.
        let now = LeaseKeeper.now()
        keeper.onAssignmentWanted { _ in assignment }
        keeper.onContactWanted { keeper.confirm(sentAt: now) }
        #expect(try await keeper.startDeadline(assignment, after: 10) == now + 10_000)
    }

    @Test(
        "A start that the master has taken back meanwhile gets no lease, though nobody here has heard of that yet",
        arguments: [
            leased("a", 10, desired: .removed), leased("a", 10, desired: .stopped), leased("a", 10, epoch: 2), nil,
        ])
    func takenBack(_ now: TaskAssignment?) async throws {
        let table = TaskTable()
        let keeper = LeaseKeeper(table, logger)
        table.put(record(leased("a", 10), .created))
        keeper.onAssignmentWanted { _ in now }
        keeper.confirm(sentAt: LeaseKeeper.now())
        let failure = await #expect(throws: ExecutorFailure.self) {
            try await keeper.startDeadline(leased("a", 10), after: 10)
        }
        #expect(failure?.isTransient == true)
    }

    private final class Given: Sendable {
        private let list = Mutex<[TaskID: [Int64]]>([:])

        subscript(task: String) -> [Int64] { list.withLock { $0[TaskID(task)] ?? [] } }

        func note(_ task: TaskID, _ until: Int64) { list.withLock { $0[task, default: []].append(until) } }
    }

    @Test("A shim that does not answer holds up no other, and is asked once")
    func hanging() async throws {
        let table = TaskTable()
        let keeper = LeaseKeeper(table, logger)
        table.put(record(leased("hangs", 10)))
        table.put(record(leased("works", 10)))
        let given = Given()
        try await withThrowingTaskGroup(of: Void.self) { group in
            defer { group.cancelAll() }
            group.addTask {
                await keeper.run { assignment, until in
                    given.note(assignment.task, until)
                    if assignment.task == TaskID("hangs") { try await Task.sleep(for: .seconds(3600)) }
                }
            }
            var moment: Int64 = 0
            while given["works"].count < 5, moment < 20_000_000 {
                moment += 2000
                keeper.confirm(sentAt: moment)
                try await Task.sleep(for: .milliseconds(1))
            }
        }
        #expect(given["works"].count >= 5 && given["works"] == given["works"].sorted())
        #expect(given["hangs"].count == 1)
    }

    @Test("The end of a lease is a reason of its own")
    func reason() {
        let time = Timestamp(nanoseconds: 1)
        func reason(_ text: String?) -> String {
            ContainerExit(
                ExitRecord(
                    container: "c", start: 1, pid: 7, exitCode: 143, startedAt: time, finishedAt: time, reason: text)
            ).reason
        }
        #expect(reason(ExitRecord.leaseRanOut) == ContainerExit.lease)
        #expect(reason("it ended before it was started") == "it ended before it was started")
        #expect(reason(nil) == "")
    }
}
