import Glibc
import JSON
import Kernel
import Reactor
import ShimProtocol
import Testing

@testable import Logs

/// A log in a directory of its own, written and rotated as the shim does it.
final class LogFixture: Sendable {
    let directory: String
    var path: String { "\(directory)/web.log" }

    init() throws {
        var template = Array("/tmp/martlet-logs-XXXXXX".utf8CString)
        directory = String(cString: try #require(mkdtemp(&template)))
    }

    deinit { _ = try? Tree.remove(directory) }

    /// Appends bytes to the current file in one write.
    func append(_ bytes: [UInt8]) throws {
        try File.open(path, O_WRONLY | O_APPEND | O_CREAT).writeAll(bytes)
    }

    /// Appends a record; `second` is its time.
    func write(
        _ text: String, _ stream: LogRecord.Stream = .stdout, partial: Bool = false, second: Int64 = 0
    ) throws {
        var bytes: [UInt8] = []
        LogRecord.append(
            time: Timestamp(nanoseconds: second * 1_000_000_000), stream: stream, isPartial: partial,
            Array(text.utf8)[...], to: &bytes)
        try append(bytes)
    }

    func rotate(keeping files: Int = 9) {
        for number in stride(from: files - 1, to: 1, by: -1) { rename("\(path).\(number - 1)", "\(path).\(number)") }
        rename(path, "\(path).1")
    }

    func query(_ change: (inout LogQuery) -> Void) -> LogQuery {
        var query = LogQuery()
        change(&query)
        return query
    }

    func reader(_ change: (inout LogQuery) -> Void = { _ in }) throws -> LogReader {
        try LogReader(path: path, query: query(change))
    }

    /// All texts until the end.
    func read(_ change: (inout LogQuery) -> Void = { _ in }) throws -> [String] {
        let reader = try reader(change)
        var texts: [String] = []
        while true {
            switch try reader.next() {
            case .records(let records): texts += records.map(\.text)
            case .idle, .end: return texts
            }
        }
    }
}

extension LogRecord {
    var text: String { String(decoding: bytes, as: UTF8.self) }
}

@Suite struct LogReaderTests {
    let log: LogFixture

    init() throws { log = try LogFixture() }

    @Test func `a log without a file is empty`() throws {
        #expect(try log.read() == [])
        #expect(try log.read { $0.tail = 5 } == [])
    }

    @Test func `rotated files are read oldest first`() throws {
        for file in 0..<12 {
            try log.write("a\(file)")
            try log.write("b\(file)")
            if file < 11 { log.rotate(keeping: 20) }
        }
        #expect(try log.read() == (0..<12).flatMap { ["a\($0)", "b\($0)"] })
        #expect(try log.read { $0.tail = 5 } == ["b9", "a10", "b10", "a11", "b11"])
    }

    @Test func `streams and times are chosen`() throws {
        for second in 0..<6 { try log.write("\(second)", second % 2 == 0 ? .stdout : .stderr, second: Int64(second)) }
        #expect(try log.read { $0.stderr = false } == ["0", "2", "4"])
        #expect(try log.read { $0.stdout = false } == ["1", "3", "5"])
        #expect(try log.read { $0.since = Timestamp(nanoseconds: 3_000_000_000) } == ["3", "4", "5"])
        #expect(try log.read { $0.until = Timestamp(nanoseconds: 3_000_000_000) } == ["0", "1", "2", "3"])
        let last = try log.read {
            $0.stdout = false
            $0.until = Timestamp(nanoseconds: 4_000_000_000)
            $0.tail = 1
        }
        #expect(last == ["3"])
    }

    @Test(arguments: [(0, 0), (1, 1), (3, 3), (1000, 1000), (100_000, 20_000)])
    func `the tail has so many lines, over blocks and files`(wanted: Int, expected: Int) throws {
        var bytes: [UInt8] = []
        for number in 0..<20_000 {
            LogRecord.append(
                time: Timestamp(nanoseconds: 0), stream: .stdout, isPartial: false, Array("\(number)".utf8)[...],
                to: &bytes)
            if number % 7000 == 6999 {
                try log.append(bytes)
                bytes = []
                log.rotate()
            }
        }
        try log.append(bytes)
        #expect(try log.read { $0.tail = wanted } == (20_000 - expected..<20_000).map { "\($0)" })
    }

    @Test func `a line in pieces counts once, with all its pieces and nothing of the other stream's older lines`()
        throws
    {
        try log.write("old")
        try log.write("old error", .stderr)
        try log.write("long-1 ", partial: true)
        try log.write("error", .stderr)
        log.rotate()
        try log.write("long-2 ", partial: true)
        try log.write("long-3")
        #expect(try log.read { $0.tail = 1 } == ["long-1 ", "long-2 ", "long-3"])
        #expect(try log.read { $0.tail = 2 } == ["long-1 ", "error", "long-2 ", "long-3"])
        #expect(try log.read { $0.tail = 3 } == ["old error", "long-1 ", "error", "long-2 ", "long-3"])
        try log.write("prompt> ", partial: true)
        #expect(try log.read { $0.tail = 1 } == ["prompt> "], "a line without end is one as well")
        #expect(try log.read { $0.tail = 2 } == ["long-1 ", "long-2 ", "long-3", "prompt> "])
    }

