import Agent
import ArgumentParser
import Glibc
import Kernel
import Logging
import Master
import Model
import UnifiedAPI
import Wire

struct Up: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Start a cluster of one node: master and agent in one process.",
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
        commandName: "master", abstract: "Run the master alone; agents reach it through its socket.")
    @OptionGroup var place: PlaceOptions
    @Flag(name: .shortAndLong, help: "In the background.") var detach = false
    @Option(help: "trace, debug, info, notice, warning, error.") var logLevel: Logger.Level = .notice

    func run() async throws {
        try requireRoot("master")
        if detach { return try await Background(role: .master, place: place).start() }
        try place.claim(.master)
        try await Daemons(place: place, node: try NodeOptions.parse([]), logLevel: logLevel).run(
            master: true, agent: false)
    }
}

struct AgentCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "agent", abstract: "Run the agent alone, for a master on the same machine.")
    @OptionGroup var place: PlaceOptions
    @OptionGroup var node: NodeOptions
    @Flag(name: .shortAndLong, help: "In the background.") var detach = false
    @Option(help: "trace, debug, info, notice, warning, error.") var logLevel: Logger.Level = .notice

    func run() async throws {
        try requireRoot("agent")
        if detach { return try await Background(role: .agent, place: place).start() }
        try place.claim(.agent)
        try await Daemons(place: place, node: node, logLevel: logLevel).run(master: false, agent: true)
    }
}

extension Logger.Level: @retroactive ExpressibleByArgument {}

func requireRoot(_ verb: String) throws {
    guard geteuid() == 0 else {
        throw CommandFailure("`martlet \(verb)` needs root (namespaces, cgroups, mounts): run it as root or with sudo")
    }
}
