import Glibc
import Kernel
import Synchronization
import Testing

/// A machine of a fabric: network and mount namespaces of its own, cgroups, a folder as its disk, and a boot id.
///
/// Its namespaces live as long as a process that holds them, which ends with the test process: what runs in them goes
/// with `powerOff()`.
final class Machine: Sendable {
    private struct Power: ~Copyable {
        let holder: ChildProcess
        /// The holder reads here; closing it ends the holder.
        let input: OwnedFD
        let mountNamespace: String
        let networkNamespace: String
    }

    let name: String
    let address: String
    /// The interface of the fabric's switch that it hangs on.
    let port: String
    let folder: String
    let cgroupParent: String
    let bridge: String
    let subnet: String
    private let power = Mutex<Power?>(nil)

    var dataDirectory: String { folder + "/data" }
    var runDirectory: String { folder + "/run" }
    var registriesFile: String { folder + "/registries.json" }
    var placeFlags: [String] { ["--data-dir", dataDirectory, "--run-dir", runDirectory] }
    var nodeFlags: [String] {
        ["--bridge", bridge, "--subnet", subnet, "--cgroup-parent", cgroupParent, "--registries", registriesFile]
    }
    /// Its API's socket, where a master runs.
    var socket: String { "unix:\(runDirectory)/martlet.sock" }

    /// - Parameters:
    ///   - folder: of the fabric.
    ///   - number: 1 to 250, the last part of its address.
    init(_ name: String, in folder: String, number: Int) throws {
        self.name = name
        address = "10.99.0.\(number)"
        port = "port\(number)"
        self.folder = "\(folder)/\(name)"
        cgroupParent = "\(folder.dropFirst("/tmp/".count))-\(name)"
        bridge = "mtst\(number)"
        subnet = "10.\(100 + number % 100).0.0/16"
        try File.makeDirectories(self.folder)
    }

    // MARK: Power

    /// The process that holds the namespaces; nil while the machine is off.
    var holder: pid_t? { power.withLock { power -> pid_t? in power == nil ? nil : power?.holder.pid } }

