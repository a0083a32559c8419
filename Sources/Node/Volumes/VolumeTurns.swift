import Synchronization

/// Who works on which volume: one at a time on each, and nobody waits for another's, whose server may not answer.
final class VolumeTurns: Sendable {
    private final class Turn: Sendable {
        let lock = Mutex<Void>(())
    }

    private struct Entry: Sendable {
        let turn = Turn()
        var count = 0
    }

    private let entries = Mutex<[String: Entry]>([:])

    /// Blocks until all who came before have done with the volume.
    func withTurn<Result: Sendable>(_ volume: String, _ body: () throws -> Result) throws -> Result {
        let turn = entries.withLock { entries in
            var entry = entries[volume] ?? Entry()
            entry.count += 1
            entries[volume] = entry
            return entry.turn
        }
        defer {
            entries.withLock { entries in
                entries[volume]?.count -= 1
                if entries[volume]?.count == 0 { entries[volume] = nil }
            }
        }
        return try turn.lock.withLock { _ in try body() }
    }
}
