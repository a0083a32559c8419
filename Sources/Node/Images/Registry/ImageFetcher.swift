import Glibc
import JSON
import Kernel
import Synchronization

/// Fetches images by digest from wherever they are into a store: in parallel, continued after cuts, and with everything
/// checked before it counts. One for each store.
package final class ImageFetcher: Sendable {
    package let store: ImageStore
    /// Where its blocking calls run.
    package let work: any BlockingExecutor
    /// Where a fetch does not bring its own.
    package let settings: TransferSettings
    /// Pulls of the same content do it once: a blob's download by its digest, a layer's unpacking by its chain id.
    private let downloading = KeyedLock<Digest>()
    private let unpacking = KeyedLock<Digest>()
    /// Unpacking holds a thread for long, so that many pulls at once would leave none for what arrives.
    private let unpackers = KeyedLock<Int>(holders: 2)
    /// Each download holds a few mebibytes, so that many pulls at once share this many.
    private let downloaders = KeyedLock<Int>(holders: 16)
    /// Bytes of tars that were unpacked here, by their digest; an image of the catalog knows its own.
    private let unpackedSizes = Mutex<[Digest: UInt64]>([:])

    package init(store: ImageStore, work: any BlockingExecutor, settings: TransferSettings = TransferSettings()) {
        self.store = store
        self.work = work
        self.settings = settings
    }

    /// Fetches an image and puts it into the catalog. What it needs is kept from garbage collection meanwhile.
    ///
    /// - Parameters:
    ///   - root: of a manifest or an index.
    ///   - document: what `root` stands for, where it is there already.
    ///   - platform: see `Registry.pull`.
    ///   - names: that the image has then.
    ///   - namedAt: when it was given them, where that is not now.
    ///   - takesNames: they are taken from images that have them; otherwise the image gets those that are free.
    ///   - origins: `repository@digest` where it comes from; the one of the platform's manifest is added.
    ///   - sources: asked in this order.
    ///   - settings: nil for the fetcher's own.
    /// - Throws: `ImageError`, `CancellationError`; the catalog is as it was then.
    package func fetch(
        _ root: Digest, document: ContentDocument? = nil, platform: Platform? = nil, names: [ImageReference] = [],
        namedAt: [String: Timestamp]? = nil, takesNames: Bool = true, origins: [ImageReference] = [],
        from sources: [any ContentSource],
        settings: TransferSettings? = nil,
        progress: TransferProgressHandler? = nil
    ) async throws -> ImageRecord {
        let name = (names + origins).first?.familiar ?? "\(root)"
        return try await ImageError.explaining("fetching the image \(name) into \(store.root)") {
            let job = FetchJob(
                fetcher: self, sources: SourceList(sources), settings: settings ?? self.settings, progress: progress)
            let found = try await job.manifest(root, document: document, platform: platform)
            let manifest = found.manifest
            let origins = try origins + origins.map { try ImageReference("\($0.repository)@\(found.digest)") }
            let blobs = Array(Set([found.digest, manifest.config.digest] + manifest.layers.map(\.digest)))
            do {
                return try await store.pinning(blobs) {
                    let (config, bytes) = try await job.config(of: manifest, platform: platform)
                    let chain = ChainID.all(config.diffIDs)
                    return try await store.pinning(chain) {
                        let sizes = try await job.layers(manifest, diffIDs: config.diffIDs, chain: chain)
                        var record = ImageRecord(
                            digest: found.digest, manifest: manifest, config: config,
                            documentSize: UInt64(found.bytes.count + bytes.count), names: names, unpackedSizes: sizes)
                        record.namedAt = namedAt
                        record.origins = Array(Set(origins)).sorted()
                        return try await commit(record, documents: [found.bytes, bytes], takesNames: takesNames)
                    }
                }
            } catch  where Self.isOutOfSpace(error) {
                // The first error is the one to tell.
                try? await work.run { [store] in try store.giveBack() }
                throw error
            }
        }
    }

    private static func isOutOfSpace(_ error: any Error) -> Bool {
        if let error = error as? ImageError { return error.kind == .noSpace }
        return (error as? KernelError)?.isOutOfSpace ?? false
    }

    private func commit(
        _ record: ImageRecord, documents: [[UInt8]], takesNames: Bool
    ) async throws -> ImageRecord {
        try await work.run { [store] in
            let directory = try WorkingDirectory(in: store.blobs.temporaryDirectory)
            var content = StagedContent()
            for bytes in documents { _ = try store.stage(bytes, in: directory, to: &content) }
            for digest in Set(record.layers.map(\.digest)) {
                if store.blobs.contains(digest) {
                    // Two that shared a download; the other one was done first.
                    store.downloads.remove(digest)
                } else {
                    content.files.append((store.downloads.path(digest), digest))
                }
            }
            content.images = [record]
            content.takesNames = takesNames
            guard let image = try store.commit(content).first else {
                throw ImageError(.system, "the image \(record.digest) is not in the catalog")
            }
            return image
        }
    }

    /// A manifest or an index that is in the store; nil when it is not.
    func stored(_ digest: Digest) async throws -> ContentDocument? {
        try await work.run { [store] in
            guard store.blobs.contains(digest),
                let bytes = try? store.blobs.read(digest, limit: store.limits.documentBytes)
            else { return nil }
            return ContentDocument(bytes: bytes, mediaType: nil)
        }
    }

    /// Fetches one layer's blob, or finds it in the store.
    func download(
        _ layer: Descriptor, from sources: SourceList<any ContentSource>, settings: TransferSettings,
        progress: TransferProgressHandler?
    ) async throws {
        let (digest, size) = (layer.digest, layer.size)
        let tell = { @Sendable (phase: TransferProgress.Phase) in
            progress?(TransferProgress(digest: digest, phase: phase, done: size, total: size)) ?? ()
        }
        let isFetched = try await downloading.withLock(digest) { [self] in
            guard let file = try await work.run({ [store] in try store.openDownload(digest, size: size) }) else {
                return false
            }
            try await sources.first { [self] source, isLast in
                let download = Download(
                    digest: digest, size: size, file: file, work: work, settings: settings.fewerTries(unless: isLast),
                    slots: downloaders, progress: progress)
                try await download.run(from: source)
            }
            return true
        }
        tell(isFetched ? .downloaded : .present)
    }

    /// Unpacks one layer onto those below it, where that is not done.
    ///
    /// - Returns: the bytes of its tar.
    func unpack(
        _ layer: Descriptor, diffID: Digest, chain: [Digest], progress: TransferProgressHandler?
    ) async throws -> UInt64 {
        guard let own = chain.last else { return 0 }
        return try await unpacking.withLock(own) { [self] in
            if let size = knownSize(diffID), try await work.run({ [store] in store.snapshots.contains(own) }) {
                return size
            }
            let flag = CancellationFlag()
            let size = try await unpackers.withLock(0) { [self] in
                try await withTaskCancellationHandler {
                    try await work.run { [store] in
                        try store.unpack(layer, diffID: diffID, chain: chain, unless: flag) { done in
                            progress?(
                                TransferProgress(digest: layer.digest, phase: .unpacking, done: done, total: layer.size)
                            )
                        }
                    }
                } onCancel: {
                    flag.set()
                }
            }
            unpackedSizes.withLock { $0[diffID] = size }
            return size
        }
    }

    private func knownSize(_ diffID: Digest) -> UInt64? {
        if let size = unpackedSizes.withLock({ $0[diffID] }) { return size }
        return store.state.withLock { state in
            for image in state.catalog.images.values {
                for layer in image.layers where layer.diffID == diffID && layer.unpackedSize > 0 {
                    return layer.unpackedSize
                }
            }
            return nil
        }
    }
}

