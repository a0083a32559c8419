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
    private func begun(_ call: DockerCall, _ steps: Steps, _ name: String) async throws -> TransferLine? {
        try await call.context.untilPeerCloses {
            do {
                for try await step in steps { return step }
                return nil
            } catch let error as ClientError {
                throw Self.refusal(error, name)
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
        guard let first = try await begun(call, steps, name) else { throw APIProblem.unexpected }
        return .dockerLines(call.context) { writer in
            try await write(first, steps, parsed, before, writer)
        }
    }

    /// All tags of a repository, one after another.
    private func pullAll(
        _ call: DockerCall, _ repository: ImageName, _ platform: String?, _ login: RegistryLogin?
    ) async throws -> Response {
        let node = try await master.node(nil)
        let tags = try await master.streams(node).json(
            [String].self, .POST, "/registries/tags",
            body: .json(ResolveImage(image: repository.repository, login: login)))
        return .dockerLines(call.context) { writer in
            for tag in tags.sorted() {
                let name = "\(repository.repository):\(tag)"
                guard let parsed = ImageName(name) else { continue }
                let before = try? await image(name).digest
                let steps = follow(
                    try await master.pullImage(PullImage(image: name, platform: platform, login: login)))
                guard let first = try await begun(call, steps, name) else { throw APIProblem.unexpected }
                try await write(first, steps, parsed, before, writer)
            }
        }
    }

    /// Tells a pull's steps.
    ///
    /// - Parameter before: what the name meant before.
    private func write(
        _ first: TransferLine, _ steps: Steps, _ name: ImageName, _ before: String?, _ writer: LineWriter
    ) async throws {
        let origin = Self.full(name.repository)
        let path = origin.hasPrefix("docker.io/") ? String(origin.dropFirst(10)) : name.repository
        try await writer.write(
            ProgressLine(status: "Pulling from \(path)", id: name.tag ?? name.digest ?? ""))
        let image = try await tell(first, steps, .pull, "\(name)", writer)
        let digest = image.repositoryDigests?.first { $0.hasPrefix("\(name.repository)@") }
            .flatMap { $0.split(separator: "@").last.map(String.init) }
        try await writer.write(ProgressLine(status: "Digest: \(digest ?? image.digest)"))
        let isNew = before != image.digest
        try await writer.write(
            ProgressLine(
                status: isNew
                    ? "Status: Downloaded newer image for \(name)" : "Status: Image is up to date for \(name)"))
    }

    private func tell(
        _ first: TransferLine, _ steps: Steps, _ direction: ProgressLines.Direction, _ name: String,
        _ writer: LineWriter
    ) async throws -> ImageView {
        var lines = ProgressLines(direction)
        var image = first.image
        if let layer = first.layer { for line in lines.take(layer) { try await writer.write(line) } }
        do {
            for try await step in steps {
                if let layer = step.layer { for line in lines.take(layer) { try await writer.write(line) } }
                image = step.image ?? image
            }
        } catch let error as ClientError {
            throw Self.refusal(error, name)
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
        let all = names
        do {
            for name in all { _ = try await image(name) }
        } catch let error as DockerError where error.status == 404 {
            throw DockerError.notFound("An image does not exist locally with the tag: \(Self.full(parsed.repository))")
        }
        return .dockerLines(call.context) { writer in
            try await writer.write(
                ProgressLine(status: "The push refers to repository [\(Self.full(parsed.repository))]"))
            for name in all {
                let steps = follow(try await master.pushImage(name, PushImage(login: login)))
                guard let first = try await begun(call, steps, name) else { throw APIProblem.unexpected }
                let image = try await tell(first, steps, .push, name, writer)
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

    /// An agent's refusal in Docker's words.
    private static func refusal(_ error: ClientError, _ name: String) -> DockerError {
        let repository = ImageName(name)?.repository ?? name
        switch error.code {
        case "not-found": return .notFound("manifest for \(name) not found: manifest unknown: \(error.message)")
        case "registry-login":
            return .notFound(
                "pull access denied for \(repository), repository does not exist or may require 'docker login': denied: "
                    + error.message)
        case "bad-request", "unknown-field": return .badRequest(error.message)
        case "conflict": return .conflict(error.message)
        default: return DockerError(error.status ?? 500, error.message)
        }
    }
}
