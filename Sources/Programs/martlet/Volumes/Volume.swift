import ArgumentParser
import Model
import Wire

/// `martlet volume …`
struct VolumeCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "volume", abstract: "Named volumes: data that outlives containers.",
        subcommands: [VolumeList.self, VolumeCreate.self, VolumeInspect.self, VolumeRemove.self])
}

/// Which volume is meant, where several nodes have one of the name, as those of a global service.
struct VolumePlace: ParsableArguments {
    @Option(help: "On this node.", completion: .nodes) var node: String?

    var query: [(String, String)] { node.map { [("node", $0)] } ?? [] }
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
                view, view.name, view.nodeName ?? String(view.node.text.prefix(12)), view.createdAt.ago(),
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
    @Option(
        name: .shortAndLong, help: "How it is mounted, as type=tmpfs, device=… and o=…, see docs/api.md (a directory).")
    var opt: [LabelArgument] = []
    @Option(help: "The group whose it is, such as /team/web.") var group: String?
    @OptionGroup var place: VolumePlace
    @Argument var name: String

    func run() async throws {
        let view: VolumeView = try await connection.cluster.send(
            "POST", APIPaths.volumes, query: place.query,
            body: CreateVolume(name: name, labels: label.dictionary, options: opt.dictionary, group: group))
        Output.line(view.name)
    }
}

struct VolumeInspect: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "inspect", abstract: "Show everything about volumes, as JSON.")
    @OptionGroup var connection: ConnectionOptions
    @OptionGroup var format: InspectOptions
    @OptionGroup var place: VolumePlace
    @Argument(completion: .volumes) var volumes: [String]

    func run() async throws {
        try await format.print(volumes) { volume -> VolumeView in
            try await connection.cluster.get("\(APIPaths.volumes)/\(escaped(volume))", query: place.query)
        }
    }
}

struct VolumeRemove: AsyncParsableCommand {
    static let configuration = CommandConfiguration(commandName: "rm", abstract: "Remove volumes and what is in them.")
    @OptionGroup var connection: ConnectionOptions
    @OptionGroup var place: VolumePlace
    @Argument(completion: .volumes) var volumes: [String]

    func run() async throws {
        try await forEach(volumes) { volume in
            try await connection.cluster.delete(APIPaths.volumes, volume, query: place.query)
            Output.line(volume)
        }
    }
}
