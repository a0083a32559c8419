import Model
import Synchronization

/// Lets clients join a container's stdio before its first byte: they wait here until the container is made, and its
/// program is let go only when they have joined.
final class AttachGate: Sendable {
    /// One client's place. It leaves when it is dropped.
    final class Ticket: Sendable {
        private let gate: AttachGate
        fileprivate let task: TaskID
        fileprivate let number: Int
        /// Ends when the container is made.
        let made: AsyncStream<Void>
        fileprivate let open: AsyncStream<Void>.Continuation

        fileprivate init(_ gate: AttachGate, _ task: TaskID, _ number: Int) {
            self.gate = gate
            self.task = task
            self.number = number
            (made, open) = AsyncStream.makeStream()
        }

        deinit { gate.leave(task, number) }

        /// The client has joined.
        func joined() { gate.leave(task, number) }
    }

    private struct Waiting: Sendable {
        var clients: [Int: AsyncStream<Void>.Continuation] = [:]
        var opener: AsyncStream<Void>.Continuation?
    }

    /// How long a start waits for clients that were there before it.
    private static let patience = Duration.seconds(5)

    private let state = Mutex<(next: Int, waiting: [TaskID: Waiting])>((0, [:]))

    func enter(_ task: TaskID) -> Ticket {
        state.withLock { state in
            state.next += 1
            let ticket = Ticket(self, task, state.next)
            state.waiting[task, default: Waiting()].clients[state.next] = ticket.open
            return ticket
        }
    }

    private func leave(_ task: TaskID, _ number: Int) {
        let opener = state.withLock { state -> AsyncStream<Void>.Continuation? in
            state.waiting[task]?.clients[number] = nil
            guard state.waiting[task]?.clients.isEmpty == true else { return nil }
            return state.waiting.removeValue(forKey: task)?.opener
        }
        opener?.finish()
    }

    /// Lets all clients that wait go on: the container was made while they came.
    func release(_ task: TaskID) {
        let clients = state.withLock { $0.waiting[task].map { Array($0.clients.values) } ?? [] }
        for client in clients { client.finish() }
    }

    /// The container is made: returns when all clients that waited have joined or left.
    func open(_ task: TaskID) async {
        let (done, opener) = AsyncStream<Void>.makeStream()
        let clients = state.withLock { state -> [AsyncStream<Void>.Continuation] in
            guard state.waiting[task] != nil else { return [] }
            state.waiting[task]?.opener = opener
            return state.waiting[task].map { Array($0.clients.values) } ?? []
        }
        guard !clients.isEmpty else { return }
        for client in clients { client.finish() }
        await withTaskGroup(of: Void.self) { group in
            group.addTask { for await _ in done {} }
            group.addTask { try? await Task.sleep(for: Self.patience) }
            await group.next()
            group.cancelAll()
        }
    }
}
