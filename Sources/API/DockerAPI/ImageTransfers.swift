import Client
import HTTPService
import HTTPTypes
import Hummingbird
import Master
import MasterCore
import Model
import NIOHTTP1
import Wire

/// Pull and push.
extension DockerAPI {
    /// What is kept of a transfer for a client that reads slowly.
    private static let pending = 4096

    private typealias Steps = AsyncThrowingStream<TransferLine, any Error>

    /// Follows a transfer; it ends when the stream is given up.
    private func follow(_ transfer: ImageTransfer) -> Steps {
        let (steps, feed) = Steps.makeStream(bufferingPolicy: .bufferingNewest(Self.pending))
        let task = Task {
            do {
                let image = try await transfer.follow { feed.yield(TransferLine(layer: $0)) }
                feed.yield(TransferLine(image: image))
                feed.finish()
            } catch {
                feed.finish(throwing: error)
            }
        }
        feed.onTermination = { _ in task.cancel() }
        return steps
    }

    /// Waits for a transfer's first step: until then a refusal is an answer of its own, with a status.
    private func begun(_ call: DockerCall, _ steps: Steps, _ name: RegistryRefusal) async throws -> TransferLine {
        try await call.context.untilPeerCloses {
            try await name.explaining {
                for try await step in steps { return step }
                throw APIProblem.unexpected
            }
        }
    }

    func pullImage(_ call: DockerCall) async throws -> Response {
        let given = call.query.text("fromImage") ?? ""
        let tag = call.query.text("tag")
        let login = try call.registryLogin()
        let platform = call.query.text("platform")
        guard let repository = ImageName(given) else { throw Self.invalidReference(given) }
        if tag == nil, repository.digest == nil, !given.dropFirst(repository.repository.count).hasPrefix(":"),
            !Self.hasTag(given)
        {
            return try await pullAll(call, repository, platform, login)
        }
        let name = tag.map { Self.isDigest($0) ? "\(given)@\($0)" : "\(given):\($0)" } ?? given
        guard let parsed = ImageName(name) else { throw Self.invalidReference(name) }
        let before = try? await image(name).digest
        let steps = follow(
            try await master.pullImage(PullImage(image: name, platform: platform, login: login)))
        let refusal = RegistryRefusal(.pull, name, hasLogin: login != nil)
        let first = try await begun(call, steps, refusal)
        return .dockerLines(call.context) { writer in
            let isNew = try await write(first, steps, parsed, before, refusal, writer)
            try await writer.write(Self.outcome(isNew, name))
        }
    }

    /// All tags of a repository, one after another.
    private func pullAll(
        _ call: DockerCall, _ repository: ImageName, _ platform: String?, _ login: RegistryLogin?
    ) async throws -> Response {
        let node = try await master.node(nil)
        let whole = RegistryRefusal(.pull, repository.repository, hasLogin: login != nil)
        let tags = try await whole.explaining {
            try await master.streams(node).json(
                [String].self, .POST, "/registries/tags",
                body: .json(ResolveImage(image: repository.repository, login: login)))
        }
        return .dockerLines(call.context) { writer in
            var isNew = false
            for tag in tags.sorted() {
                let name = "\(repository.repository):\(tag)"
                guard let parsed = ImageName(name) else { continue }
                let before = try? await image(name).digest
                let steps = follow(
                    try await master.pullImage(PullImage(image: name, platform: platform, login: login)))
                let refusal = RegistryRefusal(.pull, name, hasLogin: login != nil)
                let first = try await begun(call, steps, refusal)
                if try await write(first, steps, parsed, before, refusal, writer) { isNew = true }
            }
            try await writer.write(Self.outcome(isNew, repository.repository))
        }
    }

    private static func outcome(_ isNew: Bool, _ name: String) -> ProgressLine {
        ProgressLine(
            status: isNew ? "Status: Downloaded newer image for \(name)" : "Status: Image is up to date for \(name)")
    }

