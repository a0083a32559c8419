import CKernel
import Glibc
import JSON
import Kernel
import ShimProtocol
import Synchronization

/// Reads a container's log: the files that the shim writes and rotates, oldest record first.
///
/// Blocking, for a blocking pool; `LogSequence` is the asynchronous form. Memory is bounded whatever the log's size.
/// Lines that are no records (torn by a crash) are passed over; one without its line break yet is waited for.
package final class LogReader: Sendable {
    /// What a call to `next` found.
    package enum Batch: Sendable {
        /// Records, at most about 64 KiB of them; perhaps none although there are more, when none was wanted.
        case records([LogRecord])
        /// Nothing now; only when following. See `wait`.
        case idle
        /// There is nothing more.
        case end
    }

    private struct State: Sendable {
        /// Files not read yet, the one being read first.
        var files: [LogFile]
        /// The number of the first of `files` in the chain that the tail was found in.
        var number = 0
        /// Of the first unread record in it.
        var offset: Int64 = 0
        /// In the middle of a line that is too long for a record.
        var skipping = false
        /// Nil once all of it is behind.
        var tail: LogTail?
        var finished = false
    }

    private let path: String
    private let query: LogQuery
    private let state: Mutex<State>
    private let watch: LogWatch?

    private static let chunk = 64 << 10

    /// - Parameters:
    ///   - path: of the current file; the rotated ones are beside it as `.1`, `.2` and so on. A log without files is
    ///     empty.
    /// - Throws: `KernelError`; when following also with ENOENT when the directory is missing, or EMFILE or ENOSPC
    ///   when the limits of inotify(7) are reached.
    package init(path: String, query: LogQuery) throws(KernelError) {
        self.path = path
        self.query = query
        // Before the first look at the files: nothing that changes later is missed.
        watch = query.follow ? try LogWatch(path) : nil
        let files = try LogFile.chain(path)
        var state = State(files: files)
        if query.tail != nil {
            let tail = try LogTail(files, query)
            state.tail = tail
            state.files.removeFirst(tail.first.file)
            state.number = tail.first.file
            state.offset = tail.first.offset
        } else if let since = query.since {
            // A file that was last changed before has only older records.
            while state.files.count > 1, try state.files[0].status().changed < since.nanoseconds / 1_000_000_000 {
                state.files.removeFirst()
                state.number += 1
            }
        }
        self.state = Mutex(state)
    }

    /// The next records.
    package func next() throws(KernelError) -> Batch {
        try state.withLock { state throws(KernelError) in try next(&state) }
    }

    /// Nothing more will be written: a follower ends when it has read what is there.
    package func finish() {
        state.withLock { $0.finished = true }
        watch?.wake()
    }

    /// Readable when there may be more, for a reactor; -1 when not following.
    package var waitDescriptor: Int32 { watch?.descriptor ?? -1 }

    /// Blocks until there may be more, at most so long.
    package func wait(milliseconds: Int32) throws(KernelError) { try watch?.wait(milliseconds: milliseconds) }

    // MARK: -

    private func next(_ state: inout State) throws(KernelError) -> Batch {
        // In this order: what was written before `finish` is there when we look for it.
        let ends = state.finished || !query.follow || query.until.map { Timestamp.now() > $0 } ?? false
        watch?.drain()
        if state.files.isEmpty {
            state.files = try LogFile.chain(path)
            if state.files.isEmpty { return ends ? .end : .idle }
        }
        // Before the read: the writer does not touch a file any more once another has taken its name.
        var isNewest = state.files.count == 1
        if isNewest && query.follow { isNewest = try isCurrent(state.files[0]) }
        if let records = try read(&state) { return .records(records) }
        if !isNewest, try advance(&state) { return .records([]) }
        return ends ? .end : .idle
    }

    /// Whether the name still leads to this file.
    private func isCurrent(_ file: LogFile) throws(KernelError) -> Bool {
        var info = stat()
        if lstat(path, &info) != 0 {
            if errno == ENOENT { return false }
            throw KernelError("lstat", path, errno: errno)
        }
        return UInt64(info.st_dev) == file.device && UInt64(info.st_ino) == file.inode
    }

    /// Goes on to the file after this one; false when there is none, or none yet.
    private func advance(_ state: inout State) throws(KernelError) -> Bool {
        let current = state.files[0]
        if state.files.count > 1 {
            state.files.removeFirst()
        } else {
            let chain = try LogFile.chain(path)
            // One that is gone was rotated out before we had read all: go on with the oldest that is left.
            let position = chain.firstIndex { $0.isSame(as: current) } ?? -1
            guard position + 1 < chain.count else { return false }
            state.files = Array(chain[(position + 1)...])
        }
        state.number += 1
        state.offset = 0
        state.skipping = false
        return true
    }

    /// The records of the next piece of the file; nil at its end.
    private func read(_ state: inout State) throws(KernelError) -> [LogRecord]? {
        let file = state.files[0]
        // Emptied by a writer that keeps only one file.
        let size = try file.status().size
        if size < state.offset {
            state.offset = 0
            state.skipping = false
        }
        // No larger than what there is: a follower that waits costs next to nothing.
        let count = Int(min(Int64(Self.chunk), size - state.offset))
        guard count > 0 else { return nil }
        // Always from the beginning of a record: the writer may take back a part that the disk did not hold.
        let bytes = try file.read(at: state.offset, count: count)
        guard let last = bytes.lastIndex(of: UInt8(ascii: "\n")) else {
            guard bytes.count == Self.chunk else { return nil }
            state.offset += Int64(bytes.count)
            state.skipping = true
            return []
        }
        var records: [LogRecord] = []
        var position = LogPosition(file: state.number, offset: state.offset)
        for line in bytes[...last].dropLast().split(separator: UInt8(ascii: "\n"), omittingEmptySubsequences: false) {
            defer { position.offset += Int64(line.count) + 1 }
            if state.skipping {
                state.skipping = false
                continue
            }
            guard let record = LogRecord(line: line), query.accepts(record) else { continue }
            if let tail = state.tail, !tail.includes(record, at: position) { continue }
            records.append(record)
        }
        state.offset += Int64(last + 1)
        return records
    }
}
