import Glibc
import JSON
import Kernel
import Synchronization

/// How saved images are laid out in their archive.
package enum ImageArchiveFormat: String, Sendable, Codable, CaseIterable {
    /// What `docker save` writes today: an OCI layout that has Docker's own `manifest.json` as well, for every
    /// `docker load`, podman and skopeo.
    case docker
    /// An OCI layout alone (image-spec, image-layout.md).
    case oci
}

extension ImageStore {
    /// Writes images as one archive, an uncompressed tar; layers are in it as they are stored.
    ///
    /// Every blob's digest is checked on the way. An error in the middle leaves an archive without its end, which no
    /// reader takes.
    ///
    /// - Parameters:
    ///   - references: as `resolve` takes them. An image given by name is saved under that name, one given by digest or id
    ///     without a name.
    ///   - target: belongs to the caller.
    /// - Throws: `ImageError`: notFound, ambiguous, corrupted, system.
    package func save(
        _ references: [String], format: ImageArchiveFormat, to target: Int32, progress: ImageProgressHandler? = nil
    ) throws {
        try ImageError.explaining("saving images") {
            guard !references.isEmpty else { throw ImageError(.invalidArgument, "no image to save is named") }
            let images = try state.withLock { state in
                try references.map { reference in
                    let image = try Self.resolve(reference, in: state.catalog)
                    let name = (try? ImageReference(reference)).flatMap { image.names.contains($0) ? $0 : nil }
                    return SavedImage(record: image, name: name)
                }
            }
            try pinning(images.flatMap(\.record.blobs)) {
                try write(images, format: format, to: target, progress: progress)
            }
        }
    }

    private struct SavedImage {
        var record: ImageRecord
        var name: ImageReference?
    }

    private func write(
        _ images: [SavedImage], format: ImageArchiveFormat, to target: Int32, progress: ImageProgressHandler?
    ) throws {
        let records = Dictionary(images.map { ($0.record.digest, $0.record) }) { first, _ in first }
        var sizes: [Digest: UInt64] = [:]
        for image in records.values {
            for layer in image.layers { sizes[layer.digest] = layer.size }
        }
        let total = sizes.values.reduce(0, +)
        let writer = TarWriter { try writeAll($0, to: target, subject: "the archive") }
        for name in ["blobs/", "blobs/sha256/"] {
            var directory = TarEntry(.directory, Array(name.utf8))
            directory.mode = 0o755
            try writer.begin(directory)
        }
        var descriptors: [Digest: Descriptor] = [:]
        for image in records.values.sorted(by: { $0.digest < $1.digest }) {
            let manifest = try blobs.read(image.digest, limit: limits.documentBytes)
            let type = try Document.parse(manifest, name: "manifest", limits: limits)["mediaType"]?.stringValue
            descriptors[image.digest] = Descriptor(
                mediaType: type ?? MediaType.manifest, digest: image.digest, size: UInt64(manifest.count))
            try writer.add("blobs/sha256/\(image.digest.hex)", manifest)
        }
        for digest in Set(records.values.map(\.configDigest)).sorted() {
            try writer.add("blobs/sha256/\(digest.hex)", blobs.read(digest, limit: limits.documentBytes))
        }
        for (digest, size) in sizes.sorted(by: { $0.key < $1.key }) {
            try copy(digest, size: size, to: writer) { done in
                progress?(ImageProgress(phase: "writing", done: done, total: total))
            }
        }
        try writer.add("oci-layout", JSONCoding.encode(["imageLayoutVersion": "1.0.0"], sortedKeys: true))
        try writer.add("index.json", JSONCoding.encode(Self.index(images, descriptors), sortedKeys: true))
        if format == .docker {
            try writer.add("manifest.json", JSONCoding.encode(Self.dockerManifest(images), sortedKeys: true))
            try writer.add("repositories", JSONCoding.encode(Self.repositories(images), sortedKeys: true))
        }
        try writer.finish()
    }

    private func copy(
        _ digest: Digest, size: UInt64, to writer: TarWriter, progress: @escaping (UInt64) -> Void
    ) throws {
        let file = try blobs.open(digest)
        var entry = TarEntry(.regular, Array("blobs/sha256/\(digest.hex)".utf8))
        entry.size = size
        try writer.begin(entry)
        let before = writer.count
        let source = HashingSource(
            DescriptorSource(file.raw, subject: blobs.path(digest)) { progress(before + $0) })
        var buffer = [UInt8](repeating: 0, count: 256 << 10)
        while true {
            let count = try buffer.withUnsafeMutableBytes { try source.read(into: $0) }
            if count == 0 { break }
            guard source.count <= size else { break }
            try buffer.withUnsafeBytes { try writer.write(UnsafeRawBufferPointer(rebasing: $0[..<count])) }
        }
        guard source.count == size, source.digest == digest else {
            throw blobs.quarantine(digest, actual: source.digest)
        }
    }

    /// One descriptor for each name, as Docker writes them: whole name and tag as annotations.
    private static func index(_ images: [SavedImage], _ descriptors: [Digest: Descriptor]) -> ImageIndexDocument {
        ImageIndexDocument(
            manifests: images.compactMap { image in
                guard var descriptor = descriptors[image.record.digest] else { return nil }
                let platform = image.record.platform
                descriptor.platform = .init(
                    architecture: platform.architecture, os: platform.os, variant: platform.variant)
                if let name = image.name {
                    descriptor.annotations = [
                        Annotation.containerdName: name.description, Annotation.referenceName: name.tag ?? "latest",
                    ]
                }
                return descriptor
            })
    }

    private static func dockerManifest(_ images: [SavedImage]) -> JSONValue {
        var order: [Digest] = []
        var names: [Digest: [String]] = [:]
        var records: [Digest: ImageRecord] = [:]
        for image in images {
            if records.updateValue(image.record, forKey: image.record.digest) == nil {
                order.append(image.record.digest)
            }
            if let name = image.name { names[image.record.digest, default: []].append(name.familiar) }
        }
        return .array(
            order.compactMap { digest in
                guard let record = records[digest] else { return nil }
                return [
                    "Config": .string("blobs/sha256/\(record.configDigest.hex)"),
                    "RepoTags": names[digest].map { .array($0.map { .string($0) }) } ?? .null,
                    "Layers": .array(record.layers.map { .string("blobs/sha256/\($0.digest.hex)") }),
                ]
            })
    }

    /// The file that Docker before 1.10 reads; skopeo and others look for it still.
    private static func repositories(_ images: [SavedImage]) -> JSONValue {
        var result = JSONObject()
        for image in images {
            guard let name = image.name, let tag = name.tag, let top = image.record.layers.last else { continue }
            let repository = ImageReference.familiarRepository(name)
            var tags = result[repository]?.objectValue ?? JSONObject()
            tags[tag] = .string(top.digest.hex)
            result[repository] = .object(tags)
        }
        return .object(result)
    }
}

extension ImageReference {
    /// The short name without its tag.
    static func familiarRepository(_ name: ImageReference) -> String {
        let familiar = name.familiar
        guard let tag = name.tag else { return familiar }
        return String(familiar.dropLast(tag.count + 1))
    }
}
