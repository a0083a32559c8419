import DeviceDiscovery
import Devices
import Glibc
import Kernel
import Synchronization

/// A libnvidia-ml.so.1 made of Tests/FakeNVML/fakenvml.c, with a fixture that says what it answers; gone
/// with this process.
struct FakeNVML {
    /// Which of the library's names of functions there are.
    enum Variant: String, CaseIterable {
        case current = "ALL_SYMBOLS", old = "OLD_SYMBOLS", few = "FEW_SYMBOLS", none = "NO_SYMBOLS"
    }

    let folder: String

    init(_ fixture: String, _ variant: Variant = .current) throws {
        let library = try Self.compiled(variant)
        var template = Array("\(Self.top)/XXXXXX".utf8CString)
        guard let made = mkdtemp(&template) else { throw KernelError("mkdtemp", "/tmp", errno: errno) }
        let folder = String(cString: made)
        try File.makeDirectories("\(folder)/lib")
        try systemCall("symlink") { symlink(library, "\(folder)/lib/libnvidia-ml.so.1") }
        try File.replace("\(folder)/fixture", with: Array(fixture.utf8))
        self.folder = folder
    }

    /// Replaces the fixture; a process that read the old one keeps it.
    func write(_ fixture: String) throws { try File.replace("\(folder)/fixture", with: Array(fixture.utf8)) }

    var environment: [String] { ["FAKE_NVML=\(folder)/fixture"] }

    /// A FIFO for the fixture's `fifo`, open for writing.
    func fifo() throws -> OwnedFD {
        try systemCall("mkfifo") { mkfifo("\(folder)/events", 0o600) }
        return try File.open("\(folder)/events", O_RDWR)
    }

    /// martlet-nvml with this library.
    func helper(timeoutMilliseconds: Int = 60_000, endMilliseconds: Int = 30_000) throws -> NVMLHelper {
        var roots = DeviceRoots()
        roots.libraries = ["\(folder)/lib"]
        return NVMLHelper(
            program: try Self.program("martlet-nvml"), roots: roots, environment: environment,
            timeoutMilliseconds: timeoutMilliseconds, endMilliseconds: endMilliseconds)
    }

    /// A program of ours, beside the one with the tests.
    static func program(_ name: String) throws -> String {
        var buffer = [CChar](repeating: 0, count: 4096)
        let length = readlink("/proc/self/exe", &buffer, buffer.count)
        let tests = String(decoding: buffer.prefix(max(0, length)).map { UInt8(bitPattern: $0) }, as: UTF8.self)
        let path = "\(tests[..<(tests.lastSlash ?? tests.startIndex)])/\(name)"
        guard File.exists(path) else {
            throw KernelError("find", path, errno: ENOENT, hint: "swift build --build-tests")
        }
        return path
    }

    /// The sources' root.
    static let root = String(#filePath.dropLast("/Tests/DevicesTests/FakeNVML.swift".count))

    /// Swift's own C compiler; nil: there is none on the PATH.
    static let clang: String? = {
        let path = getenv("PATH").map { String(cString: $0) } ?? ""
        return path.split(separator: ":").lazy.map { "\($0)/clang" }.first { access($0, X_OK) == 0 }
    }()

    /// The folder of all of them.
    private static var top: String { "/tmp/martlet-test-\(getpid())-nvml" }

    private static let libraries = Mutex<[Variant: String]>([:])

    /// The library's path; each variant is compiled once.
    private static func compiled(_ variant: Variant) throws -> String {
        try libraries.withLock { libraries in
            if let path = libraries[variant] { return path }
            if libraries.isEmpty {
                try File.makeDirectories(top)
                atexit { _ = try? Program("/bin/rm", ["-rf", FakeNVML.top]).run() }
            }
            let path = "\(top)/\(variant.rawValue).so"
            let search = getenv("PATH").map { String(cString: $0) } ?? "/usr/bin:/bin"
            let result = try Program(
                "\(root)/scripts/fakenvml.sh", [path, variant.rawValue], environment: ["PATH=\(search)"],
                timeoutMilliseconds: 120_000
            ).run()
            guard result.status == .exited(0) else {
                throw KernelError("compile", "fakenvml.c", errno: EIO, hint: result.errorText)
            }
            libraries[variant] = path
            return path
        }
    }
}

/// What a watch or a monitor delivers, for a test to wait for.
final class Deliveries<Value: Sendable>: Sendable {
    private let values = Mutex<[Value]>([])

    func add(_ value: Value) { values.withLock { $0.append(value) } }

    var all: [Value] { values.withLock { $0 } }

    /// The first that fits, once it is there; nil when it is not within two minutes.
    func first(where fits: (Value) -> Bool) -> Value? {
        for _ in 0..<12_000 {
            if let value = all.first(where: fits) { return value }
            usleep(10_000)
        }
        return nil
    }
}
