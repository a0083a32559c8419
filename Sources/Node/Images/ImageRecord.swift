import Glibc
import JSON
import Kernel

/// An image in the store.
package struct ImageRecord: Codable, Sendable, Equatable {
    /// A layer, with what is known of it without reading it.
    package struct Layer: Codable, Sendable, Equatable {
        /// Of the blob, compressed or not.
        package var digest: Digest
        package var mediaType: String
        /// Bytes of the blob.
        package var size: UInt64
        /// Of the uncompressed tar.
        package var diffID: Digest
        /// Bytes of the uncompressed tar.
        package var unpackedSize: UInt64
    }

    /// Of the manifest: what a name is resolved to, and what tasks refer to.
    package var digest: Digest
    /// Of the configuration: the image id that `docker images` shows.
    package var configDigest: Digest
    /// All names, sorted; empty for an image whose name was given to another one.
    package var names: [ImageReference]
    /// When it was given each name, by the name's familiar form; of nodes that give one to different content the last counts.
    package var namedAt: [String: Timestamp]?
    /// `repository@sha256:…` of the registries that it came from: of its manifest, and of the index that it was taken from.
    package var origins: [ImageReference]?
    package var platform: Platform
    /// When it was made, as it says itself; nil where it does not, or says something that is no date.
    package var created: Timestamp?
    /// When it came into the store.
    package var added: Timestamp
    package var labels: [String: String]
    /// The lowest first.
    package var layers: [Layer]
    /// Bytes of manifest and configuration.
    package var documentSize: UInt64

    static let maximumOrigins = 64

    /// Bytes in the store: layers, configuration and manifest.
    package var size: UInt64 { layers.reduce(documentSize) { $0 + $1.size } }
    /// Bytes of all layers' tars.
    package var unpackedSize: UInt64 { layers.reduce(0) { $0 + $1.unpackedSize } }
    /// The chain ids of the layers, the lowest first.
    var chain: [Digest] { ChainID.all(layers.map(\.diffID)) }
    /// Everything in the blob store that belongs to it.
    var blobs: [Digest] { [digest, configDigest] + layers.map(\.digest) }
}

/// Chain ids: the digest of a layer together with all below it (OCI image-spec, config.md, "Layer ChainID").
enum ChainID {
    static func all(_ diffIDs: [Digest]) -> [Digest] {
        var result: [Digest] = []
        for diffID in diffIDs {
            if let below = result.last {
                result.append(Digest.of(Array("\(below) \(diffID)".utf8)))
            } else {
                result.append(diffID)
            }
        }
        return result
    }
}

/// The names of images: `index.json`, replaced as a whole, with the version before it beside it.
///
/// The file carries its own check sum, so that a damaged one is never taken for a smaller store.
struct ImageCatalog: Sendable {
    private(set) var images: [Digest: ImageRecord] = [:]

    private struct Stored: Codable {
        var version: Int
        var checksum: Digest
        var images: [ImageRecord]
    }

    private static let version = 1
    private static let limits = JSONLimits(bytes: 256 << 20, depth: 16)

    init() {}

    /// Reads a catalog file.
    ///
    /// - Throws: `ImageError` corrupted, or `KernelError` when it cannot be read.
    init(reading path: String) throws {
        let bytes = try File.read(path, limit: Self.limits.bytes)
        do {
            let stored = try JSONCoding.decode(Stored.self, from: bytes, limits: Self.limits)
            guard stored.version == Self.version else {
                throw ImageError(
                    .unsupported, "\(path) was written by a newer Martlet (version \(stored.version)); use that one")
            }
            guard try Self.checksum(stored.images) == stored.checksum else {
                throw ImageError(.corrupted, "\(path) is damaged: its check sum is wrong")
            }
            for image in stored.images { images[image.digest] = image }
        } catch let error as JSONError {
            throw ImageError(.corrupted, "\(path) is damaged: \(error)")
        }
    }

    /// Replaces the catalog file, durably; the one before it becomes `<path>.old`.
    func write(to path: String) throws {
        let list = images.values.sorted { $0.digest < $1.digest }
        let bytes = try JSONCoding.encode(
            Stored(version: Self.version, checksum: Self.checksum(list), images: list), pretty: true)
        let old = path + ".old"
        unlink(old)
        if link(path, old) != 0 && errno != ENOENT { throw KernelError("link", old, errno: errno) }
        try File.replace(path, with: bytes)
    }

    private static func checksum(_ images: [ImageRecord]) throws -> Digest {
        Digest.of(try JSONCoding.encode(images, sortedKeys: true))
    }

    /// The image that has a name; names are unique.
    func named(_ name: ImageReference) -> ImageRecord? { images.values.first { $0.names.contains(name) } }

    /// Puts an image in, or merges its names into the one that is there. A name it brings is taken from other images.
    mutating func insert(_ image: ImageRecord) {
        var image = image
        let times = image.namedAt ?? [:]
        image.namedAt = Dictionary(
            uniqueKeysWithValues: image.names.map { ($0.familiar, times[$0.familiar] ?? Timestamp.now()) })
        for name in image.names { untag(name) }
        guard var present = images[image.digest] else {
            images[image.digest] = image
            return
        }
        present.names = Set(present.names).union(image.names).sorted()
        present.namedAt = (present.namedAt ?? [:]).merging(image.namedAt ?? [:]) { $1 }
        // The most recent ones, so that an image that is in ever new indexes does not grow without bound.
        let origins = (image.origins ?? []) + (present.origins ?? []).filter { image.origins?.contains($0) != true }
        present.origins = origins.isEmpty ? nil : Array(origins.prefix(ImageRecord.maximumOrigins))
        present.layers = image.layers
        images[image.digest] = present
    }

    /// Takes a name away from the image that has it.
    mutating func untag(_ name: ImageReference) {
        guard let digest = named(name)?.digest else { return }
        images[digest]?.names.removeAll { $0 == name }
        images[digest]?.namedAt?[name.familiar] = nil
    }

    mutating func remove(_ digest: Digest) { images[digest] = nil }
}
