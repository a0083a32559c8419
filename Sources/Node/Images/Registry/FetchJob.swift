import JSON

/// One fetch of an image: which manifest it is, its configuration, and its layers.
struct FetchJob: Sendable {
    let fetcher: ImageFetcher
    let sources: SourceList<any ContentSource>
    let settings: TransferSettings
    let progress: TransferProgressHandler?

    private var limits: ImageLimits { fetcher.store.limits }

    /// A platform's manifest as it was found.
    struct FoundManifest: Sendable {
        var digest: Digest
        var bytes: [UInt8]
        var manifest: ImageManifest
    }

    /// Indexes within each other, and all documents that are read for one image.
    private static let bounds = (depth: 4, documents: 32)

    /// Goes from a manifest or an index to the manifest of a platform.
    func manifest(
        _ root: Digest, document: ContentDocument?, platform: Platform?
    ) async throws -> FoundManifest {
        var search = Search(platform: platform ?? .host)
        guard let found = try await self.search(root, document, announced: nil, size: nil, depth: 0, &search) else {
            let offered = search.others.sorted().prefix(32).joined(separator: ", ")
            throw ImageError(
                .unsupported, "\(root) has no image for \(search.platform); it has \(printable(offered))")
        }
        let layers = found.manifest.layers
        let total = layers.reduce((sum: UInt64(0), overflow: false)) { sum, layer in
            let (value, overflow) = sum.sum.addingReportingOverflow(layer.size)
            return (value, sum.overflow || overflow)
        }
        guard !total.overflow, total.sum <= limits.archiveBytes else {
            throw ImageError(
                .limitExceeded, "the layers of \(found.digest) have more than the \(limits.archiveBytes) bytes allowed")
        }
        return found
    }

    private struct Search {
        let platform: Platform
        var others: Set<String> = []
        var documents = 0
    }

    private func search(
        _ digest: Digest, _ known: ContentDocument?, announced: String?, size: UInt64?, depth: Int,
        _ search: inout Search
    ) async throws -> FoundManifest? {
        search.documents += 1
        guard depth < Self.bounds.depth, search.documents <= Self.bounds.documents else {
            throw ImageError(.limitExceeded, "the index \(digest) leads through too many others")
        }
        var document: ContentDocument
        if let known { document = known } else { document = try await self.document(digest) }
        guard Digest.of(document.bytes) == digest, size == nil || size == UInt64(document.bytes.count) else {
            throw ImageError(
                .invalidArchive,
                "the manifest \(digest) is in fact \(Digest.of(document.bytes)) of \(document.bytes.count) bytes")
        }
        let type = announced ?? document.mediaType
        let name = "manifest \(digest)"
        guard try Self.isIndex(document.bytes, type, name, limits) else {
            let manifest = try ImageManifest(document.bytes, announced: type, digest: digest, limits: limits)
            return FoundManifest(digest: digest, bytes: document.bytes, manifest: manifest)
        }
        let index = try ImageIndexDocument(document.bytes, announced: type, name: name, limits: limits)
        for entry in index.manifests {
            if let target = entry.target, !search.platform.accepts(target) {
                search.others.insert("\(target)")
                continue
            }
            // Signatures and the like may stand beside images.
            guard MediaType.manifests.contains(entry.mediaType) || MediaType.indexes.contains(entry.mediaType) else {
                search.others.insert(entry.mediaType)
                continue
            }
            let found = try await self.search(
                entry.digest, nil, announced: entry.mediaType, size: entry.size, depth: depth + 1, &search)
            if let found { return found }
        }
        return nil
    }

    /// What a document is, by its announced type or, where that says nothing, by what is in it.
    private static func isIndex(_ bytes: [UInt8], _ type: String?, _ name: String, _ limits: ImageLimits) throws -> Bool
    {
        if let type {
            if MediaType.indexes.contains(type) { return true }
            if MediaType.manifests.contains(type) { return false }
        }
        return try Document.parse(bytes, name: name, limits: limits)["manifests"] != nil
    }

