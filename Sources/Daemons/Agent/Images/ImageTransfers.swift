import Client
import Images
import JSON
import Kernel
import Logging
import Model
import NIOHTTP1
import Reactor
import Wire

/// Brings images to this node: from registries when a user asks, from other nodes when a task needs one that is not here.
final class ImageTransfers: Sendable {
    private let store: ImageStore
    private let fetcher: ImageFetcher
    private let membership: Membership
    private let configurationPath: String
    private let logger: Logger

    /// - Parameters:
    ///   - configuration: the administrator's file about registries; it is read anew for each transfer, so that a change
    ///     counts at once. When it is not there, nothing is particular about any registry.
    init(
        store: ImageStore, membership: Membership, configuration path: String, pool: BlockingPool, logger: Logger
    ) {
        self.store = store
        self.membership = membership
        configurationPath = path
        self.logger = logger
        fetcher = ImageFetcher(store: store, work: PoolExecutor(pool: pool))
    }

    private struct PoolExecutor: BlockingExecutor {
        let pool: BlockingPool

        func run<Result: Sendable>(_ body: @escaping @Sendable () throws -> Result) async throws -> Result {
            try await pool.run(body)
        }
    }

    private func registry() async throws -> Registry {
        let path = configurationPath
        let configuration = try await fetcher.work.run {
            File.exists(path) ? try RegistryConfiguration(reading: path) : RegistryConfiguration()
        }
        return try Registry(configuration, fetcher: fetcher)
    }

    // MARK: Registries

    func pull(_ wish: PullImage, progress: @escaping TransferProgressHandler) async throws -> ImageRecord {
        let platform = try wish.platform.map { try Self.platform($0) }
        return try await registry().pull(
            ImageReference(wish.image), platform: platform, credentials: try wish.login?.credentials, progress: progress
        )
    }

    func push(_ image: String, _ wish: PushImage, progress: @escaping TransferProgressHandler) async throws {
        try await registry().push(
            image, to: ImageReference(wish.target ?? image), credentials: try wish.login?.credentials,
            progress: progress)
    }

    func login(_ wish: CheckLogin) async throws {
        try await registry().login(wish.registry, credentials: try wish.login.credentials)
    }

    /// What a name stands for at its registry now.
    func resolve(_ wish: ResolveImage) async throws -> RegistryImage {
        let found = try await registry().describe(
            ImageReference(wish.image), credentials: try wish.login?.credentials)
        return RegistryImage(
            mediaType: found.mediaType, digest: found.digest.description, size: Int64(found.size),
            platforms: found.platforms.map { .init(os: $0.os, architecture: $0.architecture, variant: $0.variant) })
    }

    /// The tags that a repository has at its registry.
    func tags(_ wish: ResolveImage) async throws -> [String] {
        try await registry().tags(ImageReference(wish.image), credentials: try wish.login?.credentials)
    }

    func search(_ wish: SearchRegistry) async throws -> [FoundRepository] {
        let found = try await registry().search(
            wish.registry, wish.term, limit: wish.limit, credentials: try wish.login?.credentials)
        return found.map { one in
            FoundRepository(
                name: one.name, description: one.description, stars: one.stars, isOfficial: one.isOfficial,
                isAutomated: one.isAutomated)
        }
    }

    private static func platform(_ text: String) throws -> Images.Platform {
        let parts = text.split(separator: "/", omittingEmptySubsequences: false).map(String.init)
        guard (2...3).contains(parts.count), parts.allSatisfy({ !$0.isEmpty && $0.utf8.count <= 32 }) else {
            throw ImageError(.invalidArgument, "'\(text)' is no platform: write os/architecture, such as linux/arm64")
        }
        return Images.Platform(os: parts[0], architecture: parts[1], variant: parts.count == 3 ? parts[2] : nil)
    }

    // MARK: Other nodes

    /// Makes sure that a task's image is here: fetched by its digest from a node that has it, or from the registry that
    /// its name says.
    ///
    /// - Returns: whether it had to be.
    func ensure(_ digest: String, name: String) async throws -> Bool {
        guard let wanted = Digest(digest) else {
            throw ImageError(.invalidArgument, "the image \(name) has no digest: '\(digest)'")
        }
        let isHere = try await fetcher.work.run { [store] in
            do {
                _ = try store.resolve(digest)
                return true
            } catch let error as ImageError where error.kind == .notFound {
                return false
            }
        }
        if isHere { return false }
        var failures: [String] = []
        do {
            let peers = try await sources(of: digest)
            if !peers.isEmpty {
                try await fetch(wanted, names: [], from: peers)
                return true
            }
            failures.append("no other node that can be reached has it")
        } catch {
            try Task.checkCancellation()
            if let error = error as? ImageError, error.kind == .noSpace { throw error }
            failures.append("\(error)")
        }
        do {
            let reference = try ImageReference(name)
            let pinned = try ImageReference("\(reference.repository)@\(wanted)")
            _ = try await fetcher.fetch(wanted, origins: [pinned], from: try await registry().sources(pinned))
            return true
        } catch {
            try Task.checkCancellation()
            failures.append("\(error)")
            throw ImageError(
                .unavailable,
                "the image \(name) (\(digest)) cannot be brought here: \(failures.joined(separator: "; "))")
        }
    }

    /// Another copy of an image, with its names.
    func replicate(_ wish: FetchImage) async throws -> ImageRecord {
        guard let digest = Digest(wish.digest) else {
            throw ImageError(.invalidArgument, "'\(wish.digest)' is no digest: it has to be sha256:…")
        }
        guard !wish.sources.isEmpty else {
            throw ImageError(.invalidArgument, "no node is named that \(digest) could be fetched from")
        }
        // A name that another image has got here meanwhile stays with that one.
        return try await fetch(
            digest, names: try wish.names.map { try ImageReference($0) }, namedAt: wish.namedAt, from: wish.sources)
    }

    private func sources(of digest: String) async throws -> [ContentSourceView] {
        try await membership.master().json(.GET, "\(APIPaths.images)/\(PercentEncoding.encode(digest))/sources")
    }

    @discardableResult
    private func fetch(
        _ digest: Images.Digest, names: [ImageReference], namedAt: [String: Timestamp]? = nil,
        from peers: [ContentSourceView]
    ) async throws -> ImageRecord {
        // Each node begins elsewhere, so that one does not serve all.
        let sources = try peers.shuffled().map { PeerSource(client: try membership.peer($0), node: $0.name) }
        let image = try await fetcher.fetch(
            digest, names: names, namedAt: namedAt, takesNames: false, from: sources)
        logger.info("image fetched from another node", metadata: ["image": "\(digest)", "bytes": "\(image.size)"])
        return image
    }
}

extension RegistryLogin {
    /// - Throws: `ImageError` for a login that is none.
    fileprivate var credentials: RegistryCredentials {
        get throws {
            if let identityToken, !identityToken.isEmpty { return .identityToken(identityToken) }
            guard let username, let password, !username.isEmpty, !username.contains(":") else {
                throw ImageError(.invalidArgument, "a login takes a user name (without ':') and a password")
            }
            return .password(user: username, password: password)
        }
    }
}

extension TransferLine {
    init(_ progress: TransferProgress) {
        self.init(
            layer: Layer(
                digest: "\(progress.digest)", phase: progress.phase.rawValue, done: Int64(clamping: progress.done),
                total: Int64(clamping: progress.total)))
    }
}
