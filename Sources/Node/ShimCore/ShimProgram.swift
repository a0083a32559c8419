import CKernel
import Glibc
import Kernel
import ShimProtocol

/// PR_SET_CHILD_SUBREAPER of linux/prctl.h.
private let setChildSubreaper: Int32 = 36

/// The program `martlet-shim`, see `ShimProtocol`.
package enum ShimProgram {
    /// Runs the shim.
    ///
    /// - Parameter arguments: the command line, the program's name first.
    /// - Returns: the exit code: 0 after an ordered end, 1 for a failure, 2 for a wrong command line.
    package static func run(_ arguments: [String]) -> Int32 {
        if arguments.dropFirst() == ["--version"] {
            let text = Array("martlet-shim version \(Version.number)\n".utf8)
            return (try? Descriptor.writeAll(1, text)) == nil ? 1 : 0
        }
        let options: ShimOptions
        do throws(ShimOptionsError) {
            options = try ShimOptions(arguments: Array(arguments.dropFirst()))
        } catch {
            print(error: "\(error)")
            return 2
        }
        do {
            try fillStdio()
            let shim = try prepare(options)
            report(ShimProtocol.ready, to: options.readyFD)
            try detachStdio()
            try shim.run()
            return 0
        } catch {
            print(error: "\(error)")
            report("\(error)\n", to: options.readyFD)
            return 1
        }
    }

    private static func prepare(_ options: ShimOptions) throws -> Shim {
        // There is one shim for every pod, idle nearly always: memory of a burst goes back to the kernel at once.
        mallopt(M_MMAP_THRESHOLD, 32 << 10)
        mallopt(M_TRIM_THRESHOLD, 64 << 10)
        inheritNothing()
        try systemCall("prctl(PR_SET_CHILD_SUBREAPER)") { ck_prctl(setChildSubreaper, 1, 0, 0, 0) }
        try systemCall("chdir", "/") { chdir("/") }
        if let fd = options.readyFD {
            try systemCall("fcntl(F_SETFD)", "descriptor \(fd)") { ck_fcntl(fd, F_SETFD, FD_CLOEXEC) }
        }
        if let cgroup = options.cgroup { try ShimCgroup.enter(cgroup) }
        let shim = try Shim(options)
        if let pidFile = options.pidFile { try File.replace(pidFile, with: Array("\(getpid())\n".utf8)) }
        return shim
    }

    /// Containers inherit our dispositions of signals and our umask where their configuration says nothing: these shall
    /// not depend on who started us.
    private static func inheritNothing() {
        for number in Int32(1)...64 { signal(number, SIG_DFL) }
        // A handler, not SIG_IGN, which would pass through execve.
        signal(SIGPIPE) { _ in }
        umask(0o022)
    }

    private static func report(_ text: String, to fd: Int32?) {
        guard let fd else { return }
        // Whoever waited may have gone; that is no reason not to serve.
        try? OwnedFD(adopting: fd).writeAll(text.utf8)
    }

    /// Puts /dev/null where standard input, output or error is closed: else our next files would get their numbers.
    private static func fillStdio() throws(KernelError) {
        while true {
            let number = try File.open("/dev/null", O_RDWR).release()
            if number > 2 {
                close(number)
                return
            }
        }
    }

    private static func detachStdio() throws(KernelError) {
        let null = try File.open("/dev/null", O_RDWR)
        let raw = null.raw
        for fd in Int32(0)...2 { try systemCall("dup3") { dup3(raw, fd, 0) } }
    }

    private static func print(error text: String) {
        // Standard error may be closed already.
        try? Descriptor.writeAll(2, Array("martlet-shim: \(text)\n".utf8))
    }
}
