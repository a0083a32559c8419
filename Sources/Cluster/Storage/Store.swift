/// The cluster's memory: keys with values, one revision for every transaction, and watches.
///
/// It is shaped after etcd v3 so that both backends pass one contract suite. Keys are UTF-8 text compared by bytes.
package protocol Store: Sendable {
    /// One key; nil when it does not exist.
    func get(_ key: String) async throws -> StoreEntry?

    /// All keys that begin so, in order, with the revision at which that was true.
    ///
    /// - Parameter limit: the most entries; nil for all.
    func range(prefix: String, limit: Int?) async throws -> (entries: [StoreEntry], revision: Int64)

    /// Does `then` if all comparisons hold, `otherwise` if not, as one revision. It is durable when this returns.
    ///
    /// - Throws: `StoreError`; nothing has been written then, except after `unavailable`, where that is unknown.
    func transaction(
        _ comparisons: [StoreComparison], then: [StoreOperation], otherwise: [StoreOperation]
    ) async throws -> StoreResult

    /// Every change of keys that begin so, from the revision on, in order and without a gap; one batch a revision.
    ///
    /// - Parameter revision: may lie in the future; changes before it are left out.
    /// - Throws: `StoreError.compacted` when `revision` is no longer in the history. The stream itself ends with that
    ///   error when its reader falls too far behind: read everything anew then.
    func watch(prefix: String, from revision: Int64) async throws -> AsyncThrowingStream<StoreBatch, any Error>

    /// A lease: keys that are put with it vanish when it is not kept alive for that many seconds.
    func grantLease(seconds: Int) async throws -> StoreLease

    /// - Throws: `StoreError.noSuchLease` when it has ended.
    func keepAlive(_ lease: StoreLease) async throws

    /// Ends a lease and its keys.
    func revoke(_ lease: StoreLease) async throws

    /// Forgets the history up to and including a revision. The present stays.
    func compact(_ revision: Int64) async throws
}

/// Bounds that both backends keep; they are etcd's defaults.
package enum StoreLimits {
    /// Bytes of a key.
    package static let key = 1024
    /// Bytes of a value.
    package static let value = 3 << 19
    /// Operations of a transaction.
    package static let operations = 128
}

package struct StoreEntry: Sendable, Hashable {
    package var key: String
    package var value: [UInt8]
    /// The revision that made the key.
    package var createRevision: Int64
    /// The revision that last wrote it.
    package var modRevision: Int64
    /// Counts the writes since it was made, from 1.
    package var version: Int64
    package var lease: StoreLease?

    package init(
        key: String, value: [UInt8], createRevision: Int64, modRevision: Int64, version: Int64, lease: StoreLease? = nil
    ) {
        self.key = key
        self.value = value
        self.createRevision = createRevision
        self.modRevision = modRevision
        self.version = version
        self.lease = lease
    }
}

package struct StoreLease: Sendable, Hashable {
    package var id: Int64

    package init(id: Int64) { self.id = id }
}

package enum StoreComparison: Sendable, Hashable {
    /// The key's modification revision is this; 0: it does not exist.
    case modRevision(key: String, Int64)
    /// The key's version is this; 0: it does not exist.
    case version(key: String, Int64)
    case value(key: String, [UInt8])
}

package enum StoreOperation: Sendable, Hashable {
    case put(key: String, value: [UInt8], lease: StoreLease? = nil)
    case delete(key: String)
    case get(key: String)

    package var key: String {
        switch self {
        case .put(let key, _, _), .delete(let key), .get(let key): key
        }
    }
}

package struct StoreResult: Sendable, Hashable {
    /// Whether the comparisons held.
    package var succeeded: Bool
    /// The store's revision after it.
    package var revision: Int64
    /// What the `get` operations found, in their order.
    package var entries: [StoreEntry?]

    package init(succeeded: Bool, revision: Int64, entries: [StoreEntry?]) {
        self.succeeded = succeeded
        self.revision = revision
        self.entries = entries
    }
}

