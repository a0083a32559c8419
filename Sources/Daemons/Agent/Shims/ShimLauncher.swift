import CKernel
import Cgroups
import Glibc
import Kernel
import Model
import Reactor
import ShimProtocol

/// Starts shims. They outlive the agent: in a session and cgroup of their own, with nothing of the agent's open.
struct ShimLauncher: Sendable {
    let program: String
    let runtime: String
    let runtimeRoot: String
    /// Below every hierarchy's root.
    let cgroup: String

    /// Starts the task's shim and returns when it listens. Blocks.
    ///
    /// - Returns: a descriptor of its process, which is ours to reap while we live.
    /// - Throws: `AgentError` with the shim's own words.
    func launch(_ task: TaskPaths) throws -> SharedFD {
        try File.makeDirectories(task.shim)
        // A socket that a shim left when it died would keep the new one from listening.
        try File.removeFile(task.shimSocket)
        let null = try File.open("/dev/null", O_RDWR)
        var ends: [Int32] = [-1, -1]
        try systemCall("pipe2") { pipe2(&ends, O_CLOEXEC) }
        let readable = OwnedFD(adopting: ends[0])
        let process: SharedFD
        do {
            let writable = OwnedFD(adopting: ends[1])
            let options = ShimOptions(
                socket: task.shimSocket, runtime: runtime, runtimeRoot: runtimeRoot, taskID: task.id.text,
                pidFile: task.shimPID, cgroup: cgroup, readyFD: 3)
            var spawn = Spawn(
                program, [program] + options.arguments,
                environment: ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"] + Self.failpoints,
                descriptors: [null.raw, null.raw, null.raw, writable.raw])
            spawn.newSession = true
            spawn.workingDirectory = "/"
            // The shim moves itself in the v1 hierarchies; in cgroup2 only being born there is quick.
            let group = try CgroupManager(layout: .detect(), path: cgroup.isAbsolutePath ? cgroup : "/\(cgroup)")
            try group.create()
            let unified = try SharedFD(optional: group.unifiedDescriptor())
            spawn.cgroup = unified?.raw ?? -1
            process = try withExtendedLifetime(unified) { SharedFD(try spawn.start().pidfd.duplicate()) }
        }
        let word = String(decoding: try readable.readAll(limit: 64 << 10, subject: "shim's readiness"), as: UTF8.self)
        guard word == ShimProtocol.ready else {
            throw AgentError(
                word.isEmpty
                    ? "the shim \(program) of task \(task.id) died at its start"
                    : "the shim of task \(task.id): \(word)")
        }
        return process
    }

    private static var failpoints: [String] {
        #if DEBUG || FAILPOINTS
            if let mark = getenv("MARTLET_FAILPOINT") { return ["MARTLET_FAILPOINT=\(String(cString: mark))"] }
        #endif
        return []
    }

    /// Kills a task's shim that does not answer. Blocks.
    ///
    /// Only a process whose command line names this very socket is a shim of ours: its number may be another's by now.
    static func kill(_ task: TaskPaths) throws {
        guard let pid = (try? File.text(task.shimPID)).flatMap({ pid_t($0) }),
            let process = try? Proc.open(pid),
            let command = try? File.read("/proc/\(pid)/cmdline", limit: 1 << 20)
        else { return }
        guard command.split(separator: 0).contains(where: { $0.elementsEqual(task.shimSocket.utf8) }) else { return }
        let pidfd = process.raw
        try systemCall("pidfd_send_signal", "shim \(pid)") {
            let result = ck_pidfd_send_signal(pidfd, SIGKILL)
            return result != 0 && errno == ESRCH ? 0 : result
        }
    }
}
