import ArgumentParser
import Client
import Images
import JSON
import Model
import Wire

struct Pull: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "pull", abstract: "Pull an image from its registry.",
        discussion: "Example: martlet pull registry.lan:5000/team/web:1")
    @OptionGroup var connection: ConnectionOptions
    @OptionGroup var registry: RegistryOptions
    @Option(help: "Which image of several platforms, such as linux/arm64 (the node's own).") var platform: String?
    @Option(help: "To this node (a ready one, from which others fetch it).", completion: .nodes) var node: String?
    @Flag(name: .shortAndLong, help: "Print the digest only.") var quiet = false
    @Argument var image: String

    func run() async throws {
        let view = try await registry.pull(
            image, platform: platform, node: node, from: connection.cluster, quietly: quiet)
        Output.line(quiet ? view.digest : "\(image): \(view.digest)")
    }
}

struct Push: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "push", abstract: "Push an image to the registry that its name says.",
        discussion: "Example: martlet tag web:1 registry.lan:5000/team/web:1; martlet push registry.lan:5000/team/web:1"
    )
    @OptionGroup var connection: ConnectionOptions
    @OptionGroup var registry: RegistryOptions
    @Flag(name: .shortAndLong, help: "Print the digest only.") var quiet = false
    @Argument(completion: .images) var image: String

    func run() async throws {
        let wish = PushImage(login: try registry.login(for: image), loginSecret: registry.loginSecret)
        let view = try await TransferDisplay.follow(
            connection.cluster, "\(APIPaths.images)/\(escaped(image))/push", wish, "push of \(image)", quietly: quiet)
        Output.line(quiet ? view.digest : "\(image): \(view.digest)")
    }
}

/// With which login a registry is asked.
struct RegistryOptions: ParsableArguments {
    @Option(help: "The secret that holds the registry's login, instead of this user's stored one.")
    var loginSecret: String?

    /// The login that this user has stored for an image's registry, as `martlet login` and `docker login` do.
    func login(for image: String) throws -> RegistryLogin? {
        guard loginSecret == nil else { return nil }
        let host = try ImageReference(image).domain
        switch try StoredLogins.read().credentials(for: host) {
        case .password(let user, let password)?: return RegistryLogin(username: user, password: password)
        case .identityToken(let token)?: return RegistryLogin(identityToken: token)
        case nil: return nil
        }
    }

    func pull(
        _ image: String, platform: String? = nil, node: String? = nil, from cluster: ClusterAPI, quietly: Bool
    ) async throws -> ImageView {
        let wish = PullImage(
            image: image, platform: platform, login: try login(for: image), loginSecret: loginSecret, node: node)
        return try await TransferDisplay.follow(
            cluster, "\(APIPaths.images)/pull", wish, "pull of \(image)", quietly: quietly)
    }
}

/// When an image is pulled before something is made from it.
struct PullOptions: ParsableArguments {
    @OptionGroup var registry: RegistryOptions
    @Option(help: "When the registry is asked: missing, always or never.") var pull = PullPolicy.missing

    /// Does `make`, with the image pulled before where the policy says so.
    func pulling<Value>(_ image: String, _ cluster: ClusterAPI, _ make: () async throws -> Value) async throws -> Value
    {
        if pull == .always { _ = try await registry.pull(image, from: cluster, quietly: false) }
        do {
            return try await make()
        } catch let error as ClientError where error.code == "no-such-image" && pull == .missing {
            Output.error("martlet: the image \(image) is on no node; pulling it")
            _ = try await registry.pull(image, from: cluster, quietly: false)
            return try await make()
        }
    }
}

extension PullPolicy: ExpressibleByArgument {}

/// Shows how far a transfer is: a line for each layer while it moves, on a terminal; else a line when it is done.
struct TransferDisplay {
    private var layers: [String] = []
    private var states: [String: TransferLine.Layer] = [:]
    private var drawn = 0
    private let isShown: Bool

    private init(isShown: Bool) { self.isShown = isShown }

    static func follow(
        _ cluster: ClusterAPI, _ path: String, _ wish: some Encodable & Sendable, _ what: String, quietly: Bool
    ) async throws -> ImageView {
        var display = TransferDisplay(isShown: !quietly)
        var image: ImageView?
        try await cluster.lines("POST", path, body: wish) { (line: TransferLine) in
            if let layer = line.layer { display.show(layer) }
            if let found = line.image { image = found }
        }
        guard let image else { throw CommandFailure("the \(what) ended without saying that it is done; try again") }
        return image
    }

    private mutating func show(_ layer: TransferLine.Layer) {
        guard isShown else { return }
        let isNew = states[layer.digest] == nil
        let before = states[layer.digest]?.phase
        states[layer.digest] = layer
        if isNew { layers.append(layer.digest) }
        if Output.isTerminal {
            draw()
        } else if before != layer.phase, ["downloaded", "present", "done"].contains(layer.phase) {
            Output.error("\(Self.short(layer.digest)): \(layer.phase)")
        }
    }

    private mutating func draw() {
        var text = drawn > 0 ? "\u{1B}[\(drawn)A" : ""
        for digest in layers {
            guard let layer = states[digest] else { continue }
            text += "\r\u{1B}[K\(Self.short(digest)): \(layer.phase)"
            if layer.total > 0, layer.phase.hasSuffix("ing") {
                let filled = Int(min(20, max(0, layer.done * 20 / layer.total)))
                text +=
                    " [" + String(repeating: "=", count: filled) + String(repeating: " ", count: 20 - filled)
                    + "] \(ByteSize.text(layer.done))/\(ByteSize.text(layer.total))"
            }
            text += "\n"
        }
        drawn = layers.count
        Output.bytes(Array(text.utf8), to: 2)
    }

    private static func short(_ digest: String) -> String {
        String((digest.split(separator: ":").last ?? "").prefix(12))
    }
}
