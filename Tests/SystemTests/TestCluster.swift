import Glibc
import JSON
import Kernel
import Model
import Synchronization
import Testing
import Wire

/// A cluster of one node, with folders, a bridge and cgroups of its own, made of the real programs.
final class TestCluster: Sendable {
    let folder: String
    let bridge: String
    let subnet: String
    let cgroupParent: String
    /// Folder of the programs.
    static let programs: String = {
        if let given = getenv("MARTLET_BIN_DIR") { return String(cString: given) }
        var buffer = [CChar](repeating: 0, count: 4096)
        let count = readlink("/proc/self/exe", &buffer, buffer.count - 1)
        let path = String(decoding: buffer.prefix(max(0, count)).map { UInt8(bitPattern: $0) }, as: UTF8.self)
        return path.split(separator: "/", omittingEmptySubsequences: false).dropLast().joined(separator: "/")
    }()
    static let martlet = programs + "/martlet"
    static let rootfs = getenv("MARTLET_ROOTFS").map { String(cString: $0) } ?? ""
    /// A static busybox, for programs in a pod's network that the pod need not have.
    static let busybox = getenv("MARTLET_BUSYBOX").map { String(cString: $0) } ?? "busybox"
    private static let counter = Mutex(0)

    var dataDirectory: String { folder + "/data" }
    var runDirectory: String { folder + "/run" }
    var host: String { "unix:\(runDirectory)/martlet.sock" }

    init() throws {
        let number = Self.counter.withLock { value -> Int in
            value += 1
            return value
        }
        folder = "/tmp/martlet-test-\(getpid())-\(number)"
        bridge = "mtst\(number)"
        subnet = "10.\(100 + number % 100).0.0/16"
        cgroupParent = "martlet-test-\(getpid())-\(number)"
        try File.makeDirectories(folder)
    }

    var placeFlags: [String] { ["--data-dir", dataDirectory, "--run-dir", runDirectory] }
    /// Specifications of devices.
    var deviceDirectory: String { folder + "/cdi" }
    /// Where devices are looked for when it is there before the node starts, see `FakeGPUs`; else they are this machine's.
    var deviceRoot: String { folder + "/hardware" }
    var nodeFlags: [String] {
        ["--bridge", bridge, "--subnet", subnet, "--cgroup-parent", cgroupParent, "--cdi-spec-dir", deviceDirectory]
            + (File.exists(deviceRoot) ? ["--device-root", deviceRoot] : [])
    }

    /// `martlet up --detach`.
    func up(environment: [String] = []) throws {
        try expectSuccess(run(["up", "--detach"] + placeFlags + nodeFlags, environment: environment))
    }

    /// Master and agent as two processes.
    func upAsTwo(masterEnvironment: [String] = [], agentEnvironment: [String] = []) throws {
        try expectSuccess(run(["master", "--detach"] + placeFlags, environment: masterEnvironment))
        try startAgent(environment: agentEnvironment)
    }

    func startMaster(environment: [String] = []) throws {
        try expectSuccess(run(["master", "--detach"] + placeFlags, environment: environment))
    }

    func startAgent(environment: [String] = []) throws {
        try expectSuccess(run(["agent", "--detach"] + placeFlags + nodeFlags, environment: environment))
    }

    /// `martlet down --all`, and the folder.
    func tearDown() {
        _ = try? run(["down", "--all"] + placeFlags)
        _ = try? Tree.remove(folder)
    }

    /// The process of a daemon, from its pid file.
    func pid(of role: String) throws -> pid_t {
        let text = try File.text("\(runDirectory)/\(role).pid")
        return try #require(text.split(separator: " ").first.flatMap { pid_t($0) })
    }

    /// SIGKILL, and waits until it is gone.
    func kill(_ role: String) throws {
        let pid = try pid(of: role)
        Glibc.kill(pid, SIGKILL)
        try eventually("the \(role) process \(pid) is gone") { try Proc.stat(pid)?.hasEnded ?? true }
    }