/// What one revision changed.
package struct StoreBatch: Sendable, Hashable {
    package enum Change: Sendable, Hashable {
        case put(StoreEntry)
        case delete(key: String)

        package var key: String {
            switch self {
            case .put(let entry): entry.key
            case .delete(let key): key
            }
        }
    }

    package var revision: Int64
    package var changes: [Change]

    package init(revision: Int64, changes: [Change]) {
        self.revision = revision
        self.changes = changes
    }
}

package enum StoreError: Error, Sendable, Equatable, CustomStringConvertible {
    /// Another process has the store.
    case locked(path: String)
    /// No space; the store works on when there is some again.
    case full(String)
    /// What is on the disk is not what was written.
    case corrupted(path: String, String)
    /// Written by a newer version.
    case newerSchema(path: String, found: Int, known: Int)
    /// Not now; the outcome of a transaction is unknown.
    case unavailable(String)
    /// The disk refused to read or write. What it holds is not known any more, so every later call fails alike: end the
    /// process, and open the store again when the disk is sound.
    case failed(path: String, String)
    /// That part of the history is gone: read everything anew. `oldest` is the first revision that can be watched.
    case compacted(oldest: Int64)
    case noSuchLease(Int64)
    /// More than the store takes, or not allowed.
    case invalid(String)

    package var description: String {
        switch self {
        case .locked(let path):
            "another master uses the store \(path): end it first, or give this one another --data-dir"
        case .full(let text): "no space for the store: \(text); free some, nothing was lost"
        case .corrupted(let path, let text):
            "the store \(path) is damaged: \(text); restore it from a backup, or move it away to begin anew"
        case .newerSchema(let path, let found, let known):
            "the store \(path) was written by a newer version (schema \(found), known is \(known)): use that version"
        case .unavailable(let text): "the store does not answer: \(text)"
        case .failed(let path, let text):
            "the disk under the store \(path) failed: \(text); look at the kernel's log, then start again"
        case .compacted(let oldest): "the history before revision \(oldest) is gone"
        case .noSuchLease(let id): "there is no lease \(id)"
        case .invalid(let text): text
        }
    }
}

extension Store {
    package func range(prefix: String) async throws -> (entries: [StoreEntry], revision: Int64) {
        try await range(prefix: prefix, limit: nil)
    }

    /// Writes one key, whatever there was.
    @discardableResult
    package func put(_ key: String, _ value: [UInt8], lease: StoreLease? = nil) async throws -> Int64 {
        try await transaction([], then: [.put(key: key, value: value, lease: lease)], otherwise: []).revision
    }

    @discardableResult
    package func delete(_ key: String) async throws -> Int64 {
        try await transaction([], then: [.delete(key: key)], otherwise: []).revision
    }
}

/// The bounds, checked alike for every backend.
func validate(_ operations: [StoreOperation], limit: Int?) throws(StoreError) {
    if let limit, operations.count > limit {
        throw .invalid("a transaction has at most \(limit) operations, not \(operations.count)")
    }
    // Compared by bytes, as the store does: Swift takes the two ways of writing é for equal.
    var written: Set<[UInt8]> = []
    for operation in operations {
        let key = Array(operation.key.utf8)
        guard (1...StoreLimits.key).contains(key.count), !key.contains(0) else {
            throw .invalid("a key has 1 to \(StoreLimits.key) bytes and no NUL: '\(operation.key.prefix(80))'")
        }
        if case .put(let key, let value, _) = operation, value.count > StoreLimits.value {
            throw .invalid("the value of '\(key)' has \(value.count) bytes; at most \(StoreLimits.value) are taken")
        }
        if case .get = operation { continue }
        guard written.insert(key).inserted else {
            throw .invalid("a transaction writes '\(operation.key)' twice")
        }
    }
}

/// The first key after all that begin with `prefix`, in the order of bytes; nil when there is none.
func keyAfter(prefix: String) -> String? {
    var scalars = Array(prefix.unicodeScalars)
    while let last = scalars.popLast() {
        // UTF-8 keeps the order of scalars. Surrogates are none.
        let next = last.value == 0xD7FF ? 0xE000 : last.value + 1
        guard let scalar = Unicode.Scalar(next) else { continue }
        scalars.append(scalar)
        var result = ""
        result.unicodeScalars.append(contentsOf: scalars)
        return result
    }
    return nil
}
