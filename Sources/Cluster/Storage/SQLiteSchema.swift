import GRDB
import Kernel

/// The tables. `entries` is the present, `changes` the history since the last compaction.
enum SQLiteSchema {
    static let version = 1

    static func prepare(_ database: Database, path: String) throws {
        let found = try Int.fetchOne(database, sql: "PRAGMA user_version") ?? 0
        guard found <= version else { throw StoreError.newerSchema(path: path, found: found, known: version) }
        if found == version { return }
        try database.execute(
            sql: """
                CREATE TABLE entries (
                    key TEXT NOT NULL PRIMARY KEY, value BLOB NOT NULL, created INTEGER NOT NULL,
                    modified INTEGER NOT NULL, version INTEGER NOT NULL, lease INTEGER
                ) WITHOUT ROWID;
                CREATE INDEX entries_by_lease ON entries (lease) WHERE lease IS NOT NULL;
                CREATE TABLE changes (
                    revision INTEGER NOT NULL, key TEXT NOT NULL, value BLOB, created INTEGER NOT NULL,
                    version INTEGER NOT NULL, lease INTEGER, PRIMARY KEY (revision, key)
                ) WITHOUT ROWID;
                CREATE TABLE leases (id INTEGER PRIMARY KEY AUTOINCREMENT, seconds INTEGER NOT NULL);
                CREATE TABLE counters (name TEXT NOT NULL PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
                INSERT INTO counters VALUES ('revision', 0), ('compacted', 0);
                PRAGMA user_version = 1;
                """)
    }

    static func counter(_ name: String, _ database: Database) throws -> Int64 {
        try Int64.fetchOne(database, sql: "SELECT value FROM counters WHERE name = ?", arguments: [name]) ?? 0
    }

    static func setCounter(_ name: String, _ value: Int64, _ database: Database) throws {
        try database.execute(sql: "UPDATE counters SET value = ? WHERE name = ?", arguments: [value, name])
    }
}

extension StoreError {
    /// What SQLite's result codes mean to an operator.
    init(_ error: any Error, path: String) {
        switch error {
        case let error as StoreError: self = error
        case let error as DatabaseError:
            let text = error.message ?? "SQLite error \(error.extendedResultCode.rawValue)"
            switch error.resultCode {
            case .SQLITE_FULL: self = .full("\(path): \(text)")
            case .SQLITE_CORRUPT, .SQLITE_NOTADB: self = .corrupted(path: path, text)
            case .SQLITE_BUSY, .SQLITE_LOCKED: self = .locked(path: path)
            case .SQLITE_IOERR: self = .unavailable("\(path): \(text) (code \(error.extendedResultCode.rawValue))")
            default: self = .unavailable("\(path): \(text)")
            }
        case let error as KernelError where error.errno == 28: self = .full("\(error)")
        default: self = .unavailable("\(path): \(error)")
        }
    }
}