    @Test func `torn and foreign lines are passed over`() throws {
        try log.write("one")
        try log.append(Array("1970-01-01T00:00:00Z stdout F\n\n\nnonsense\n".utf8))
        try log.append([UInt8](repeating: 0, count: 4096) + [10])
        try log.append(Array("1970-01-01T00:00:0".utf8) + [10])
        try log.write("two")
        try log.append([UInt8](repeating: 120, count: 300_000) + [10])
        try log.write("three")
        try log.append(Array("1970-01-01T00:00:00Z stdout F torn".utf8))
        #expect(try log.read() == ["one", "two", "three"])
        for wanted in 1...4 {
            #expect(try log.read { $0.tail = wanted } == ["one", "two", "three"].suffix(wanted), "\(wanted)")
        }
    }

    @Test func `a torn end of a rotated file does not hide the next file`() throws {
        try log.write("one")
        try log.append(Array("1970-01-01T00:00:00Z stdout F torn".utf8))
        log.rotate()
        try log.write("two")
        #expect(try log.read() == ["one", "two"])
        #expect(try log.read { $0.tail = 2 } == ["one", "two"])
        #expect(try log.read { $0.follow = true } == ["one", "two"])
    }

    @Test func `records of the largest size survive`() throws {
        let big = String(repeating: "x", count: LogRecord.pieceLimit)
        for _ in 0..<40 { try log.write(big, partial: true) }
        try log.write("end")
        #expect(try log.read().count == 41)
        #expect(try log.read { $0.tail = 1 }.count == 41)
    }

    @Test func `a log that is a link or a pipe is refused`() throws {
        symlink("/etc/passwd", log.path)
        #expect(throws: KernelError.self) { try log.reader() }
        unlink(log.path)
        mkfifo(log.path, 0o600)
        #expect(throws: KernelError.self) { try log.reader() }
    }

    @Test func `memory and batches are bounded`() throws {
        for _ in 0..<50 {
            try log.append(Array(String(repeating: "1970-01-01T00:00:00Z stdout F x\n", count: 1000).utf8))
        }
        let reader = try log.reader()
        var total = 0
        while case .records(let records) = try reader.next() {
            #expect(records.count <= 64 << 10 / 32)
            total += records.count
        }
        #expect(total == 50_000)
    }

