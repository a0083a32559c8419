import Glibc
import JSON
import Kernel

extension ImageStore {
    /// Makes an image of one layer from a tar of a root file system, plain or compressed with gzip, zstd, xz or bzip2.
    ///
    /// The layer is unpacked while it is read, so that an archive that cannot be unpacked never becomes an image. gzip
    /// and zstd archives are kept as they come, others as a plain tar.
    ///
    /// - Parameters:
    ///   - source: read to its end, which takes as long as the other end does; it belongs to the caller.
    ///   - name: may be nil; the image then has only a digest.
    ///   - config: what containers of the image run.
    ///   - comment: for the image's history.
    ///   - totalBytes: of the archive, for `progress`.
    /// - Throws: `ImageError`: invalidArgument, invalidArchive, limitExceeded, unsupported, noSpace, system. Nothing is
    ///   kept then.
    package func importTar(
        _ source: Int32, name: String?, platform: Platform = .host, config: ImageConfig = ImageConfig(),
        comment: String = "imported from a tar archive", totalBytes: UInt64? = nil,
        progress: ImageProgressHandler? = nil
    ) throws -> ImageRecord {
        let name = try name.map { try Self.newName($0) }
        try config.validate()
        return try ImageError.explaining("importing an image into \(root)") {
            let work = try WorkingDirectory(in: blobs.temporaryDirectory)
            let place = work.newPath()
            let path = work.newPath()
            let file = try WorkingDirectory.create(path)
            let stream = DescriptorSource(source, subject: "the archive", limit: limits.archiveBytes) { done in
                progress?(ImageProgress(phase: "reading", done: done, total: totalBytes))
            }
            let layer = try snapshots.unpack(
                stream, into: place, parents: [], isUnknown: true, subject: "the archive", copyingTo: file.raw)
            try systemCall("fsync", path) { fsync(file.raw) }
            let kept = UnpackedLayer.isKept(layer.compression)
            let descriptor = Descriptor(
                mediaType: MediaType.layer(layer.compression), digest: kept ? layer.blob : layer.diffID,
                size: kept ? layer.blobSize : layer.tarSize)
            let now = Timestamp.now()
            let document = ImageConfigDocument(
                created: now.description, author: nil, platform: platform, config: config, diffIDs: [layer.diffID],
                history: [.init(created: now.description, createdBy: "martlet image import", comment: comment)])
            var content = StagedContent()
            content.files.append((path, descriptor.digest))
            content.layers.append((place, layer.diffID))
            try stage(
                document, layers: [descriptor], names: name.map { [$0] } ?? [],
                unpackedSizes: [layer.diffID: layer.tarSize], in: work, to: &content)
            guard let image = try commit(content).first else {
                throw ImageError(.system, "the imported image is not in the catalog")
            }
            return image
        }
    }

    /// Writes configuration and manifest of a new image.
    func stage(
        _ document: ImageConfigDocument, layers: [Descriptor], names: [ImageReference], unpackedSizes: [Digest: UInt64],
        in work: WorkingDirectory, to content: inout StagedContent
    ) throws {
        let config = try JSONCoding.encode(document, sortedKeys: true)
        let configDigest = try stage(config, in: work, to: &content)
        let manifest = ImageManifest(
            config: Descriptor(mediaType: MediaType.config, digest: configDigest, size: UInt64(config.count)),
            layers: layers)
        let bytes = try JSONCoding.encode(manifest)
        let digest = try stage(bytes, in: work, to: &content)
        content.images.append(
            ImageRecord(
                digest: digest, manifest: manifest, config: document, documentSize: UInt64(config.count + bytes.count),
                names: names, unpackedSizes: unpackedSizes))
    }

    /// Writes a small blob, durably.
    func stage(_ bytes: [UInt8], in work: WorkingDirectory, to content: inout StagedContent) throws -> Digest {
        let path = work.newPath()
        let file = try WorkingDirectory.create(path)
        try file.writeAll(bytes, subject: path)
        try systemCall("fsync", path) { fsync(file.raw) }
        let digest = Digest.of(bytes)
        content.files.append((path, digest))
        return digest
    }
}
