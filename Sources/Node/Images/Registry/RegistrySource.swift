import AsyncHTTPClient
import NIOHTTP1

/// One repository of a registry or of a mirror, as a source of content (distribution-spec, "Pull").
struct RegistrySource: ContentSource {
    let session: RegistrySession
    /// `library/busybox`, as the reference has it.
    let repository: String

    var name: String { session.endpoint.name }
    /// The path of the repository in the API.
    var path: String { "/v2/\(session.endpoint.prefix)\(repository)" }

    func open(_ digest: Digest, from offset: UInt64) async throws -> ContentStream {
        let subject = "blob \(digest) of \(repository)"
        let headers: HTTPHeaders = offset == 0 ? [:] : ["range": "bytes=\(offset)-"]
        let (response, _) = try await session.send(
            .GET, "\(path)/blobs/\(digest)", headers: headers, accepting: [200, 206, 416], subject)
        let length = response.headers.first(name: "content-length").flatMap { UInt64($0) }
        switch response.status.code {
        case 206 where offset > 0:
            guard Self.start(response.headers) == offset else {
                throw TransferFailure("\(name) sends another part of \(subject) than it was asked for")
            }
            return ContentStream(offset: offset, length: length, bytes: response.body)
        case 200: return ContentStream(offset: 0, length: length, bytes: response.body)
        // Whatever it has is not as long as what it announced; from the beginning it has to say so itself.
        case 416 where offset > 0: return try await open(digest, from: 0)
        default: throw ImageError(.unavailable, "\(name) answers \(response.status.code) for \(subject)")
        }
    }

    /// The first place of `Content-Range: bytes first-last/size` (RFC 9110, section 14.4).
    private static func start(_ headers: HTTPHeaders) -> UInt64? {
        guard let range = headers.first(name: "content-range"), range.hasPrefix("bytes ") else { return nil }
        return UInt64(range.dropFirst(6).prefix { $0 != "-" })
    }

    func document(_ digest: Digest, limit: Int) async throws -> ContentDocument {
        try await manifest("\(digest)", limit: limit).document
    }

    /// Reads a manifest or an index by tag or digest, and checks that it is what the registry says it is.
    func manifest(_ reference: String, limit: Int) async throws -> (document: ContentDocument, digest: Digest) {
        let subject = "manifest \(reference) of \(repository)"
        let (response, _) = try await session.send(
            .GET, "\(path)/manifests/\(reference)", headers: Self.accept, accepting: [200], subject)
        let mediaType = try Self.mediaType(response.headers, "\(subject) from \(name)")
        let bytes = try await RegistryClient.body(response, limit: limit, "\(subject) from \(name)")
        let digest = Digest.of(bytes)
        if let announced = response.headers.first(name: "docker-content-digest"), announced != digest.description {
            throw ImageError(
                .invalidArchive,
                "\(subject) from \(name) is announced as \(printable(String(announced.prefix(100)))), but is \(digest)")
        }
        if let wanted = Digest(reference), wanted != digest {
            throw ImageError(.invalidArchive, "\(subject) from \(name) is in fact \(digest)")
        }
        return (ContentDocument(bytes: bytes, mediaType: mediaType), digest)
    }

    /// What a tag stands for, without reading it where the registry allows that.
    func resolve(_ reference: String, limit: Int) async throws -> (digest: Digest, mediaType: String?) {
        let subject = "manifest \(reference) of \(repository)"
        let (response, _) = try await session.send(
            .HEAD, "\(path)/manifests/\(reference)", headers: Self.accept, accepting: [200, 405], subject)
        if response.status.code == 200, let text = response.headers.first(name: "docker-content-digest"),
            let digest = Digest(text)
        {
            return (digest, try Self.mediaType(response.headers, "\(subject) from \(name)"))
        }
        let read = try await manifest(reference, limit: limit)
        return (read.digest, read.document.mediaType)
    }

    private static let accept = HTTPHeaders(
        (MediaType.indexes.sorted() + MediaType.manifests.sorted()).map { ("accept", $0) })

    /// The announced type without parameters; nil for one that says nothing about images.
    private static func mediaType(_ headers: HTTPHeaders, _ subject: String) throws -> String? {
        guard let header = headers.first(name: "content-type") else { return nil }
        let type = header.prefix { $0 != ";" && $0 != " " }.lowercased()
        if type.hasPrefix("application/vnd.docker.distribution.manifest.v1+") {
            throw ImageError(
                .unsupported,
                "\(subject) is of Docker's schema 1, which is not read here; push the image again with a current tool")
        }
        return type.hasPrefix("application/vnd.") ? type : nil
    }
}