    /// Tells a pull's steps.
    ///
    /// - Parameter before: what the name meant before.
    /// - Returns: whether it means something else now.
    private func write(
        _ first: TransferLine, _ steps: Steps, _ name: ImageName, _ before: String?, _ refusal: RegistryRefusal,
        _ writer: LineWriter
    ) async throws -> Bool {
        // Without the registry.
        let path = Self.full(name.repository).split(separator: "/").dropFirst().joined(separator: "/")
        try await writer.write(
            ProgressLine(status: "Pulling from \(path)", id: name.tag ?? name.digest ?? ""))
        let image = try await tell(first, steps, ProgressLines(.pull), refusal, writer)
        let digest = image.repositoryDigests?.first { $0.hasPrefix("\(name.repository)@") }
            .flatMap { $0.split(separator: "@").last.map(String.init) }
        try await writer.write(ProgressLine(status: "Digest: \(digest ?? image.digest)"))
        return before != image.digest
    }

    private func tell(
        _ first: TransferLine, _ steps: Steps, _ words: ProgressLines, _ refusal: RegistryRefusal, _ writer: LineWriter
    ) async throws -> ImageView {
        var lines = words
        var image = first.image
        if let layer = first.layer { for line in lines.take(layer) { try await writer.write(line) } }
        try await refusal.explaining {
            for try await step in steps {
                if let layer = step.layer { for line in lines.take(layer) { try await writer.write(line) } }
                image = step.image ?? image
            }
        }
        guard let image else { throw APIProblem.unexpected }
        return image
    }

    // MARK: Push

    func pushImage(_ call: DockerCall) async throws -> Response {
        let given = call.id
        guard let parsed = ImageName(given), parsed.digest == nil else { throw Self.invalidReference(given) }
        let login = try call.registryLogin()
        var names = [call.query.text("tag").map { "\(given):\($0)" } ?? given]
        if call.query.text("tag") == nil, !Self.hasTag(given) {
            names = try await master.images().flatMap(\.names).filter { name in
                ImageName(name)?.repository == parsed.repository
            }.sorted()
        }
        guard !names.isEmpty else {
            throw DockerError.notFound("An image does not exist locally with the tag: \(Self.full(parsed.repository))")
        }
        var known: [(name: String, id: String)] = []
        do {
            for name in names { known.append((name, try await image(name).id)) }
        } catch let error as DockerError where error.status == 404 {
            throw DockerError.notFound("An image does not exist locally with the tag: \(Self.full(parsed.repository))")
        }
        let all = known
        return .dockerLines(call.context) { writer in
            try await writer.write(
                ProgressLine(status: "The push refers to repository [\(Self.full(parsed.repository))]"))
            for (name, id) in all {
                let steps = follow(try await master.pushImage(name, PushImage(login: login)))
                let refusal = RegistryRefusal(.push, name, hasLogin: login != nil)
                let first = try await begun(call, steps, refusal)
                let image = try await tell(first, steps, ProgressLines(.push, configuration: id), refusal, writer)
                let tag = ImageName(name)?.tag ?? "latest"
                let size = image.manifestSize ?? 0
                try await writer.write(
                    ProgressLine(status: "\(tag): digest: \(image.digest) size: \(size)"))
                try await writer.write(
                    ProgressLine(
                        progressDetail: .init(), aux: .init(tag: tag, digest: image.digest, size: size)))
            }
        }
    }

    // MARK: Words

    private static func isDigest(_ text: String) -> Bool { ImageName.isDigest(text) }

    /// Whether a name says its tag.
    static func hasTag(_ name: String) -> Bool {
        name.split(separator: "/").last?.contains(":") ?? false
    }

    /// With the registry's name, as Docker has it: `docker.io/library/busybox`.
    static func full(_ repository: String) -> String {
        let parts = repository.split(separator: "/")
        let first = parts.first ?? ""
        if parts.count > 1, first.contains(".") || first.contains(":") || first == "localhost" { return repository }
        return "docker.io/\(parts.count == 1 ? "library/" : "")\(repository)"
    }

    static func invalidReference(_ name: String) -> DockerError {
        .badRequest("invalid reference format: '\(name.prefix(300))' is no name:tag of an image")
    }
}
