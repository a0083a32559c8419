import Glibc
import Kernel
import Testing

extension KernelSuite {
    /// What `make install` puts on a machine, under a real systemd. It takes the machine's own /usr/local, so that it runs in
    /// the emulated one alone; see Tests/Machine.
    @Suite(.serialized, .enabled(if: Installation.isPossible, "needs the machine of Tests/Machine with systemd"))
    struct InstallationTests {
        @Test func `an agent's restart, crash, stop and upgrade stop no pod, and uninstalling leaves the state alone`()
            throws
        {
            let node = try Installation()
            defer { node.end() }
            let installed = try node.install()
            #expect(installed.contains("systemctl enable --now martlet-master martlet-agent"), "\(installed)")
            try SystemdHost.control("enable", "--now", "martlet-master", "martlet-agent")
            try node.martlet("image", "import", "--name", "busybox:latest", Installation.image)
            try node.martlet(
                "run", "--detach", "--name", "one", "--memory", "64m", "--stop-signal", "KILL", "busybox", "sleep",
                "100000")

            // Where everything is.
            let pod = try node.pod()
            #expect(pod.shims.count == 1)
            #expect(pod.processes.count == 1)
            for pid in pod.shims + pod.processes {
                let group = try Installation.group(of: pid)
                #expect(group.hasPrefix("/martlet.slice/martlet-pods.service/tasks/"), "\(group)")
            }
            let agent = try node.agent()
            #expect(try Installation.group(of: agent) == "/system.slice/martlet-agent.service")
            #expect(pod.limits["memory.max"] == "\(64 << 20)")
            #expect(try File.text("/proc/\(agent)/oom_score_adj") == "-500")
            #expect(try File.text("/proc/\(pod.processes[0])/oom_score_adj") == "0")

            // What happens to the agent's unit.
            try SystemdHost.control("restart", "martlet-agent")
            #expect(try node.agent() != agent)
            try node.expect(pod)
            #expect(node.takesPrograms())
            let second = try node.agent()
            kill(second, SIGKILL)
            #expect(node.eventually { (try? node.agent()).map { $0 != 0 && $0 != second } ?? false })
            #expect(node.eventually { node.isActive("martlet-agent") })
            try node.expect(pod)
            try SystemdHost.control("stop", "martlet-agent")
            try node.expect(pod)
            try SystemdHost.control("start", "martlet-agent")
            try node.expect(pod)

            // Systemd reads its units again, and writes what it has of them.
            try SystemdHost.control("daemon-reload")
            try node.expect(pod)
            try SystemdHost.control("set-property", "--runtime", "martlet.slice", "CPUWeight=200")
            try node.expect(pod)

            // An upgrade: other files under the same names.
            let upgraded = try node.install()
            #expect(upgraded.contains("systemctl restart martlet-master martlet-agent"), "\(upgraded)")
            #expect(try Installation.program(of: pod.shims[0]).hasSuffix("/martlet-shim (deleted)"))
            try SystemdHost.control("restart", "martlet-master", "martlet-agent")
            #expect(try Installation.program(of: node.agent()) == "/usr/local/bin/martlet")
            try node.expect(pod)
            #expect(node.takesPrograms())

            // Its end.
            let refused = try node.script("uninstall")
            #expect(refused.code == 1)
            #expect(refused.text.contains("pods are running, 1 of them"), "\(refused.text)")
            try node.expect(pod)
            try SystemdHost.control("stop", "martlet-pods")
            #expect(!node.isActive("martlet-agent"))
            #expect(pod.processes.allSatisfy { kill($0, 0) != 0 })
            let removed = try node.script("uninstall")
            #expect(removed.code == 0, "\(removed.text)")
            #expect(removed.text.contains("kept      /var/lib/martlet"), "\(removed.text)")
            #expect(node.left() == [])
            #expect(File.exists("/var/lib/martlet/store/martlet.db"))
        }
    }
}

/// A node that was installed into this machine.
private struct Installation {
    static let image = "/machine/assets/rootfs.tar"
    private static let cli = "/usr/local/bin/martlet"
    private static let source = "/machine/source"
    private static let tasks = "/sys/fs/cgroup/martlet.slice/martlet-pods.service/tasks"
    static let isPossible = SystemdHost.isHere && getenv("MARTLET_MACHINE") != nil && File.exists(source)

    /// A pod by what must not change: its processes, its shim's and its limits.
    struct Pod: Equatable {
        var shims: [pid_t]
        var processes: [pid_t]
        var limits: [String: String]
    }

    /// What was there before, in the folders that are installed to.
    private let before: [String]

    init() throws { before = Self.files() }

    private typealias Result = (code: Int32, text: String)

