import Glibc
import NIOCore

/// Registries: pull, push and logins (OCI distribution-spec 1.1; Docker's schema 2).
///
/// Whoever calls may give credentials; otherwise Docker's configuration file is asked, each time anew, so that a login
/// counts at once. Given credentials go to the registry that the reference names, never to its mirrors.
package final class Registry: Sendable {
    package let configuration: RegistryConfiguration
    let fetcher: ImageFetcher
    let client: RegistryClient

    /// - Parameters:
    ///   - fetcher: checks and stores what comes; its settings hold where the configuration says nothing.
    ///   - variable: the environment, for proxies; nil for this process's own.
    /// - Throws: `ImageError`: invalidArgument for a configuration that contradicts itself, unsupported for a proxy of
    ///   another kind than http.
    package init(
        _ configuration: RegistryConfiguration = RegistryConfiguration(), fetcher: ImageFetcher,
        variable: ((String) -> String?)? = nil
    ) throws {
        try configuration.validate()
        self.configuration = configuration
        self.fetcher = fetcher
        client = RegistryClient(
            configuration: configuration, settings: fetcher.settings.with(configuration),
            proxies: try ProxySettings(variable ?? { getenv($0).map { String(cString: $0) } }))
    }

    /// Pulls an image: from the mirrors, in order, and then from the registry itself.
    ///
    /// A reference with a digest is pulled by it, and its tag is not looked at; the image then gets no name. Layers that
    /// are in the store are not fetched, and what an earlier try left is continued.
    ///
    /// - Parameters:
    ///   - platform: which image of an index; nil for this machine's. An image that is in no index is checked against it
    ///     only when it is given.
    /// - Throws: `ImageError`: notFound, unauthorized, unavailable, unsupported, invalidArchive, limitExceeded, noSpace,
    ///   system; `CancellationError`. The catalog is as it was then.
    package func pull(
        _ reference: ImageReference, platform: Platform? = nil, credentials: RegistryCredentials? = nil,
        progress: TransferProgressHandler? = nil
    ) async throws -> ImageRecord {
        try await ImageError.explaining("pulling \(reference.familiar)") {
            let sources = try await repositories(reference, credentials: credentials)
            let root: (document: ContentDocument, digest: Digest)
            if let digest = reference.digest, let known = try await fetcher.stored(digest) {
                root = (known, digest)
            } else {
                let wanted = reference.digest.map { "\($0)" } ?? reference.tag ?? ""
                root = try await SourceList(sources).first { [fetcher, client] source, isLast in
                    try await client.settings.fewerTries(unless: isLast).retrying {
                        try await client.settings.promptly("the manifest \(wanted) from \(source.name)") {
                            try await source.manifest(wanted, limit: fetcher.store.limits.documentBytes)
                        }
                    }
                }
            }
            return try await fetcher.fetch(
                root.digest, document: root.document, platform: platform,
                names: reference.digest == nil ? [reference] : [],
                origins: [try ImageReference("\(reference.repository)@\(root.digest)")], from: sources,
                settings: client.settings, progress: progress)
        }
    }

    /// Where the content of a repository is: its mirrors and the registry itself, for `ImageFetcher.fetch`.
    package func sources(
        _ reference: ImageReference, credentials: RegistryCredentials? = nil
    ) async throws -> [any ContentSource] {
        try await repositories(reference, credentials: credentials)
    }

    func repositories(
        _ reference: ImageReference, credentials: RegistryCredentials?
    ) async throws -> [RegistrySource] {
        let scopes = { (endpoint: RegistryEndpoint) in ["repository:\(endpoint.prefix)\(reference.path):pull"] }
        let stored = try await storedLogins()
        return try configuration.endpoints(of: reference.domain).map { endpoint in
            let own =
                endpoint.isMirror
                ? try stored?.credentials(for: endpoint.name)
                : try credentials ?? stored?.credentials(for: endpoint.name)
            let session = RegistrySession(endpoint, client: client, credentials: own, scopes: scopes(endpoint))
            return RegistrySource(session: session, repository: reference.path)
        }
    }

    /// What a reference stands for at its registry now, without fetching it.
    ///
    /// - Throws: `ImageError`: notFound, unauthorized, unavailable; `CancellationError`.
    package func resolve(
        _ reference: ImageReference, credentials: RegistryCredentials? = nil
    ) async throws -> (digest: Digest, mediaType: String?) {
        let wanted = reference.digest.map { "\($0)" } ?? reference.tag ?? ""
        return try await ImageError.explaining("resolving \(reference.familiar)") {
            try await SourceList(repositories(reference, credentials: credentials)).first {
                [fetcher, client] source, isLast in
                try await client.settings.fewerTries(unless: isLast).retrying {
                    try await source.resolve(wanted, limit: fetcher.store.limits.documentBytes)
                }
            }
        }
    }

    /// Checks that a registry answers and takes the credentials, or the stored ones where none are given.
    ///
    /// - Parameter host: `host[:port]` as in image names; `docker.io` for Docker Hub.
    /// - Throws: `ImageError`: unauthorized, unavailable, invalidArgument; `CancellationError`.
    package func login(_ host: String, credentials: RegistryCredentials? = nil) async throws {
        let endpoint = try configuration.endpoint(host)
        let stored = try await storedLogins()
        let own = try credentials ?? stored?.credentials(for: host)
        let session = RegistrySession(endpoint, client: client, credentials: own, scopes: [])
        try await client.settings.retrying { try await session.ping() }
    }

    func storedLogins() async throws -> DockerLogins? {
        guard let path = configuration.dockerConfig else { return nil }
        return try await fetcher.work.run { try DockerLogins(reading: path) }
    }
}

extension TransferSettings {
    /// Where there is another source to ask, it is asked after two tries.
    func fewerTries(unless isLast: Bool) -> TransferSettings {
        var settings = self
        if !isLast { settings.attempts = min(attempts, 2) }
        return settings
    }
}
