import CKernel
import Glibc
import Kernel
import Logging
import Model
import Synchronization

/// The newest epoch of each instance whose task is gone from this node: `DATA/epochs`, so that a master that was set
/// back, or a message that was long under way, brings no older one to life.
///
/// A line for each forgotten task, `instance epoch`, appended and synced before the task's record is removed. What was
/// torn by a crash has no line feed: it is dropped, since its record is still there. The file is compacted to the
/// instances that were written last once it has grown long. All functions block.
final class EpochLog: Sendable {
    /// Lines at which the file is compacted.
    static let lineLimit = 8192
    /// Instances that are kept then.
    static let keptInstances = 4096
    /// Longest instance name, in bytes; ours have 25.
    private static let nameLimit = 128

    private let path: String
    /// How many lines the file has; nil: it has to be read, or repaired, first.
    private let lines = Mutex<Int?>(nil)

    init(_ path: String) { self.path = path }

    /// Notes an instance's epoch durably.
    ///
    /// - Throws: `KernelError`; the file is as good as before then.
    func append(_ instance: InstanceID, _ epoch: Int) throws(KernelError) {
        let line = "\(instance) \(epoch)\n"
        guard Self.parse(Array(line.utf8).dropLast()) != nil else {
            throw KernelError("append", path, errno: EINVAL, hint: "\(instance.text.prefix(200)) is no instance's name")
        }
        try lines.withLock { lines throws(KernelError) in
            let known = lines
            lines = nil
            var count = if let known { known } else { try repair() }
            if count >= Self.lineLimit { count = try compact() }
            let file = try File.open(path, O_WRONLY | O_APPEND | O_NOFOLLOW)
            try file.writeAll(line.utf8, subject: path)
            try systemCall("fdatasync", path) { fdatasync(file.raw) }
            lines = count + 1
        }
    }

    /// The newest epoch of each instance in the file; a warning names lines that make no sense.
    func load(_ logger: Logger) throws(KernelError) -> [InstanceID: Int] {
        try lines.withLock { lines throws(KernelError) in
            lines = try repair()
            let content = try read()
            if !content.damaged.isEmpty {
                let named = content.damaged.prefix(10).map(String.init).joined(separator: ", ")
                logger.warning(
                    "lines of the file of epochs make no sense and are ignored; the others count",
                    metadata: ["file": "\(path)", "lines": "\(named)", "count": "\(content.damaged.count)"])
            }
            return content.epochs
        }
    }

    /// Makes the file where it is missing and cuts off a torn last line.
    ///
    /// - Returns: how many lines it has.
    private func repair() throws(KernelError) -> Int {
        let isNew = !File.exists(path)
        let file = try File.open(path, O_RDWR | O_CREAT | O_NOFOLLOW)
        if isNew { try File.syncDirectory(of: path) }
        let bytes = try file.readAll(limit: Self.sizeLimit, subject: path)
        let whole = bytes.lastIndex(of: UInt8(ascii: "\n")).map { $0 + 1 } ?? 0
        if whole < bytes.count {
            try systemCall("ftruncate", path) { ftruncate(file.raw, off_t(whole)) }
            try systemCall("fdatasync", path) { fdatasync(file.raw) }
        }
        return bytes.count { $0 == UInt8(ascii: "\n") }
    }

    /// Far more than `lineLimit` lines can be.
    private static let sizeLimit = 4 << 20

    /// What is in the file: each instance's newest epoch, the instances in the order in which they were written last,
    /// and the numbers of lines that make no sense.
    private func read() throws(KernelError) -> (epochs: [InstanceID: Int], order: [InstanceID], damaged: [Int]) {
        var epochs: [InstanceID: Int] = [:]
        var last: [InstanceID: Int] = [:]
        var damaged: [Int] = []
        let bytes = try File.read(path, limit: Self.sizeLimit)
        for (index, line) in bytes.split(separator: UInt8(ascii: "\n"), omittingEmptySubsequences: false).enumerated() {
            if line.isEmpty, line.endIndex == bytes.endIndex { break }
            guard let (instance, epoch) = Self.parse(line) else {
                damaged.append(index + 1)
                continue
            }
            epochs[instance] = max(epoch, epochs[instance] ?? epoch)
            last[instance] = index
        }
        return (epochs, last.sorted { $0.value < $1.value }.map(\.key), damaged)
    }

    /// Replaces the file by one line for each of the instances that were written last.
    ///
    /// - Returns: how many lines it has.
    private func compact() throws(KernelError) -> Int {
        let content = try read()
        let kept = content.order.suffix(Self.keptInstances)
        let text = kept.map { "\($0) \(content.epochs[$0] ?? 0)\n" }.joined()
        try File.replace(path, with: Array(text.utf8))
        return kept.count
    }

    private static func parse(_ line: ArraySlice<UInt8>) -> (InstanceID, Int)? {
        let words = line.split(separator: UInt8(ascii: " "), omittingEmptySubsequences: false)
        guard words.count == 2, (1...nameLimit).contains(words[0].count), words[0].allSatisfy({ $0 > 32 && $0 < 127 }),
            let epoch = Int(String(decoding: words[1], as: UTF8.self)), epoch >= 0
        else { return nil }
        return (InstanceID(String(decoding: words[0], as: UTF8.self)), epoch)
    }
}
