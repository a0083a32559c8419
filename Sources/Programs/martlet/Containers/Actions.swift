import ArgumentParser
import Model
import Wire

/// The verbs that take names of containers and do one thing to each; a failure with one does not spare the others.
protocol ContainerVerb: AsyncParsableCommand {
    var connection: ConnectionOptions { get }
    var containers: [String] { get }
    func act(on container: String, _ cluster: ClusterAPI) async throws
}

extension ContainerVerb {
    func run() async throws {
        let cluster = connection.cluster
        try await forEach(containers) { container in
            try await act(on: container, cluster)
            Output.line(container)
        }
    }
}

/// Does something to each; a failure with one is said and does not spare the others.
///
/// - Throws: at the end, when one failed.
func forEach(_ names: [String], _ body: (String) async throws -> Void) async throws {
    var failed = false
    for name in names {
        do {
            try await body(name)
        } catch {
            failed = true
            Output.error("martlet: \(Explanation.sentence(error))")
        }
    }
    if failed { throw CommandFailure("") }
}

struct Start: ContainerVerb {
    static let configuration = CommandConfiguration(
        commandName: "start", abstract: "Start containers that were created or have ended.")
    @OptionGroup var connection: ConnectionOptions
    @Argument(completion: .containers) var containers: [String]

    func act(on container: String, _ cluster: ClusterAPI) async throws {
        try await cluster.act(container, .start, ContainerAction())
    }
}

struct Stop: ContainerVerb {
    static let configuration = CommandConfiguration(
        commandName: "stop", abstract: "Stop containers: their stop signal, then SIGKILL after the grace.",
        discussion: "Example: martlet stop --timeout 30 web-server")
    @OptionGroup var connection: ConnectionOptions
    @Option(
        name: [.customShort("t"), .customLong("timeout"), .customLong("time")], parsing: .unconditional,
        help: "Seconds until SIGKILL (10).")
    var timeout: Int?
    @Option(name: .shortAndLong, help: "Instead of the container's stop signal.") var signal: String?
    @Argument(completion: .containers) var containers: [String]

    func act(on container: String, _ cluster: ClusterAPI) async throws {
        try await cluster.act(container, .stop, ContainerAction(signal: signal, grace: timeout))
    }
}

struct Restart: ContainerVerb {
    static let configuration = CommandConfiguration(
        commandName: "restart", abstract: "Stop containers and start them again.")
    @OptionGroup var connection: ConnectionOptions
    @Option(
        name: [.customShort("t"), .customLong("timeout"), .customLong("time")], parsing: .unconditional,
        help: "Seconds until SIGKILL (10).")
    var timeout: Int?
    @Argument(completion: .containers) var containers: [String]

    func act(on container: String, _ cluster: ClusterAPI) async throws {
        try await cluster.act(container, .restart, ContainerAction(grace: timeout))
    }
}

struct Kill: ContainerVerb {
    static let configuration = CommandConfiguration(
        commandName: "kill", abstract: "Send a signal to containers.",
        discussion: "Example: martlet kill --signal HUP proxy")
    @OptionGroup var connection: ConnectionOptions
    @Option(name: .shortAndLong, help: "Name or number.") var signal = "KILL"
    @Argument(completion: .containers) var containers: [String]

    func act(on container: String, _ cluster: ClusterAPI) async throws {
        try await cluster.act(container, .kill, ContainerAction(signal: signal))
    }
}

struct Pause: ContainerVerb {
    static let configuration = CommandConfiguration(
        commandName: "pause", abstract: "Freeze all processes of containers.")
    @OptionGroup var connection: ConnectionOptions
    @Argument(completion: .containers) var containers: [String]

    func act(on container: String, _ cluster: ClusterAPI) async throws {
        try await cluster.act(container, .pause, ContainerAction())
    }
}

struct Unpause: ContainerVerb {
    static let configuration = CommandConfiguration(commandName: "unpause", abstract: "Let paused containers run on.")
    @OptionGroup var connection: ConnectionOptions
    @Argument(completion: .containers) var containers: [String]

    func act(on container: String, _ cluster: ClusterAPI) async throws {
        try await cluster.act(container, .unpause, ContainerAction())
    }
}

struct Remove: ContainerVerb {
    static let configuration = CommandConfiguration(
        commandName: "rm", abstract: "Remove containers, their layers and logs.")
    @OptionGroup var connection: ConnectionOptions
    @Flag(name: .shortAndLong, help: "Also those that run: they are killed.") var force = false
    @Flag(name: .shortAndLong, help: "Volumes that belong to them alone go too.") var volumes = false
    @Argument(completion: .containers) var containers: [String]

    func act(on container: String, _ cluster: ClusterAPI) async throws {
        try await cluster.delete(
            APIPaths.containers, container, query: [("force", "\(force)"), ("volumes", "\(volumes)")])
    }
}

struct Wait: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "wait", abstract: "Wait until containers have ended; print their exit codes.")
    @OptionGroup var connection: ConnectionOptions
    @Argument(completion: .containers) var containers: [String]

    func run() async throws {
        try await forEach(containers) { container in
            Output.line("\(try await connection.cluster.wait(container).exitCode)")
        }
    }
}
