import Glibc
import Kernel
import Testing

@testable import Storage

/// What was acknowledged is there after a SIGKILL, and what was begun is there whole or not at all; a full disk is
/// survived. (That a commit also survives a loss of power is SQLite's `synchronous = FULL`, see `aCommitIsSynced…`.)
@Suite(.serialized, .timeLimit(.minutes(5))) struct StoreCrashTests {
    @Test func acknowledgedWritesSurviveSIGKILL() async throws {
        try await withDirectory { directory in
            for round in 0..<10 {
                // The child is this test program, executed anew.
                await #expect(processExitsWith: .signal(SIGKILL)) { [directory = directory as String] in
                    try await Self.writeUntilKilled(directory)
                }
                try await Self.check(directory, round: round)
            }
        }
    }

    /// Kills its own process within 20 to 150 ms. Until then it writes pairs of keys in one
    /// transaction each, and notes in a file those that were acknowledged.
    static func writeUntilKilled(_ directory: String) async throws {
        let store = try await SQLiteStoreTests.reopened(directory + "/martlet.db", history: 1_000_000)
        let acknowledged = try File.open(directory + "/acknowledged", O_WRONLY | O_CREAT | O_APPEND)
        var thread = pthread_t()
        pthread_create(
            &thread, nil,
            { _ in
                usleep(.random(in: 20_000...150_000))
                kill(getpid(), SIGKILL)
                return nil
            }, nil)
        var number = try await store.range(prefix: "").revision
        while true {
            number += 1
            let value = [UInt8](repeating: UInt8(truncatingIfNeeded: number), count: Int(number) * 37 % 5000)
            let result = try await store.transaction(
                [], then: [.put(key: "left/\(number)", value: value), .put(key: "right/\(number)", value: value)],
                otherwise: [])
            try acknowledged.writeAll("\(number) \(result.revision)\n".utf8)
        }
    }

    static func check(_ directory: String, round: Int) async throws {
        let noted = try File.text(directory + "/acknowledged", limit: 16 << 20).split(separator: "\n")
        let store = try await SQLiteStoreTests.reopened(directory + "/martlet.db", history: 1_000_000)
        let left = try await store.range(prefix: "left/").entries
        let right = try await store.range(prefix: "right/").entries
        let present = Dictionary(uniqueKeysWithValues: left.map { ($0.key, $0) })
        for line in noted {
            let parts = line.split(separator: " ")
            let entry = present["left/\(parts[0])"]
            #expect(entry.map { "\($0.modRevision)" } == String(parts[1]), "round \(round): \(line) is not there")
        }
        // Between commit and note a process may die, once a round; half a transaction is never there.
        #expect(left.count - noted.count <= round + 1)
        #expect(left.map(\.value) == right.map(\.value))
        #expect(left.map(\.modRevision) == right.map(\.modRevision))
        // The history is whole too.
        let last = try await store.range(prefix: "").revision
        #expect(Int(last) == left.count)
        var expected: Int64 = 1
        if last == 0 { return }
        for try await batch in try await store.watch(prefix: "", from: 1) {
            #expect(batch.revision == expected && batch.changes.count == 2)
            expected += 1
            if expected > last { break }
        }
    }

    static func canMount() -> Bool { geteuid() == 0 && access("/usr/bin/mount", X_OK) == 0 }

    @Test(.enabled(if: canMount(), "mounting a small file system needs root"))
    func aFullDiskIsSurvived() async throws {
        try await withDirectory { directory in
            try await shell("mount -t tmpfs -o size=4m none \(directory)")
            do {
                try await Self.fill(directory)
            } catch {
                try await shell("umount -l \(directory)")
                throw error
            }
            try await shell("umount -l \(directory)")
        }
    }

    static func fill(_ directory: String) async throws {
        let store = try SQLiteStore(path: directory + "/martlet.db")
        let lease = try await store.grantLease(seconds: 1)
        try await store.put("leased", [], lease: lease)
        var written: [String] = []
        let error = await #expect(throws: StoreError.self) {
            for number in 0..<1000 {
                try await store.put("k\(number)", [UInt8](repeating: 1, count: 50_000))
                written.append("k\(number)")
            }
        }
        guard case .full = error else {
            Issue.record("ended with \(String(describing: error))")
            return
        }
        #expect(!written.isEmpty)
        // Reading goes on, and nothing that was acknowledged is missing.
        #expect(try await store.range(prefix: "k").entries.count == written.count)
        let revision = try await store.range(prefix: "").revision
        await #expect(throws: StoreError.self) {
            for number in 0..<1000 { try await store.put("more\(number)", [UInt8](repeating: 1, count: 50_000)) }
        }
        #expect(try await store.range(prefix: "k").entries.count == written.count)
        // Room comes back, and with it everything, the end of the lease included.
        try await shell("mount -o remount,size=32m \(directory)")
        try await store.put("after", [1])
        while try await store.get("leased") != nil { try await Task.sleep(for: .milliseconds(100)) }
        #expect(try await store.range(prefix: "").revision > revision)
        #expect(try await store.range(prefix: "k").entries.map(\.key).sorted() == written.sorted())
    }
}

/// Runs a shell command and expects it to succeed.
func shell(_ command: String) async throws {
    let environment = ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"]
    let child = try Spawn("/bin/sh", ["sh", "-c", command], environment: environment, descriptors: [-1, 1, 2]).start()
    while true {
        if let status = try child.poll() {
            guard status == .exited(0) else { throw StoreError.invalid("'\(command)' ended with \(status)") }
            return
        }
        try await Task.sleep(for: .milliseconds(20))
    }
}
