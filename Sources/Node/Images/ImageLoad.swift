import Glibc
import JSON
import Kernel
import Synchronization

extension ImageStore {
    /// Loads the images of an archive: an OCI layout, or what `docker save` writes; plain or compressed.
    ///
    /// An archive that is both is read as an OCI layout, since that carries digests. All layers are unpacked and all
    /// digests checked before anything is taken over.
    ///
    /// - Parameters:
    ///   - source: read to its end; it belongs to the caller.
    ///   - platform: which manifest is taken where an index offers several.
    /// - Returns: the images of the archive as they are in the store now, each under the names that the archive gives it:
    ///   it may have others here.
    /// - Throws: `ImageError`: invalidArchive, limitExceeded, unsupported, noSpace, system. Nothing is kept then.
    package func load(
        _ source: Int32, platform: Platform = .host, totalBytes: UInt64? = nil, progress: ImageProgressHandler? = nil
    ) throws -> [ImageRecord] {
        try ImageError.explaining("loading images into \(root)") {
            let work = try WorkingDirectory(in: blobs.temporaryDirectory)
            let stream = DescriptorSource(source, subject: "the archive", limit: limits.archiveBytes) { done in
                progress?(ImageProgress(phase: "reading", done: done, total: totalBytes))
            }
            let members = try ArchiveMembers(stream, in: work, limits: limits)
            let candidates: [LoadedImage]
            if members["oci-layout"] != nil {
                candidates = try layoutImages(members, platform: platform)
            } else if members["manifest.json"] != nil {
                candidates = try dockerImages(members)
            } else {
                throw ImageError(
                    .invalidArchive,
                    "the archive has neither oci-layout nor manifest.json: it is no archive of images "
                        + "(a tar of a root file system is imported, not loaded)")
            }
            guard !candidates.isEmpty else { throw ImageError(.invalidArchive, "the archive has no image") }
            let chains = candidates.flatMap { ChainID.all($0.config.diffIDs) }
            return try pinning(chains) {
                let content = try stage(candidates, in: work, progress: progress)
                return try commit(content).enumerated().map { index, stored in
                    var image = stored
                    image.names = content.images[index].names
                    return image
                }
            }
        }
    }

    /// One image of an archive, its documents read and its layers found.
    struct LoadedImage {
        var manifest: ImageManifest
        /// As in the archive; nil when the archive has none and ours is to be written.
        var manifestBytes: [UInt8]?
        var config: ImageConfigDocument
        var configBytes: [UInt8]
        /// The lowest first.
        var layers: [ArchiveMembers.Member]
        var names: [ImageReference]
    }

    /// Unpacks what is not unpacked yet and collects what the store is to take over.
    private func stage(
        _ candidates: [LoadedImage], in work: WorkingDirectory, progress: ImageProgressHandler?
    ) throws -> StagedContent {
        var content = StagedContent()
        var staged: [Digest: String] = [:]
        var sizes: [Digest: UInt64] = [:]
        var taken: Set<Digest> = []
        for image in candidates {
            var below: [String] = []
            for (index, chain) in ChainID.all(image.config.diffIDs).enumerated() {
                let (member, diffID) = (image.layers[index], image.config.diffIDs[index])
                if let place = staged[chain] {
                    below.insert("\(place)/fs", at: 0)
                } else {
                    let place = work.newPath()
                    let layer = try unpacking.withLock { _ in
                        try unpack(member, expecting: diffID, into: place, parents: below, progress: progress)
                    }
                    sizes[diffID] = layer.tarSize
                    staged[chain] = place
                    content.layers.append((place, chain))
                    below.insert("\(place)/fs", at: 0)
                }
                if taken.insert(member.digest).inserted { content.files.append((member.path, member.digest)) }
            }
            let configDigest = try stage(image.configBytes, in: work, to: &content)
            guard configDigest == image.manifest.config.digest else {
                throw ImageError(
                    .invalidArchive, "the configuration \(image.manifest.config.digest) is \(configDigest)")
            }
            let bytes = try image.manifestBytes ?? JSONCoding.encode(image.manifest)
            let digest = try stage(bytes, in: work, to: &content)
            content.images.append(
                ImageRecord(
                    digest: digest, manifest: image.manifest, config: image.config,
                    documentSize: UInt64(bytes.count + image.configBytes.count), names: image.names,
                    unpackedSizes: sizes))
        }
        return content
    }

