import Glibc
import JSON
import Kernel
import Testing

/// A container engine that runs its containers through an OCI runtime of the caller's choice.
enum RuntimeEngine: String, CustomTestStringConvertible {
    case podman, ctr, dockerd

    var testDescription: String { rawValue }

    /// Why its session cannot be held; false: it can.
    var isMissing: Bool {
        let programs =
            switch self {
            case .podman: ["podman", "conmon"]
            case .ctr: ["containerd", "ctr", "podman"]
            case .dockerd: ["dockerd", "docker"]
            }
        let folders = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"]
        return (programs + ["runc", "unshare", "script"]).contains { program in
            !folders.contains { access("\($0)/\(program)", X_OK) == 0 }
        }
    }

    /// Holds the engine's session with Debian's runc and with `martlet-runtime`, step by step at the same time, and records
    /// where the two differ, and where runc does not come to what the session says.
    func compare() throws {
        try #require(
            !TestCluster.rootfs.isEmpty, "MARTLET_ROOTFS names no root file system: run the tests with `make test`")
        let session = try DockerSession(rawValue, in: RuntimeEngineRoom.files)
        let ours = "\(TestCluster.programs)/martlet-runtime"
        let reference = try RuntimeEngineRoom(self, "runc", runtime: "/usr/sbin/runc")
        defer { reference.tearDown() }
        let room = try RuntimeEngineRoom(self, "martlet", runtime: ours)
        defer { room.tearDown() }
        try reference.waitUntilOpen()
        try room.waitUntilOpen()
        let missing = try Self.missingNeeds(runtime: ours)
        for step in session.steps {
            if let need = step.needs.first(where: { missing.contains($0) }) {
                print("\(rawValue).session:\(step.line) is passed over: there is no \(need)")
                continue
            }
            try reference.begin(step.command)
            try room.begin(step.command)
            let there = try reference.outcome()
            let here = try room.outcome()
            let place = "\(rawValue).session:\(step.line): \(step.command)"
            if there.code != step.exit {
                Issue.record("\(place)\nends with \(there.code) under runc, not \(step.exit): \(there.errors)")
            }
            if step.kind == .setup { try #require(here.code == 0, "\(place)\n\(here.errors)\(room.log)") }
            let differences = Self.differences(step.kind, there, here)
            if !differences.isEmpty {
                Issue.record(
                    "\(place)\n\(differences.joined(separator: "\n"))\nruntime there: \(there.errors.prefix(400))\nhere: \(here.errors.prefix(400))"
                )
            }
        }
    }

    /// Words are the runtimes' own; what a container's program writes and every exit code are the same.
    private static func differences(
        _ kind: DockerSession.Kind, _ there: DockerOutcome, _ here: DockerOutcome
    ) -> [String] {
        var found =
            there.code == here.code ? [] : ["exit code \(there.code) with runc, \(here.code) with martlet-runtime"]
        var left = DockerComparison.normal(there.output)
        var right = DockerComparison.normal(here.output)
        switch kind {
        case .code, .setup: return found
        case .sorted: (left, right) = (left.sorted(), right.sorted())
        case .text, .table, .json: break
        }
        for index in 0..<max(left.count, right.count) {
            let (one, other) = (
                index < left.count ? left[index] : "(none)", index < right.count ? right[index] : "(none)"
            )
            if one != other { found.append("'\(one)' with runc, '\(other)' with martlet-runtime") }
        }
        return Array(found.prefix(8))
    }

    /// Which of the things that steps can need are not there: `capabilities`, all that the kernel has (runc makes no
    /// privileged container without); else a mount option that the runtime's `features` have to list.
    private static func missingNeeds(runtime: String) throws -> Set<String> {
        let features = try JSONValue.parse(try Program(runtime, ["features"]).run().output)
        let options = Set(features["mountOptions"]?.arrayValue?.compactMap(\.stringValue) ?? [])
        var missing = Set(["tmpcopyup"]).subtracting(options)
        let last = UInt64(try File.text("/proc/sys/kernel/cap_last_cap")) ?? 63
        let status = try File.text("/proc/self/status")
        let held = status.firstMatch(of: /CapPrm:\s*([0-9a-f]+)/).flatMap { UInt64($0.output.1, radix: 16) } ?? 0
        if held != (1 << (last + 1)) - 1 { missing.insert("capabilities") }
        return missing
    }
}