/// Says from one thread to another that a call that blocks shall end.
private final class CancellationFlag: Sendable {
    private let state = Atomic(false)
    var isSet: Bool { state.load(ordering: .relaxed) }
    func set() { state.store(true, ordering: .relaxed) }
}

/// Ends a stream with `CancellationError` once the flag is set.
private final class CancellableSource: ByteSource {
    private let upstream: any ByteSource
    private let flag: CancellationFlag

    init(_ upstream: any ByteSource, unless flag: CancellationFlag) {
        self.upstream = upstream
        self.flag = flag
    }

    func read(into buffer: UnsafeMutableRawBufferPointer) throws -> Int {
        if flag.isSet { throw CancellationError() }
        return try upstream.read(into: buffer)
    }
}

extension ImageStore {
    /// Gives back the space of everything that no image has and no operation needs: downloads that were begun, and layers
    /// that were unpacked for images which never came.
    fileprivate func giveBack() throws {
        // After damage nobody knows what tasks still need.
        if warnings.isEmpty { _ = try collectGarbage(inUse: [], downloadsUnusedFor: 0) }
    }

    /// Unpacks a layer that was fetched and takes it over as a snapshot; both of its digests are checked.
    fileprivate func unpack(
        _ layer: Descriptor, diffID: Digest, chain: [Digest], unless flag: CancellationFlag,
        progress: @escaping (UInt64) -> Void
    ) throws -> UInt64 {
        guard let own = chain.last else { return 0 }
        let subject = "layer \(layer.digest)"
        // Downloads become blobs, never the other way round.
        let download = try? File.open(downloads.path(layer.digest), O_RDONLY | O_NOFOLLOW)
        let isBlob = download == nil
        let file = try download ?? blobs.open(layer.digest)
        let directory = try WorkingDirectory(in: blobs.temporaryDirectory)
        let place = directory.newPath()
        let source = DescriptorSource(file.raw, subject: subject, progress: progress)
        let found = try snapshots.unpack(
            CancellableSource(source, unless: flag), into: place,
            parents: chain.dropLast().reversed().map { snapshots.fileSystem($0) }, isUnknown: false, subject: subject)
        guard found.blob == layer.digest else {
            if isBlob { throw blobs.quarantine(layer.digest, actual: found.blob) }
            downloads.remove(layer.digest)
            throw ImageError(.corrupted, "\(subject) is damaged on disk (it reads as \(found.blob)); pull it again")
        }
        guard found.diffID == diffID else {
            throw ImageError(
                .invalidArchive, "\(subject) unpacks to \(found.diffID), but the image's configuration says \(diffID)")
        }
        guard found.compression == MediaType.compression(ofLayer: layer.mediaType) else {
            throw ImageError(
                .invalidArchive,
                "\(subject) is announced as '\(printable(layer.mediaType))', but its compression is \(found.compression)"
            )
        }
        try snapshots.adopt(place, as: own)
        try snapshots.synchronize()
        return found.tarSize
    }
}
