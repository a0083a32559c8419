import CKernel
import CStage
import Glibc
import Kernel
import OCISpec

/// Runs a container's hooks: one after the other, with the state on standard input.
enum Hooks {
    enum Kind: String {
        case prestart, createRuntime, createContainer, startContainer, poststart, poststop
    }

    /// - Throws: `RuntimeError` for the first that fails, with what it wrote to standard error.
    static func run(_ hooks: [HookSpec], _ kind: Kind, state: RuntimeState) throws {
        if hooks.isEmpty { return }
        for (index, hook) in hooks.enumerated() {
            try withContext("\(kind.rawValue) hook #\(index) (\(hook.path))") {
                let files = try HookFiles(state)
                var spawn = Spawn(
                    hook.path, arguments(hook), environment: hook.env,
                    descriptors: [files.input.raw, files.output.raw, files.output.raw])
                spawn.workingDirectory = "/"
                spawn.newSession = true
                let process = try spawn.start()
                let status = try wait(process, seconds: hook.timeout)
                try files.check(status)
            }
        }
    }

    /// Runs the hooks that belong to the container's own root, as the container's user and within its limits: what they
    /// execute comes from the container.
    static func runInContainer(_ hooks: [HookSpec], state: RuntimeState, process: ProcessPlan) throws {
        for (index, hook) in hooks.enumerated() {
            try withContext("startContainer hook #\(index) (\(hook.path))") {
                let files = try HookFiles(state)
                let sockets = try UnixSocket.pair(.packets)
                var pidfd: Int32 = -1
                let pid = cs_fork(&pidfd)
                if pid == 0 {
                    for (number, file) in [files.input.raw, files.output.raw, files.output.raw].enumerated() {
                        _ = dup2(file, Int32(number))
                    }
                    var plan = process
                    plan.args = arguments(hook)
                    plan.env = hook.env
                    plan.execute([hook.path], socket: sockets.far.raw)
                }
                guard pid > 0 else { throw KernelError("clone3", errno: errno) }
                let child = ChildProcess(pid: pid, pidfd: OwnedFD(adopting: pidfd))
                let near = SharedFD(try sockets.near.duplicate())
                _ = consume sockets
                let channel = Channel(socket: near.raw)
                let status = try wait(child, seconds: hook.timeout)
                if let message = try channel.receive() { throw RuntimeError(message.failure) }
                try files.check(status)
            }
        }
    }

    private static func arguments(_ hook: HookSpec) -> [String] { hook.args.isEmpty ? [hook.path] : hook.args }

    private static func wait(_ process: borrowing ChildProcess, seconds: Int64?) throws -> ExitStatus {
        if let seconds {
            var waiting = pollfd(fd: process.pidfd.raw, events: Int16(POLLIN), revents: 0)
            let milliseconds = Int32(clamping: seconds.multipliedReportingOverflow(by: 1000).partialValue)
            let ready = try systemCall("poll") { poll(&waiting, 1, milliseconds) }
            if ready == 0 {
                try process.signal(SIGKILL)
                _ = try process.wait()
                throw RuntimeError("did not end within \(seconds) seconds and was killed")
            }
        }
        return try process.wait()
    }
}

/// What a hook reads and writes: files in memory, so that one that does not read, or writes a lot, blocks nobody.
private struct HookFiles {
    let input: SharedFD
    let output: SharedFD

    init(_ state: RuntimeState) throws {
        input = SharedFD(
            OwnedFD(adopting: try systemCall("memfd_create") { memfd_create("hook-state", 1) }))
        output = SharedFD(
            OwnedFD(adopting: try systemCall("memfd_create") { memfd_create("hook-output", 1) }))
        try Descriptor.writeAll(input.raw, state.encoded())
        try systemCall("lseek") { lseek(input.raw, 0, SEEK_SET) }
    }

    /// - Throws: `RuntimeError` with the last of the output unless the hook succeeded.
    func check(_ status: ExitStatus) throws {
        if status == .exited(0) { return }
        var tail = [UInt8](repeating: 0, count: 512)
        let end = lseek(output.raw, 0, SEEK_END)
        let count = tail.withUnsafeMutableBytes { pread(output.raw, $0.baseAddress, $0.count, max(0, end - 512)) }
        let text = String(decoding: tail.prefix(max(0, count)), as: UTF8.self)
            .split(whereSeparator: \.isNewline).joined(separator: " ")
        let how =
            switch status {
            case .exited(let code): "exit status \(code)"
            case .signaled(let number): "killed by signal \(number)"
            }
        throw RuntimeError(text.isEmpty ? how : "\(how), output: \(text)")
    }
}
