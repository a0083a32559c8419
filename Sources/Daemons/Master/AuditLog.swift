import Glibc
import JSON
import Kernel
import Logging
import NIOPosix

/// Who changed what, or tried to: one JSON object a line in `DATA/audit.log`, rotated at 16 MiB, four older files kept.
actor AuditLog {
    struct Entry: Sendable, Encodable {
        var time: Timestamp
        var subject: String
        var peer: String
        var method: String
        /// Without the query, which may hold values.
        var path: String
        var status: Int
    }

    private static let longest = 16 << 20
    private static let kept = 4

    private let path: String
    private let logger: Logger
    private var file: SharedFD?
    private var size = 0

    init(path: String, logger: Logger) {
        self.path = path
        self.logger = logger
    }

    func write(_ entry: Entry) {
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
