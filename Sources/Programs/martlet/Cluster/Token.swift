import ArgumentParser
import JSON
import Model
import Wire

/// `martlet token …`
struct TokenCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "token", abstract: "Credentials: for machines that join, and for users of the API.",
        subcommands: [TokenCreate.self, TokenList.self, TokenRevoke.self])
}

extension Role: ExpressibleByArgument {}

struct TokenCreate: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "create", abstract: "Make a token; it is shown once.",
        discussion: """
            Roles: node joins a machine; admin may do everything, operator everything but tokens and settings, developer \
            what concerns its group's workloads, viewer looks.
            Examples: martlet token create; martlet token create --role developer --group /shop --name alice
            """)
    @OptionGroup var connection: ConnectionOptions
    @Option(help: "What its bearer may do.") var role = Role.node
    @Option(help: "The group that a developer is confined to.") var group = Group.root
    @Option(help: "What it is for.") var name = ""
    @Option(help: "For how long: 90s, 15m, 24h, 30d (a day for machines, no end for users).") var expires: Seconds?
    @Option(help: "How many machines may join with it.") var uses: Int?
    @Flag(name: .shortAndLong, help: "Print the token only.") var quiet = false
    @Flag(help: "Print it as JSON.") var json = false

    func run() async throws {
        let wish = CreateToken(
            name: name, role: role, group: group, expiresIn: expires?.whole, maximumUses: uses)
        let made: TokenCreated = try await connection.cluster.send("POST", APIPaths.tokens, body: wish)
        if json { return try Output.json(made) }
        Output.line(made.text)
        guard !quiet else { return }
        let master = made.masters.first ?? "https://MASTER:7070"
        if role == .node {
            Output.error(
                "On the machine that shall join: martlet agent --detach --master \(master) --join \(made.text)")
        } else {
            Output.error("To use it: export MARTLET_HOST=\(master) MARTLET_TOKEN=\(made.text)")
        }
    }
}

struct TokenList: AsyncParsableCommand {
    static let configuration = CommandConfiguration(commandName: "ls", abstract: "List tokens, without their secrets.")
    @OptionGroup var connection: ConnectionOptions
    @OptionGroup var format: FormatOptions

    func run() async throws {
        let views: [TokenView] = try await connection.cluster.get(APIPaths.tokens)
        var table = Table("Id", "Name", "Role", "Group", "Uses", "Created", "Expires")
        let now = Timestamp.now()
        for view in views {
            let expired = view.expiresAt.map { $0 < now } ?? false
            try table.add(
                view, view.id.text, view.name, view.role.rawValue, view.group,
                view.role == .node ? "\(view.uses)\(view.maximumUses.map { "/\($0)" } ?? "")" : "",
                view.createdAt.ago(), view.expiresAt.map { expired ? "expired" : "in \(now.age($0))" } ?? "never")
        }
        try table.print(format)
    }
}

struct TokenRevoke: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "revoke", abstract: "Take tokens back: they open nothing from then on.")
    @OptionGroup var connection: ConnectionOptions
    @Argument(help: "Ids, beginnings of ids, or names.") var tokens: [String]

    func run() async throws {
        try await forEach(tokens) { token in
            try await connection.cluster.delete(APIPaths.tokens, token)
            Output.line(token)
        }
    }
}
