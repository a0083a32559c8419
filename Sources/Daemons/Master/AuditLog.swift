import Glibc
import JSON
import Kernel
import Logging
import NIOPosix

/// Who changed what, or tried to: one JSON object a line in `DATA/audit.log`, rotated at 16 MiB, four older files kept.
///
/// Whoever has no credential cannot fill it, and so push out what others did: of a flood of such refusals most are only
/// counted.
actor AuditLog {
    struct Entry: Sendable, Encodable {
        var time: Timestamp
        var subject: String
        var peer: String
        var method: String
        /// Without the query, which may hold values.
        var path: String
        var status: Int
        /// So many refusals of callers without a credential, before this one, have no line.
        var unlisted: Int?
    }

    /// Refusals of callers without a credential that have a line, in each minute.
    private static let strangersEachMinute = 60
    /// Bytes of a path; what follows is left out.
    private static let longestPath = 1024

    private static let longest = 16 << 20
    private static let kept = 4

    private let path: String
    private let logger: Logger
    private var file: SharedFD?
    private var size = 0
    private var minute: Int64 = 0
    private var strangers = 0
    private var unlisted = 0

    init(path: String, logger: Logger) {
        self.path = path
        self.logger = logger
    }

    func write(_ given: Entry) {
        var entry = given
        if entry.path.utf8.count > Self.longestPath {
            entry.path = String(entry.path.unicodeScalars.prefix(Self.longestPath / 4)) + "…"
        }
        if entry.status == 401 {
            let now = entry.time.nanoseconds / 60_000_000_000
            if now != minute { (minute, strangers) = (now, 0) }
            strangers += 1
            guard strangers <= Self.strangersEachMinute else {
                unlisted += 1
                return
            }
            if unlisted > 0 { (entry.unlisted, unlisted) = (unlisted, 0) }
        }
        do {
            let bytes = try JSONCoding.encode(entry) + [UInt8(ascii: "\n")]
            let file = try opened(for: bytes.count)
            // A line of a log: the page cache takes it at once.
            try Descriptor.writeAll(file.raw, bytes, subject: path)
            size += bytes.count
        } catch {
            file = nil
            logger.error(
                "the audit log cannot be written",
                metadata: ["error": "\(error)", "subject": "\(entry.subject)", "path": "\(entry.path)"])
        }
    }

    private func opened(for count: Int) throws -> SharedFD {
        if let file, size + count <= Self.longest { return file }
        file = nil
        var info = stat()
        if lstat(path, &info) == 0, Int(info.st_size) + count > Self.longest {
            for number in stride(from: Self.kept - 1, through: 1, by: -1) {
                rename("\(path).\(number)", "\(path).\(number + 1)")
            }
            try systemCall("rename", path) { rename(path, "\(path).1") }
            size = 0
        } else {
            size = lstat(path, &info) == 0 ? Int(info.st_size) : 0
        }
        let fresh = SharedFD(try File.open(path, O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW, mode: 0o600))
        file = fresh
        return fresh
    }
}
