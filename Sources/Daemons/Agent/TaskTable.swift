import AgentCore
import JSON
import Model
import Synchronization
import Wire

/// The tasks of this node as the core last decided, for routes and for whoever waits for a change.
final class TaskTable: Sendable {
    private struct State {
        var records: [TaskID: TaskRecord] = [:]
        var waiters: [Int: Waiter] = [:]
        var nextWaiter = 0
    }

    private struct Waiter: Sendable {
        let task: TaskID
        let call: @Sendable () -> Void
    }

    private let state = Mutex(State())
    /// Signals after a change of who is where on which network, and once at first.
    let networkChanges: AsyncStream<Void>
    private let networksChanged: AsyncStream<Void>.Continuation
    /// Signals after a change of who has which of the node's devices.
    let deviceChanges: AsyncStream<Void>
    private let devicesChanged: AsyncStream<Void>.Continuation
    /// Signals after a change of who has processors alone, and when it is told to.
    let processorChanges: AsyncStream<Void>
    private let processorsChanged: AsyncStream<Void>.Continuation

    init() {
        (processorChanges, processorsChanged) = AsyncStream.makeStream(bufferingPolicy: .bufferingNewest(1))
        (deviceChanges, devicesChanged) = AsyncStream.makeStream(bufferingPolicy: .bufferingNewest(1))
        (networkChanges, networksChanged) = AsyncStream.makeStream(bufferingPolicy: .bufferingNewest(1))
        networksChanged.yield()
    }

    subscript(task: TaskID) -> TaskRecord? { state.withLock { $0.records[task] } }

    var all: [TaskRecord] { state.withLock { Array($0.records.values) } }

    func put(_ record: TaskRecord) { change(record.assignment.task, record) }

    func remove(_ task: TaskID) { change(task, nil) }

    private func change(_ task: TaskID, _ record: TaskRecord?) {
        let (calls, hasMoved, hasOthers, hasProcessors) = state.withLock { state in
            let before = state.records[task]
            state.records[task] = record
            return (
                state.waiters.values.filter { $0.task == task }.map(\.call),
                before.map(NetworkPresence.init) != record.map(NetworkPresence.init),
                (before?.deviceUse ?? .init()) != (record?.deviceUse ?? .init()),
                (before?.ownProcessors ?? []) != (record?.ownProcessors ?? [])
            )
        }
        if hasMoved { networksChanged.yield() }
        if hasOthers { devicesChanged.yield() }
        if hasProcessors { processorsChanged.yield() }
        for call in calls { call() }
    }

    /// Has `processorChanges` signal though nothing has changed.
    func signalProcessors() { processorsChanged.yield() }

    /// Signals once now and after each change of the task, until the caller's loop ends.
    func changes(_ task: TaskID) -> AsyncStream<Void> {
        let (stream, signal) = AsyncStream<Void>.makeStream(bufferingPolicy: .bufferingNewest(1))
        let number = watch(task) { signal.yield() }
        signal.onTermination = { [weak self] _ in self?.forget(number) }
        return stream
    }

    /// Calls `body` once now and after each change of the task, until `forget`. It must not wait.
    ///
    /// - Returns: for `forget`.
    func watch(_ task: TaskID, _ body: @escaping @Sendable () -> Void) -> Int {
        let number = state.withLock { state in
            state.nextWaiter += 1
            state.waiters[state.nextWaiter] = Waiter(task: task, call: body)
            return state.nextWaiter
        }
        body()
        return number
    }

    func forget(_ watch: Int) { state.withLock { _ = $0.waiters.removeValue(forKey: watch) } }

    /// Waits until `test` says something about the task's record.
    ///
    /// - Parameter test: nil to wait on; called with nil when the node does not hold the task.
    /// - Returns: nil when the limit is reached first.
    func wait<Result: Sendable>(
        _ task: TaskID, atMost limit: Duration, until test: @escaping @Sendable (TaskRecord?) throws -> Result?
    ) async throws -> Result? {
        // Mostly so, and a timer would stay until its time.
        if let result = try test(self[task]) { return result }
        return try await withThrowingTaskGroup(of: Result?.self) { group in
            defer { group.cancelAll() }
            group.addTask {
                for await _ in self.changes(task) {
                    if let result = try test(self[task]) { return result }
                }
                throw CancellationError()
            }
            group.addTask {
                try await Task.sleep(for: limit)
                return nil
            }
            return try await group.next() ?? nil
        }
    }
}

/// What other pods see of a task on its networks.
private struct NetworkPresence: Equatable {
    let endpoints: [NetworkEndpoint]
    let attachments: [NetworkAttachment]
    let name: String
    let isThere: Bool

    init(_ record: TaskRecord) {
        endpoints = record.endpoints ?? []
        attachments = record.assignment.pod.attachments
        name = record.assignment.instanceName
        isThere = record.isOnNetworks
    }
}

extension TaskRecord {
    /// Whether others find it by name: it runs, or is about to.
    var isOnNetworks: Bool { isLive || startPending }
}
