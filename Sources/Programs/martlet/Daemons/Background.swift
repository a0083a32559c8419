import Agent
import Client
import Glibc
import Kernel
import Model
import Wire

/// Starts this program again without a terminal, and waits until it serves or says why it does not.
struct Background {
    let role: DaemonRole
    let place: PlaceOptions

    private var log: String { "\(place.runDir)/\(role.rawValue).log" }

    func start() async throws {
        if let pid = place.runningDaemon(role) {
            Output.line("`martlet \(role.rawValue)` already runs as process \(pid).")
            return
        }
        try File.makeDirectories(place.runDir)
        let output = try File.open(log, O_WRONLY | O_CREAT | O_APPEND)
        let from = lseek(output.raw, 0, SEEK_END)
        var spawn = Spawn("/proc/self/exe", CommandLine.arguments.filter { $0 != "--detach" && $0 != "-d" })
        spawn.environment = environment()
        spawn.descriptors = [-1, output.raw, output.raw]
        spawn.newSession = true
        spawn.workingDirectory = "/"
        let null = try File.open("/dev/null", O_RDWR)
        spawn.descriptors[0] = null.raw
        let child = try spawn.start()
        let deadline = ContinuousClock.now + .seconds(30)
        while !(await serves()) {
            if try child.poll() != nil {
                throw CommandFailure("`martlet \(role.rawValue)` did not start: \(lastWords(from: from))")
            }
            guard ContinuousClock.now < deadline else {
                throw CommandFailure(
                    "`martlet \(role.rawValue)` runs as process \(child.pid), but is not ready after 30 seconds; it goes "
                        + "on trying, its log is \(log), and what it wrote last is: \(lastWords(from: from))")
            }
            try await Task.sleep(for: .milliseconds(20))
        }
        Output.line("`martlet \(role.rawValue)` runs as process \(child.pid); its log is \(log).")
    }

    private func environment() -> [String] {
        var entries: [String] = []
        var next = environ
        while let entry = next.pointee {
            entries.append(String(cString: entry))
            next += 1
        }
        return entries
    }

    private func serves() async -> Bool {
        if role != .agent, (try? await ClusterAPI(host: "unix:\(place.socket)").version()) == nil { return false }
        guard role != .master else { return true }
        // The agent says so itself: its master may be on another machine.
        let agent = ClusterAPI(host: "unix:\(place.runDir)/agent.sock")
        guard let ping: AgentPing = try? await agent.get("/node/v1/ping") else { return false }
        return ping.inContact
    }

    /// The last line that the daemon wrote: its reason.
    private func lastWords(from: Int) -> String {
        guard let text = try? File.text(log, limit: 64 << 20) else { return "its log is \(log)" }
        let fresh = text.utf8.count > from ? String(decoding: Array(text.utf8)[from...], as: UTF8.self) : text
        let line = fresh.split(separator: "\n").last { !$0.isEmpty }.map(String.init) ?? ""
        return line.isEmpty ? "it wrote nothing; its log is \(log)" : line.replacing("martlet: ", with: "")
    }
}
