import ArgumentParser
import JSON
import Model
import Wire

struct Diff: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "diff",
        abstract: "List what a container has changed of its image's files: A added, C changed, D deleted.")
    @OptionGroup var connection: ConnectionOptions
    @Argument(completion: .containers) var container: String

    func run() async throws {
        let changes: [FileChange] = try await connection.cluster.get(
            "\(APIPaths.containers)/\(escaped(container))/changes")
        for change in changes {
            let letter =
                switch change.kind {
                case .added: "A"
                case .modified: "C"
                case .deleted: "D"
                }
            Output.line("\(letter) \(change.path)")
        }
    }
}

struct Export: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "export",
        abstract: "Write a container's root file system, without what is in its volumes, as tar.",
        discussion: "Example: martlet export --output root.tar web-server")
    @OptionGroup var connection: ConnectionOptions
    @Option(name: .shortAndLong, help: "The archive (standard output).", completion: .file()) var output = "-"
    @Argument(completion: .containers) var container: String

    func run() async throws {
        try await connection.cluster.download(
            "\(APIPaths.containers)/\(escaped(container))/export", query: [], to: { try LocalFile(writing: output) },
            what: "exporting \(container)")
    }
}

struct Commit: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "commit", abstract: "Make an image from a container's files.",
        discussion: "Example: martlet commit --comment 'with the new tools' --cmd /bin/tool builder tool:2")
    @OptionGroup var connection: ConnectionOptions
    @Option(name: .shortAndLong, help: "Who made it.") var author: String?
    @Option(name: .shortAndLong, help: "For the image's history.") var comment: String?
    @Flag(inversion: .prefixedNo, help: "The container's processes stand still meanwhile.") var pause = true
    @Option(
        parsing: .unconditionalSingleValue,
        help: "The program that runs unless another is given; again for each of its arguments.")
    var cmd: [String] = []
    @Option(parsing: .unconditionalSingleValue, help: "What every program is started with; again for each argument.")
    var entrypoint: [String] = []
    @Option(name: .shortAndLong, help: "KEY=value.") var env: [String] = []
    @Option(name: .shortAndLong, help: "The directory that programs start in.") var workdir: String?
    @Option(name: .shortAndLong, help: "USER[:GROUP].") var user: String?
    @Option(name: .shortAndLong, help: "KEY=value.") var label: [LabelArgument] = []
    @Argument(completion: .containers) var container: String
    @Argument(help: "The image's name.") var name: String?

    func run() async throws {
        let config = ImageImportConfig(
            entrypoint: entrypoint.isEmpty ? nil : entrypoint, command: cmd.isEmpty ? nil : cmd, environment: env,
            workingDirectory: workdir, user: user, labels: label.dictionary)
        let wish = CommitContainer(name: name, author: author, comment: comment, pause: pause, config: config)
        let view: ImageView = try await connection.cluster.send(
            "POST", "\(APIPaths.containers)/\(escaped(container))/commit", body: wish)
        Output.line(view.id)
    }
}

struct ImageHistory: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "history", abstract: "Show the steps of an image's making, the last one first.")
    @OptionGroup var connection: ConnectionOptions
    @OptionGroup var format: FormatOptions
    @Argument(completion: .images) var image: String

    func run() async throws {
        let details: ImageDetails = try await connection.cluster.get("\(APIPaths.images)/\(escaped(image))")
        var table = Table("Created", "Created by", "Size", "Comment")
        for step in (details.history ?? []).reversed() {
            try table.add(
                step, step.createdAt?.ago() ?? "", String(step.createdBy.prefix(80)), ByteSize.text(step.size),
                step.comment)
        }
        try table.print(format)
    }
}
