import CKernel
import Glibc
import JSON
import Kernel
import Synchronization

/// The images of one node: content by digest, names, and unpacked layers that containers are mounted from.
///
/// One process at a time has the store open. Its operations may be called from several threads; they block for as long as
/// the disk, or the other end of a descriptor, takes. Everything that an operation makes lies in a directory of its own
/// until it is complete and durable, then the store's lock is taken and it is renamed into place: an error or a crash at
/// any point leaves the store as it was, and what was left behind is removed when the store is opened again.
package final class ImageStore: Sendable {
    /// The store's directory.
    package let root: String
    package let limits: ImageLimits
    /// What was found damaged when the store was opened, and what became of it.
    package let warnings: [String]

    let blobs: BlobStore
    let snapshots: SnapshotStore
    let downloads: DownloadStore
    let state: Mutex<State>
    /// Taken while layers are unpacked from the disk, so that ten containers of a new image unpack it once.
    let unpacking = Mutex<Void>(())
    let reserve: SpaceReserve
    private let lock: FileLock

    /// What changes; kept small, since its lock is held while the catalog is written.
    struct State: Sendable {
        var catalog: ImageCatalog
        /// Blobs and chain ids that running operations need, with how many of them do.
        var pins: [Digest: Int] = [:]
        /// Task directories with a root that this process mounted, and their image.
        var mounted: [String: Digest] = [:]
    }

    /// Opens the store, making it when it is not there.
    ///
    /// - Throws: `ImageError`: inUse when another process has it open; system.
    package init(root: String, limits: ImageLimits = .standard) throws {
        self.root = root
        self.limits = limits
        blobs = BlobStore(root: root)
        snapshots = SnapshotStore(root: root, limits: limits)
        downloads = DownloadStore(root: root)
        let (blobs, snapshots, downloads) = (blobs, snapshots, downloads)
        let path = "\(root)/index.json"
        let opened = try ImageError.explaining("opening the image store \(root)") {
            try File.makeDirectories(root, mode: 0o700)
            guard let lock = try FileLock("\(root)/lock") else {
                throw ImageError(.inUse, "the image store \(root) is open in another process")
            }
            try blobs.prepare()
            try snapshots.prepare()
            try downloads.prepare()
            var warnings: [String] = []
            let catalog = try ImageCatalog.open(path, blobs: blobs, limits: limits, warnings: &warnings)
            return (lock: lock, catalog: catalog, warnings: warnings)
        }
        lock = opened.lock
        warnings = opened.warnings
        state = Mutex(State(catalog: opened.catalog))
        reserve = SpaceReserve(path: "\(root)/reserve")
        reserve.fill()
        // What a crash left between a rename and the catalog. After damage nobody knows what tasks still need.
        if warnings.isEmpty { _ = try collectGarbage(inUse: []) }
    }

    var catalogPath: String { "\(root)/index.json" }
}

extension ImageStore {
    /// All images, by name and then by digest.
    package func list() -> [ImageRecord] {
        let images = state.withLock { Array($0.catalog.images.values) }
        return images.sorted {
            let (left, right) = ($0.names.first?.description ?? "~", $1.names.first?.description ?? "~")
            return left == right ? $0.digest < $1.digest : left < right
        }
    }

    /// Finds an image by name, by `name@sha256:…`, by its digest or image id (`sha256:…`), or by the first 12 or more
    /// digits of one of the two.
    ///
    /// - Throws: `ImageError`: notFound, ambiguous, or invalidArgument for what can be none of these.
    package func resolve(_ reference: String) throws -> ImageRecord {
        try state.withLock { try Self.resolve(reference, in: $0.catalog) }
    }

