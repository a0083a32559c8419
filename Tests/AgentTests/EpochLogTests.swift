import AgentCore
import Glibc
import JSON
import Kernel
import Logging
import Model
import Synchronization
import Testing
import Wire

@testable import Agent

/// Keeps what is logged.
private final class Heard: Sendable {
    private let lines = Mutex<[String]>([])

    var all: [String] { lines.withLock { $0 } }

    var logger: Logger { Logger(label: "test") { _ in Handler(heard: self) } }

    private struct Handler: LogHandler {
        let heard: Heard
        var metadata: Logger.Metadata = [:]
        var logLevel = Logger.Level.trace

        subscript(metadataKey key: String) -> Logger.Metadata.Value? {
            get { metadata[key] }
            set { metadata[key] = newValue }
        }

        func log(event: LogEvent) {
            let details = (event.metadata ?? [:]).sorted { $0.key < $1.key }.map { "\($0.key)=\($0.value)" }
            heard.lines.withLock { $0.append("\(event.level) \(details.joined(separator: " "))") }
        }
    }
}

@Suite("The epochs of forgotten tasks")
struct EpochLogTests {
    private static func inDirectory(_ body: (String) throws -> Void) throws {
        var template = Array("/tmp/martlet-epochs-XXXXXX".utf8CString)
        let made = try #require(mkdtemp(&template))
        let directory = String(cString: made)
        defer { _ = try? Tree.remove(directory) }
        try body(directory)
    }

    private static func text(_ path: String) throws -> String {
        String(decoding: try File.read(path, limit: 8 << 20), as: UTF8.self)
    }

    @Test("The newest epoch of an instance counts, over restarts")
    func newest() throws {
        try Self.inDirectory { directory in
            let heard = Heard()
            let log = EpochLog("\(directory)/epochs")
            #expect(try log.load(heard.logger).isEmpty)
            try log.append(InstanceID("a"), 3)
            try log.append(InstanceID("b"), 1)
            try log.append(InstanceID("a"), 2)
            #expect(
                try EpochLog("\(directory)/epochs").load(heard.logger) == [InstanceID("a"): 3, InstanceID("b"): 1])
            #expect(try Self.text("\(directory)/epochs") == "a 3\nb 1\na 2\n")
            #expect(heard.all.isEmpty)
        }
    }

    @Test("A line that a crash has torn is dropped, and what follows is whole", arguments: ["c", "c ", "c 1", "\u{0}"])
    func torn(_ rest: String) throws {
        try Self.inDirectory { directory in
            let path = "\(directory)/epochs"
            try File.replace(path, with: Array("a 3\n\(rest)".utf8))
            // With and without a look at what is there.
            try EpochLog(path).append(InstanceID("b"), 12)
            #expect(try Self.text(path) == "a 3\nb 12\n")
            try File.replace(path, with: Array("a 3\n\(rest)".utf8))
            let heard = Heard()
            #expect(try EpochLog(path).load(heard.logger) == [InstanceID("a"): 3])
            #expect(try Self.text(path) == "a 3\n")
            #expect(heard.all.isEmpty)
        }
    }

    @Test("Damaged lines are named in a warning, and the others count")
    func damaged() throws {
        try Self.inDirectory { directory in
            let path = "\(directory)/epochs"
            let long = String(repeating: "x", count: 129)
            try File.replace(path, with: Array("a 3\n\nb\nc 1 2\nd -1\ne x\n\(long) 1\n\u{0}\u{0}\nf 7\n".utf8))
            let heard = Heard()
            #expect(try EpochLog(path).load(heard.logger) == [InstanceID("a"): 3, InstanceID("f"): 7])
            #expect(heard.all == ["warning count=7 file=\(path) lines=2, 3, 4, 5, 6, 7, 8"])
        }
    }

    @Test("A long file is compacted to the instances that were written last, each with its newest epoch")
    func compaction() throws {
        try Self.inDirectory { directory in
            let path = "\(directory)/epochs"
            var lines = (1...EpochLog.lineLimit).map { "i\($0) 5\n" }
            lines[0] = "old 9\n"
            lines[EpochLog.lineLimit - 1] = "old 2\n"
            try File.replace(path, with: Array(lines.joined().utf8))
            let log = EpochLog(path)
            try log.append(InstanceID("new"), 1)
            let kept = try Self.text(path).split(separator: "\n")
            #expect(kept.count == EpochLog.keptInstances + 1)
            #expect(kept.suffix(2) == ["old 9", "new 1"])
            #expect(kept.first == "i\(EpochLog.lineLimit - EpochLog.keptInstances + 1) 5")
            #expect(try !File.list(directory).contains("epochs.new"))
        }
    }

    @Test("What is no instance's name is not written", arguments: ["", "a b", "a\nb", "\u{e4}"])
    func names(_ name: String) throws {
        try Self.inDirectory { directory in
            let path = "\(directory)/epochs"
            #expect(throws: KernelError.self) { try EpochLog(path).append(InstanceID(name), 1) }
            #expect(!File.exists(path))
        }
    }

    @Test("A task is forgotten only when its epoch is noted")
    func forgetting() throws {
        try Self.inDirectory { directory in
            var configuration = AgentConfiguration()
            configuration.dataDirectory = directory
            let paths = configuration.paths
            let store = TaskStore(paths: paths)
            let record = TaskRecord(leased("t", nil, epoch: 4), bootID: "b")
            try store.write(record, sync: false)
            // Nothing can be written where a directory is in the way.
            try File.makeDirectories(paths.epochs)
            #expect(throws: KernelError.self) { try store.forget(TaskID("t")) }
            #expect(File.exists(paths.task(TaskID("t")).record))
            rmdir(paths.epochs)
            try store.forget(TaskID("t"))
            #expect(!File.exists(paths.task(TaskID("t")).directory))
            #expect(try store.epochs.load(Heard().logger) == [InstanceID("i"): 4])
            // One that has no record has begun nothing.
            try store.forget(TaskID("u"))
            #expect(try Self.text(paths.epochs) == "i 4\n")
        }
    }
}
