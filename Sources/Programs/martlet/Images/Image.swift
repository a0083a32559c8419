import ArgumentParser
import JSON
import Model
import Wire

struct Images: AsyncParsableCommand {
    static let configuration = CommandConfiguration(commandName: "images", abstract: "List images.")
    @OptionGroup var connection: ConnectionOptions
    @OptionGroup var format: FormatOptions

    func run() async throws { try await ImageList.print(connection.cluster, format) }
}

/// `martlet image …`
struct ImageCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "image", abstract: "What containers are made from.",
        subcommands: [
            ImageList.self, ImageImport.self, ImageLoad.self, ImageSave.self, Tag.self, ImageInspect.self,
            ImageHistory.self, ImageRemove.self, ImagePrune.self,
        ])
}

struct ImageList: AsyncParsableCommand {
    static let configuration = CommandConfiguration(commandName: "ls", abstract: "List images.")
    @OptionGroup var connection: ConnectionOptions
    @OptionGroup var format: FormatOptions

    func run() async throws { try await Self.print(connection.cluster, format) }

    static func print(_ cluster: ClusterAPI, _ format: FormatOptions) async throws {
        let views: [ImageView] = try await cluster.get(APIPaths.images)
        var table = Table("Name", "Id", "Created", "Size", "Platform", "Nodes", key: 1)
        for view in views {
            for name in view.names.isEmpty ? ["<none>"] : view.names {
                try table.add(
                    view, name, String(view.id.replacing("sha256:", with: "").prefix(12)), view.createdAt?.ago() ?? "",
                    ByteSize.text(view.size), "\(view.platform.os)/\(view.platform.architecture)", "\(view.nodes.count)"
                )
            }
        }
        try table.print(format)
    }
}

struct ImageImport: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "import", abstract: "Make an image from the tar of a root file system.",
        discussion: "Example: martlet image import --name tool:1 --cmd /bin/tool rootfs.tar  (- reads standard input)")
    @OptionGroup var connection: ConnectionOptions
    @Option(name: .shortAndLong, help: "Its name.") var name: String
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
    @Option(help: "To this node (a ready one, from which others fetch it).", completion: .nodes) var node: String?
    @Argument(help: "A tar, plain or compressed; - for standard input.", completion: .file()) var file: String

    func run() async throws {
        var query = [("name", name)]
        var config = ImageImportConfig()
        if !cmd.isEmpty { config.command = cmd }
        if !entrypoint.isEmpty { config.entrypoint = entrypoint }
        config.environment = env
        if let workdir { config.workingDirectory = workdir }
        if let user { config.user = user }
        config.labels = label.dictionary
        if let node { query.append(("node", node)) }
        query.append(("config", String(decoding: try JSONCoding.encode(config), as: UTF8.self)))
        let view: ImageView = try await connection.cluster.upload(
            "POST", "\(APIPaths.images)/import", query: query, file: file, what: "importing \(name)")
        Output.line(view.id)
    }
}

struct ImageLoad: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "load", abstract: "Load images from an archive of `docker save` or in OCI layout.")
    @OptionGroup var connection: ConnectionOptions
    @Option(name: .shortAndLong, help: "The archive (standard input).", completion: .file()) var input = "-"
    @Option(help: "To this node (a ready one, from which others fetch them).", completion: .nodes) var node: String?

    func run() async throws {
        let views: [ImageView] = try await connection.cluster.upload(
            "POST", "\(APIPaths.images)/load", query: node.map { [("node", $0)] } ?? [], file: input, what: "loading")
        for view in views {
            let names = view.names.isEmpty ? "" : " (\(view.names.joined(separator: ", ")))"
            Output.line("Loaded \(view.id)\(names)")
        }
    }
}

struct ImageSave: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "save", abstract: "Write images to an archive that `docker load` and others read.")
    @OptionGroup var connection: ConnectionOptions
    @Option(name: .shortAndLong, help: "The archive (standard output).", completion: .file()) var output = "-"
    @Option(name: .customLong("archive"), help: "docker or oci.") var archive = "docker"
    @Argument(completion: .images) var images: [String]

    func run() async throws {
        guard archive == "docker" || archive == "oci" else {
            throw ValidationError("--archive is docker or oci, not '\(archive)'")
        }
        try await connection.cluster.download(
            "\(APIPaths.images)/save", query: images.map { ("name", $0) } + [("format", archive)],
            to: { try LocalFile(writing: output) }, what: "saving")
    }
}

/// `martlet tag`, and `martlet image tag`.
struct Tag: AsyncParsableCommand {
    static let configuration = CommandConfiguration(commandName: "tag", abstract: "Give an image another name.")
    @OptionGroup var connection: ConnectionOptions
    @Argument(completion: .images) var image: String
    @Argument var name: String

    func run() async throws {
        let _: ImageView = try await connection.cluster.send(
            "POST", "\(APIPaths.images)/\(escaped(image))/tag", query: [("name", name)])
    }
}

struct ImageInspect: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "inspect", abstract: "Show everything about images, as JSON.")
    @OptionGroup var connection: ConnectionOptions
    @OptionGroup var format: InspectOptions
    @Argument(completion: .images) var images: [String]

    func run() async throws {
        try await format.print(images) { image -> ImageDetails in
            try await connection.cluster.get("\(APIPaths.images)/\(escaped(image))")
        }
    }
}

struct ImageRemove: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "rm", abstract: "Remove names of images, and images without names.")
    @OptionGroup var connection: ConnectionOptions
    @Flag(name: .shortAndLong, help: "Also an image with several names.") var force = false
    @Argument(completion: .images) var images: [String]

    func run() async throws {
        try await forEach(images) { image in
            let removal: ImageRemoval = try await connection.cluster.send(
                "DELETE", "\(APIPaths.images)/\(escaped(image))", query: [("force", "\(force)")])
            for name in removal.untagged { Output.line("Untagged \(name)") }
            for digest in removal.deleted { Output.line("Deleted \(digest)") }
        }
    }
}

struct ImagePrune: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "prune", abstract: "Remove images without a name that nothing uses, from all nodes.",
        discussion:
            "An image loses its name when another gets it, and a node fetches images for its tasks without names.")
    @OptionGroup var connection: ConnectionOptions
    @Flag(name: .shortAndLong, help: "Those with names too.") var all = false

    func run() async throws {
        let removal: ImageRemoval = try await connection.cluster.send(
            "POST", "\(APIPaths.images)/prune", query: [("all", "\(all)")])
        for digest in removal.deleted { Output.line("Deleted \(digest)") }
        Output.error("\(ByteSize.text(removal.freed)) freed")
    }
}
