import FoundationEssentials
import GRDB
import Glibc
import Kernel
import Synchronization

/// The embedded store: one SQLite file, one writer, every commit on the disk before it is answered.
package final class SQLiteStore: Store {
    package let path: String
    /// Revisions that stay in the history for watchers that reconnect.
    private let history: Int64
    private let queue: DatabaseQueue
    private let lock: SharedFD
    private let watchers = Mutex(Watchers())
    private let leases = Mutex<[Int64: (seconds: Int, expires: ContinuousClock.Instant)]>([:])
    private let sweeper = Mutex<Task<Void, Never>?>(nil)

    /// Opens or makes the store.
    ///
    /// - Parameter history: how many revisions a watch can look back.
    /// - Throws: `StoreError`: `locked`, `corrupted` (the file is checked whole), `newerSchema`, `full`.
    package init(path: String, history: Int64 = 1000) throws(StoreError) {
        self.path = path
        self.history = history
        do {
            let file = try File.open(path + ".lock", O_RDWR | O_CREAT)
            guard flock(file.raw, LOCK_EX | LOCK_NB) == 0 else { throw StoreError.locked(path: path) }
            lock = SharedFD(file)
            var configuration = Configuration()
            configuration.label = "martlet.store"
            configuration.busyMode = .timeout(5)
            configuration.prepareDatabase { database in
                // FULL: a commit is on the disk when it returns, see https://sqlite.org/pragma.html#pragma_synchronous
                try database.execute(sql: "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 1000")
            }
            queue = try DatabaseQueue(path: path, configuration: configuration)
            chmod(path, 0o600)
            let granted = try queue.write { database -> [(Int64, Int)] in
                let verdict = try String.fetchOne(database, sql: "PRAGMA quick_check(1)") ?? "no answer"
                guard verdict == "ok" else { throw StoreError.corrupted(path: path, verdict) }
                try SQLiteSchema.prepare(database, path: path)
                return try Row.fetchAll(database, sql: "SELECT id, seconds FROM leases").map { ($0[0], $0[1]) }
            }
            // Nobody could keep them alive while nobody had the store open: each gets its whole time again.
            let now = ContinuousClock.now
            leases.withLock { table in
                for (id, seconds) in granted { table[id] = (seconds, now + .seconds(seconds)) }
            }
            if !granted.isEmpty { sweep() }
        } catch {
            throw StoreError(error, path: path)
        }
    }

    deinit {
        sweeper.withLock { $0?.cancel() }
        watchers.withLock { $0.finish() }
    }

    package func get(_ key: String) async throws -> StoreEntry? {
        try await read { database in try Self.entry(key, database) }
    }

    package func range(prefix: String, limit: Int?) async throws -> (entries: [StoreEntry], revision: Int64) {
        try await read { database in
            let rows = try Row.fetchAll(
                database,
                sql: """
                    SELECT key, value, created, modified, version, lease FROM entries
                    WHERE key >= ?1 AND substr(key, 1, length(?1)) = ?1 ORDER BY key LIMIT ?2
                    """, arguments: [prefix, limit ?? -1])
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

    package func watch(prefix: String, from revision: Int64) async throws -> AsyncThrowingStream<StoreBatch, any Error> {
        // In the writer's queue, so that no commit falls between the history and what follows.
        try await write { database in
            let compacted = try SQLiteSchema.counter("compacted", database)
            guard revision > compacted else { throw StoreError.compacted(oldest: compacted + 1) }
            let rows = try Row.fetchAll(
                database,
                sql: """
                    SELECT revision, key, value, created, version, lease FROM changes
                    WHERE revision >= ?1 AND substr(key, 1, length(?2)) = ?2 ORDER BY revision, key
                    """, arguments: [revision, prefix])
            let (stream, continuation) = AsyncThrowingStream<StoreBatch, any Error>.makeStream()
            var batch: StoreBatch?
            for row in rows {
                let number: Int64 = row[0]
                if let complete = batch, complete.revision != number {
                    continuation.yield(complete)
                    batch = nil
                }
                var next = batch ?? StoreBatch(revision: number, changes: [])
                next.changes.append(StoreBatch.Change(row, revision: number))
                batch = next
            }
            if let batch { continuation.yield(batch) }
            let id = self.watchers.withLock { $0.add(prefix, continuation) }
            continuation.onTermination = { [weak self] _ in self?.watchers.withLock { $0.remove(id) } }
            return stream
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
        leases.withLock { $0[id] = (seconds, .now + .seconds(seconds)) }
        sweep()
        return StoreLease(id: id)
    }

    package func keepAlive(_ lease: StoreLease) async throws {
        let known = leases.withLock { table -> Bool in
            guard let entry = table[lease.id], entry.expires > .now else { return false }
            table[lease.id] = (entry.seconds, .now + .seconds(entry.seconds))
            return true
        }
        guard known else { throw StoreError.noSuchLease(lease.id) }
    }

    package func revoke(_ lease: StoreLease) async throws {
        guard leases.withLock({ $0.removeValue(forKey: lease.id) }) != nil else { throw StoreError.noSuchLease(lease.id) }
        try await end(lease)
    }

    private func end(_ lease: StoreLease) async throws {
        try await write { database in
            let keys = try String.fetchAll(database, sql: "SELECT key FROM entries WHERE lease = ?", arguments: [lease.id])
            if !keys.isEmpty { _ = try self.perform(keys.map { .delete(key: $0) }, database) }
            try database.execute(sql: "DELETE FROM leases WHERE id = ?", arguments: [lease.id])
        }
    }

    /// One task ends leases as they run out; there is none while there are no leases.
    private func sweep() {
        sweeper.withLock { running in
            guard running == nil else { return }
            running = Task { [weak self] in
                while !Task.isCancelled, let self, let next = self.nextExpiry() {
                    try? await Task.sleep(until: next)
                    await self.endExpired()
                }
            }
        }
    }

    private func nextExpiry() -> ContinuousClock.Instant? {
        sweeper.withLock { running in
            let next = leases.withLock { $0.values.map(\.expires).min() }
            if next == nil { running = nil }
            return next
        }
    }

    private func endExpired() async {
        let now = ContinuousClock.now
        let expired = leases.withLock { table in
            let ids = table.filter { $0.value.expires <= now }.map(\.key)
            for id in ids { table[id] = nil }
            return ids
        }
        for id in expired {
            do {
                try await end(StoreLease(id: id))
            } catch {
                // The disk is full, say: its keys stay until it can be ended.
                leases.withLock { $0[id] = (1, .now + .seconds(1)) }
            }
        }
    }

    // MARK: the database

    private func read<Result: Sendable>(_ body: @escaping @Sendable (Database) throws -> Result) async throws -> Result {
        do { return try await queue.read(body) } catch { throw failure(error) }
    }

    private func write<Result: Sendable>(_ body: @escaping @Sendable (Database) throws -> Result) async throws -> Result {
        do { return try await queue.write(body) } catch { throw failure(error) }
    }

    private func failure(_ error: any Error) -> any Error {
        error is CancellationError ? error : StoreError(error, path: path)
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
                if let lease, leases.withLock({ $0[lease.id] }) == nil { throw StoreError.noSuchLease(lease.id) }
                changes.append(.put(try Self.put(key, value, lease, revision: present + 1, database)))
            case .delete(let key):
                try database.execute(sql: "DELETE FROM entries WHERE key = ?", arguments: [key])
                if database.changesCount > 0 {
                    changes.append(.delete(key: key))
                    try database.execute(
                        sql: "INSERT INTO changes VALUES (?, ?, NULL, 0, 0, NULL)", arguments: [present + 1, key])
                }
            }
        }
        guard !changes.isEmpty else { return (present, found) }
        try SQLiteSchema.setCounter("revision", present + 1, database)
        // Forgetting in strides keeps the store bounded without a large delete in every commit.
        if (present + 1) % 100 == 0, present + 1 > history { try Self.forget(present + 1 - history, database) }
        let batch = StoreBatch(revision: present + 1, changes: changes)
        database.afterNextTransaction { _ in self.watchers.withLock { $0.tell(batch) } }
        return (present + 1, found)
    }

    private static func put(
        _ key: String, _ value: [UInt8], _ lease: StoreLease?, revision: Int64, _ database: Database
    ) throws -> StoreEntry {
        let old = try Row.fetchOne(database, sql: "SELECT created, version FROM entries WHERE key = ?", arguments: [key])
        let entry = StoreEntry(
            key: key, value: value, createRevision: old?[0] ?? revision, modRevision: revision,
            version: (old?[1] ?? 0) + 1, lease: lease)
        try database.execute(
            sql: "INSERT OR REPLACE INTO entries VALUES (?, ?, ?, ?, ?, ?)",
            arguments: [key, value.data, entry.createRevision, revision, entry.version, lease?.id])
        try database.execute(
            sql: "INSERT INTO changes VALUES (?, ?, ?, ?, ?, ?)",
            arguments: [revision, key, value.data, entry.createRevision, entry.version, lease?.id])
        return entry
    }

    private static func forget(_ revision: Int64, _ database: Database) throws {
        guard revision > (try SQLiteSchema.counter("compacted", database)) else { return }
        try database.execute(sql: "DELETE FROM changes WHERE revision <= ?", arguments: [revision])
        try SQLiteSchema.setCounter("compacted", revision, database)
    }

    private static func entry(_ key: String, _ database: Database) throws -> StoreEntry? {
        try Row.fetchOne(
            database, sql: "SELECT key, value, created, modified, version, lease FROM entries WHERE key = ?",
            arguments: [key]
        ).map(StoreEntry.init)
    }

    private static func holds(_ comparison: StoreComparison, _ database: Database) throws -> Bool {
        switch comparison {
        case .modRevision(let key, let revision): try (entry(key, database)?.modRevision ?? 0) == revision
        case .version(let key, let version): try (entry(key, database)?.version ?? 0) == version
        case .value(let key, let value): try entry(key, database)?.value == value
        }
    }
}

extension [UInt8] {
    /// As SQLite takes blobs; an empty one must not become NULL.
    fileprivate var data: DatabaseValue { withUnsafeBytes { DatabaseValue(sqliteBlob: $0) } }
}

extension DatabaseValue {
    fileprivate init(sqliteBlob bytes: UnsafeRawBufferPointer) { self = Data(bytes).databaseValue }
}

extension StoreEntry {
    /// key, value, created, modified, version, lease.
    fileprivate init(_ row: Row) {
        self.init(
            key: row[0], value: [UInt8](row[1] as Data), createRevision: row[2], modRevision: row[3], version: row[4],
            lease: (row[5] as Int64?).map(StoreLease.init(id:)))
    }
}

extension StoreBatch.Change {
    /// revision, key, value or NULL, created, version, lease.
    fileprivate init(_ row: Row, revision: Int64) {
        guard let value = row[2] as Data? else {
            self = .delete(key: row[1])
            return
        }
        self = .put(
            StoreEntry(
                key: row[1], value: [UInt8](value), createRevision: row[3], modRevision: revision, version: row[4],
                lease: (row[5] as Int64?).map(StoreLease.init(id:))))
    }
}

/// Who wants to hear of changes.
private struct Watchers {
    private var table: [Int: (prefix: String, continuation: AsyncThrowingStream<StoreBatch, any Error>.Continuation)] = [:]
    private var next = 0

    mutating func add(_ prefix: String, _ continuation: AsyncThrowingStream<StoreBatch, any Error>.Continuation) -> Int {
        next += 1
        table[next] = (prefix, continuation)
        return next
    }

    mutating func remove(_ id: Int) { table[id] = nil }

    func tell(_ batch: StoreBatch) {
        for (prefix, continuation) in table.values {
            let changes = batch.changes.filter { $0.key.hasPrefix(prefix) }
            if !changes.isEmpty { continuation.yield(StoreBatch(revision: batch.revision, changes: changes)) }
        }
    }

    func finish() {
        for entry in table.values { entry.continuation.finish() }
    }
}
