import GRDB
import Glibc
import Kernel
import Testing

@testable import Storage

/// What is particular to the embedded store: its file.
@Suite(.timeLimit(.minutes(3))) struct SQLiteStoreTests {
    @Test func everythingIsThereAfterReopening() async throws {
        try await withDirectory { directory in
            let path = directory + "/martlet.db"
            let lease: StoreLease
            let before: (entries: [StoreEntry], revision: Int64)
            do {
                let store = try SQLiteStore(path: path)
                lease = try await store.grantLease(seconds: 600)
                try await store.put("a", [1])
                try await store.put("a", [2], lease: lease)
                try await store.put("b", [])
                before = try await store.range(prefix: "")
            }
            let store = try await Self.reopened(path)
            let after = try await store.range(prefix: "")
            #expect(after.entries == before.entries && after.revision == before.revision)
            var batches = try await store.watch(prefix: "", from: 1).makeAsyncIterator()
            #expect(try await batches.next()?.summary == ["+a=\u{1}"])
            try await store.keepAlive(lease)
            #expect(try await store.grantLease(seconds: 1) != lease)
            #expect(try await store.put("c", []) == before.revision + 1)
        }
    }

    /// Opens a store whose former owner in this process may be about to go.
    static func reopened(_ path: String, history: Int64 = 1000) async throws -> SQLiteStore {
        for _ in 0..<500 {
            do { return try SQLiteStore(path: path, history: history) } catch StoreError.locked {
                try await Task.sleep(for: .milliseconds(10))
            }
        }
        return try SQLiteStore(path: path, history: history)
    }

    @Test func aSecondMasterIsRefused() async throws {
        try await withDirectory { directory in
            let path = directory + "/martlet.db"
            let store = try SQLiteStore(path: path)
            let error = #expect(throws: StoreError.locked(path: path)) { _ = try SQLiteStore(path: path) }
            #expect(error?.description.hasPrefix("another master uses the store \(path): ") == true)
            try await store.put("a", [])
        }
    }

    @Test func onlyTheOwnerMayReadTheFiles() async throws {
        try await withDirectory { directory in
            let store = try SQLiteStore(path: directory + "/martlet.db")
            try await store.put("a", [])
            for name in try File.list(directory) {
                var info = stat()
                lstat("\(directory)/\(name)", &info)
                #expect(info.st_mode & 0o777 == 0o600, "\(name)")
            }
        }
    }

    @Test func aCommitIsSyncedToTheDisk() async throws {
        try await withDirectory { directory in
            let store = try SQLiteStore(path: directory + "/martlet.db")
            let settings = try await store.queue.read { database in
                try ["journal_mode", "synchronous", "locking_mode"].map {
                    try String.fetchOne(database, sql: "PRAGMA \($0)") ?? ""
                }
            }
            // 2 is FULL.
            #expect(settings == ["wal", "2", "exclusive"])
        }
    }

    @Test func aDamagedFileIsRefusedWithWhatToDo() async throws {
        try await withDirectory { directory in
            let path = directory + "/martlet.db"
            do {
                let store = try SQLiteStore(path: path)
                for number in 0..<200 { try await store.put("key/\(number)", [UInt8](repeating: 7, count: 500)) }
            }
            _ = try await Self.reopened(path)
            try File.removeFile(path + "-wal")
            var bytes = try File.read(path, limit: 16 << 20)
            try #require(bytes.count > 40_000)
            for index in 8192..<40_000 { bytes[index] = UInt8(truncatingIfNeeded: index &* 31) }
            try File.replace(path, with: bytes)
            let error = await #expect(throws: StoreError.self) { _ = try await Self.reopened(path) }
            guard case .corrupted = error else {
                Issue.record("ended with \(String(describing: error))")
                return
            }
            #expect(error?.description.contains("restore it from a backup") == true)
        }
    }

    @Test func whatIsNoStoreIsRefusedAndLeftAlone() async throws {
        try await withDirectory { directory in
            let text = directory + "/text.db"
            let bytes = [UInt8](repeating: UInt8(ascii: "x"), count: 4096)
            try File.replace(text, with: bytes)
            #expect(throws: StoreError.self) { _ = try SQLiteStore(path: text) }
            #expect(try File.read(text) == bytes)
            let other = directory + "/other.db"
            try await python("import sqlite3; sqlite3.connect('\(other)').execute('create table t (x)')")
            let error = #expect(throws: StoreError.self) { _ = try SQLiteStore(path: other) }
            #expect(error?.description.contains("another program") == true)
        }
    }

    @Test func aNewerSchemaIsRefused() async throws {
        try await withDirectory { directory in
            let path = directory + "/martlet.db"
            do { _ = try SQLiteStore(path: path) }
            _ = try await Self.reopened(path)
            try await python("import sqlite3; sqlite3.connect('\(path)').execute('pragma user_version = 7')")
            await #expect(throws: StoreError.newerSchema(path: path, found: 7, known: 1)) {
                _ = try await Self.reopened(path)
            }
        }
    }

    @Test func theHistoryIsBounded() async throws {
        try await withDirectory { directory in
            let store = try SQLiteStore(path: directory + "/martlet.db", history: 200)
            for number in 0..<1000 { try await store.put("k", [UInt8("\(number)".utf8.count)]) }
            let error = await #expect(throws: StoreError.self) { _ = try await store.watch(prefix: "", from: 700) }
            guard case .compacted(let oldest) = error else {
                Issue.record("ended with \(String(describing: error))")
                return
            }
            #expect((701...801).contains(oldest))
            _ = try await store.watch(prefix: "", from: oldest)
        }
    }

    @Test func aWatcherThatDoesNotReadIsCutOffWithoutAGap() async throws {
        try await withDirectory { directory in
            let store = try SQLiteStore(path: directory + "/martlet.db", history: 10)
            let stream = try await store.watch(prefix: "", from: 1)
            for batch in 0..<60 {
                // Many revisions cheaply: the table is told directly of what a commit would tell it.
                for number in 1...100 {
                    let revision = Int64(batch * 100 + number)
                    store.watchers.tell(StoreBatch(revision: revision, changes: [.delete(key: "k")]))
                }
            }
            var expected: Int64 = 1
            let error = await #expect(throws: StoreError.self) {
                for try await batch in stream {
                    #expect(batch.revision == expected)
                    expected += 1
                }
            }
            #expect(error == .compacted(oldest: expected + 1))
        }
    }

    @Test func aFailingDiskEndsTheStoreForGood() async throws {
        try await withDirectory { directory in
            let path = directory + "/martlet.db"
            // In a process of its own, for the limit that makes write(2) fail as a bad disk does: not with ENOSPC.
            await #expect(processExitsWith: .success) { [path = path as String] in
                let store = try SQLiteStore(path: path)
                try await store.put("a", [1])
                signal(SIGXFSZ, SIG_IGN)
                var limit = rlimit(rlim_cur: 200_000, rlim_max: rlim_t.max)
                setrlimit(__rlimit_resource_t(RLIMIT_FSIZE.rawValue), &limit)
                let error = await #expect(throws: StoreError.self) {
                    try await store.put("b", [UInt8](repeating: 1, count: 1_000_000))
                }
                guard case .failed = error else { exit(2) }
                limit.rlim_cur = rlim_t.max
                setrlimit(__rlimit_resource_t(RLIMIT_FSIZE.rawValue), &limit)
                // The disk is well again, but nobody knows what it holds.
                await #expect(throws: error ?? .invalid("no error")) { _ = try await store.get("a") }
            }
            let store = try await Self.reopened(path)
            #expect(try await store.range(prefix: "").entries.map(\.key) == ["a"])
        }
    }
}

/// Runs a Python program; the sqlite3 in it is another implementation than GRDB's.
func python(_ program: String) async throws {
    let child = try Spawn("/usr/bin/python3", ["python3", "-c", program], descriptors: [-1, 1, 2]).start()
    while true {
        if let status = try child.poll() {
            guard status == .exited(0) else { throw StoreError.invalid("python3 ended with \(status)") }
            return
        }
        try await Task.sleep(for: .milliseconds(20))
    }
}