    private func unpack(
        _ member: ArchiveMembers.Member, expecting diffID: Digest, into place: String, parents: [String],
        progress: ImageProgressHandler?
    ) throws -> UnpackedLayer {
        let file = try File.open(member.path, O_RDONLY)
        let source = DescriptorSource(file.raw, subject: "layer \(member.digest)") { done in
            progress?(ImageProgress(phase: "unpacking \(member.digest)", done: done, total: member.size))
        }
        let layer = try snapshots.unpack(
            source, into: place, parents: parents, isUnknown: false, subject: "layer \(member.digest)")
        guard layer.diffID == diffID else {
            throw ImageError(
                .invalidArchive,
                "layer \(member.digest) unpacks to \(layer.diffID), but the image's configuration says \(diffID)")
        }
        return layer
    }
}

// MARK: - Docker's archives

extension ImageStore {
    private struct DockerEntry: Decodable {
        var config: String
        var repoTags: [String]?
        var layers: [String]?

        enum CodingKeys: String, CodingKey {
            case config = "Config"
            case repoTags = "RepoTags"
            case layers = "Layers"
        }
    }

    private func dockerImages(_ members: ArchiveMembers) throws -> [LoadedImage] {
        let value = try Document.parse(members.document("manifest.json"), name: "manifest.json", limits: limits)
        guard value.arrayValue != nil else {
            throw ImageError(.invalidArchive, "manifest.json is no array of images, as docker save writes it")
        }
        let entries = try JSONCoding.decode([DockerEntry].self, from: value)
        guard entries.count <= limits.images else {
            throw ImageError(
                .limitExceeded, "the archive has \(entries.count) images, over the \(limits.images) allowed")
        }
        return try entries.map { entry in
            let bytes = try members.document(entry.config)
            let names = try (entry.repoTags ?? []).map { try Self.archiveName($0) }
            let paths = entry.layers ?? []
            guard paths.count <= limits.layers else {
                throw ImageError(
                    .limitExceeded, "an image has \(paths.count) layers, over the \(limits.layers) allowed")
            }
            let config = try ImageConfigDocument(
                bytes, layers: paths.count, name: "'\(printable(entry.config))'", limits: limits)
            var layers: [ArchiveMembers.Member] = []
            for path in paths {
                guard let member = members[path] else {
                    throw ImageError(.invalidArchive, "the archive does not have the layer '\(printable(path))'")
                }
                layers.append(member)
            }
            let descriptors = try layers.map { member in
                Descriptor(
                    mediaType: MediaType.layer(try Self.compression(of: member)), digest: member.digest,
                    size: member.size)
            }
            let manifest = ImageManifest(
                config: Descriptor(mediaType: MediaType.config, digest: .of(bytes), size: UInt64(bytes.count)),
                layers: descriptors)
            return LoadedImage(
                manifest: manifest, manifestBytes: nil, config: config, configBytes: bytes, layers: layers,
                names: names)
        }
    }

    /// What a layer without a media type is compressed with.
    private static func compression(of member: ArchiveMembers.Member) throws -> Compression {
        let file = try File.open(member.path, O_RDONLY)
        let source = DescriptorSource(file.raw, subject: "layer \(member.digest)")
        let compression = try Decompressor(source, subject: "layer \(member.digest)", checksDamage: false).compression
        guard UnpackedLayer.isKept(compression) else {
            throw ImageError(
                .unsupported, "layer \(member.digest) is compressed with \(compression); gzip and zstd are read")
        }
        return compression
    }

    /// A name that an archive gives; whatever is wrong with it is the archive's fault.
    private static func archiveName(_ text: String) throws -> ImageReference {
        do {
            return try newName(text)
        } catch let error as ImageError {
            throw ImageError(.invalidArchive, "the archive gives an image a name that cannot be: \(error.message)")
        }
    }
}

// MARK: - OCI layouts

/// Annotations with names (OCI image-spec, annotations.md; containerd's own).
enum Annotation {
    static let referenceName = "org.opencontainers.image.ref.name"
    static let containerdName = "io.containerd.image.name"
}