    static func resolve(_ reference: String, in catalog: ImageCatalog) throws -> ImageRecord {
        if let digest = Digest(reference) {
            if let image = catalog.images[digest] ?? catalog.images.values.first(where: { $0.configDigest == digest }) {
                return image
            }
            throw ImageError(.notFound, "there is no image \(digest)")
        }
        let isShort = (12...64).contains(reference.utf8.count) && reference.utf8.allSatisfy(Digest.isHexadecimal)
        let name: ImageReference
        do {
            name = try ImageReference(reference)
        } catch  where isShort && reference.utf8.count == 64 {
            return try short(reference, in: catalog)
        }
        if let digest = name.digest {
            let known = { (image: ImageRecord) in
                (image.names + (image.origins ?? [])).contains { $0.repository == name.repository }
            }
            if let image = catalog.images[digest], known(image) { return image }
            // An index stands for the image that was taken from it.
            if let image = catalog.images.values.first(where: { image in
                image.origins?.contains { $0.digest == digest && $0.repository == name.repository } ?? false
            }) {
                return image
            }
        } else if let image = catalog.named(name) {
            return image
        } else if isShort {
            return try short(reference, in: catalog)
        }
        throw ImageError(
            .notFound, "there is no image '\(name.familiar)' on this node; pull, import or load it first")
    }

    private static func short(_ prefix: String, in catalog: ImageCatalog) throws -> ImageRecord {
        let found = catalog.images.values.filter {
            $0.digest.hex.hasPrefix(prefix) || $0.configDigest.hex.hasPrefix(prefix)
        }
        guard let image = found.first else { throw ImageError(.notFound, "there is no image '\(prefix)' on this node") }
        guard found.count == 1 else {
            throw ImageError(.ambiguous, "'\(prefix)' stands for \(found.count) images; give more digits")
        }
        return image
    }

    /// Gives an image another name, which is taken from the image that had it.
    package func tag(_ reference: String, as name: String) throws {
        let name = try Self.newName(name)
        try ImageError.explaining("tagging an image") {
            try state.withLock { state in
                var image = try Self.resolve(reference, in: state.catalog)
                (image.names, image.namedAt) = ([name], nil)
                var catalog = state.catalog
                catalog.insert(image)
                try catalog.write(to: catalogPath)
                state.catalog = catalog
            }
        }
    }

    /// Checks a name that an image is to have: a digest cannot be given.
    static func newName(_ text: String) throws -> ImageReference {
        let name = try ImageReference(text)
        guard name.digest == nil else {
            throw ImageError(.invalidArgument, "'\(printable(text))' has a digest; a name that is given has none")
        }
        return name
    }

    /// Keeps blobs and snapshots from being collected while `body` runs.
    func pinning<Result>(_ digests: [Digest], _ body: () throws -> Result) rethrows -> Result {
        pin(digests)
        defer { unpin(digests) }
        return try body()
    }

    /// The same for an operation that waits.
    func pinning<Result>(
        _ digests: [Digest], isolation: isolated (any Actor)? = #isolation, waiting body: () async throws -> Result
    ) async rethrows -> Result {
        pin(digests)
        defer { unpin(digests) }
        return try await body()
    }

    private func pin(_ digests: [Digest]) {
        state.withLock { state in for digest in digests { state.pins[digest, default: 0] += 1 } }
    }

    private func unpin(_ digests: [Digest]) {
        state.withLock { state in
            for digest in digests {
                let count = (state.pins[digest] ?? 1) - 1
                state.pins[digest] = count == 0 ? nil : count
            }
        }
    }
}

/// What an operation has made and the store is to take over.
struct StagedContent {
    /// Complete, durable files and their digests.
    var files: [(path: String, digest: Digest)] = []
    /// Unpacked layers, the lowest first.
    var layers: [(place: String, chain: Digest)] = []
    var images: [ImageRecord] = []
    /// The images' names are taken from others that have them; otherwise they get those that are free.
    var takesNames = true
}

