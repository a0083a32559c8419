import Glibc
import JSON
import Kernel

/// The OCI runtime as a program: runs its verbs without blocking the loop.
final class RuntimeProgram {
    /// What a call has come to: nil, or the runtime's own words why not.
    typealias Completion = (_ failure: String?) -> Void

    private let path: String
    private var file = ProgramFile()
    private let root: String
    /// For log files that carry the runtime's error text to us.
    private let directory: String
    private let loop: EventLoop
    private let reaper: Reaper
    private let oomScore: OOMScore
    private var calls = 0

    init(path: String, root: String, directory: String, loop: EventLoop, reaper: Reaper, oomScore: OOMScore) {
        self.path = path
        self.root = root
        self.directory = directory
        self.loop = loop
        self.reaper = reaper
        self.oomScore = oomScore
    }

    /// Runs `runtime … verb arguments`.
    ///
    /// - Parameters:
    ///   - stdio: descriptors 0, 1 and 2, which a container's process inherits; none for /dev/null.
    ///   - completion: called once, after the runtime has ended; processes that it leaves to us are reaped only after
    ///     it returns, or are remembered by the reaper.
    func run(_ verb: String, _ arguments: [String], stdio: [SharedFD] = [], _ completion: @escaping Completion) {
        calls += 1
        let log = "\(directory)/runtime-\(calls).log"
        let pid: pid_t
        do throws(KernelError) {
            pid = try start(["--root", root, "--log", log, "--log-format", "json", verb] + arguments, stdio)
        } catch {
            return completion("cannot run the OCI runtime: \(error)")
        }
        reaper.beginForeignChildren()
        var timedOut = false
        let timer = loop.after(milliseconds: ShimLimits.runtimeMilliseconds) {
            timedOut = true
            kill(pid, SIGKILL)
        }
        reaper.watch(pid, since: reaper.reaped) { [self] status in
            loop.cancel(timer)
            let text = Self.errorText(log)
            unlink(log)
            if status == .exited(0) {
                completion(nil)
            } else if timedOut {
                completion("\(verb) did not end within \(ShimLimits.runtimeMilliseconds / 1000) s and was killed")
            } else {
                completion(text ?? "\(path) \(verb) ended with \(status) and no message")
            }
            reaper.endForeignChildren()
        }
    }

    private func start(_ arguments: [String], _ stdio: [SharedFD]) throws(KernelError) -> pid_t {
        let null = SharedFD(try File.open("/dev/null", O_RDWR))
        var environment = ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]
        // Test builds mark points at which the runtime dies.
        if let mark = getenv("MARTLET_FAILPOINT") { environment.append("MARTLET_FAILPOINT=\(String(cString: mark))") }
        var spawn = Spawn(
            path, [path] + arguments, environment: environment,
            descriptors: stdio.isEmpty ? [null.raw, null.raw, null.raw] : stdio.map(\.raw))
        spawn.file = file.descriptor(of: path)
        oomScore.restore()
        defer { oomScore.lower() }
        do throws(KernelError) {
            return try spawn.start().pid
        } catch {
            // A script cannot be read by its interpreter that way.
            guard error.errno == ENOENT, spawn.file >= 0 else { throw error }
            spawn.file = -1
            return try spawn.start().pid
        }
    }

    /// The last error in a log of JSON lines, or its last words if it is none.
    private static func errorText(_ log: String) -> String? {
        guard let bytes = try? File.read(log) else { return nil }
        let lines = bytes.split(separator: UInt8(ascii: "\n"))
        for line in lines.reversed() {
            guard let entry = try? JSONValue.parse(Array(line)), let message = entry["msg"]?.stringValue,
                let level = entry["level"]?.stringValue, ["error", "fatal", "panic"].contains(level)
            else { continue }
            return message
        }
        return lines.last.map { String(decoding: $0.suffix(2000), as: UTF8.self) }
    }
}

/// A program as a read-only clone of its mount, in which the runtime would execute itself anew otherwise: a start less
/// for each of its verbs. Kept between calls, until another file stands under the path.
private struct ProgramFile: ~Copyable {
    private var clone: OwnedFD?

    /// What to execute; -1 for the path itself, where mounts cannot be cloned.
    mutating func descriptor(of path: String) -> Int32 {
        var (named, cloned) = (stat(), stat())
        guard stat(path, &named) == 0 else { return -1 }
        if let raw = clone?.raw, fstat(raw, &cloned) == 0, named.st_dev == cloned.st_dev, named.st_ino == cloned.st_ino
        {
            return raw
        }
        clone = try? Mounts.cloneReadOnly(path)
        return clone?.raw ?? -1
    }
}

/// Our own place in the kernel's order of victims. Children inherit it, so it is put back for each of them: a
/// container must not be as hard to kill as its shim.
final class OOMScore {
    private let path = "/proc/self/oom_score_adj"
    private var original: String?

    /// Lowers it where that is permitted.
    init() {
        let before = try? File.text(path)
        guard (try? File.writeControl(path, Self.lowered)) != nil else { return }
        // A service manager may protect the daemons, and we are an agent's child; containers are not meant.
        original = before.map { String(max(0, Int($0) ?? 0)) }
    }

    private static let lowered = "-998"

    // Both directions were permitted before, so failures cannot happen; the score is a help, not a promise.
    func restore() { if let original { try? File.writeControl(path, original) } }
    func lower() { if original != nil { try? File.writeControl(path, Self.lowered) } }
}