    private func run(_ program: String, _ arguments: [String], _ more: [String] = []) throws -> Result {
        let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        let result = try Program(program, arguments, environment: [path] + more, timeoutMilliseconds: 120_000).run()
        return (result.status.shellCode, String(decoding: result.output + result.errors, as: UTF8.self))
    }

    func script(_ verb: String) throws -> (code: Int32, text: String) {
        try run("/bin/bash", ["\(Self.source)/scripts/install.sh", verb], ["BUILD=/machine/programs"])
    }

    func install() throws -> String {
        let result = try script("install")
        try #require(result.code == 0, "\(result.text)")
        return result.text
    }

    @discardableResult
    func martlet(_ arguments: String...) throws -> String {
        let result = try run(Self.cli, arguments)
        try #require(result.code == 0, "martlet \(arguments.joined(separator: " ")): \(result.text)")
        return result.text
    }

    /// The one pod that is here.
    func pod() throws -> Pod {
        let names = try File.list(Self.tasks).filter { $0.utf8.count == 25 && !$0.contains(".") }
        let group = "\(Self.tasks)/\(try #require(names.first))"
        func processes(_ group: String) throws -> [pid_t] {
            try File.text("\(group)/cgroup.procs").split(separator: "\n").compactMap { pid_t($0) }
        }
        var limits: [String: String] = [:]
        for name in ["memory.max", "memory.swap.max", "pids.max", "cpu.max", "cpu.weight", "cgroup.controllers"] {
            limits[name] = try File.text("\(group)/\(name)")
        }
        return Pod(shims: try processes("\(Self.tasks)/shims"), processes: try processes(group), limits: limits)
    }

    /// The pod is as it was.
    func expect(_ pod: Pod, _ place: SourceLocation = #_sourceLocation) throws {
        // What the runtime does for a program that was executed before may take a moment to end.
        _ = eventually { (try? self.pod()) == pod }
        #expect(try self.pod() == pod, sourceLocation: place)
    }

    /// Whether `exec` reaches the pod; agent and master need a moment to find each other again.
    func takesPrograms() -> Bool {
        eventually { (try? run(Self.cli, ["exec", "one", "echo", "here"]).text.contains("here")) ?? false }
    }

    func agent() throws -> pid_t {
        pid_t(try SystemdHost.show("martlet-agent", ["MainPID"])["MainPID"] ?? "") ?? 0
    }

    func isActive(_ unit: String) -> Bool {
        (try? SystemdHost.show(unit, ["ActiveState"])) == ["ActiveState": "active"]
    }

    static func group(of pid: pid_t) throws -> String {
        String(try File.text("/proc/\(pid)/cgroup").dropFirst("0::".count).prefix { $0 != "\n" })
    }

    /// The file of a process's program, as the kernel names it: one that is not there any more ends in ` (deleted)`.
    static func program(of pid: pid_t) throws -> String {
        var buffer = [CChar](repeating: 0, count: 4096)
        let count = try systemCall("readlink", "/proc/\(pid)/exe") {
            readlink("/proc/\(pid)/exe", &buffer, buffer.count)
        }
        return String(decoding: buffer.prefix(count).map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }

    func eventually(_ condition: () -> Bool) -> Bool {
        // A condition may take seconds itself, in a machine that is emulated.
        let deadline = ContinuousClock.now + .seconds(60)
        while !condition() {
            if ContinuousClock.now > deadline { return false }
            usleep(100_000)
        }
        return true
    }

    private static func files() -> [String] {
        let folders = ["/usr/local", "/usr/local/bin", "/usr/local/lib", "/usr/local/libexec", "/etc/martlet"]
        let others = ["/usr/local/lib/systemd", "/etc/systemd/system", "/etc/systemd/system/multi-user.target.wants"]
        return (folders + others).flatMap { folder in
            ((try? File.list(folder)) ?? []).sorted().map { "\(folder)/\($0)" }
        }
    }

    /// What is there and was not before: files, units that systemd knows of, groups.
    func left() -> [String] {
        let units = ["martlet-agent.service", "martlet-master.service", "martlet-pods.service"].filter {
            (try? SystemdHost.show($0, ["LoadState"])) != ["LoadState": "not-found"]
        }
        let group = "/sys/fs/cgroup/martlet.slice/martlet-pods.service"
        return Self.files().filter { !before.contains($0) } + units + (File.exists(group) ? [group] : [])
    }

    /// Whatever became of the test, nothing of it goes on.
    func end() {
        guard File.exists(Self.cli) else { return }
        _ = try? run("/usr/bin/systemctl", ["stop", "martlet-agent", "martlet-master", "martlet-pods"])
        _ = try? script("uninstall")
    }
}
