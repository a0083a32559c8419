import Glibc
import JSON
import Kernel
import ShimProtocol
import Testing

@testable import ShimCore

extension KernelSuite {
    @Suite(.serialized) struct ShimLogTests {
        private let directory: String
        private let time = Timestamp(nanoseconds: 1_000_000_000)

        init() throws {
            var template = Array("/tmp/martlet-log-XXXXXX".utf8CString)
            directory = String(cString: try #require(mkdtemp(&template)))
        }

        private func withLog(
            bytes: Int64 = 0, files: Int = 1, _ body: (LogWriter, String) throws -> Void
        ) throws {
            defer { _ = try? Tree.remove(directory) }
            let path = "\(directory)/log"
            try body(try LogWriter(path: path, maximumBytes: bytes, maximumFiles: files), path)
        }

        private func text(_ path: String) throws -> String { String(decoding: try File.read(path), as: UTF8.self) }

        private func records(_ path: String) throws -> [LogRecord] {
            try File.read(path, limit: 16 << 20).split(separator: 10).map { try #require(LogRecord(line: $0)) }
        }

        @Test func linesAreRecordsWhateverPiecesTheyComeIn() throws {
            try withLog { (log: LogWriter, path: String) throws in
                for piece in ["a", "b\nc", "\n\nd\ne"] { log.write(.stdout, Array(piece.utf8)[...], at: time) }
                log.write(.stderr, Array("x\n".utf8)[...], at: time)
                log.finish(at: time)
                #expect(
                    try text(path) == """
                        1970-01-01T00:00:01Z stdout F ab
                        1970-01-01T00:00:01Z stdout F c
                        1970-01-01T00:00:01Z stdout F\u{20}
                        1970-01-01T00:00:01Z stdout F d
                        1970-01-01T00:00:01Z stderr F x
                        1970-01-01T00:00:01Z stdout P e

                        """)
            }
        }

        @Test(arguments: [16383, 16384, 16385, 32768, 50000])
        func longLinesAreCutIntoPiecesAndTheirBytesAreWhole(_ length: Int) throws {
            try withLog { (log: LogWriter, path: String) throws in
                let line = (0..<length).map { UInt8(97 + $0 % 26) }
                var rest = (line + [10])[...]
                while !rest.isEmpty {
                    log.write(.stdout, rest.prefix(7000), at: time)
                    rest = rest.dropFirst(7000)
                }
                let records = try records(path)
                #expect(records.allSatisfy { $0.bytes.count <= LogRecord.pieceLimit })
                #expect(records.map(\.isPartial) == Array(repeating: true, count: records.count - 1) + [false])
                #expect(records.count == max(1, (length + 16383) / 16384))
                #expect(records.flatMap { Array($0.bytes) } == line)
            }
        }

        @Test func filesAreRotatedBySizeAndCount() throws {
            try withLog(bytes: 1000, files: 3) { (log: LogWriter, path: String) throws in
                for number in 0..<200 { log.write(.stdout, Array("line \(number)\n".utf8)[...], at: time) }
                #expect(try File.list(directory).sorted() == ["log", "log.1", "log.2"])
                var all: [String] = []
                for name in ["log.2", "log.1", "log"] {
                    let bytes = try File.read("\(directory)/\(name)")
                    #expect(bytes.count <= 1000)
                    all += try records("\(directory)/\(name)").map { String(decoding: $0.bytes, as: UTF8.self) }
                }
                // The latest lines, without a gap between the files.
                #expect(all == (200 - all.count..<200).map { "line \($0)" })
                #expect(all.count > 50)
            }
        }

        @Test func oneFileStartsOver() throws {
            try withLog(bytes: 1000, files: 1) { (log: LogWriter, path: String) throws in
                for number in 0..<100 { log.write(.stdout, Array("line \(number)\n".utf8)[...], at: time) }
                #expect(try File.list(directory) == ["log"])
                #expect(try File.read(path).count <= 1000)
                #expect(try records(path).last?.bytes.elementsEqual("line 99".utf8) == true)
            }
        }

        @Test func aTornRecordIsEndedWhenTheLogGoesOn() throws {
            try withLog { (_: LogWriter, path: String) throws in
                try File.replace(path, with: Array("1970-01-01T00:00:01Z stdout F whole\n1970-01-01T0".utf8))
                let log = try LogWriter(path: path, maximumBytes: 0, maximumFiles: 1)
                log.write(.stdout, Array("next\n".utf8)[...], at: time)
                let lines = try File.read(path).split(separator: 10)
                #expect(lines.count == 3)
                #expect(LogRecord(line: lines[1]) == nil)
                #expect(LogRecord(line: lines[2])?.bytes.elementsEqual("next".utf8) == true)
            }
        }

        @Test func onlyARegularFileIsALog() throws {
            try withLog { (_: LogWriter, path: String) throws in
                symlink(path, "\(directory)/link")
                mkfifo("\(directory)/fifo", 0o600)
                for name in ["link", "fifo"] {
                    #expect(throws: KernelError.self) {
                        try LogWriter(path: "\(directory)/\(name)", maximumBytes: 0, maximumFiles: 1)
                    }
                }
            }
        }
    }
}