extension ImageStore {
    /// Takes over everything or nothing.
    ///
    /// - Returns: the images as they are in the catalog now.
    func commit(_ content: StagedContent) throws -> [ImageRecord] {
        let trash = try WorkingDirectory(in: blobs.temporaryDirectory)
        return try state.withLock { state in
            do {
                failpoint("images.before_commit")
                for file in content.files { try blobs.adopt(file.path, as: file.digest) }
                for layer in content.layers { try snapshots.adopt(layer.place, as: layer.chain) }
                if !content.files.isEmpty { try blobs.synchronize() }
                if !content.layers.isEmpty { try snapshots.synchronize() }
                failpoint("images.before_catalog")
                var catalog = state.catalog
                for var image in content.images {
                    if !content.takesNames {
                        image.names.removeAll { catalog.named($0).map { $0.digest != image.digest } ?? false }
                    }
                    catalog.insert(image)
                }
                try catalog.write(to: catalogPath)
                state.catalog = catalog
                failpoint("images.after_catalog")
            } catch {
                _ = try? discard(
                    blobs: content.files.map(\.digest), chains: content.layers.map(\.chain), inUse: [], state: state,
                    into: trash)
                throw error
            }
            return content.images.compactMap { state.catalog.images[$0.digest] }
        }
    }
}

extension ImageCatalog {
    /// Reads the catalog of a store. A damaged one is put aside; the version before it is taken, or, if that is damaged
    /// too, the images are found again by their manifests and have no names.
    static func open(
        _ path: String, blobs: BlobStore, limits: ImageLimits, warnings: inout [String]
    ) throws -> ImageCatalog {
        let old = path + ".old"
        guard File.exists(path) || File.exists(old) else { return ImageCatalog() }
        for candidate in [path, old] where File.exists(candidate) {
            do {
                return try ImageCatalog(reading: candidate)
            } catch let error as ImageError where error.kind == .corrupted {
                let aside = "\(candidate).damaged"
                rename(candidate, aside)
                warnings.append("\(error.message); it was moved to \(aside)")
            }
        }
        var catalog = ImageCatalog()
        for digest in try blobs.list() {
            if let image = ImageRecord(rebuiltFrom: digest, blobs: blobs, limits: limits) { catalog.insert(image) }
        }
        warnings.append("the names of \(catalog.images.count) images are lost; give them new ones by digest")
        try catalog.write(to: path)
        return catalog
    }
}

extension ImageRecord {
    /// The record of an image whose manifest is in the blob store; nil when `digest` is no manifest.
    init?(rebuiltFrom digest: Digest, blobs: BlobStore, limits: ImageLimits) {
        var info = stat()
        guard lstat(blobs.path(digest), &info) == 0, info.st_size <= limits.documentBytes,
            let bytes = try? blobs.read(digest, limit: limits.documentBytes),
            let manifest = try? ImageManifest(bytes, announced: nil, digest: digest, limits: limits),
            let configBytes = try? blobs.read(manifest.config.digest, limit: limits.documentBytes),
            let config = try? ImageConfigDocument(
                configBytes, layers: manifest.layers.count, name: "config \(manifest.config.digest)", limits: limits)
        else { return nil }
        self.init(
            digest: digest, manifest: manifest, config: config, documentSize: UInt64(bytes.count + configBytes.count),
            names: [], unpackedSizes: [:])
    }

    init(
        digest: Digest, manifest: ImageManifest, config: ImageConfigDocument, documentSize: UInt64,
        names: [ImageReference], unpackedSizes: [Digest: UInt64]
    ) {
        self.digest = digest
        configDigest = manifest.config.digest
        self.names = names.sorted()
        platform = config.platform
        created = config.created.flatMap { Timestamp(rfc3339: $0) }
        added = Timestamp.now()
        labels = config.config.labels
        layers = zip(manifest.layers, config.diffIDs).map { layer, diffID in
            Layer(
                digest: layer.digest, mediaType: layer.mediaType, size: layer.size, diffID: diffID,
                unpackedSize: unpackedSizes[diffID] ?? 0)
        }
        self.documentSize = documentSize
    }
}