    /// Makes the image `busybox`.
    func importImage() throws {
        try #require(!Self.rootfs.isEmpty, "MARTLET_ROOTFS names no root file system: run the tests with `make test`")
        try expectSuccess(martlet("image", "import", "--name", "busybox", Self.rootfs))
    }

    /// Runs the CLI against this cluster.
    @discardableResult
    func martlet(_ arguments: String..., input: String = "") throws -> Outcome {
        try run(arguments, input: Array(input.utf8))
    }

    @discardableResult
    func run(_ arguments: [String], input: [UInt8] = [], environment: [String] = []) throws -> Outcome {
        var program = Program(Self.martlet, arguments)
        program.environment =
            ["MARTLET_HOST=\(host)", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root"] + environment
        program.input = input
        program.timeoutMilliseconds = 120_000
        program.outputLimit = 64 << 20
        let result = try program.run()
        return Outcome(
            code: result.status.shellCode, output: String(decoding: result.output, as: UTF8.self),
            errors: String(decoding: result.errors, as: UTF8.self), what: arguments.joined(separator: " "))
    }

    /// Starts the CLI against this cluster and does not wait for it; what it prints is dropped.
    func begin(_ arguments: [String]) throws -> ChildProcess {
        let null = try File.open("/dev/null", O_RDWR)
        var spawn = Spawn(Self.martlet, ["martlet"] + arguments)
        spawn.environment = ["MARTLET_HOST=\(host)", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root"]
        spawn.descriptors = [null.raw, null.raw, null.raw]
        return try spawn.start()
    }

    func inspect(_ container: String) throws -> ContainerView {
        let outcome = try martlet("inspect", container)
        try expectSuccess(outcome)
        return try #require(try JSONCoding.decode([ContainerView].self, from: Array(outcome.output.utf8)).first)
    }

    func containers(service: String? = nil) throws -> [ContainerView] {
        let outcome = try run(["ps", "-a", "--format", "json"] + (service.map { ["--service", $0] } ?? []))
        try expectSuccess(outcome)
        return try JSONCoding.decode(
            [ContainerView].self, from: Array(outcome.output.utf8), limits: JSONLimits(bytes: 64 << 20))
    }
}

/// A cluster that runs as `up` and has the image, for as long as `body` takes.
func withCluster(_ body: (TestCluster) throws -> Void) throws {
    let cluster = try TestCluster()
    defer { cluster.tearDown() }
    try cluster.up()
    try cluster.importImage()
    try body(cluster)
}

struct Outcome: CustomStringConvertible {
    let code: Int32
    let output: String
    let errors: String
    let what: String

    /// Without the newline at its end.
    var text: String { output.hasSuffix("\n") ? String(output.dropLast()) : output }
    var description: String { "`martlet \(what)` ended with \(code): \(errors.isEmpty ? output : errors)" }
}

func expectSuccess(_ outcome: Outcome, sourceLocation: SourceLocation = #_sourceLocation) throws {
    try #require(outcome.code == 0, "\(outcome)", sourceLocation: sourceLocation)
}

/// Waits for something that comes about by itself; 30 seconds are for a slow machine, not a promise.
func eventually(
    _ what: String, within seconds: Int = 30, sourceLocation: SourceLocation = #_sourceLocation,
    _ holds: () throws -> Bool
) throws {
    let deadline = ContinuousClock.now + .seconds(seconds)
    while try !holds() {
        try #require(ContinuousClock.now < deadline, "not within \(seconds) s: \(what)", sourceLocation: sourceLocation)
        usleep(20_000)
    }
}

/// How often a loop runs: a twentieth in `make test`, or as few times as is said; all in `make soak`.
func loops(_ full: Int, otherwise few: Int? = nil) -> Int {
    getenv("MARTLET_SOAK") != nil ? full : few ?? max(3, full / 20)
}

/// All system tests, one after another: each makes a cluster of its own.
@Suite(.serialized, .enabled(if: geteuid() == 0, "needs root"))
struct SystemSuite {}
