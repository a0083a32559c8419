import ArgumentParser
import Model
import Wire

/// `martlet volume …`
struct VolumeCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "volume", abstract: "Named volumes: data that outlives containers.",
        subcommands: [VolumeList.self, VolumeCreate.self, VolumeInspect.self, VolumeRemove.self])
}

struct VolumeList: AsyncParsableCommand {
    static let configuration = CommandConfiguration(commandName: "ls", abstract: "List volumes.")
    @OptionGroup var connection: ConnectionOptions
    @OptionGroup var format: FormatOptions

    func run() async throws {
        let views: [VolumeView] = try await connection.cluster.get(APIPaths.volumes)
        var table = Table("Name", "Node", "Created", "Used by")
        for view in views.sorted(by: { $0.name < $1.name }) {
            try table.add(
                view, view.name, String(view.node.text.prefix(12)), view.createdAt.ago(),
                view.usedBy.joined(separator: ", "))
        }
        try table.print(format)
    }
}

struct VolumeCreate: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "create", abstract: "Create a volume; one that exists is fine.")
    @OptionGroup var connection: ConnectionOptions
    @Option(name: .shortAndLong, help: "KEY=value.") var label: [LabelArgument] = []
    @Argument var name: String

    func run() async throws {
        let view: VolumeView = try await connection.cluster.send(
            "POST", APIPaths.volumes, body: CreateVolume(name: name, labels: label.dictionary))
        Output.line(view.name)
    }
}

struct VolumeInspect: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "inspect", abstract: "Show everything about volumes, as JSON.")
    @OptionGroup var connection: ConnectionOptions
    @OptionGroup var format: InspectOptions
    @Argument(completion: .volumes) var volumes: [String]

    func run() async throws {
        try await format.print(volumes) { volume -> VolumeView in
            try await connection.cluster.get("\(APIPaths.volumes)/\(escaped(volume))")
        }
    }
}

struct VolumeRemove: AsyncParsableCommand {
    static let configuration = CommandConfiguration(commandName: "rm", abstract: "Remove volumes and what is in them.")
    @OptionGroup var connection: ConnectionOptions
    @Argument(completion: .volumes) var volumes: [String]

    func run() async throws {
        try await forEach(volumes) { volume in
            try await connection.cluster.delete(APIPaths.volumes, volume)
            Output.line(volume)
        }
    }
}