extension ImageStore {
    private func layoutImages(_ members: ArchiveMembers, platform: Platform) throws -> [LoadedImage] {
        let layout = try Document.parse(members.document("oci-layout"), name: "oci-layout", limits: limits)
        guard let version = layout["imageLayoutVersion"]?.stringValue, version.hasPrefix("1.") else {
            throw ImageError(.unsupported, "the archive is no OCI layout of version 1")
        }
        let index = try ImageIndexDocument(
            members.document("index.json"), announced: nil, name: "index.json", limits: limits)
        var images: [LoadedImage] = []
        var places: [Digest: Int] = [:]
        var others: [Platform] = []
        for descriptor in index.manifests {
            guard let found = try select(descriptor, platform: platform, from: members, depth: 0, others: &others)
            else { continue }
            let name = try Self.name(of: descriptor)
            if let place = places[found.digest] {
                if let name, !images[place].names.contains(name) { images[place].names.append(name) }
                continue
            }
            places[found.digest] = images.count
            images.append(try layoutImage(found, names: name.map { [$0] } ?? [], members))
        }
        guard !images.isEmpty || others.isEmpty else {
            let offered = Set(others.map(\.description)).sorted().joined(separator: ", ")
            throw ImageError(.unsupported, "the archive has no image for \(platform); it has \(printable(offered))")
        }
        return images
    }

    /// The manifest that a descriptor means on this platform; nil when it has none.
    private func select(
        _ descriptor: Descriptor, platform: Platform, from members: ArchiveMembers, depth: Int,
        others: inout [Platform]
    ) throws -> Descriptor? {
        if let target = descriptor.target, !platform.accepts(target) {
            others.append(target)
            return nil
        }
        if MediaType.manifests.contains(descriptor.mediaType) { return descriptor }
        guard MediaType.indexes.contains(descriptor.mediaType) else {
            throw ImageError(
                .unsupported,
                "the archive has content of type '\(printable(descriptor.mediaType))' where an image should be")
        }
        guard depth < 4 else { throw ImageError(.limitExceeded, "the archive has indexes more than 4 levels deep") }
        let name = "index \(descriptor.digest)"
        let index = try ImageIndexDocument(
            members.bytes(members.blob(descriptor), name: name), announced: descriptor.mediaType, name: name,
            limits: limits)
        for nested in index.manifests {
            // An index may name platforms whose content was left out of the archive; ours is there or it is an error.
            if let found = try select(nested, platform: platform, from: members, depth: depth + 1, others: &others) {
                return found
            }
        }
        return nil
    }

    private func layoutImage(
        _ descriptor: Descriptor, names: [ImageReference], _ members: ArchiveMembers
    ) throws -> LoadedImage {
        let name = "manifest \(descriptor.digest)"
        let bytes = try members.bytes(members.blob(descriptor), name: name)
        let manifest = try ImageManifest(
            bytes, announced: descriptor.mediaType, digest: descriptor.digest, limits: limits)
        let configName = "configuration \(manifest.config.digest)"
        let configBytes = try members.bytes(members.blob(manifest.config), name: configName)
        let config = try ImageConfigDocument(
            configBytes, layers: manifest.layers.count, name: configName, limits: limits)
        let layers = try manifest.layers.map { layer in
            let member = try members.blob(layer)
            let actual = try Self.compression(of: member)
            guard actual == MediaType.compression(ofLayer: layer.mediaType) else {
                throw ImageError(
                    .invalidArchive,
                    "layer \(layer.digest) is announced as '\(printable(layer.mediaType))', but its compression is \(actual)"
                )
            }
            return member
        }
        return LoadedImage(
            manifest: manifest, manifestBytes: bytes, config: config, configBytes: configBytes, layers: layers,
            names: names)
    }

    /// The name that a layout gives an image. containerd's annotation holds whole names; in OCI's, a single word may be a
    /// tag as well as a name, and is taken for neither.
    private static func name(of descriptor: Descriptor) throws -> ImageReference? {
        if let name = descriptor.annotations?[Annotation.containerdName] { return try archiveName(name) }
        guard let name = descriptor.annotations?[Annotation.referenceName],
            name.contains(where: { $0 == ":" || $0 == "/" })
        else { return nil }
        return try archiveName(name)
    }
}