    @Test func `output is what was written, with times before lines and not before pieces`() throws {
        try log.write("a", partial: true)
        try log.write("e", .stderr, second: 1)
        try log.write("b", second: 2)
        for (timestamps, wanted) in [
            (false, "ae\nb\n"), (true, "1970-01-01T00:00:00Z a1970-01-01T00:00:01Z e\nb\n"),
        ] {
            var formatter = LogFormatter(prefix: timestamps ? .time(isFixed: false) : .nothing)
            guard case .records(let records) = try log.reader().next() else {
                Issue.record("no records")
                return
            }
            let output = records.flatMap { formatter.output(of: $0) }
            #expect(String(decoding: output, as: UTF8.self) == wanted)
        }
    }
}

@Suite(.timeLimit(.minutes(1))) struct LogFollowTests {
    let log: LogFixture

    init() throws { log = try LogFixture() }

    /// Reads until nothing is there.
    private func texts(_ reader: LogReader) throws -> [String] {
        var texts: [String] = []
        while case .records(let records) = try reader.next() { texts += records.map(\.text) }
        return texts
    }

    @Test func `what is written later comes, over rotations, each record once`() throws {
        let reader = try log.reader { $0.follow = true }
        #expect(try texts(reader) == [])
        var written: [String] = []
        var seen: [String] = []
        for number in 0..<50 {
            try log.write("\(number)")
            written.append("\(number)")
            if number % 3 == 0 { seen += try texts(reader) }
            if number % 5 == 0 { log.rotate() }
        }
        seen += try texts(reader)
        #expect(seen == written)
    }

    @Test func `several rotations between two looks lose nothing that is still there`() throws {
        try log.write("0")
        let reader = try log.reader { $0.follow = true }
        #expect(try texts(reader) == ["0"])
        for number in 1...4 {
            try log.write("\(number)")
            log.rotate()
        }
        #expect(try texts(reader) == ["1", "2", "3", "4"])
        try log.write("5")
        #expect(try texts(reader) == ["5"])
    }

    @Test func `what was rotated out before it was read is lost, and the rest comes`() throws {
        try log.write("0")
        let reader = try log.reader { $0.follow = true }
        #expect(try texts(reader) == ["0"])
        for number in 1...6 {
            log.rotate(keeping: 3)
            try log.write("\(number)")
        }
        #expect(try texts(reader) == ["4", "5", "6"])
    }

    @Test func `a record without its end is waited for`() throws {
        let reader = try log.reader { $0.follow = true }
        try log.append(Array("1970-01-01T00:00:00Z stdout F ha".utf8))
        #expect(try texts(reader) == [])
        try log.append(Array("lf\n".utf8))
        #expect(try texts(reader) == ["half"])
    }

    @Test func `a part that the writer took back is not mixed with what follows`() throws {
        try log.write("one")
        let reader = try log.reader { $0.follow = true }
        try log.append(Array("1970-01-01T00:00:00Z stdout F this will".utf8))
        #expect(try texts(reader) == ["one"])
        truncate(log.path, off_t("1970-01-01T00:00:00Z stdout F one\n".utf8.count))
        try log.write("two, which is longer than what was there before")
        #expect(try texts(reader) == ["two, which is longer than what was there before"])
    }

    @Test func `a file that is emptied is read from its beginning`() throws {
        try log.write("a long line that goes away")
        let reader = try log.reader { $0.follow = true }
        #expect(try texts(reader) == ["a long line that goes away"])
        truncate(log.path, 0)
        try log.write("new")
        #expect(try texts(reader) == ["new"])
    }

    @Test func `following from the tail begins there`() throws {
        for number in 0..<5 { try log.write("\(number)") }
        let reader = try log.reader {
            $0.follow = true
            $0.tail = 2
        }
        let none = try log.reader {
            $0.follow = true
            $0.tail = 0
        }
        try log.write("5", .stderr)
        log.rotate()
        try log.write("6")
        #expect(try texts(reader) == ["3", "4", "5", "6"])
        #expect(try texts(none) == ["5", "6"])
    }

    @Test func `the descriptor is readable when there is more, and only then`() throws {
        let reader = try log.reader { $0.follow = true }
        // Whoever writes does not wait until the readers know of it.
        func ready(within milliseconds: Int32 = 0) -> Bool {
            var wait = pollfd(fd: reader.waitDescriptor, events: Int16(POLLIN), revents: 0)
            return poll(&wait, 1, milliseconds) == 1
        }
        #expect(try texts(reader) == [])
        #expect(!ready())
        try log.write("x")
        #expect(ready(within: 60_000))
        #expect(try texts(reader) == ["x"])
        #expect(!ready())
        log.rotate()
        #expect(ready(within: 60_000))
    }

    @Test func `a follower ends when it is told that nothing more comes, after the last record`() async throws {
        let (reactor, pool) = (try Reactor(), try BlockingPool(threads: 2))
        try log.write("before")
        let sequence = try await LogSequence(
            path: log.path, query: log.query { $0.follow = true }, reactor: reactor, pool: pool)
        let task = Task {
            var texts: [String] = []
            for try await records in sequence {
                texts += records.map(\.text)
                if texts == ["before"] { try log.write("during") }
                if texts.count == 2 {
                    try log.write("last")
                    log.rotate()
                    sequence.finish()
                }
            }
            return texts
        }
        #expect(try await task.value == ["before", "during", "last"])
    }

    @Test func `a follower that waits ends by finish, by cancellation and by time`() async throws {
        let (reactor, pool) = (try Reactor(), try BlockingPool(threads: 2))
        let waiting = { while reactor.waits == 0 { try await Task.sleep(for: .milliseconds(1)) } }
        let query = log.query { $0.follow = true }
        let first = try await LogSequence(path: log.path, query: query, reactor: reactor, pool: pool)
        let finished = Task { for try await _ in first {} }
        try await waiting()
        first.finish()
        try await finished.value

        let second = try await LogSequence(path: log.path, query: query, reactor: reactor, pool: pool)
        let cancelled = Task { for try await _ in second {} }
        try await waiting()
        cancelled.cancel()
        await #expect(throws: CancellationError.self) { try await cancelled.value }

        let timed = log.query {
            $0.follow = true
            $0.until = Timestamp.now() + 50_000_000
        }
        for try await _ in try await LogSequence(path: log.path, query: timed, reactor: reactor, pool: pool) {}
        #expect(reactor.waits == 0)
    }

    @Test func `following a log whose directory is missing is an error`() throws {
        #expect(throws: KernelError.self) {
            try LogReader(path: "/nonexistent/x.log", query: log.query { $0.follow = true })
        }
    }

    @Test func `a writer and a follower at full speed agree`() async throws {
        let (reactor, pool) = (try Reactor(), try BlockingPool(threads: 2))
        let sequence = try await LogSequence(
            path: log.path, query: log.query { $0.follow = true }, reactor: reactor, pool: pool)
        let writing = Task.detached { [log] in
            for number in 0..<5000 {
                try log.write("\(number)")
                // Enough files that a slow follower loses none.
                if number % 100 == 99 { log.rotate(keeping: 90) }
            }
            sequence.finish()
        }
        var seen: [String] = []
        for try await records in sequence { seen += records.map(\.text) }
        try await writing.value
        #expect(seen == (0..<5000).map { "\($0)" })
    }
}