/// Namespaces of all kinds but user for one engine with one runtime, see engines/room.sh.
final class RuntimeEngineRoom {
    static let files =
        #filePath.split(separator: "/", omittingEmptySubsequences: false).dropLast().joined(separator: "/") + "/engines"

    /// All of the engine's files.
    let folder: String
    /// The parent of its containers' cgroups, in every hierarchy.
    let cgroup: String
    private let process: ChildProcess
    /// Its process 1 reads here; it ends when this is closed, be it because the tests are gone.
    private let input: OwnedFD

    init(_ engine: RuntimeEngine, _ name: String, runtime: String) throws {
        cgroup = "martlet-test-\(getpid())-\(engine.rawValue)-\(name)"
        folder = "/tmp/\(cgroup)"
        // runc has to find the root filesystem as root of a user namespace.
        try File.makeDirectories(folder, mode: 0o755)
        var ends: [Int32] = [-1, -1]
        try systemCall("pipe") { pipe(&ends) }
        let reading = OwnedFD(adopting: ends[0])
        input = OwnedFD(adopting: ends[1])
        let log = try File.open("\(folder)/room.log", O_WRONLY | O_CREAT | O_APPEND)
        var spawn = Spawn(
            "/usr/bin/unshare",
            [
                "unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc", "--propagation",
                "private", "/bin/bash", "\(Self.files)/room.sh", folder, engine.rawValue, runtime, cgroup,
                TestCluster.rootfs,
            ])
        spawn.environment = Machine.environment
        spawn.descriptors = [reading.raw, log.raw, log.raw]
        spawn.newSession = true
        process = try spawn.start()
    }

    func waitUntilOpen() throws {
        let started = "\(folder)/started"
        try eventually("\(cgroup) is open: \(log)", within: 60) { File.exists(started) }
    }

    /// What its daemon, if there is one, and the room itself had to say.
    var log: String {
        ["room.log", "daemon.log"].compactMap { try? File.text("\(folder)/\($0)", limit: 64 << 20) }
            .map { String($0.suffix(2000)) }.joined(separator: "\n")
    }

    /// Starts `sh -c COMMAND` in the room; `outcome()` has to follow.
    func begin(_ command: String) throws {
        try File.removeFile("\(folder)/code")
        try File.replace("\(folder)/command", with: Array("\(command)\n".utf8))
        try input.writeAll([10], subject: cgroup)
    }

    /// Waits for the command's end.
    func outcome() throws -> DockerOutcome {
        let code = "\(folder)/code"
        try eventually("a command ends in \(cgroup): \(log)", within: 90) { File.exists(code) }
        func text(_ name: String) throws -> String {
            String(decoding: try File.read("\(folder)/\(name)", limit: 64 << 20), as: UTF8.self)
                .replacing(folder, with: "WORK").replacing(cgroup, with: "GROUP")
        }
        return DockerOutcome(code: Int32(try File.text(code)) ?? -1, output: try text("out"), errors: try text("err"))
    }

    /// Ends all processes of the room, which takes its mounts and networks along, and removes its cgroups and files.
    func tearDown() {
        do {
            try process.signal(SIGKILL)
            _ = try process.wait()
        } catch {
            Issue.record("\(cgroup) cannot be ended: \(error)")
        }
        for hierarchy in (try? File.list("/sys/fs/cgroup")) ?? [] {
            let top = "/sys/fs/cgroup/\(hierarchy)/\(cgroup)"
            if File.exists(top), !(poll { Self.removeGroups(top) }) { Issue.record("\(top) is still in use") }
        }
        _ = poll { (try? Tree.remove(folder)) != nil }
    }

    private func poll(_ body: () -> Bool) -> Bool {
        for _ in 0..<100 {
            if body() { return true }
            usleep(50_000)
        }
        return false
    }

    /// Removes a group and all below it; false while one of them has processes that have not quite ended.
    private static func removeGroups(_ path: String) -> Bool {
        for name in (try? File.list(path)) ?? [] {
            var info = stat()
            if lstat("\(path)/\(name)", &info) == 0, info.st_mode & S_IFMT == S_IFDIR {
                _ = removeGroups("\(path)/\(name)")
            }
        }
        return rmdir(path) == 0 || errno == ENOENT
    }
}
