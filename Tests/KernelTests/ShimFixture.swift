import CKernel
import Glibc
import JSON
import Kernel
import ShimProtocol
import StreamFrames
import Testing

/// A real shim with a real OCI runtime, and bundles of a static busybox, all below one temporary directory.
final class ShimFixture {
    let directory: String
    let socket: String
    let pid: pid_t
    private let process: SharedFD
    private let cgroupParent: String
    private var bundles = 0

    /// Programs under test, found beside the test bundle or where the environment says.
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
        let given = try #require(getenv("MARTLET_BUSYBOX"), "MARTLET_BUSYBOX names no static busybox: use `make test`")
        return String(cString: given)
    }

    /// The runtimes that the shim has to work with. runc is the yardstick: what fails with it is the shim's fault.
    enum Runtime: String, CaseIterable, CustomTestStringConvertible {
        case ours, runc
        var testDescription: String { rawValue }

        func path() throws -> String {
            switch self {
            case .ours: try ShimFixture.program("martlet-runtime")
            case .runc: "/usr/sbin/runc"
            }
        }
    }

    /// - Parameter runtimePath: in place of the runtime's own.
    init(
        _ runtime: Runtime = .ours, runtimePath: String? = nil, directoryName: String = "shim", cgroup: String? = nil
    ) throws {
        var template = Array("/tmp/martlet-shim-XXXXXX".utf8CString)
        let made = try #require(mkdtemp(&template))
        directory = String(cString: made)
        let home = "\(directory)/\(directoryName)"
        try File.makeDirectories(home)
        cgroupParent = "martlet-test-\(getpid())"
        socket = "\(home)/shim.sock"
        var ends: [Int32] = [-1, -1]
        try systemCall("pipe2") { pipe2(&ends, O_CLOEXEC) }
        let read = OwnedFD(adopting: ends[0])
        let write = OwnedFD(adopting: ends[1])
        let options = ShimOptions(
            socket: socket, runtime: try runtimePath ?? runtime.path(), runtimeRoot: "\(directory)/runtime",
            taskID: "task1",
            pidFile: "\(home)/shim.pid", cgroup: cgroup, readyFD: 3)
        let program = try Self.program("martlet-shim")
        var spawn = Spawn(program, [program] + options.arguments, descriptors: [-1, 2, 2, write.raw])
        spawn.newSession = true
        let child = try spawn.start()
        pid = child.pid
        process = SharedFD(try child.pidfd.duplicate())
        close(write.release())
        let answer = String(decoding: try read.readAll(limit: 4096), as: UTF8.self)
        try #require(answer == ShimProtocol.ready)
    }

    deinit {
        kill(pid, SIGKILL)
        waitForEnd(milliseconds: 5000)
        // What a failed test left: containers are our grandchildren no more, their cgroups tell who they are.
        for parent in HostCgroups.directories(cgroupParent) {
            for group in (try? File.list(parent)) ?? [] where !group.contains(".") {
                let processes = (try? File.text("\(parent)/\(group)/cgroup.procs")) ?? ""
                for line in processes.split(separator: "\n") { if let pid = pid_t(line) { kill(pid, SIGKILL) } }
                for _ in 0..<50 where rmdir("\(parent)/\(group)") != 0 && errno == EBUSY { usleep(20_000) }
            }
            rmdir(parent)
        }
        _ = try? Tree.remove(directory)
    }

    /// Whether the shim has ended, reaping it.
    @discardableResult
    func waitForEnd(milliseconds: Int32) -> Bool {
        var poll = pollfd(fd: process.raw, events: Int16(POLLIN), revents: 0)
        guard Glibc.poll(&poll, 1, milliseconds) == 1 else { return false }
        var status: Int32 = 0
        waitpid(pid, &status, WNOHANG)
        return true
    }

    // MARK: Bundles

    /// A bundle that runs `sh -c script`.
    ///
    /// - Parameter shape: changes config.json.
    func bundle(
        _ script: String, terminal: Bool = false, arguments: [String]? = nil,
        shape: (inout JSONObject) -> Void = { _ in }
    ) throws -> String {
        bundles += 1
        let path = "\(directory)/bundle\(bundles)"
        let root = "\(path)/rootfs"
        for name in ["bin", "proc", "dev", "tmp", "etc"] { try File.makeDirectories("\(root)/\(name)", mode: 0o755) }
        try File.replace("\(root)/bin/busybox", with: File.read(Self.busybox(), limit: 16 << 20), mode: 0o755)
        let applets = [
            "sh", "cat", "echo", "sleep", "seq", "head", "dd", "stty", "true", "false", "kill", "tail", "yes", "id",
            "printf", "mkdir", "readlink", "wc", "tr", "nice", "grep", "ls", "env",
        ]
        for applet in applets { symlink("busybox", "\(root)/bin/\(applet)") }
        var configuration = Self.configuration(
            arguments ?? ["/bin/sh", "-c", script], terminal: terminal, cgroup: "/\(cgroupParent)/b\(bundles)")
        shape(&configuration)
        try File.replace("\(path)/config.json", with: JSONValue.object(configuration).serialized())
        return path
    }

    /// The cgroup directory of the latest bundle's container where a controller is.
    func cgroup(_ controller: String) -> String { HostCgroups.directory(controller, "\(cgroupParent)/b\(bundles)") }

    static func process(_ arguments: [String], terminal: Bool = false) -> JSONValue {
        let capabilities: JSONValue = ["CAP_KILL"]
        return [
            "terminal": .bool(terminal), "user": ["uid": 0, "gid": 0], "cwd": "/",
            "args": .array(arguments.map { .string($0) }), "env": ["PATH=/bin", "HOME=/"],
            "capabilities": ["bounding": capabilities, "effective": capabilities, "permitted": capabilities],
        ]
    }

    private static func configuration(_ arguments: [String], terminal: Bool, cgroup: String) -> JSONObject {
        let namespaces = ["pid", "mount", "ipc", "uts", "network"].map { JSONValue.object(["type": .string($0)]) }
        return [
            "ociVersion": "1.0.2", "process": process(arguments, terminal: terminal),
            "root": ["path": "rootfs", "readonly": false], "hostname": "box",
            "mounts": [
                ["destination": "/proc", "type": "proc", "source": "proc"],
                [
                    "destination": "/dev", "type": "tmpfs", "source": "tmpfs",
                    "options": ["nosuid", "mode=755", "size=65536k"],
                ],
                [
                    "destination": "/dev/pts", "type": "devpts", "source": "devpts",
                    "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"],
                ],
            ],
            "linux": ["namespaces": .array(namespaces), "cgroupsPath": .string(cgroup)],
        ]
    }

    /// A container to create from a bundle, with its log and exit record in the fixture's directory.
    func create(
        _ id: String, _ bundle: String, start: Int = 1, terminal: Bool = false, stdin: Bool = false,
        change: (inout ShimCreate) -> Void = { _ in }
    ) throws -> ShimContainerState {
        var spec = ShimCreate(
            container: id, start: start, bundle: bundle, terminal: terminal, stdin: stdin, logPath: log(id),
            exitPath: exitPath(id, start))
        change(&spec)
        return try #require(try request(.create(spec)).container)
    }

    func log(_ id: String) -> String { "\(directory)/\(id).log" }
    func exitPath(_ id: String, _ start: Int) -> String { "\(directory)/\(id)-\(start).json" }

    func exitRecord(_ id: String, _ start: Int = 1) throws -> ExitRecord {
        try JSONCoding.decode(ExitRecord.self, from: File.read(exitPath(id, start)), strict: true)
    }

    /// The records of a log file; each line must be one.
    func records(_ path: String) throws -> [LogRecord] {
        try File.read(path, limit: 64 << 20).split(separator: UInt8(ascii: "\n")).map {
            try #require(LogRecord(line: $0))
        }
    }

    // MARK: Requests

    func connect() throws -> ShimClient { try ShimClient(socket) }

    /// Sends a request whose answer is one message.
    @discardableResult
    func request(_ request: ShimRequest) throws -> ShimResponse {
        let client = try connect()
        try client.send(request)
        let response = try client.response()
        try #require(try client.next() == nil, "the shim closes after the answer")
        return response
    }

    /// The sentence with which the shim refuses a request; nil when it does not.
    func refusal(_ request: ShimRequest) throws -> String? {
        do {
            _ = try self.request(request)
            return nil
        } catch let error as ShimRefusal {
            return error.text
        }
    }

    /// Opens a stream: `attach`, `exec` or `events`.
    func open(_ request: ShimRequest) throws -> ShimClient {
        let client = try connect()
        try client.send(request)
        _ = try client.response()
        return client
    }

    /// Creates and starts a container, attaches to it, and returns what it wrote and its exit code.
    func run(_ id: String, _ script: String) throws -> ShimOutput {
        _ = try create(id, try bundle(script))
        let client = try open(.attach(ShimAttach(container: id)))
        try request(.start(container: id))
        return try client.output()
    }

    /// The descriptors that the shim has open.
    func descriptors() throws -> Int { try File.list("/proc/\(pid)/fd").count }

    /// Waits until `condition` holds; false when it does not within ten seconds.
    func eventually(_ condition: () throws -> Bool) rethrows -> Bool {
        for _ in 0..<500 {
            if try condition() { return true }
            usleep(20_000)
        }
        return false
    }
}

