import GRDB
import Glibc
import Kernel
import Synchronization

/// The embedded store: one SQLite file, one writer, every commit on the disk before it is answered.
///
/// All work on the database happens on a queue of GRDB's, never on the calling task's thread. A transaction that has
/// begun is not cancelled, so its outcome is always known.
package final class SQLiteStore: Store {
    package let path: String
    let queue: DatabaseQueue
    let watchers: WatcherTable
    let leases = LeaseTable()
    /// Revisions that stay in the history for watchers that reconnect.
    private let history: Int64
    private let lock: FileLock
    /// The error after which nothing works any more.
    private let ended = Mutex<StoreError?>(nil)

    /// Opens or makes the store. Blocks while the file is checked whole: at a daemon's start.
    ///
    /// - Parameter history: how many revisions a watch can look back, at least; a hundred more at most.
    /// - Throws: `StoreError`: `locked`, `corrupted`, `newerSchema`, `full`.
    package init(path: String, history: Int64 = 1000) throws(StoreError) {
        self.path = path
        self.history = history
        watchers = WatcherTable(bound: Int(history) + 4096)
        do {
            guard let lock = try FileLock(path + ".lock") else { throw StoreError.locked(path: path) }
            self.lock = lock
            // Made here, so that nobody else can read it from the first moment.
            _ = try File.open(path, O_RDWR | O_CREAT)
            queue = try DatabaseQueue(path: path, configuration: Self.configuration)
            let granted = try queue.write { database -> [(Int64, Int)] in
                let verdict = try String.fetchOne(database, sql: "PRAGMA quick_check(1)") ?? "no answer"
                guard verdict == "ok" else { throw StoreError.corrupted(path: path, verdict) }
                try SQLiteSchema.prepare(database, path: path)
                return try Row.fetchAll(database, sql: "SELECT id, seconds FROM leases").map { ($0[0], $0[1]) }
            }
            for (id, seconds) in granted { leases.add(id, seconds: seconds) }
        } catch {
            throw StoreError(error, path: path)
        }
        leases.whenDue { [weak self] id in try await self?.end(id) }
    }

    deinit {
        leases.stop()
        watchers.finish()
    }

    private static var configuration: Configuration {
        var configuration = Configuration()
        configuration.label = "martlet.store"
        configuration.prepareDatabase { database in
            // Exclusive first: the index of the write-ahead log then lives in memory and no other process gets in.
            // FULL: a commit is on the disk when it returns, see https://sqlite.org/pragma.html#pragma_synchronous
            try database.execute(
                sql: """
                    PRAGMA locking_mode = EXCLUSIVE;
                    PRAGMA journal_mode = WAL;
                    PRAGMA synchronous = FULL;
                    PRAGMA wal_autocheckpoint = 1000;
                    PRAGMA journal_size_limit = 16777216;
                    """)
        }
        return configuration
    }

    package func get(_ key: String) async throws -> StoreEntry? {
        try await read { database in try Self.entry(key, database) }
    }

    package func range(prefix: String, limit: Int?) async throws -> (entries: [StoreEntry], revision: Int64) {
        try await read { database in
            let columns = "SELECT key, value, created, modified, version, lease FROM entries"
            let order = "ORDER BY key LIMIT ?"
            let rows =
                if let end = keyAfter(prefix: prefix) {
                    try Row.fetchAll(
                        database.cachedStatement(sql: "\(columns) WHERE key >= ? AND key < ? \(order)"),
                        arguments: [prefix, end, limit ?? -1])
                } else {
                    try Row.fetchAll(
                        database.cachedStatement(sql: "\(columns) WHERE key >= ? \(order)"),
                        arguments: [prefix, limit ?? -1])
                }
            return (rows.map(StoreEntry.init), try SQLiteSchema.counter("revision", database))
        }
    }

    package func transaction(
        _ comparisons: [StoreComparison], then: [StoreOperation], otherwise: [StoreOperation]
    ) async throws -> StoreResult {
        // One process, one file: a transaction may be larger here than etcd's 128 operations.
        try validate(then, limit: nil)
        try validate(otherwise, limit: nil)
        return try await write { database in
            let holds = try comparisons.allSatisfy { try Self.holds($0, database) }
            let (revision, entries) = try self.perform(holds ? then : otherwise, database)
            return StoreResult(succeeded: holds, revision: revision, entries: entries)
        }
    }

    package func watch(
        prefix: String, from revision: Int64
    ) async throws -> AsyncThrowingStream<StoreBatch, any Error> {
        // On the writer's queue, so that no commit falls between the history and what follows.
        try await read { database in
            let compacted = try SQLiteSchema.counter("compacted", database)
            guard revision > compacted else { throw StoreError.compacted(oldest: compacted + 1) }
            let rows = try Row.fetchAll(
                database,
                sql: """
                    SELECT revision, key, value, created, version, lease FROM changes
                    WHERE revision >= ? AND key >= ? ORDER BY revision, key
                    """, arguments: [revision, prefix])
            var past: [StoreBatch] = []
            for row in rows {
                let change = StoreBatch.Change(row)
                guard change.key.utf8.starts(with: prefix.utf8) else { continue }
                if past.last?.revision == row[0] {
                    past[past.count - 1].changes.append(change)
                } else {
                    past.append(StoreBatch(revision: row[0], changes: [change]))
                }
            }
            return self.watchers.add(prefix: prefix, from: revision, past: past)
        }
    }

    package func compact(_ revision: Int64) async throws {
        try await write { database in
            let present = try SQLiteSchema.counter("revision", database)
            guard revision <= present else { throw StoreError.invalid("revision \(revision) has not been reached yet") }
            try Self.forget(revision, database)
        }
    }

    // MARK: leases

    package func grantLease(seconds: Int) async throws -> StoreLease {
        guard (1...1_000_000).contains(seconds) else {
            throw StoreError.invalid("a lease lasts 1 to 1,000,000 seconds, not \(seconds)")
        }
        let id = try await write { database -> Int64 in
            try database.execute(sql: "INSERT INTO leases (seconds) VALUES (?)", arguments: [seconds])
            return database.lastInsertedRowID
        }
        leases.add(id, seconds: seconds)
        return StoreLease(id: id)
    }

    package func keepAlive(_ lease: StoreLease) async throws {
        guard leases.renew(lease.id) else { throw StoreError.noSuchLease(lease.id) }
    }

    package func revoke(_ lease: StoreLease) async throws {
        guard leases.beginEnding(lease.id) else { throw StoreError.noSuchLease(lease.id) }
        try await leases.finishEnding(lease.id) { try await self.end($0) }
    }

    /// Removes a lease with its keys, in one revision.
    private func end(_ id: Int64) async throws {
        try await write { database in
            let keys = try String.fetchAll(database, sql: "SELECT key FROM entries WHERE lease = ?", arguments: [id])
            if !keys.isEmpty { _ = try self.perform(keys.map { .delete(key: $0) }, database) }
            try database.execute(sql: "DELETE FROM leases WHERE id = ?", arguments: [id])
        }
    }

    // MARK: the database

    private func read<Result: Sendable>(
        _ body: @escaping @Sendable (Database) throws -> Result
    ) async throws -> Result {
        try await access { [queue] in try await queue.read(body) }
    }

    private func write<Result: Sendable>(
        _ body: @escaping @Sendable (Database) throws -> Result
    ) async throws -> Result {
        try await access { [queue] in try await queue.write(body) }
    }

    private func access<Result: Sendable>(_ body: @escaping @Sendable () async throws -> Result) async throws -> Result
    {
        try Task.checkCancellation()
        if let error = ended.withLock({ $0 }) { throw error }
        do {
            // A task of its own, which the caller's cancellation does not reach.
            return try await Task { try await body() }.value
        } catch {
            let known = StoreError(error, path: path)
            if known.isFinal { ended.withLock { $0 = known } }
            throw known
        }
    }

    /// Does operations at the next revision, writes the history and tells the watchers once it is durable.
    private func perform(_ operations: [StoreOperation], _ database: Database) throws -> (Int64, [StoreEntry?]) {
        let present = try SQLiteSchema.counter("revision", database)
        var changes: [StoreBatch.Change] = []
        var found: [StoreEntry?] = []
        for operation in operations {
            switch operation {
            case .get(let key): found.append(try Self.entry(key, database))
            case .put(let key, let value, let lease):
                if let lease, !leases.isLive(lease.id) { throw StoreError.noSuchLease(lease.id) }
                changes.append(.put(try Self.put(key, value, lease, revision: present + 1, database)))
            case .delete(let key):
                if try Self.delete(key, revision: present + 1, database) { changes.append(.delete(key: key)) }
            }
        }
        guard !changes.isEmpty else { return (present, found) }
        try SQLiteSchema.setCounter("revision", present + 1, database)
        // Forgetting in strides keeps the store bounded without a large delete in every commit.
        if (present + 1) % 100 == 0, present + 1 > history { try Self.forget(present + 1 - history, database) }
        let batch = StoreBatch(revision: present + 1, changes: changes.sorted { $0.key.utf8Precedes($1.key) })
        database.afterNextTransaction { [watchers] _ in watchers.tell(batch) }
        return (present + 1, found)
    }

    private static func put(
        _ key: String, _ value: [UInt8], _ lease: StoreLease?, revision: Int64, _ database: Database
    ) throws -> StoreEntry {
        let old = try Row.fetchOne(
            database.cachedStatement(sql: "SELECT created, version FROM entries WHERE key = ?"), arguments: [key])
        let entry = StoreEntry(
            key: key, value: value, createRevision: old?[0] ?? revision, modRevision: revision,
            version: (old?[1] ?? 0) + 1, lease: lease)
        let blob = value.blob
        try database.cachedStatement(sql: "INSERT OR REPLACE INTO entries VALUES (?, ?, ?, ?, ?, ?)")
            .execute(arguments: [key, blob, entry.createRevision, revision, entry.version, lease?.id])
        try database.cachedStatement(sql: "INSERT INTO changes VALUES (?, ?, ?, ?, ?, ?)")
            .execute(arguments: [revision, key, blob, entry.createRevision, entry.version, lease?.id])
        return entry
    }

    /// - Returns: whether there was such a key.
    private static func delete(_ key: String, revision: Int64, _ database: Database) throws -> Bool {
        try database.cachedStatement(sql: "DELETE FROM entries WHERE key = ?").execute(arguments: [key])
        if database.changesCount == 0 { return false }
        try database.cachedStatement(sql: "INSERT INTO changes VALUES (?, ?, NULL, 0, 0, NULL)")
            .execute(arguments: [revision, key])
        return true
    }

    private static func forget(_ revision: Int64, _ database: Database) throws {
        guard revision > (try SQLiteSchema.counter("compacted", database)) else { return }
        try database.execute(sql: "DELETE FROM changes WHERE revision <= ?", arguments: [revision])
        try SQLiteSchema.setCounter("compacted", revision, database)
    }

    private static func entry(_ key: String, _ database: Database) throws -> StoreEntry? {
        let statement = try database.cachedStatement(
            sql: "SELECT key, value, created, modified, version, lease FROM entries WHERE key = ?")
        return try Row.fetchOne(statement, arguments: [key]).map(StoreEntry.init)
    }

    private static func holds(_ comparison: StoreComparison, _ database: Database) throws -> Bool {
        switch comparison {
        case .modRevision(let key, let revision): try (entry(key, database)?.modRevision ?? 0) == revision
        case .version(let key, let version): try (entry(key, database)?.version ?? 0) == version
        case .value(let key, let value): try entry(key, database)?.value == value
        }
    }
}
