import AsyncHTTPClient
import Glibc
import JSON
import Kernel
import NIOCore
import NIOHTTP1

extension Registry {
    /// Pushes an image, with its blobs as they are stored. What the registry has is not sent again, and what it has in
    /// another repository that the image came from is mounted from there.
    ///
    /// - Parameters:
    ///   - image: as `ImageStore.resolve` takes it.
    ///   - target: where to; its tag is set. A digest is refused, since it follows from the image.
    /// - Returns: the digest under which the registry has the manifest.
    /// - Throws: `ImageError`: notFound, invalidArgument, unauthorized, unavailable, corrupted; `CancellationError`.
    @discardableResult
    package func push(
        _ image: String, to target: ImageReference, credentials: RegistryCredentials? = nil,
        progress: TransferProgressHandler? = nil
    ) async throws -> Digest {
        guard target.digest == nil, let tag = target.tag else {
            throw ImageError(.invalidArgument, "'\(target.familiar)' has a digest; an image is pushed to a tag")
        }
        return try await ImageError.explaining("pushing \(target.familiar)") {
            let record = try fetcher.store.resolve(image)
            let items = try await fetcher.work.run { [fetcher] in try fetcher.store.content(of: record.digest) }
            // Where the registry may have it already; a token for more repositories than that is nobody's business.
            let from = (record.origins ?? []).first { $0.domain == target.domain && $0.path != target.path }?.path
            let scopes =
                ["repository:\(target.path):pull,push"] + (from.map { ["repository:\($0):pull"] } ?? [])
            let stored = try await storedLogins()
            let own = try credentials ?? stored?.credentials(for: target.domain)
            let session = RegistrySession(
                try configuration.endpoint(target.domain), client: client, credentials: own, scopes: scopes)
            let job = PushJob(
                session: session, repository: target.path, mountFrom: from, fetcher: fetcher, progress: progress)
            return try await fetcher.store.pinning(record.blobs) {
                try await job.blobs(items.filter { $0.digest != record.digest })
                try await job.manifest(record.digest, tag: tag)
                return record.digest
            }
        }
    }
}

/// One push: uploads blobs, some at once, and then the manifest (distribution-spec, "Push").
private struct PushJob: Sendable {
    let session: RegistrySession
    let repository: String
    let mountFrom: String?
    let fetcher: ImageFetcher
    let progress: TransferProgressHandler?

    private var path: String { "/v2/\(repository)" }
    private var settings: TransferSettings { session.client.settings }

    func blobs(_ items: [ContentItem]) async throws {
        try await withThrowingTaskGroup(of: Void.self) { group in
            var waiting = items[...]
            for _ in 0..<settings.parallel {
                if let item = waiting.popFirst() { group.addTask { try await blob(item) } }
            }
            while try await group.next() != nil {
                if let item = waiting.popFirst() { group.addTask { try await blob(item) } }
            }
        }
    }

    private func blob(_ item: ContentItem) async throws {
        let subject = "blob \(item.digest) of \(repository)"
        let phase: TransferProgress.Phase
        if try await has(item, subject) {
            phase = .present
        } else {
            // Each try begins with a new upload, and with asking again whether an earlier one got through after all.
            phase = try await settings.retrying {
                if let start = try await begin(item, subject) {
                    try await upload(item, to: start, subject)
                    return .done
                }
                return .present
            }
        }
        progress?(TransferProgress(digest: item.digest, phase: phase, done: item.size, total: item.size))
    }

    private func has(_ item: ContentItem, _ subject: String) async throws -> Bool {
        try await settings.retrying {
            let (response, _) = try await session.send(
                .HEAD, "\(path)/blobs/\(item.digest)", accepting: [200, 404], subject)
            return response.status.code == 200
        }
    }

    /// Begins an upload, or has the blob mounted from where the registry has it.
    ///
    /// - Returns: where to upload to; nil when that is not needed any more.
    private func begin(_ item: ContentItem, _ subject: String) async throws -> RegistryURL? {
        var target = "\(path)/blobs/uploads/"
        if let mountFrom { target += "?mount=\(item.digest)&from=\(RegistryURL.encoded(mountFrom))" }
        let (response, url) = try await session.send(
            .POST, target, headers: ["content-length": "0"], accepting: [201, 202], subject)
        return response.status.code == 201 ? nil : try session.next(response.headers, from: url, subject)
    }

    private func upload(_ item: ContentItem, to start: RegistryURL, _ subject: String) async throws {
        let content = try await fetcher.work.run { [fetcher] in try fetcher.store.openContent(item.digest) }
        guard item.size > UInt64(settings.chunkBytes) else {
            return try await put(content, item, 0, at: start, subject)
        }
        var place: (url: RegistryURL, offset: UInt64) = (start, 0)
        var attempt = 1
        while item.size - place.offset > UInt64(settings.chunkBytes) {
            do {
                place = try await chunk(content, item, at: place, subject)
                attempt = 1
            } catch let failure as TransferFailure {
                try await settings.wait(after: failure, attempt: attempt)
                attempt += 1
                place = try await resumed(place.url, size: item.size, subject)
            }
        }
        try await put(content, item, place.offset, at: place.url, subject)
    }