/// What a process wrote, and how it ended.
struct ShimOutput: Equatable {
    var stdout = ""
    var stderr = ""
    var code: Int32?
}

/// The shim's sentence why it refuses a request.
struct ShimRefusal: Error {
    let text: String
}

/// One connection to a shim. Every read gives up after twenty seconds, so that a failing test ends.
final class ShimClient {
    private(set) var fd: SharedFD
    private var decoder = FrameDecoder()

    init(_ path: String) throws {
        fd = SharedFD(try UnixSocket.connect(path))
        var limit = timeval(tv_sec: 20, tv_usec: 0)
        let size = socklen_t(MemoryLayout<timeval>.size)
        setsockopt(fd.raw, SOL_SOCKET, SO_RCVTIMEO, &limit, size)
        setsockopt(fd.raw, SOL_SOCKET, SO_SNDTIMEO, &limit, size)
    }

    func send(_ request: ShimRequest) throws { try send(.control(try JSONCoding.encode(request))) }
    func send(_ frame: Frame) throws { try send(bytes: frame.encoded()) }

    func send(bytes: [UInt8]) throws {
        var sent = 0
        while sent < bytes.count {
            let from = sent
            sent += try systemCall("send") {
                bytes[from...].withUnsafeBytes { Glibc.send(fd.raw, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL)) }
            }
        }
    }

    /// Closes our descriptor; copies in other processes stay open.
    func letGo() throws { fd = SharedFD(try File.open("/dev/null", O_RDONLY)) }

    func halfClose() { shutdown(fd.raw, Int32(SHUT_WR)) }

    /// The next frame; nil when the shim has closed.
    func next() throws -> Frame? {
        while true {
            if let frame = try decoder.next() { return frame }
            guard let bytes = try receive(64 << 10) else { return nil }
            decoder.append(bytes)
        }
    }

    /// Some bytes; nil when the shim has closed.
    func receive(_ limit: Int) throws -> [UInt8]? {
        var buffer = [UInt8](repeating: 0, count: limit)
        let count = try systemCall("recv") { recv(fd.raw, &buffer, limit, 0) }
        return count == 0 ? nil : Array(buffer[..<count])
    }

    /// The answer to the request; an error frame is thrown.
    func response() throws -> ShimResponse {
        switch try next() {
        case .control(let bytes): return try JSONCoding.decode(ShimResponse.self, from: bytes, strict: true)
        case .error(let text): throw ShimRefusal(text: text)
        case let other: throw ShimRefusal(text: "no answer but \(String(describing: other))")
        }
    }

    func event() throws -> ShimEvent {
        guard case .control(let bytes)? = try next() else { throw ShimRefusal(text: "no event") }
        return try JSONCoding.decode(ShimEvent.self, from: bytes, strict: true)
    }

    /// Reads to the end of the connection.
    func output() throws -> ShimOutput {
        var output = ShimOutput()
        var (stdout, stderr): ([UInt8], [UInt8]) = ([], [])
        while let frame = try next() {
            switch frame {
            case .stdout(let bytes): stdout += bytes
            case .stderr(let bytes): stderr += bytes
            case .exit(let code): output.code = code
            case .error(let text): throw ShimRefusal(text: text)
            default: throw ShimRefusal(text: "unexpected \(frame)")
            }
        }
        output.stdout = String(decoding: stdout, as: UTF8.self)
        output.stderr = String(decoding: stderr, as: UTF8.self)
        return output
    }

    /// Reads output until it contains `text`.
    func expect(_ text: String) throws -> Bool {
        var all = ""
        while let frame = try next() {
            switch frame {
            case .stdout(let bytes), .stderr(let bytes): all += String(decoding: bytes, as: UTF8.self)
            default: return false
            }
            if all.contains(text) { return true }
        }
        return false
    }
}
