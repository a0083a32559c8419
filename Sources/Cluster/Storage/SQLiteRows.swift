import FoundationEssentials
import GRDB

// GRDB carries blobs as Foundation's Data; nothing outside this file sees it.

extension [UInt8] {
    /// As SQLite takes blobs; an empty one is not NULL.
    var blob: DatabaseValue { Data(self).databaseValue }
}

extension StoreEntry {
    /// key, value, created, modified, version, lease.
    init(_ row: Row) {
        self.init(
            key: row[0], value: [UInt8](row[1] as Data), createRevision: row[2], modRevision: row[3], version: row[4],
            lease: (row[5] as Int64?).map(StoreLease.init(id:)))
    }
}

extension StoreBatch.Change {
    /// revision, key, value or NULL, created, version, lease.
    init(_ row: Row) {
        guard let value = row[2] as Data? else {
            self = .delete(key: row[1])
            return
        }
        self = .put(
            StoreEntry(
                key: row[1], value: [UInt8](value), createRevision: row[3], modRevision: row[0], version: row[4],
                lease: (row[5] as Int64?).map(StoreLease.init(id:))))
    }
}

extension String {
    /// Whether this key comes before another in the order of bytes.
    func utf8Precedes(_ other: String) -> Bool {
        utf8.lexicographicallyPrecedes(other.utf8)
    }
}