    /// Sends one piece of a large blob.
    private func chunk(
        _ content: StoredContent, _ item: ContentItem, at place: (url: RegistryURL, offset: UInt64), _ subject: String
    ) async throws -> (url: RegistryURL, offset: UInt64) {
        let end = min(item.size, place.offset + UInt64(settings.chunkBytes))
        let headers: HTTPHeaders = [
            "content-type": "application/octet-stream", "content-range": "\(place.offset)-\(end - 1)",
        ]
        let (response, url) = try await session.send(
            .PATCH, at: place.url, headers: headers, body: body(content, item, place.offset..<end),
            accepting: [202], subject)
        return (try session.next(response.headers, from: url, subject), end)
    }

    /// Asks how much of an upload has arrived.
    private func resumed(
        _ url: RegistryURL, size: UInt64, _ subject: String
    ) async throws -> (url: RegistryURL, offset: UInt64) {
        let (response, asked) = try await session.send(.GET, at: url, accepting: [204], subject)
        // Without a byte there is no range, or "0-0", which some registries say for one byte as well.
        let last = response.headers.first(name: "range").flatMap { range in
            range.split(separator: "-").last.flatMap { UInt64($0) }
        }
        let offset = last.map { $0 == 0 ? 0 : $0 + 1 } ?? 0
        guard offset <= size else {
            throw ImageError(.unavailable, "\(session.endpoint.name) has more of \(subject) than there is")
        }
        return (try session.next(response.headers, from: asked, subject), offset)
    }

    /// Sends the rest of a blob and ends its upload.
    private func put(
        _ content: StoredContent, _ item: ContentItem, _ offset: UInt64, at url: RegistryURL, _ subject: String
    ) async throws {
        var headers: HTTPHeaders = ["content-type": "application/octet-stream"]
        if offset > 0 { headers.add(name: "content-range", value: "\(offset)-\(item.size - 1)") }
        _ = try await session.send(
            .PUT, at: url.adding("digest", "\(item.digest)"), headers: headers,
            body: body(content, item, offset..<item.size), accepting: [201, 202, 204], subject)
    }

    private func body(
        _ content: StoredContent, _ item: ContentItem, _ range: Range<UInt64>
    ) -> RegistryClient.Body {
        let (work, progress) = (fetcher.work, progress)
        return RegistryClient.Body {
            .stream(
                FileBytes(content: content, item: item, range: range, work: work, progress: progress),
                length: .known(Int64(range.count)))
        }
    }

    func manifest(_ digest: Digest, tag: String) async throws {
        let limit = fetcher.store.limits.documentBytes
        let bytes = try await fetcher.work.run { [fetcher] in try fetcher.store.blobs.read(digest, limit: limit) }
        let own = try Document.parse(bytes, name: "manifest \(digest)", limits: fetcher.store.limits)["mediaType"]
        let type = own?.stringValue ?? MediaType.manifest
        let subject = "manifest \(tag) of \(repository)"
        let response = try await settings.retrying {
            try await session.send(
                .PUT, "\(path)/manifests/\(tag)", headers: ["content-type": type],
                body: .init { .bytes(ByteBuffer(bytes: bytes)) }, accepting: [201], subject
            ).response
        }
        if let answer = response.headers.first(name: "docker-content-digest"), answer != digest.description {
            throw ImageError(
                .unavailable,
                "\(session.endpoint.name) stored \(subject) as \(printable(String(answer.prefix(100)))), not as \(digest)"
            )
        }
    }
}

/// A part of a stored blob, read in pieces as the connection takes them.
private struct FileBytes: AsyncSequence, Sendable {
    typealias Element = ByteBuffer

    let content: StoredContent
    let item: ContentItem
    let range: Range<UInt64>
    let work: any BlockingExecutor
    let progress: TransferProgressHandler?

    struct AsyncIterator: AsyncIteratorProtocol {
        let bytes: FileBytes
        var offset: UInt64

        mutating func next() async throws -> ByteBuffer? {
            guard offset < bytes.range.upperBound else { return nil }
            let (file, start) = (bytes.content.file, offset)
            let count = Int(Swift.min(bytes.range.upperBound - start, 1 << 20))
            let digest = bytes.item.digest
            let piece = try await bytes.work.run {
                var buffer = ByteBufferAllocator().buffer(capacity: count)
                // One read may bring less than was asked for.
                while buffer.readableBytes < count {
                    let place = off_t(start) + off_t(buffer.readableBytes)
                    let got = try buffer.writeWithUnsafeMutableBytes(minimumWritableBytes: count - buffer.readableBytes)
                    {
                        space in
                        let wanted = Swift.min(space.count, count)
                        return try systemCall("pread", "blob \(digest)") {
                            pread(file.raw, space.baseAddress, wanted, place)
                        }
                    }
                    guard got > 0 else {
                        throw ImageError(
                            .corrupted, "the content \(digest) is shorter than it was; pull the image again")
                    }
                }
                return buffer.getSlice(at: buffer.readerIndex, length: count) ?? buffer
            }
            offset += UInt64(count)
            bytes.progress?(
                TransferProgress(digest: digest, phase: .uploading, done: offset, total: bytes.item.size))
            return piece
        }
    }

    func makeAsyncIterator() -> AsyncIterator { AsyncIterator(bytes: self, offset: range.lowerBound) }
}
