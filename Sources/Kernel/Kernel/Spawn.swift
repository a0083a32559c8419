import CKernel
import CStage
import Glibc

/// A process of ours, held by its pidfd: the number cannot be recycled under us.
package struct ChildProcess: ~Copyable, Sendable {
    package let pid: pid_t
    /// Readable when the process has ended; see pidfd_open(2).
    package let pidfd: OwnedFD

    /// Takes both over; the pidfd must be of this process.
    package init(pid: pid_t, pidfd: consuming OwnedFD) {
        self.pid = pid
        self.pidfd = pidfd
    }

    /// Sends a signal; a process that is gone already is no error.
    package borrowing func signal(_ number: Int32) throws(KernelError) {
        if ck_pidfd_send_signal(pidfd.raw, number) != 0 && errno != ESRCH {
            throw KernelError("pidfd_send_signal", "process \(pid)", errno: errno)
        }
    }

    /// Waits for the end and reaps; blocks the calling thread.
    package borrowing func wait() throws(KernelError) -> ExitStatus {
        var code: Int32 = 0
        var status: Int32 = 0
        let fd = pidfd.raw
        try systemCall("waitid", "process \(pid)") { ck_waitid_pidfd(fd, WEXITED, &code, &status) }
        return ExitStatus(code: code, status: status)
    }

    /// Reaps if the process has ended; nil while it runs.
    package borrowing func poll() throws(KernelError) -> ExitStatus? {
        var code: Int32 = 0
        var status: Int32 = 0
        let fd = pidfd.raw
        try systemCall("waitid", "process \(pid)") { ck_waitid_pidfd(fd, WEXITED | WNOHANG, &code, &status) }
        return code == 0 ? nil : ExitStatus(code: code, status: status)
    }
}

/// How a process ended, see waitid(2).
package enum ExitStatus: Sendable, Equatable {
    case exited(Int32)
    case signaled(Int32)

    /// From waitid's `si_code` (CLD_*) and `si_status`.
    package init(code: Int32, status: Int32) {
        self = code == 1 ? .exited(status) : .signaled(status)
    }

    /// The number a shell reports: the code, or 128 and the signal.
    package var shellCode: Int32 {
        switch self {
        case .exited(let code): code
        case .signaled(let number): 128 + number
        }
    }
}

/// Starts processes safely from a threaded program: clone3 with the caller's memory until execve, on a stack of its own,
/// no Swift in between.
package struct Spawn: Sendable {
    /// Absolute path of the program.
    package var path: String
    /// An open program that is executed in place of `path`, which only names it in errors then; or -1. No script: its
    /// interpreter could not open it.
    package var file: Int32 = -1
    /// All arguments, the program's own name first.
    package var arguments: [String]
    /// `KEY=value` entries; nothing is inherited.
    package var environment: [String]
    /// `descriptors[i]` becomes descriptor i of the child; -1 leaves i closed. All others are closed. At most 64.
    package var descriptors: [Int32]
    package var workingDirectory: String?
    /// A cgroup v2 directory to start in (CLONE_INTO_CGROUP), or -1.
    package var cgroup: Int32 = -1
    /// A network namespace to start in, or -1.
    package var networkNamespace: Int32 = -1
    package var newSession = false
    /// The signal the child gets when the spawning *thread* ends; 0 for none.
    package var parentDeathSignal: Int32 = 0

    package init(
        _ path: String, _ arguments: [String], environment: [String] = [], descriptors: [Int32] = [-1, -1, -1]
    ) {
        self.path = path
        self.arguments = arguments
        self.environment = environment
        self.descriptors = descriptors
    }

    /// Starts it; returns once execve succeeded in the child.
    ///
    /// - Throws: `KernelError` naming the step that failed (execve, chdir, …) with the program as its subject.
    package func start() throws(KernelError) -> ChildProcess {
        var pid: pid_t = 0
        var pidfd: Int32 = -1
        var step: UnsafePointer<CChar>?
        let result = withCStrings(arguments) { argv in
            withCStrings(environment) { envp in
                path.withCString { path in
                    withOptionalCString(workingDirectory) { directory in
                        descriptors.withUnsafeBufferPointer { descriptors -> Int32 in
                            var request = cs_spawn_request()
                            request.path = file < 0 ? path : nil
                            request.exec_fd = file
                            request.argv = argv
                            request.envp = envp
                            request.descriptors = descriptors.baseAddress
                            request.descriptor_count = Int32(descriptors.count)
                            request.working_directory = directory
                            request.cgroup_fd = cgroup
                            request.netns_fd = networkNamespace
                            request.new_session = newSession ? 1 : 0
                            request.parent_death_signal = parentDeathSignal
                            return cs_spawn(&request, &pid, &pidfd, &step)
                        }
                    }
                }
            }
        }
        guard result == 0 else {
            throw KernelError(step.map { String(cString: $0) } ?? "clone3", path, errno: errno)
        }
        return ChildProcess(pid: pid, pidfd: OwnedFD(adopting: pidfd))
    }
}

/// Calls `body` with a NULL-terminated array of C strings that live for the call.
package func withCStrings<Result>(
    _ strings: [String], _ body: (UnsafePointer<UnsafeMutablePointer<CChar>?>) -> Result
) -> Result {
    // Not an array: its type would be made at run time, which takes longer than the rest, and this is in the path of
    // every program that a container executes.
    let pointers = UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>.allocate(capacity: strings.count + 1)
    for (index, string) in strings.enumerated() { (pointers + index).initialize(to: strdup(string)) }
    (pointers + strings.count).initialize(to: nil)
    defer {
        for index in 0..<strings.count { free(pointers[index]) }
        pointers.deallocate()
    }
    return body(pointers)
}

func withOptionalCString<Result>(_ string: String?, _ body: (UnsafePointer<CChar>?) -> Result) -> Result {
    guard let string else { return body(nil) }
    return string.withCString { body($0) }
}
