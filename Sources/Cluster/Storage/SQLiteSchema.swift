import GRDB
import Glibc
import Kernel

/// The tables. `entries` is the present, `changes` the history since the last compaction.
enum SQLiteSchema {
    static let version = 1
    /// Says in the file's header whose it is, see https://sqlite.org/pragma.html#pragma_application_id: "Mart".
    static let application = 0x4D61_7274

    /// Makes the tables in an empty file.
    ///
    /// - Throws: `StoreError.newerSchema`; `corrupted` for a database of another program.
    static func prepare(_ database: Database, path: String) throws {
        let found = try Int.fetchOne(database, sql: "PRAGMA user_version") ?? 0
        let owner = try Int.fetchOne(database, sql: "PRAGMA application_id") ?? 0
        let tables = try Int.fetchOne(database, sql: "SELECT count(*) FROM sqlite_master") ?? 0
        guard owner == application || tables == 0 else {
            throw StoreError.corrupted(path: path, "it is a database of another program")
        }
        guard found <= version else { throw StoreError.newerSchema(path: path, found: found, known: version) }
        if found == version { return }
        // With row ids: in a table without them a value above a quarter of a page takes a page of its own.
        try database.execute(
            sql: """
                CREATE TABLE entries (
                    key TEXT NOT NULL PRIMARY KEY, value BLOB NOT NULL, created INTEGER NOT NULL,
                    modified INTEGER NOT NULL, version INTEGER NOT NULL, lease INTEGER
                );
                CREATE INDEX entries_by_lease ON entries (lease) WHERE lease IS NOT NULL;
                CREATE TABLE changes (
                    revision INTEGER NOT NULL, key TEXT NOT NULL, value BLOB, created INTEGER NOT NULL,
                    version INTEGER NOT NULL, lease INTEGER
                );
                CREATE INDEX changes_by_revision ON changes (revision);
                CREATE TABLE leases (id INTEGER PRIMARY KEY AUTOINCREMENT, seconds INTEGER NOT NULL);
                CREATE TABLE counters (name TEXT NOT NULL PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
                INSERT INTO counters VALUES ('revision', 0), ('compacted', 0);
                PRAGMA application_id = \(application);
                PRAGMA user_version = \(version);
                """)
    }

    static func counter(_ name: String, _ database: Database) throws -> Int64 {
        let statement = try database.cachedStatement(sql: "SELECT value FROM counters WHERE name = ?")
        return try Int64.fetchOne(statement, arguments: [name]) ?? 0
    }

    static func setCounter(_ name: String, _ value: Int64, _ database: Database) throws {
        try database.cachedStatement(sql: "UPDATE counters SET value = ? WHERE name = ?")
            .execute(arguments: [value, name])
    }
}

extension StoreError {
    /// What SQLite's result codes mean to an operator.
    init(_ error: any Error, path: String) {
        switch error {
        case let error as StoreError: self = error
        case let error as DatabaseError:
            let text = error.message ?? "SQLite error"
            let code = "SQLite code \(error.extendedResultCode.rawValue)"
            switch error.resultCode {
            case .SQLITE_FULL: self = .full("\(path): \(text)")
            case .SQLITE_CORRUPT, .SQLITE_NOTADB: self = .corrupted(path: path, text)
            case .SQLITE_BUSY, .SQLITE_LOCKED: self = .locked(path: path)
            case .SQLITE_IOERR: self = .failed(path: path, "\(text) (\(code))")
            default: self = .unavailable("\(path): \(text) (\(code))")
            }
        case let error as KernelError where error.isOutOfSpace:
            self = .full("\(error)")
        default: self = .unavailable("\(path): \(error)")
        }
    }

    /// Whether the store must not be used any further after it.
    var isFinal: Bool {
        switch self {
        case .failed, .corrupted: true
        default: false
        }
    }
}
