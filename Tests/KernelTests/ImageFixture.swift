import Glibc
import Kernel
import Testing

@testable import Images

/// An image store in a directory of its own, beside a canary that nothing may touch.
final class ImageFixture {
    let directory: String
    let limits: ImageLimits
    private(set) var store: ImageStore
    private let canary: [String]
    private var counter = 0

    /// - Parameter place: a directory for it, on a file system under test; a new one in /tmp otherwise.
    init(limits: ImageLimits = .standard, place: String? = nil) throws {
        var template = Array("\(place ?? "/tmp")/martlet-images.XXXXXX".utf8CString)
        guard mkdtemp(&template) != nil else { throw KernelError("mkdtemp", errno: errno) }
        directory = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
        self.limits = limits
        try File.makeDirectories("\(directory)/canary/sub", mode: 0o755)
        try File.replace("\(directory)/canary/file", with: Array("untouched".utf8))
        canary = try Self.fingerprint("\(directory)/canary")
        store = try ImageStore(root: "\(directory)/data/images", limits: limits)
    }

    deinit {
        if let mounts = try? MountInfo.read() {
            for entry in mounts.reversed() where entry.mountPoint.hasPrefix(directory + "/") {
                umount2(entry.mountPoint, 2)
            }
        }
        _ = try? Tree.remove(directory)
    }

    var canaryPath: String { "\(directory)/canary" }

    /// Names, kinds, sizes, owners, modes, inodes and times below a directory, and the content of files.
    static func fingerprint(_ path: String) throws -> [String] {
        var result: [String] = []
        var info = stat()
        try systemCall("lstat", path) { lstat(path, &info) }
        result.append(
            "\(path) \(info.st_mode) \(info.st_uid) \(info.st_gid) \(info.st_ino) \(info.st_nlink) \(info.st_mtim.tv_sec)"
                + ".\(info.st_mtim.tv_nsec) \(info.st_ctim.tv_nsec)")
        if info.isDirectory {
            for name in try File.list(path).sorted() { result += try fingerprint("\(path)/\(name)") }
        } else if info.type == S_IFREG {
            result.append(try File.text(path))
        }
        return result
    }

    func expectCanaryUntouched(_ location: SourceLocation = #_sourceLocation) throws {
        #expect(try Self.fingerprint(canaryPath) == canary, "something outside was touched", sourceLocation: location)
    }

    /// Nothing that a refused operation made is left.
    func expectStoreEmpty(_ location: SourceLocation = #_sourceLocation) throws {
        #expect(store.list().isEmpty, sourceLocation: location)
        for folder in ["blobs/sha256", "snapshots", "tmp", "quarantine"] {
            let names = try File.list("\(store.root)/\(folder)")
            #expect(names.isEmpty, "\(folder) has \(names)", sourceLocation: location)
        }
    }

    /// A new path in the fixture's directory.
    func path(_ name: String = "file") -> String {
        counter += 1
        return "\(directory)/\(name).\(counter)"
    }

    /// Writes bytes to a file and returns it opened for reading.
    func file(_ bytes: [UInt8]) throws -> OwnedFD {
        let path = path("archive")
        try File.replace(path, with: bytes)
        return try File.open(path, O_RDONLY)
    }

    @discardableResult
    func importTar(_ tar: [UInt8], name: String? = "test:1", config: ImageConfig = ImageConfig()) throws -> ImageRecord
    {
        let file = try file(tar)
        return try store.importTar(file.raw, name: name, config: config)
    }

    @discardableResult
    func load(_ archive: [UInt8]) throws -> [ImageRecord] {
        let file = try file(archive)
        return try store.load(file.raw)
    }

    func save(_ names: [String], _ format: ImageArchiveFormat) throws -> String {
        let path = path("saved")
        let file = try File.open(path, O_WRONLY | O_CREAT | O_EXCL)
        try store.save(names, format: format, to: file.raw)
        return path
    }

