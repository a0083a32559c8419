import CKernel
import Glibc
import JSON
import Kernel
import ShimProtocol

/// Writes a container's output to its log file, see `LogRecord` for the format.
///
/// Never holds a container up: what the disk does not take is dropped and counted, and the first record that is written
/// afterwards says how much is missing. A record is in the file whole or not at all.
final class LogWriter {
    private let path: String
    /// 0 for no bound.
    private let maximumBytes: Int64
    private let maximumFiles: Int
    /// Nil after a failed rotation; opened again with the next write.
    private var file: SharedFD?
    private var size: Int64 = 0
    /// Output of a line whose end has not come yet, by stream; at most `LogRecord.pieceLimit` bytes.
    private var unfinished: [LogRecord.Stream: [UInt8]] = [:]
    private var batch: [UInt8] = []
    private var batchRecords: UInt64 = 0
    private var lostUnreported: UInt64 = 0
    private var lastError = ""

    /// Records that could not be written.
    private(set) var recordsLost: UInt64 = 0

    /// Opens or continues a log.
    ///
    /// - Throws: `KernelError`; ELOOP when the path is a symbolic link.
    init(path: String, maximumBytes: Int64, maximumFiles: Int) throws(KernelError) {
        self.path = path
        self.maximumBytes = maximumBytes
        self.maximumFiles = max(1, maximumFiles)
        try open()
    }

    /// Takes output as it comes; `time` is when it came.
    func write(_ stream: LogRecord.Stream, _ bytes: ArraySlice<UInt8>, at time: Timestamp) {
        var rest = bytes
        while let end = rest.firstIndex(of: UInt8(ascii: "\n")) {
            if unfinished[stream] == nil, end - rest.startIndex <= LogRecord.pieceLimit {
                append(stream, rest[..<end], isPartial: false, at: time)
            } else {
                add(stream, rest[..<end], at: time)
                let line = unfinished.removeValue(forKey: stream) ?? []
                append(stream, line[...], isPartial: false, at: time)
            }
            rest = rest[(end + 1)...]
        }
        add(stream, rest, at: time)
        flush()
    }

    /// Ends the output of all streams: what has no line break is written as a partial record.
    func finish(at time: Timestamp) {
        for stream in LogRecord.Stream.allCases {
            guard let rest = unfinished.removeValue(forKey: stream), !rest.isEmpty else { continue }
            append(stream, rest[...], isPartial: true, at: time)
        }
        flush()
    }

    /// Adds to the unfinished line and cuts off pieces while it is too long.
    private func add(_ stream: LogRecord.Stream, _ bytes: ArraySlice<UInt8>, at time: Timestamp) {
        var rest = bytes
        while !rest.isEmpty {
            let room = LogRecord.pieceLimit - (unfinished[stream]?.count ?? 0)
            if room == 0 {
                let piece = unfinished.removeValue(forKey: stream) ?? []
                append(stream, piece[...], isPartial: true, at: time)
                continue
            }
            unfinished[stream, default: []].append(contentsOf: rest.prefix(room))
            rest = rest.dropFirst(room)
        }
    }

    private func append(_ stream: LogRecord.Stream, _ bytes: ArraySlice<UInt8>, isPartial: Bool, at time: Timestamp) {
        let length = Int64(bytes.count + LogRecord.prefixLimit)
        if maximumBytes > 0, size + Int64(batch.count) + length > maximumBytes {
            flush()
            if size > 0 { rotate() }
        }
        LogRecord.append(time: time, stream: stream, isPartial: isPartial, bytes, to: &batch)
        batchRecords += 1
    }

    /// Writes the batch, or drops it.
    private func flush() {
        guard !batch.isEmpty else { return }
        defer {
            batch = []
            batchRecords = 0
        }
        do throws(KernelError) {
            if file == nil { try open() }
            var text: [UInt8] = []
            if lostUnreported > 0 {
                let notice = "[martlet] \(lostUnreported) lines of output are missing here: \(lastError)"
                LogRecord.append(
                    time: .now(), stream: .stderr, isPartial: false, Array(notice.utf8)[...], to: &text)
            }
            try writeWhole(text + batch)
            lostUnreported = 0
        } catch {
            recordsLost += batchRecords
            lostUnreported += batchRecords
            lastError = String(errno: error.errno)
        }
    }

    private func writeWhole(_ bytes: [UInt8]) throws(KernelError) {
        guard let file else { throw KernelError("write", path, errno: EBADF) }
        do throws(KernelError) {
            try Descriptor.writeAll(file.raw, bytes, subject: path)
            size += Int64(bytes.count)
        } catch {
            // A part may be in the file: take it out again, so that no torn record remains.
            ftruncate(file.raw, off_t(size))
            throw error
        }
    }

    private func open() throws(KernelError) {
        let opened = SharedFD(try File.open(path, O_RDWR | O_APPEND | O_CREAT | O_NOFOLLOW | O_NONBLOCK, mode: 0o600))
        var info = stat()
        try systemCall("fstat", path) { fstat(opened.raw, &info) }
        guard info.st_mode & S_IFMT == S_IFREG else {
            throw KernelError("open", path, errno: EINVAL, hint: "a log must be a regular file")
        }
        file = opened
        size = Int64(info.st_size)
        try endTornRecord(opened.raw)
    }

    /// A crash may have left a record without its line break.
    private func endTornRecord(_ fd: Int32) throws(KernelError) {
        guard size > 0 else { return }
        var last: UInt8 = 0
        let position = off_t(size - 1)
        let count = try systemCall("pread", path) { pread(fd, &last, 1, position) }
        if count == 1, last != UInt8(ascii: "\n") { try writeWhole([UInt8(ascii: "\n")]) }
    }

    /// Moves `path` to `path.1` and so on, and starts a new file. A failure shows at the next write.
    private func rotate() {
        if maximumFiles == 1 {
            if let file, ftruncate(file.raw, 0) == 0 { size = 0 }
            return
        }
        for number in stride(from: maximumFiles - 1, to: 1, by: -1) {
            rename("\(path).\(number - 1)", "\(path).\(number)")
        }
        guard rename(path, "\(path).1") == 0 || errno == ENOENT else { return }
        file = nil
        size = 0
    }
}
