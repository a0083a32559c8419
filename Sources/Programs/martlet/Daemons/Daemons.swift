import Agent
import DockerAPI
import Glibc
import JSON
import Kernel
import Logging
import Master
import UnifiedAPI
import UnixSignals
import Wire

/// Runs a master, an agent, or both, until a signal says to end. Pods go on.
struct Daemons: Sendable {
    let place: PlaceOptions
    let node: NodeOptions
    let logLevel: Logger.Level
    /// How other machines reach the master; nil: as was said before.
    var settings: ClusterSettings?
    /// Where the agent's master is; nil: on this machine.
    var master: String?
    /// The token with which the agent joins, or `@FILE`.
    var join: String?

    func run(master: Bool, agent: Bool) async throws {
        let level = logLevel
        LoggingSystem.bootstrap { label in
            var handler = StreamLogHandler.standardError(label: label)
            handler.logLevel = level
            return handler
        }
        raiseDescriptorLimit()
        try ProcessMemory.hide()
        // Before anything listens: what is missing is said at once.
        let agentConfiguration = agent ? try agentConfiguration() : nil
        let manager = ServiceManager(Logger(label: "martlet"))
        try await withThrowingTaskGroup(of: Void.self) { group in
            defer { group.cancelAll() }
            if master {
                let daemon = try await MasterDaemon(masterConfiguration(), faces: [UnifiedAPI.face, DockerAPI.face])
                group.addTask { try await daemon.run() }
            }
            if let configuration = agentConfiguration {
                try node.remember(in: place)
                let daemon = try await AgentDaemon(configuration, logger: Logger(label: "martlet.agent"))
                group.addTask { try await daemon.run() }
            }
            if let manager {
                group.addTask { [place] in
                    try await manager.tellWhenReady { await Self.serve(place, master: master, agent: agent) }
                    // Whichever ends first ends them all.
                    while true { try await Task.sleep(for: .seconds(3600)) }
                }
            }
            group.addTask {
                for await _ in await UnixSignalsSequence(trapping: .sigterm, .sigint) { return }
            }
            // Whichever ends first: a signal, or a daemon that cannot go on and says why.
            try await group.next()
        }
    }

    /// A file of a token may be removed once the machine has joined; where it has not, the agent says what it needs.
    private func token() throws -> String? {
        guard let join, join.hasPrefix("@") else { return join }
        let path = String(join.dropFirst())
        do {
            return try File.text(path, limit: 4096).split(whereSeparator: \.isWhitespace).first.map(String.init)
        } catch {
            guard error.errno == ENOENT else { throw error }
            Logger(label: "martlet.agent").warning("--join: \(path) is not there")
            return nil
        }
    }

    /// Whether the daemons answer on their sockets. An agent need not have found its master: its pods start without.
    private static func serve(_ place: PlaceOptions, master: Bool, agent: Bool) async -> Bool {
        if master, (try? await ClusterAPI(host: "unix:\(place.socket)").version()) == nil { return false }
        guard agent else { return true }
        let ping: AgentPing? = try? await ClusterAPI(host: "unix:\(place.runDir)/agent.sock").get("/node/v1/ping")
        return ping != nil
    }

    private func masterConfiguration() -> MasterConfiguration {
        var configuration = MasterConfiguration()
        configuration.dataDirectory = place.dataDir
        configuration.runDirectory = place.runDir
        configuration.settings = settings
        return configuration
    }

    private func agentConfiguration() throws -> AgentConfiguration {
        var configuration = node.agentConfiguration(place)
        if let master { configuration.masterEndpoint = master }
        configuration.joinToken = try token()
        configuration.shimProgram = try SmallProgram.find("martlet-shim")
        configuration.runtimeProgram = try SmallProgram.find("martlet-runtime")
        configuration.nvmlProgram = try SmallProgram.find("martlet-nvml")
        configuration.overlayProgram = try SmallProgram.find("martlet-overlay")
        configuration.portmapProgram = try SmallProgram.find("portmap")
        return configuration
    }

    /// A daemon with many streams needs more descriptors than a shell's soft limit.
    private func raiseDescriptorLimit() {
        var limit = rlimit()
        guard getrlimit(__rlimit_resource_t(7), &limit) == 0 else { return }
        limit.rlim_cur = limit.rlim_max
        _ = setrlimit(__rlimit_resource_t(7), &limit)
    }
}

/// The programs that come with this one: beside it, or in `../libexec/martlet`.
enum SmallProgram {
    private static func places(_ name: String) -> [String] {
        var buffer = [CChar](repeating: 0, count: 4096)
        let count = readlink("/proc/self/exe", &buffer, buffer.count - 1)
        let own = String(decoding: buffer.prefix(max(0, count)).map { UInt8(bitPattern: $0) }, as: UTF8.self)
        let folder = own.split(separator: "/", omittingEmptySubsequences: false).dropLast().joined(separator: "/")
        return ["\(folder)/\(name)", "\(folder)/../libexec/martlet/\(name)"]
    }

    /// Where it is, or should be.
    static func place(of name: String) -> String {
        let places = places(name)
        return places.first { access($0, X_OK) == 0 } ?? places[0]
    }

    /// - Throws: when it is missing or of another version.
    static func find(_ name: String) throws -> String {
        let places = places(name)
        guard let path = places.first(where: { access($0, X_OK) == 0 }) else {
            throw CommandFailure(
                "no \(name) at \(places.joined(separator: " or ")): build or install all of Martlet's programs")
        }
        let result = try Program(path, ["--version"], timeoutMilliseconds: 5000).run()
        let text = String(decoding: result.output, as: UTF8.self)
        guard text.contains(Version.number) else {
            throw CommandFailure(
                "\(path) is not of this version (\(Version.number)): build or install all of Martlet's programs together"
            )
        }
        return path
    }
}
