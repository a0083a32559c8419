import ArgumentParser
import Glibc
import JSON
import Kernel
import Model
import Wire

/// `martlet secret …`
struct SecretCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "secret", abstract: "Passwords and keys: containers get them as files in memory.",
        subcommands: [SecretCreate.self, SecretList.self, SecretInspect.self, SecretRemove.self])
}

/// What `secret create` and `config create` have in common.
struct FileOptions: ParsableArguments {
    @Option(name: .shortAndLong, help: "KEY=value.") var label: [LabelArgument] = []
    @Option(help: "Who may use it: workloads of this group and those below it; / for all.") var group: String?
    @Argument(help: "Unique; it cannot be changed later.") var name: String
    @Argument(help: "The file with the value; - for standard input.", completion: .file()) var file: String

    /// What to ask for; the value is read whole, and refused when it is too long.
    func request(_ kind: String) throws -> CreateFile {
        let source = try LocalFile(reading: file)
        let value: [UInt8]
        do throws(KernelError) {
            value = try Descriptor.readAll(source.descriptor.raw, limit: Secret.maximumSize, subject: source.name)
        } catch {
            guard error.errno == EFBIG else { throw error }
            throw CommandFailure(
                "\(source.name) has more bytes than the \(Secret.maximumSize) that a \(kind) may have: use a volume")
        }
        return CreateFile(name: name, data: Base64.encode(value), group: group, labels: label.dictionary)
    }
}

struct SecretCreate: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "create", abstract: "Create a secret.",
        discussion: "Example: openssl rand -hex 16 | martlet secret create password -")
    @OptionGroup var connection: ConnectionOptions
    @OptionGroup var options: FileOptions

    func run() async throws {
        try ProcessMemory.hide()
        let view: SecretView = try await connection.cluster.send(
            "POST", APIPaths.secrets, body: try options.request("secret"))
        Output.line(view.name)
    }
}

struct SecretList: AsyncParsableCommand {
    static let configuration = CommandConfiguration(commandName: "ls", abstract: "List secrets.")
    @OptionGroup var connection: ConnectionOptions
    @OptionGroup var format: FormatOptions

    func run() async throws {
        let views: [SecretView] = try await connection.cluster.get(APIPaths.secrets)
        var table = Table("Name", "Group", "Size", "Created", "Used by")
        for view in views {
            try table.add(
                view, view.name, view.group, ByteSize.text(Int64(view.size)), view.createdAt.ago(),
                view.usedBy.joined(separator: ", "))
        }
        try table.print(format)
    }
}

struct SecretInspect: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "inspect", abstract: "Show everything about secrets but their values, as JSON.")
    @OptionGroup var connection: ConnectionOptions
    @OptionGroup var format: InspectOptions
    @Argument(completion: .secrets) var secrets: [String]

    func run() async throws {
        try await format.print(secrets) { secret -> SecretView in
            try await connection.cluster.get("\(APIPaths.secrets)/\(escaped(secret))")
        }
    }
}

struct SecretRemove: AsyncParsableCommand {
    static let configuration = CommandConfiguration(commandName: "rm", abstract: "Remove secrets that nothing uses.")
    @OptionGroup var connection: ConnectionOptions
    @Argument(completion: .secrets) var secrets: [String]

    func run() async throws {
        try await forEach(secrets) { secret in
            try await connection.cluster.delete(APIPaths.secrets, secret)
            Output.line(secret)
        }
    }
}
