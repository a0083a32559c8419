import ArgumentParser
import JSON
import Wire

/// `martlet cluster …`
struct ClusterCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "cluster", abstract: "The cluster as a whole.",
        subcommands: [ClusterInspect.self, ClusterEnable.self])
}

struct ClusterInspect: AsyncParsableCommand {
    static let configuration = CommandConfiguration(commandName: "inspect", abstract: "Show the cluster, as JSON.")
    @OptionGroup var connection: ConnectionOptions

    func run() async throws {
        let view: ClusterView = try await connection.cluster.get(APIPaths.cluster)
        try Output.json(view)
    }
}

struct ClusterEnable: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "enable", abstract: "Let other machines reach this cluster and join it; nothing is restarted.",
        discussion: "Example: martlet cluster enable --advertise 10.0.0.1, then `martlet token create`.")
    @OptionGroup var connection: ConnectionOptions
    @OptionGroup var listening: ListeningOptions

    func run() async throws {
        guard let settings = listening.settings else {
            throw ValidationError("say with --advertise ADDRESS how other machines reach this one")
        }
        let view: ClusterView = try await connection.cluster.send(
            "PUT", "\(APIPaths.cluster)/settings", body: settings)
        Output.line(
            "The cluster \(view.id) is served on \(settings.listen); `martlet token create` lets a machine join.")
    }
}
