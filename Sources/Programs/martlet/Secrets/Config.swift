import ArgumentParser
import JSON
import Model
import Wire

/// `martlet config …`
struct ConfigCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "config", abstract: "Configuration files that containers get, readable by everybody.",
        subcommands: [ConfigCreate.self, ConfigList.self, ConfigInspect.self, ConfigRemove.self])
}

struct ConfigCreate: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "create", abstract: "Create a config.",
        discussion: "Example: martlet config create nginx.conf ./nginx.conf")
    @OptionGroup var connection: ConnectionOptions
    @OptionGroup var options: FileOptions

    func run() async throws {
        let view: ConfigView = try await connection.cluster.send(
            "POST", APIPaths.configs, body: try options.request("config"))
        Output.line(view.name)
    }
}

struct ConfigList: AsyncParsableCommand {
    static let configuration = CommandConfiguration(commandName: "ls", abstract: "List configs.")
    @OptionGroup var connection: ConnectionOptions
    @OptionGroup var format: FormatOptions

    func run() async throws {
        let views: [ConfigView] = try await connection.cluster.get(APIPaths.configs)
        var table = Table("Name", "Group", "Size", "Created", "Used by")
        for view in views {
            try table.add(
                view, view.name, view.group, ByteSize.text(Int64(view.size)), view.createdAt.ago(),
                view.usedBy.joined(separator: ", "))
        }
        try table.print(format)
    }
}

struct ConfigInspect: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "inspect", abstract: "Show everything about configs, as JSON; the value is in base64.")
    @OptionGroup var connection: ConnectionOptions
    @OptionGroup var format: InspectOptions
    @Argument(completion: .configs) var configs: [String]

    func run() async throws {
        try await format.print(configs) { config -> ConfigView in
            try await connection.cluster.get("\(APIPaths.configs)/\(escaped(config))")
        }
    }
}

struct ConfigRemove: AsyncParsableCommand {
    static let configuration = CommandConfiguration(commandName: "rm", abstract: "Remove configs that nothing uses.")
    @OptionGroup var connection: ConnectionOptions
    @Argument(completion: .configs) var configs: [String]

    func run() async throws {
        try await forEach(configs) { config in
            try await connection.cluster.delete(APIPaths.configs, config)
            Output.line(config)
        }
    }
}
