import AsyncHTTPClient
import JSON
import NIOHTTP1

/// What a registry has under a name, without fetching it.
package struct RegistryDescription: Sendable, Equatable {
    package var mediaType: String
    package var digest: Digest
    /// Bytes of the manifest or index.
    package var size: Int
    package var platforms: [Platform]
}

/// A repository that a search has found.
package struct RegistryFinding: Sendable, Equatable {
    package var name: String
    package var description: String
    package var stars: Int
    package var isOfficial: Bool
    package var isAutomated: Bool
}

extension Registry {
    /// Reads what a name stands for at its registry now, and for which platforms that is.
    ///
    /// - Throws: `ImageError`: notFound, unauthorized, unavailable, unsupported, invalidArchive; `CancellationError`.
    package func describe(
        _ reference: ImageReference, credentials: RegistryCredentials? = nil
    ) async throws -> RegistryDescription {
        let wanted = reference.digest.map { "\($0)" } ?? reference.tag ?? ""
        let limits = fetcher.store.limits
        return try await ImageError.explaining("resolving \(reference.familiar)") {
            try await SourceList(repositories(reference, credentials: credentials)).first {
                [client] source, isLast in
                try await client.settings.fewerTries(unless: isLast).retrying {
                    let (document, digest) = try await source.manifest(wanted, limit: limits.documentBytes)
                    let value = try Document.parse(document.bytes, name: "manifest \(digest)", limits: limits)
                    var platforms: [Platform] = []
                    if value["manifests"] != nil {
                        let index = try ImageIndexDocument(
                            document.bytes, announced: document.mediaType, name: "index \(digest)", limits: limits)
                        platforms = index.manifests.compactMap(\.target)
                    } else {
                        let manifest = try ImageManifest(
                            document.bytes, announced: document.mediaType, digest: digest, limits: limits)
                        let name = "configuration \(manifest.config.digest)"
                        let bytes = try await source.open(manifest.config.digest, from: 0).collect(
                            limit: limits.documentBytes, name)
                        guard Digest.of(bytes) == manifest.config.digest else {
                            throw ImageError(.invalidArchive, "the \(name) from \(source.name) is something else")
                        }
                        let config = try ImageConfigDocument(
                            bytes, layers: manifest.layers.count, name: name, limits: limits)
                        platforms = [config.platform]
                    }
                    return RegistryDescription(
                        mediaType: document.mediaType ?? value["mediaType"]?.stringValue ?? MediaType.manifest,
                        digest: digest, size: document.bytes.count, platforms: platforms)
                }
            }
        }
    }

    private struct Tags: Decodable {
        var tags: [String]?
    }

    /// Tags of one repository that are listed at most.
    private static let mostTags = 1000

    /// All tags of a repository (distribution-spec, "Listing Tags").
    ///
    /// - Throws: `ImageError`: notFound, unauthorized, unavailable, limitExceeded; `CancellationError`.
    package func tags(
        _ reference: ImageReference, credentials: RegistryCredentials? = nil
    ) async throws -> [String] {
        let subject = "the tags of \(reference.path)"
        return try await ImageError.explaining("listing \(subject)") {
            try await SourceList(repositories(reference, credentials: credentials)).first {
                [client] source, isLast in
                try await client.settings.fewerTries(unless: isLast).retrying {
                    let (response, _) = try await source.session.send(
                        .GET, "\(source.path)/tags/list?n=\(Self.mostTags + 1)", accepting: [200], subject)
                    let bytes = try await RegistryClient.body(response, limit: 1 << 20, subject)
                    let tags = try JSONCoding.decode(Tags.self, from: bytes).tags ?? []
                    guard tags.count <= Self.mostTags, response.headers.first(name: "link") == nil else {
                        throw ImageError(
                            .limitExceeded, "\(source.name) has more than \(Self.mostTags) tags of \(reference.path)")
                    }
                    return tags
                }
            }
        }
    }

    private struct Findings: Decodable {
        struct Finding: Decodable {
            var name: String
            var description: String?
            var star_count: Int?
            var is_official: Bool?
            var is_automated: Bool?
        }
        var results: [Finding]?
    }

    /// Docker Hub answers searches elsewhere than its API.
    private static let hubSearch = "index.docker.io"

    /// Searches repositories, where a registry has Docker's first search endpoint, `/v1/search`.
    ///
    /// - Parameter host: as in image names.
    /// - Throws: `ImageError`: unsupported where the registry knows no search; unauthorized, unavailable;
    ///   `CancellationError`.
    package func search(
        _ host: String, _ term: String, limit: Int, credentials: RegistryCredentials? = nil
    ) async throws -> [RegistryFinding] {
        let mirrors = try configuration.endpoints(of: host).filter(\.isMirror)
        let own = try configuration.endpoint(host == "docker.io" ? Self.hubSearch : host)
        let stored = try await storedLogins()
        var failure: (any Error)?
        for endpoint in mirrors + [own] {
            let login = endpoint.isMirror ? nil : credentials
            let session = RegistrySession(
                endpoint, client: client, credentials: try login ?? stored?.credentials(for: endpoint.name), scopes: [])
            do {
                return try await client.settings.fewerTries(unless: endpoint == own).retrying {
                    let subject = "a search"
                    let (response, _) = try await session.send(
                        .GET, "/v1/search?q=\(RegistryURL.encoded(term))&n=\(limit)", accepting: [200], subject)
                    let bytes = try await RegistryClient.body(response, limit: 4 << 20, subject)
                    let found = try JSONCoding.decode(Findings.self, from: bytes).results ?? []
                    return found.prefix(limit).map { one in
                        RegistryFinding(
                            name: one.name, description: one.description ?? "", stars: one.star_count ?? 0,
                            isOfficial: one.is_official ?? false, isAutomated: one.is_automated ?? false)
                    }
                }
            } catch let error as ImageError where error.kind == .notFound {
                failure =
                    failure ?? ImageError(.unsupported, "the registry \(endpoint.name) cannot be searched: \(error)")
            } catch let error as JSONError {
                failure = ImageError(.unavailable, "\(endpoint.name) answers a search with something else: \(error)")
            } catch {
                try Task.checkCancellation()
                failure = error
            }
        }
        throw failure ?? ImageError(.unavailable, "no registry was asked")
    }
}