    private func document(_ digest: Digest) async throws -> ContentDocument {
        if let known = try await fetcher.stored(digest) { return known }
        return try await sources.first { source, isLast in
            try await settings.fewerTries(unless: isLast).retrying {
                let document = try await settings.promptly("the manifest \(digest) from \(source.name)") {
                    try await source.document(digest, limit: limits.documentBytes)
                }
                guard Digest.of(document.bytes) == digest else {
                    throw ImageError(
                        .invalidArchive,
                        "\(source.name) sends something else than \(digest): it is \(Digest.of(document.bytes))")
                }
                return document
            }
        }
    }

    /// Reads the configuration, which is small, into memory.
    func config(
        of manifest: ImageManifest, platform: Platform?
    ) async throws -> (document: ImageConfigDocument, bytes: [UInt8]) {
        let (digest, size) = (manifest.config.digest, manifest.config.size)
        let name = "configuration \(digest)"
        guard size <= UInt64(limits.documentBytes) else {
            throw ImageError(
                .limitExceeded, "\(name) has \(size) bytes, over the \(limits.documentBytes) allowed")
        }
        let bytes: [UInt8]
        if let known = try await fetcher.stored(digest) {
            bytes = known.bytes
        } else {
            bytes = try await sources.first { source, isLast in
                try await settings.fewerTries(unless: isLast).retrying {
                    let subject = "\(name) from \(source.name)"
                    let bytes = try await settings.promptly(subject) {
                        try await source.open(digest, from: 0).collect(limit: Int(size), subject)
                    }
                    guard Digest.of(bytes) == digest else {
                        throw ImageError(
                            .invalidArchive,
                            "\(source.name) sends something else than \(digest): it is \(Digest.of(bytes))")
                    }
                    return bytes
                }
            }
        }
        let config = try ImageConfigDocument(bytes, layers: manifest.layers.count, name: name, limits: limits)
        if let platform, !platform.accepts(config.platform) {
            throw ImageError(.unsupported, "the image is for \(config.platform), not for \(platform)")
        }
        return (config, bytes)
    }

    private enum Step: Sendable {
        case downloaded(Digest)
        case unpacked(diffID: Digest, size: UInt64)
    }

    /// Fetches the layers, some at once, and unpacks each as soon as it and those below it are there.
    ///
    /// - Returns: the bytes of the tars, by their digests.
    func layers(_ manifest: ImageManifest, diffIDs: [Digest], chain: [Digest]) async throws -> [Digest: UInt64] {
        try await withThrowingTaskGroup(of: Step.self) { group in
            var waiting: [Descriptor] = []
            var seen: Set<Digest> = []
            for layer in manifest.layers where seen.insert(layer.digest).inserted { waiting.append(layer) }
            waiting.reverse()
            let download = { (group: inout ThrowingTaskGroup<Step, any Error>) in
                guard let layer = waiting.popLast() else { return }
                group.addTask {
                    try await fetcher.download(layer, from: sources, settings: settings, progress: progress)
                    return .downloaded(layer.digest)
                }
            }
            for _ in 0..<settings.parallel { download(&group) }
            var arrived: Set<Digest> = []
            var sizes: [Digest: UInt64] = [:]
            var next = 0
            var isUnpacking = false
            while next < manifest.layers.count || isUnpacking {
                if !isUnpacking, next < manifest.layers.count, arrived.contains(manifest.layers[next].digest) {
                    let (layer, diffID, below) = (manifest.layers[next], diffIDs[next], Array(chain[...next]))
                    isUnpacking = true
                    next += 1
                    group.addTask {
                        let size = try await fetcher.unpack(layer, diffID: diffID, chain: below, progress: progress)
                        progress?(
                            TransferProgress(digest: layer.digest, phase: .done, done: layer.size, total: layer.size))
                        return .unpacked(diffID: diffID, size: size)
                    }
                }
                switch try await group.next() {
                case .downloaded(let digest):
                    arrived.insert(digest)
                    download(&group)
                case .unpacked(let diffID, let size):
                    sizes[diffID] = size
                    isUnpacking = false
                case nil: throw ImageError(.system, "the layers cannot be put in order")
                }
            }
            return sizes
        }
    }
}
