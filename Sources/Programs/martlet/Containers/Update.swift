import ArgumentParser
import Model
import Wire

struct Update: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "update", abstract: "Change limits, GPUs and restart policy of containers, running or not.",
        discussion: """
            Examples: martlet update --memory 256m --restart always web
                      martlet update --gpus 2 train
            """)
    @OptionGroup var connection: ConnectionOptions
    @OptionGroup var limits: LimitOptions
    @OptionGroup var claims: ClaimOptions
    @Option(help: "no, on-failure[:N], always, unless-stopped.") var restart: RestartArgument?
    @Argument(completion: .containers) var containers: [String]

    func run() async throws {
        guard !limits.isEmpty || !claims.gpus.isEmpty || restart != nil else {
            throw ValidationError("say what is to change: --memory, --cpus, --gpus, --restart, …")
        }
        var change = limits.change
        change.deviceClaims = try claims.claims
        change.restart = restart?.policy
        let cluster = connection.cluster
        try await forEach(containers) { container in
            let _: ContainerView = try await cluster.send(
                "PATCH", "\(APIPaths.containers)/\(escaped(container))", query: [("wait", "true")], body: change)
            Output.line(container)
        }
    }
}

struct Rename: AsyncParsableCommand {
    static let configuration = CommandConfiguration(commandName: "rename", abstract: "Give a container another name.")
    @OptionGroup var connection: ConnectionOptions
    @Argument(completion: .containers) var container: String
    @Argument var name: String

    func run() async throws {
        var change = UpdateContainer()
        change.name = name
        let _: ContainerView = try await connection.cluster.send(
            "PATCH", "\(APIPaths.containers)/\(escaped(container))", body: change)
    }
}
