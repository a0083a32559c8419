import CKernel
import Glibc
import JSON
import Kernel
import OCISpec
import Testing

/// An OCI runtime, and bundles of a static busybox, all below one temporary directory. What a test leaves is removed.
final class RuntimeFixture {
    /// runc is the yardstick where both are tried: a test that fails with it tests something else than a container.
    enum Runtime: String, CaseIterable, CustomTestStringConvertible {
        case ours, runc
        var testDescription: String { rawValue }

        func path() throws -> String {
            switch self {
            case .ours: try RuntimeFixture.program("martlet-runtime")
            case .runc: "/usr/sbin/runc"
            }
        }
    }

    let runtime: Runtime
    let directory: String
    private let program: String
    private let cgroupParent: String
    private var bundles = 0
    /// Environment of the runtime's calls.
    var environment = ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"]
    /// The network namespace that the runtime's calls are made in; nil for the test's.
    var network: SharedFD?

    /// The directory of the programs under test: beside the test bundle, or where the environment says.
    static func program(_ name: String) throws -> String {
        if let given = getenv("MARTLET_BIN_DIR") { return "\(String(cString: given))/\(name)" }
        var buffer = [CChar](repeating: 0, count: 4096)
        let length = readlink("/proc/self/exe", &buffer, buffer.count)
        let tests = String(decoding: buffer.prefix(max(0, length)).map { UInt8(bitPattern: $0) }, as: UTF8.self)
        let path = tests[...(tests.lastIndex(of: "/") ?? tests.startIndex)] + name
        if File.exists(String(path)) { return String(path) }
        throw KernelError("find", name, errno: ENOENT, hint: "build it, or set MARTLET_BIN_DIR")
    }