    /// Turns it on: new namespaces, a new boot id, an empty run directory.
    func powerOn() throws {
        try #require(holder == nil, "\(name) is on")
        try Tree.remove(runDirectory)
        try Tree.remove("\(folder)/on")
        let uuid = try File.text("/proc/sys/kernel/random/uuid")
        try File.replace("\(folder)/boot_id", with: Array(uuid.utf8), mode: 0o644)
        try File.makeDirectories("\(folder)/cgroups")
        // As in a machine that boots: loopback, a sysfs that shows this network, and the cgroups where they were.
        let script = """
            set -e; cd "$1"; ip link set lo up
            mount --rbind /sys/fs/cgroup cgroups; mount -t sysfs sysfs /sys; mount --rbind cgroups /sys/fs/cgroup
            umount -R -l cgroups; mount --bind boot_id /proc/sys/kernel/random/boot_id
            echo 1 >on; exec cat
            """
        var ends: [Int32] = [-1, -1]
        // Nobody else inherits them: `Spawn` closes what it is not told of.
        try systemCall("pipe") { pipe(&ends) }
        let reading = OwnedFD(adopting: ends[0])
        let input = OwnedFD(adopting: ends[1])
        let log = try File.open("\(folder)/boot.log", O_WRONLY | O_CREAT | O_APPEND)
        var spawn = Spawn(
            "/usr/bin/unshare",
            ["unshare", "--mount", "--net", "--propagation", "private", "/bin/sh", "-c", script, "sh", folder])
        spawn.environment = Self.environment
        spawn.descriptors = [reading.raw, log.raw, log.raw]
        spawn.newSession = true
        let holder = try spawn.start()
        let isOn = "\(folder)/on"
        try eventually("\(name) is on") { File.exists(isOn) }
        let namespaces = try ["mnt", "net"].map { try #require(Self.namespace(holder.pid, $0)) }
        var fresh: Power? = Power(
            holder: holder, input: input, mountNamespace: namespaces[0], networkNamespace: namespaces[1])
        power.withLock { power in power = fresh.take() }
    }

    /// Turns it off: nobody in it gets to do anything more.
    func powerOff() throws {
        try eventually("all processes of \(name) are gone") {
            let left = processes
            for pid in left { Glibc.kill(pid, SIGKILL) }
            return left.isEmpty
        }
        try power.withLock { power in
            guard let old = power.take() else { return }
            try old.holder.signal(SIGKILL)
            _ = try old.holder.wait()
        }
    }

    /// All processes in its namespaces and its cgroups, without the holder.
    var processes: [pid_t] {
        let known = power.withLock { power -> (pid_t, String, String)? in
            guard power != nil else { return nil }
            return (power?.holder.pid ?? 0, power?.mountNamespace ?? "", power?.networkNamespace ?? "")
        }
        return ((try? File.list("/proc")) ?? []).compactMap { pid_t($0) }.filter { pid in
            if let known, pid == known.0 { return false }
            if let known, Self.namespace(pid, "mnt") == known.1 || Self.namespace(pid, "net") == known.2 { return true }
            guard let groups = try? File.text("/proc/\(pid)/cgroup"), groups.contains("/\(cgroupParent)") else {
                return false
            }
            return groups.split(separator: "\n").contains { line in
                line.hasSuffix("/\(cgroupParent)") || line.contains("/\(cgroupParent)/")
            } && (try? Proc.stat(pid))?.map { !$0.hasEnded } ?? false
        }
    }

    private static func namespace(_ pid: pid_t, _ kind: String) -> String? {
        var buffer = [CChar](repeating: 0, count: 64)
        let count = readlink("/proc/\(pid)/ns/\(kind)", &buffer, buffer.count - 1)
        guard count > 0 else { return nil }
        return String(decoding: buffer.prefix(count).map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }

    // MARK: Programs

    static let environment = ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root"]

    /// What comes before a command that shall run in the machine.
    private func entering(_ arguments: [String]) throws -> [String] {
        let holder = try #require(holder, "\(name) is off")
        return ["--target", "\(holder)", "--mount", "--net", "--"] + arguments
    }

    /// Runs a program in the machine to its end.
    @discardableResult
    func run(
        _ arguments: [String], input: [UInt8] = [], environment: [String] = [], timeout seconds: Int = 120
    ) throws -> Outcome {
        var program = Program("/usr/bin/nsenter", try entering(arguments))
        program.environment = Self.environment + environment
        program.input = input
        program.timeoutMilliseconds = seconds * 1000
        program.outputLimit = 64 << 20
        let result = try program.run()
        return Outcome(
            code: result.status.shellCode, output: String(decoding: result.output, as: UTF8.self),
            errors: String(decoding: result.errors, as: UTF8.self),
            what: "\(name): \(arguments.joined(separator: " "))")
    }

    /// Starts a program in the machine, and does not wait for it.
    func begin(_ arguments: [String], output: String = "/dev/null", environment: [String] = []) throws -> ChildProcess {
        let null = try File.open("/dev/null", O_RDWR)
        let log = try File.open(output, O_WRONLY | O_CREAT | O_APPEND)
        var spawn = Spawn("/usr/bin/nsenter", ["nsenter"] + (try entering(arguments)))
        spawn.environment = Self.environment + environment
        spawn.descriptors = [null.raw, log.raw, log.raw]
        spawn.newSession = true
        return try spawn.start()
    }

    /// `martlet …` in the machine.
    @discardableResult
    func martlet(_ arguments: [String], input: [UInt8] = [], environment: [String] = []) throws -> Outcome {
        try run([TestCluster.martlet] + arguments, input: input, environment: environment)
    }

    // MARK: Daemons

    /// The process of a daemon (`master`, `agent`, `up`), from its pid file.
    func pid(of role: String) throws -> pid_t {
        let text = try File.text("\(runDirectory)/\(role).pid")
        return try #require(text.split(separator: " ").first.flatMap { pid_t($0) })
    }

    func isRunning(_ role: String) -> Bool {
        guard let pid = try? pid(of: role), let stat = try? Proc.stat(pid) else { return false }
        return !stat.hasEnded
    }

    func signal(_ role: String, _ number: Int32) throws {
        let pid = try pid(of: role)
        try systemCall("kill", role) { Glibc.kill(pid, number) }
    }

    /// Ends a daemon by a signal, and waits until it is gone; its containers go on.
    func kill(_ role: String, _ number: Int32 = SIGKILL) throws {
        let pid = try pid(of: role)
        Glibc.kill(pid, number)
        try eventually("the \(role) of \(name), process \(pid), is gone") { try Proc.stat(pid)?.hasEnded ?? true }
    }

    /// What a daemon has written.
    func log(_ role: String) -> String { (try? File.text("\(runDirectory)/\(role).log", limit: 64 << 20)) ?? "" }
}
