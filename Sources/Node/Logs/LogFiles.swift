import CKernel
import Glibc
import Kernel
import ShimProtocol

/// One file of a log, held open: rotation renames it, and it stays this one.
struct LogFile: Sendable {
    let descriptor: SharedFD
    let device: UInt64
    let inode: UInt64

    /// Nil when there is none.
    static func open(_ path: String) throws(KernelError) -> LogFile? {
        let descriptor: SharedFD
        do throws(KernelError) {
            descriptor = SharedFD(try File.open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK))
        } catch {
            if error.errno == ENOENT { return nil }
            throw error
        }
        var info = stat()
        try systemCall("fstat", path) { fstat(descriptor.raw, &info) }
        guard info.st_mode & S_IFMT == S_IFREG else {
            throw KernelError("open", path, errno: EINVAL, hint: "a log must be a regular file")
        }
        return LogFile(descriptor: descriptor, device: UInt64(info.st_dev), inode: UInt64(info.st_ino))
    }

    func isSame(as other: LogFile) -> Bool { device == other.device && inode == other.inode }

    /// Size and time of the last change.
    func status() throws(KernelError) -> (size: Int64, changed: Int64) {
        var info = stat()
        try systemCall("fstat", "a log") { fstat(descriptor.raw, &info) }
        return (Int64(info.st_size), Int64(info.st_mtim.tv_sec))
    }

    /// At most `count` bytes from `offset` on; fewer at the end.
    func read(at offset: Int64, count: Int) throws(KernelError) -> [UInt8] {
        var buffer = [UInt8](repeating: 0, count: count)
        let got = try systemCall("pread", "a log") {
            buffer.withUnsafeMutableBytes { pread(descriptor.raw, $0.baseAddress, $0.count, off_t(offset)) }
        }
        buffer.removeLast(count - got)
        return buffer
    }

    /// The files of a log, oldest first: `path.N` … `path.1`, `path`.
    ///
    /// They are opened newest first: when the writer rotates meanwhile, a file may be met twice (and is taken once),
    /// but none is missed.
    static func chain(_ path: String) throws(KernelError) -> [LogFile] {
        var files: [LogFile] = []
        if let newest = try open(path) { files.append(newest) }
        var number = 1
        let last = try lastRotation(of: path)
        while number <= limit {
            let file = try open("\(path).\(number)")
            // The oldest may have moved on since they were listed.
            if file == nil && number > last { break }
            number += 1
            if let file, !files.contains(where: { $0.isSame(as: file) }) { files.append(file) }
        }
        return files.reversed()
    }

    /// Most rotated files of a log that are read.
    private static let limit = 200

    /// The highest number of a rotated file; 0 when there is none.
    private static func lastRotation(of path: String) throws(KernelError) -> Int {
        guard let slash = path.lastSlash else { return 0 }
        let prefix = String(path[path.utf8.index(after: slash)...]) + "."
        let names: [String]
        do throws(KernelError) {
            names = try File.list(String(path[..<slash]))
        } catch {
            if error.errno == ENOENT { return 0 }
            throw error
        }
        return names.compactMap { $0.hasPrefix(prefix) ? Int($0.dropFirst(prefix.count)) : nil }.max() ?? 0
    }
}

/// The lines of a file from its end to its beginning, in bounded memory.
struct BackwardLines {
    private let file: LogFile
    /// Bytes of the file from `start` on that were not given out yet.
    private var buffer: [UInt8] = []
    private var start: Int64
    /// What is in front of the buffer belongs to a line that was too long and given up.
    private var dropping = false

    private static let block = 64 << 10
    private static let longest = LogRecord.pieceLimit + LogRecord.prefixLimit + 16

    /// - Parameter end: where to begin; what is not ended by a line break there is left out.
    init(_ file: LogFile, end: Int64) throws(KernelError) {
        self.file = file
        start = end
        while start > 0 {
            try extend()
            if let last = buffer.lastIndex(of: UInt8(ascii: "\n")) {
                buffer.removeLast(buffer.count - last - 1)
                return
            }
            buffer = []
        }
    }

    /// Where the lines that were not given out yet end.
    var end: Int64 { start + Int64(buffer.count) }

    private mutating func extend() throws(KernelError) {
        let count = Int(min(Int64(Self.block), start))
        let block = try file.read(at: start - Int64(count), count: count)
        start -= Int64(count)
        // The file shrank under us: what was read is no longer all that was there.
        guard block.count == count else {
            buffer = []
            dropping = true
            return
        }
        buffer = block + buffer
    }

    /// The line before, with its offset and without its line break; nil at the beginning.
    mutating func next() throws(KernelError) -> (offset: Int64, line: ArraySlice<UInt8>)? {
        while true {
            let searched = dropping ? buffer[...] : buffer.dropLast()
            if let newline = searched.lastIndex(of: UInt8(ascii: "\n")) {
                let line = buffer[(newline + 1)...].dropLast(dropping ? 0 : 1)
                let offset = start + Int64(newline) + 1
                let wasDropping = dropping
                dropping = false
                buffer.removeLast(buffer.count - newline - 1)
                if !wasDropping { return (offset, line) }
                continue
            }
            if start == 0 {
                guard !buffer.isEmpty, !dropping else { return nil }
                let line = buffer.dropLast()
                buffer = []
                return (0, line)
            }
            if buffer.count > Self.longest {
                buffer = []
                dropping = true
            }
            try extend()
        }
    }
}

/// A place in a chain of files.
struct LogPosition: Comparable, Sendable {
    var file: Int
    var offset: Int64

    static func < (left: LogPosition, right: LogPosition) -> Bool {
        (left.file, left.offset) < (right.file, right.offset)
    }
}

/// Where the last lines of a log begin. Pieces of one stream's long line may lie between lines of the other, so each
/// stream has a beginning of its own.
struct LogTail {
    private(set) var starts: [LogRecord.Stream: LogPosition] = [:]
    /// The earliest of them.
    private(set) var first: LogPosition

    /// Goes back from the end until it has found the beginning of `query.tail` lines.
    init(_ files: [LogFile], _ query: LogQuery) throws(KernelError) {
        let wanted = query.tail ?? 0
        var found = 0
        // Streams whose earliest line so far may have more pieces before it.
        var open: Set<LogRecord.Stream> = []
        var seen: Set<LogRecord.Stream> = []
        // What comes later is wanted of every stream.
        let end =
            if let newest = files.last {
                LogPosition(
                    file: files.count - 1, offset: try BackwardLines(newest, end: newest.status().size).end)
            } else {
                LogPosition(file: 0, offset: 0)
            }
        first = end
        for index in files.indices.reversed() where found < wanted || !open.isEmpty {
            var lines = try BackwardLines(files[index], end: files[index].status().size)
            while found < wanted || !open.isEmpty {
                guard let (offset, line) = try lines.next() else { break }
                guard let record = LogRecord(line: line), query.accepts(record) else { continue }
                let stream = record.stream
                let endsLine = !record.isPartial || !seen.contains(stream)
                if endsLine {
                    seen.insert(stream)
                    guard found < wanted else {
                        open.remove(stream)
                        continue
                    }
                    found += 1
                    open.insert(stream)
                }
                guard open.contains(stream) else { continue }
                let position = LogPosition(file: index, offset: offset)
                starts[stream] = position
                first = min(first, position)
            }
        }
        for stream in LogRecord.Stream.allCases where starts[stream] == nil { starts[stream] = end }
    }

    func includes(_ record: LogRecord, at position: LogPosition) -> Bool {
        starts[record.stream].map { $0 <= position } ?? false
    }
}
