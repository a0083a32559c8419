import Glibc
import JSON
import Kernel
import ShimProtocol

/// A process that the runtime has made for us, with our ends of its stdio.
struct LaunchedProcess {
    let pid: pid_t
    let stdio: ContainerStdio
    /// `Reaper.reaped` before it was there.
    let moment: Int
}

/// Why a process was not made, in the runtime's words or ours.
struct LaunchFailure: Error, CustomStringConvertible {
    let description: String
}

extension Shim {
    /// Runs a verb of the runtime that makes a process (`create`, `exec`) with stdio of ours.
    ///
    /// - Parameters:
    ///   - before: arguments ahead of ours (`--pid-file`, `--console-socket`).
    ///   - after: arguments behind ours.
    func launch(
        _ verb: String, before: [String], after: [String], terminal: Bool, stdin: Bool,
        _ completion: @escaping (Result<LaunchedProcess, LaunchFailure>) -> Void
    ) {
        let pidFile = temporaryPath("pid")
        var arguments = before + ["--pid-file", pidFile]
        let pipes: ContainerStdio?
        let console: ConsoleSocket?
        var processSide: [SharedFD] = []
        do throws(KernelError) {
            if terminal {
                pipes = nil
                console = try ConsoleSocket(directory: directory, number: nextTemporaryNumber())
            } else {
                var made = try ContainerStdio(pipesWithInput: stdin)
                processSide = made.takeProcessSide()
                pipes = made
                console = nil
            }
        } catch {
            return completion(.failure(LaunchFailure(description: "\(error)")))
        }
        if let console { arguments += ["--console-socket", console.pathForRuntime] }
        let moment = reaper.reaped
        runtime.run(verb, arguments + after, stdio: processSide) { [unowned self] failure in
            defer { unlink(pidFile) }
            if let failure { return completion(.failure(LaunchFailure(description: failure))) }
            do throws(KernelError) {
                let pid = try Self.readPID(pidFile)
                let process = LaunchedProcess(pid: pid, stdio: try stdio(pipes, console), moment: moment)
                completion(.success(process))
            } catch {
                abandon(verb, after, pidFile)
                completion(.failure(LaunchFailure(description: "\(error)")))
            }
        }
    }

    private func stdio(_ pipes: ContainerStdio?, _ console: ConsoleSocket?) throws(KernelError) -> ContainerStdio {
        if let pipes { return pipes }
        guard let console else { throw KernelError("launch", errno: EINVAL) }
        return try ContainerStdio(terminal: console.receive())
    }

    private static func readPID(_ file: String) throws(KernelError) -> pid_t {
        let text = try File.text(file, limit: 64)
        guard let pid = pid_t(text), pid > 1 else {
            throw KernelError("read", file, errno: EPROTO, hint: "the runtime wrote no process number")
        }
        return pid
    }

    /// The runtime says that it succeeded, but we cannot use what it made.
    private func abandon(_ verb: String, _ arguments: [String], _ pidFile: String) {
        if verb == "create", let id = arguments.last {
            runtime.run("delete", ["--force", id]) { _ in }
        } else if let pid = try? Self.readPID(pidFile) {
            kill(pid, SIGKILL)
        }
    }
}

extension ShimCreate {
    /// Why this request makes no sense, or nil.
    var refusal: String? {
        guard isContainerID(container, limit: 128) else {
            return "\(JSONPathElement.quoted(container)) is no container id"
        }
        guard start > 0 else { return "start number \(start) of container \(container) is not above 0" }
        for (name, path) in [("bundle", bundle), ("logPath", logPath ?? "/"), ("exitPath", exitPath)] {
            guard path.isAbsolutePath, !path.utf8.contains(0) else {
                return "\(name) of container \(container) is not an absolute path"
            }
        }
        guard (logMaxBytes ?? 0) >= 0, (1...1000).contains(logMaxFiles ?? 1) else {
            return "logMaxBytes or logMaxFiles of container \(container) is out of range"
        }
        guard cgroups.count <= 64, cgroups.allSatisfy({ $0.isAbsolutePath && !$0.utf8.contains(0) }) else {
            return "cgroups of container \(container) are not absolute paths, 64 at most"
        }
        return nil
    }

    /// The log, or nil where none is wanted.
    func makeLog() throws(KernelError) -> LogWriter? {
        guard let logPath else { return nil }
        return try LogWriter(path: logPath, maximumBytes: logMaxBytes ?? 0, maximumFiles: logMaxFiles ?? 1)
    }
}

extension ShimExec {
    /// Why this request makes no sense, or nil.
    var refusal: String? {
        guard isContainerID(container, limit: 128) else {
            return "\(JSONPathElement.quoted(container)) is no container id"
        }
        guard isContainerID(execID, limit: 64) else { return "\(JSONPathElement.quoted(execID)) is no exec id" }
        guard process.objectValue != nil else { return "the process of exec \(execID) is not an object" }
        guard (1...86_400 * 365).contains(deadlineSeconds ?? 1) else {
            return "deadlineSeconds of exec \(execID) is out of range"
        }
        return nil
    }
}

/// Ids go into file names and command lines: no slash, no leading dash or dot.
private func isContainerID(_ text: String, limit: Int) -> Bool {
    guard (1...limit).contains(text.utf8.count), let first = text.utf8.first else { return false }
    func isWord(_ byte: UInt8) -> Bool {
        switch byte {
        case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
            UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "_"):
            true
        default: false
        }
    }
    return isWord(first)
        && text.utf8.allSatisfy {
            isWord($0) || $0 == UInt8(ascii: "-") || $0 == UInt8(ascii: ".") || $0 == UInt8(ascii: "+")
        }
}