    static func busybox() throws -> String {
        if let given = getenv("MARTLET_BUSYBOX") { return String(cString: given) }
        return try #require(
            [".build/assets/busybox"].first { File.exists($0) },
            "MARTLET_BUSYBOX names no static busybox: use `make test`")
    }

    init(_ runtime: Runtime = .ours) throws {
        self.runtime = runtime
        program = try runtime.path()
        var template = Array("/tmp/martlet-runtime-XXXXXX".utf8CString)
        let made = try #require(mkdtemp(&template))
        directory = String(cString: made)
        cgroupParent = "martlet-rt-\(directory.suffix(6))"
        // What the runtime leaves running becomes a child of ours, so that it can be waited for.
        ck_prctl(36 /* PR_SET_CHILD_SUBREAPER */, 1, 0, 0, 0)
    }

    deinit {
        for id in ids {
            // A pid namespace ends when all its processes are reaped, and that is for us to do.
            _ = try? call(["kill", "--all", id, "KILL"])
            _ = eventually {
                reap()
                return (try? state(id).status) != .running
            }
            _ = try? call(["delete", "--force", id])
        }
        reap()
        ck_prctl(36, 0, 0, 0, 0)
        for directory in HostCgroups.directories(cgroupParent) { rmdir(directory) }
        _ = try? Tree.remove(directory)
    }

    /// How often a loop that looks for a race runs: a twentieth of the full count, which is for the soak; in the emulated
    /// machine, where each round takes as long as twenty, a two-hundredth.
    /// - Parameter few: instead of the twentieth.
    static func rounds(_ full: Int, otherwise few: Int? = nil) -> Int {
        if getenv("MARTLET_SOAK") != nil { return full }
        return max(3, (few ?? full / 20) / (getenv("MARTLET_MACHINE") != nil ? 10 : 1))
    }

    /// The runtime's state directory.
    var root: String { "\(directory)/state" }

    // MARK: Bundles

    /// A bundle that runs `sh -c script`.
    func bundle(
        _ script: String = "true", _ shape: (inout ContainerSpec) throws -> Void = { _ in },
        raw: (inout JSONObject) -> Void = { _ in }
    ) throws -> String {
        bundles += 1
        let path = "\(directory)/bundle\(bundles)"
        let rootfs = "\(path)/rootfs"
        for name in ["bin", "proc", "sys", "dev", "tmp", "etc", "root"] {
            try File.makeDirectories("\(rootfs)/\(name)", mode: 0o755)
        }
        try File.replace("\(rootfs)/bin/busybox", with: File.read(Self.busybox(), limit: 16 << 20), mode: 0o755)
        for applet in Self.applets { symlink("busybox", "\(rootfs)/bin/\(applet)") }
        var spec = Self.spec(["/bin/sh", "-c", script])
        spec.linux?.cgroupsPath = "/\(cgroupParent)/b\(bundles)"
        try shape(&spec)
        guard case .object(var object) = spec.json else { return path }
        raw(&object)
        try File.replace("\(path)/config.json", with: JSONValue.object(object).serialized())
        return path
    }

    private static let applets = [
        "sh", "cat", "echo", "sleep", "ls", "true", "false", "kill", "id", "env", "mount", "grep", "stat", "ps", "pwd",
        "hostname", "stty", "mkdir", "readlink", "touch", "dd", "tr", "head", "wc", "test", "mv", "ln", "rm", "ip",
        "tty",
        "printf", "mknod", "chmod", "date", "umount",
    ]

    /// What engines write for an ordinary container, without a filter.
    static func spec(_ arguments: [String]) -> ContainerSpec {
        var spec = ContainerSpec(ociVersion: "1.0.2")
        spec.root = RootSpec(path: "rootfs")
        spec.hostname = "box"
        var process = ProcessSpec(args: arguments)
        process.env = ["PATH=/bin"]
        let capabilities = ["CAP_KILL", "CAP_CHOWN", "CAP_SETUID", "CAP_SETGID", "CAP_NET_BIND_SERVICE"]
        process.capabilities = CapabilitiesSpec(
            bounding: capabilities, effective: capabilities, permitted: capabilities)
        process.noNewPrivileges = true
        spec.process = process
        let safe = ["nosuid", "noexec", "nodev"]
        spec.mounts = [
            MountSpec(destination: "/proc", type: "proc", source: "proc", options: safe),
            MountSpec(
                destination: "/dev", type: "tmpfs", source: "tmpfs",
                options: ["nosuid", "strictatime", "mode=755", "size=65536k"]),
            MountSpec(
                destination: "/dev/pts", type: "devpts", source: "devpts",
                options: ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
            MountSpec(destination: "/dev/shm", type: "tmpfs", source: "shm", options: safe + ["mode=1777"]),
            MountSpec(destination: "/dev/mqueue", type: "mqueue", source: "mqueue", options: safe),
            MountSpec(destination: "/sys", type: "sysfs", source: "sysfs", options: safe + ["ro"]),
        ]
        var linux = LinuxSpec()
        linux.namespaces = [.pid, .network, .ipc, .uts, .mount].map { NamespaceSpec($0) }
        linux.maskedPaths = ["/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware", "/proc/not-there"]
        linux.readonlyPaths = ["/proc/sys", "/proc/sysrq-trigger", "/proc/irq"]
        spec.linux = linux
        return spec
    }

    // MARK: Calls

    /// One call of the runtime, with what it and the container's process wrote.
    @discardableResult
    func call(_ arguments: [String], seconds: Int = 60) throws -> RuntimeOutput {
        let global = ["--root", root]
        var call = Program(
            program, global + arguments, environment: environment, timeoutMilliseconds: seconds * 1000)
        call.networkNamespace = network?.raw ?? -1
        let result = try call.run()
        return RuntimeOutput(
            code: result.status.shellCode, stdout: String(decoding: result.output, as: UTF8.self),
            stderr: String(decoding: result.errors, as: UTF8.self))
    }

    /// The same, for calls that must succeed.
    @discardableResult
    func must(_ arguments: String...) throws -> RuntimeOutput {
        let output = try call(arguments)
        try #require(output.code == 0, "\(arguments.joined(separator: " ")): \(output.stderr)")
        return output
    }

    /// Starts a call whose errors go to a file, or nowhere.
    func spawn(_ arguments: [String], errors: SharedFD? = nil) throws -> ChildProcess {
        let null = SharedFD(try File.open("/dev/null", O_RDWR))
        let all = [program, "--root", root] + arguments
        let descriptors = [null.raw, null.raw, errors?.raw ?? null.raw]
        return try Spawn(program, all, environment: environment, descriptors: descriptors).start()
    }

    /// Runs `sh -c script` in a container of its own and removes it.
    func run(
        _ script: String, _ shape: (inout ContainerSpec) throws -> Void = { _ in },
        raw: (inout JSONObject) -> Void = { _ in }
    ) throws -> RuntimeOutput {
        let path = try bundle(script, shape, raw: raw)
        return try call(["run", "--bundle", path, "r\(bundles)"])
    }

    /// Creates and starts a container that runs `sh -c script`.
    func start(
        _ id: String, _ script: String = "sleep 1000", _ shape: (inout ContainerSpec) throws -> Void = { _ in }
    ) throws {
        try must("create", "--bundle", try bundle(script, shape), id)
        try must("start", id)
    }

    /// What `state` says, decoded strictly enough to be sure.
    func state(_ id: String) throws -> RuntimeState {
        try RuntimeState(parsing: Array(try must("state", id).stdout.utf8))
    }

    /// Waits for the end of a container's process, which is a child of ours, and reaps it.
    func wait(_ pid: pid_t) -> Int32? {
        for _ in 0..<1000 {
            var status: Int32 = 0
            let ended = waitpid(pid, &status, WNOHANG)
            if ended == pid { return status & 0x7f == 0 ? status >> 8 & 0xff : 128 + (status & 0x7f) }
            if ended < 0 { return nil }
            usleep(10_000)
        }
        return nil
    }

    /// Waits until a condition holds; false when it does not within ten seconds.
    @discardableResult
    func eventually(_ condition: () throws -> Bool) rethrows -> Bool {
        for _ in 0..<1000 {
            if try condition() { return true }
            usleep(10_000)
        }
        return false
    }

    /// Reaps every child of ours that has ended.
    func reap() { while waitpid(-1, nil, WNOHANG) > 0 {} }

    // MARK: What is left

    /// Of the containers that are known; the filters that are kept for all of them have a name that no id can be.
    private var ids: [String] { ((try? File.list(root)) ?? []).filter { !$0.hasPrefix(".") } }

    /// What a container leaves on the host when it is not cleaned up: state, cgroups, mounts.
    func traces() throws -> [String] {
        var found = ids.map { "state \($0)" }
        for parent in HostCgroups.directories(cgroupParent) {
            var info = stat()
            for name in (try? File.list(parent)) ?? [] where stat("\(parent)/\(name)", &info) == 0 {
                if info.st_mode & S_IFMT == S_IFDIR { found.append("cgroup \(parent)/\(name)") }
            }
        }
        found += try MountInfo.read().filter { $0.mountPoint.hasPrefix(directory) }.map { "mount \($0.mountPoint)" }
        return found
    }

    /// The cgroup directories of the latest bundle's container, of all hierarchies.
    var cgroups: [String] { HostCgroups.directories("\(cgroupParent)/b\(bundles)") }

    /// The cgroup directory of the latest bundle's container where a controller is.
    func cgroup(_ controller: String) -> String { HostCgroups.directory(controller, "\(cgroupParent)/b\(bundles)") }
}

/// What a call of a runtime came to.
struct RuntimeOutput {
    let code: Int32
    let stdout: String
    let stderr: String

    var lines: [String] { stdout.split(separator: "\n", omittingEmptySubsequences: true).map { String($0) } }
    /// Standard output without white space around it.
    var text: String {
        var part = Substring(stdout)
        while let last = part.last, last.isWhitespace { part.removeLast() }
        return String(part)
    }
}
