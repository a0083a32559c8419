import Glibc
import JSON
import Kernel
import Logging
import Testing

@testable import Master

/// What the audit log holds against those who would rather not be in it.
@Suite struct AuditTests {
    private func withLog(_ work: (AuditLog, String) async throws -> Void) async throws {
        let place = "/tmp/martlet-audit-\(UInt64.random(in: 0...UInt64.max))"
        try File.makeDirectories(place, mode: 0o700)
        defer { _ = try? Tree.remove(place) }
        let logger = Logger(label: "test", factory: { _ in SwiftLogNoOpLogHandler() })
        try await work(AuditLog(path: "\(place)/audit.log", logger: logger), "\(place)/audit.log")
    }

    private func entry(_ status: Int, path: String = "/api/v1/nodes", second: Int64 = 0) -> AuditLog.Entry {
        AuditLog.Entry(
            time: Timestamp(nanoseconds: 1_700_000_000_000_000_000).adding(seconds: second), subject: "anonymous",
            peer: "10.0.0.1", method: "GET", path: path, status: status)
    }

    private func lines(_ path: String) throws -> [JSONValue] {
        try File.text(path, limit: 64 << 20).split(separator: "\n").map { try JSONValue.parse(Array($0.utf8)) }
    }

    @Test func oneEntryIsOneLineWhateverIsInIt() async throws {
        try await withLog { log, path in
            let forged = "/x\n{\"time\":\"2026-01-01T00:00:00Z\",\"subject\":\"local:0\"}\r\u{2028}\u{0}\""
            await log.write(entry(403, path: forged))
            let found = try lines(path)
            #expect(found.count == 1 && found[0]["path"]?.stringValue == forged)
            var info = stat()
            #expect(lstat(path, &info) == 0 && info.st_mode & 0o777 == 0o600)
        }
    }

    @Test func aFloodWithoutACredentialPushesNothingOut() async throws {
        try await withLog { log, path in
            await log.write(entry(204, path: "/first"))
            let long = "/" + String(repeating: "x", count: 60_000)
            for _ in 0..<2000 { await log.write(entry(401, path: long)) }
            // Others are listed all the same, and the next minute begins with the count.
            await log.write(entry(403, path: "/second"))
            await log.write(entry(401, path: "/third", second: 60))
            let found = try lines(path)
            #expect(found.count == 63 && found.first?["path"]?.stringValue == "/first")
            #expect(found[61]["path"]?.stringValue == "/second")
            #expect(found[62]["unlisted"] == .integer(1940))
            #expect(found.allSatisfy { ($0["path"]?.stringValue?.utf8.count ?? 0) < 2000 })
        }
    }
}