    /// The unpacked root of an image's topmost layer.
    func layer(_ image: ImageRecord) throws -> String { store.snapshots.fileSystem(try #require(image.chain.last)) }

    /// Closes the store and opens it again, as a new process would.
    @discardableResult
    func reopen() throws -> ImageStore {
        // The lock goes with the last reference, so the old store is let go of before the new one asks for it.
        store = try ImageStore(root: path("empty"), limits: limits)
        store = try ImageStore(root: "\(directory)/data/images", limits: limits)
        return store
    }

    /// A task directory with the image's root mounted.
    func mount(_ image: ImageRecord, readOnly: Bool = false) throws -> String {
        let task = path("task")
        _ = try store.prepareSnapshot(image: image.digest, taskDirectory: task, readOnly: readOnly)
        return task
    }
}

/// Makes tar archives, sound and unsound ones.
struct TarBuilder {
    private(set) var bytes: [UInt8] = []

    /// Adds an entry, its headers written as it stands, whatever it says.
    mutating func add(
        _ kind: TarEntry.Kind, _ path: String, target: String = "", data: String = "", mode: UInt32? = nil,
        uid: UInt32 = 0, gid: UInt32 = 0, modified: Int64 = 1_000_000_000, device: (UInt32, UInt32) = (0, 0),
        attributes: [(String, [UInt8])] = []
    ) throws {
        var entry = TarEntry(kind, Array(path.utf8))
        entry.target = Array(target.utf8)
        entry.mode = mode ?? (kind == .directory ? 0o755 : 0o644)
        (entry.uid, entry.gid) = (uid, gid)
        entry.size = UInt64(data.utf8.count)
        entry.modified = (modified, 0)
        (entry.major, entry.minor) = device
        entry.attributes = attributes.map { ExtendedAttribute(name: Array($0.0.utf8), value: $0.1) }
        try add(entry, Array(data.utf8))
    }

    mutating func add(_ entry: TarEntry, _ data: [UInt8] = []) throws {
        var new: [UInt8] = []
        let writer = TarWriter { new += Array($0) }
        try writer.begin(entry)
        try data.withUnsafeBytes { try writer.write($0) }
        bytes += new
    }

    mutating func addFile(_ path: String, _ data: [UInt8]) throws {
        var entry = TarEntry(.regular, Array(path.utf8))
        entry.size = UInt64(data.count)
        try add(entry, data)
    }

    mutating func addRaw(_ raw: [UInt8]) { bytes += raw }

    /// The archive with its end mark.
    var finished: [UInt8] { bytes + [UInt8](repeating: 0, count: 1024) }

    static func make(_ body: (inout TarBuilder) throws -> Void) rethrows -> [UInt8] {
        var builder = TarBuilder()
        try body(&builder)
        return builder.finished
    }
}

/// Runs a program of the host to its end and demands success.
@discardableResult
func runTool(
    _ path: String, _ arguments: [String], input: [UInt8] = [], _ location: SourceLocation = #_sourceLocation
) throws -> [UInt8] {
    let program = Program(
        path, arguments, environment: ["PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/tmp"], input: input,
        timeoutMilliseconds: 120_000, outputLimit: 64 << 20)
    let result = try program.run()
    try #require(
        result.status == .exited(0), "\(path) \(arguments): \(result.errorText)", sourceLocation: location)
    return result.output
}

func statusOf(_ path: String) throws -> stat {
    var info = stat()
    try systemCall("lstat", path) { lstat(path, &info) }
    return info
}

/// Expects an `ImageError` of one kind and returns its message.
@discardableResult
func expectRefusal<Result>(
    _ kind: ImageError.Kind, _ location: SourceLocation = #_sourceLocation, _ body: () throws -> Result
) -> String {
    do {
        _ = try body()
        Issue.record("nothing was refused", sourceLocation: location)
        return ""
    } catch let error as ImageError {
        #expect(error.kind == kind, "\(error)", sourceLocation: location)
        return error.message
    } catch {
        Issue.record("another error: \(error)", sourceLocation: location)
        return ""
    }
}
