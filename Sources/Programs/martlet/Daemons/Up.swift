import Agent
import ArgumentParser
import Client
import Glibc
import Kernel
import Logging
import Master
import Model
import UnifiedAPI
import Wire

struct Up: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "up", abstract: "Start a cluster of one node: master and agent in one process.",
        discussion: "Example: martlet up --detach; `martlet down` ends it, `martlet down --all` forgets it.")
    @OptionGroup var place: PlaceOptions
    @OptionGroup var node: NodeOptions
    @Flag(name: .shortAndLong, help: "In the background; returns when the node is ready.") var detach = false
    @Option(help: "trace, debug, info, notice, warning, error.") var logLevel: Logger.Level = .notice

    func run() async throws {
        try requireRoot("up")
        if detach { return try await Background(role: .up, place: place).start() }
        try place.claim(.up)
        try await Daemons(place: place, node: node, logLevel: logLevel).run(master: true, agent: true)
    }
}

struct MasterCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "master", abstract: "Run the master alone.",
        discussion: """
            Agents of this machine reach it through its socket, those of others once it has an address to advertise.
            Example: martlet master --detach --advertise 10.0.0.1
            """)
    @OptionGroup var place: PlaceOptions
    @OptionGroup var listening: ListeningOptions
    @Flag(name: .shortAndLong, help: "In the background.") var detach = false
    @Option(help: "trace, debug, info, notice, warning, error.") var logLevel: Logger.Level = .notice

    func run() async throws {
        try requireRoot("master")
        if detach { return try await Background(role: .master, place: place).start() }
        try place.claim(.master)
        try await Daemons(
            place: place, node: try NodeOptions.parse([]), logLevel: logLevel, settings: listening.settings
        ).run(master: true, agent: false)
    }
}

struct AgentCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "agent", abstract: "Run the agent alone, for a master on this or another machine.",
        discussion: """
            A machine joins a cluster once, with a token: martlet agent --detach --master https://10.0.0.1:7070 --join \
            TOKEN. After that it knows its master and has a certificate: martlet agent --detach
            """)
    @OptionGroup var place: PlaceOptions
    @OptionGroup var node: NodeOptions
    @Option(help: "https://HOST:PORT of the master (the one that was joined, else this machine's).") var master: String?
    @Option(help: "The token to join with, or @FILE that holds it.") var join: String?
    @Flag(name: .shortAndLong, help: "In the background.") var detach = false
    @Option(help: "trace, debug, info, notice, warning, error.") var logLevel: Logger.Level = .notice

    func run() async throws {
        try requireRoot("agent")
        if detach { return try await Background(role: .agent, place: place).start() }
        try place.claim(.agent)
        try await Daemons(
            place: place, node: node, logLevel: logLevel, master: try masterAddress(), join: join
        ).run(master: false, agent: true)
    }
}

extension AgentCommand {
    /// What was said the last time holds until something else is said.
    private func masterAddress() throws -> String? {
        let path = "\(place.dataDir)/master"
        guard let master else {
            return File.exists(path) ? try File.text(path).split(separator: "\n").first.map(String.init) : nil
        }
        _ = try ServerAddress(master)
        try File.makeDirectories(place.dataDir)
        try File.replace(path, with: Array("\(master)\n".utf8))
        return master
    }
}

/// How other machines reach a master.
struct ListeningOptions: ParsableArguments {
    @Option(help: "A name or address under which other machines reach this master; may be repeated.")
    var advertise: [String] = []
    @Option(help: "Where to listen for them, ADDRESS:PORT (0.0.0.0:7070); goes with --advertise.") var listen: HostPort?
    @Option(help: ArgumentHelp("Seconds that certificates hold.", visibility: .hidden))
    var certificateLife = ClusterSettings.standardLife

    func validate() throws {
        guard listen == nil || !advertise.isEmpty else {
            throw ValidationError("--listen takes --advertise ADDRESS: say how other machines reach this one")
        }
    }

    /// nil: nothing was said.
    var settings: ClusterSettings? {
        advertise.isEmpty
            ? nil
            : ClusterSettings(
                listen: listen?.defaultValueDescription ?? ClusterSettings.standardListener, advertise: advertise,
                certificateLife: certificateLife)
    }
}

extension Logger.Level: @retroactive ExpressibleByArgument {}

func requireRoot(_ verb: String) throws {
    guard geteuid() == 0 else {
        throw CommandFailure("`martlet \(verb)` needs root (namespaces, cgroups, mounts): run it as root or with sudo")
    }
}
