import CKernel
import Cgroups
import Glibc
import Kernel

/// A group of a test's own, with what it started there; all of it goes away with the value.
final class GroupFixture {
    let manager: CgroupManager
    private let parent: CgroupManager
    private var started: [pid_t] = []

    /// - Parameter layout: which of the host's hierarchies the group uses.
    init(_ layout: CgroupLayout) throws {
        parent = try CgroupManager(layout: layout, path: "/martlet-test-\(getpid())")
        // Another name each time: what one test cannot remove is not in the way of the next.
        var now = timespec()
        clock_gettime(CLOCK_MONOTONIC, &now)
        manager = try parent.child("group-\(now.tv_sec)-\(now.tv_nsec)")
        try manager.create()
    }

    deinit {
        // What a failed test left behind must not outlive it.
        try? manager.kill(timeoutMilliseconds: 2000)
        for pid in started { waitpid(pid, nil, WNOHANG) }
        try? manager.delete(timeoutMilliseconds: 2000)
        try? parent.delete(timeoutMilliseconds: 0)
    }

    /// The host's own layout.
    static func host() throws -> CgroupLayout { try CgroupLayout.detect() }

    /// Only the hierarchies of v1, as on a host without cgroup2.
    static func old() throws -> CgroupLayout { CgroupLayout(try host().hierarchies.filter { $0.version == .v1 }) }

    /// Only cgroup2, so that freezing, killing and devices have to work there.
    static func unified() throws -> CgroupLayout { CgroupLayout(try host().hierarchies.filter { $0.version == .v2 }) }

    /// The cgroup2 directory to start a process in.
    ///
    /// - Throws: `KernelError` with ENOENT where the host has none.
    func descriptor(beside sibling: pid_t? = nil) throws -> SharedFD {
        switch try manager.unifiedDescriptor(beside: sibling) {
        case .some(let descriptor): return SharedFD(descriptor)
        case .none: throw KernelError("open", "cgroup2", errno: ENOENT)
        }
    }

    /// Runs a shell script in the group.
    func start(_ script: String) throws -> ScriptProcess {
        let process = try ScriptProcess(script)
        started.append(process.child.pid)
        try manager.place(process.child.pid)
        try process.release()
        return process
    }
}

extension CgroupManager {
    /// Puts another process into the group in every hierarchy.
    func place(_ pid: pid_t) throws {
        for directory in directories { try File.writeControl("\(directory)/cgroup.procs", String(pid)) }
    }
}

/// A shell that waits until it is told to begin, so that it can be put into a group before it does anything.
final class ScriptProcess {
    let child: ChildProcess
    private let input: SharedFD
    private let output: SharedFD

    init(_ script: String, cgroup: Int32 = -1) throws {
        var toChild: [Int32] = [-1, -1]
        var fromChild: [Int32] = [-1, -1]
        try systemCall("pipe2") { pipe2(&toChild, O_CLOEXEC) }
        try systemCall("pipe2") { pipe2(&fromChild, O_CLOEXEC) }
        input = SharedFD(OwnedFD(adopting: toChild[1]))
        output = SharedFD(OwnedFD(adopting: fromChild[0]))
        let childInput = OwnedFD(adopting: toChild[0])
        let childOutput = OwnedFD(adopting: fromChild[1])
        var spawn = Spawn(
            "/bin/sh", ["sh", "-c", "read begin; " + script], environment: ["PATH=/usr/bin:/bin"],
            descriptors: [childInput.raw, childOutput.raw, childOutput.raw])
        spawn.cgroup = cgroup
        child = try spawn.start()
    }

    func release() throws { try Descriptor.writeAll(input.raw, Array("go\n".utf8)) }

    /// Reads what the script wrote until it says `mark` (or ends).
    func read(until mark: String? = nil) throws -> String {
        var text = ""
        var buffer = [UInt8](repeating: 0, count: 4096)
        while true {
            let count = try systemCall("read") { Glibc.read(output.raw, &buffer, buffer.count) }
            if count == 0 { return text }
            text += String(decoding: buffer[..<count], as: UTF8.self)
            if let mark, text.contains(mark) { return text }
        }
    }

    /// Whether it writes anything within some milliseconds; what it wrote is dropped.
    func isWriting(within milliseconds: Int32) -> Bool {
        var request = pollfd(fd: output.raw, events: Int16(POLLIN), revents: 0)
        guard poll(&request, 1, milliseconds) == 1 else { return false }
        var buffer = [UInt8](repeating: 0, count: 65536)
        _ = Glibc.read(output.raw, &buffer, buffer.count)
        return true
    }

    /// Waits for the end.
    func wait() throws -> ExitStatus { try child.wait() }
}
