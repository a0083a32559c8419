import Glibc
import JSON
import Kernel
import Synchronization

/// A container's files on this node, as they are compared with its image.
package struct ContainerLayer: Sendable {
    /// The manifest of its image.
    package var image: Digest
    package var taskDirectory: String
    /// Mount points of the container: absolute paths in it.
    package var mountPoints: [String]

    package init(image: Digest, taskDirectory: String, mountPoints: [String]) {
        self.image = image
        self.taskDirectory = taskDirectory
        self.mountPoints = mountPoints
    }

    /// What runtimes make in every container.
    private static let usual = [
        "/dev", "/dev/console", "/dev/mqueue", "/dev/pts", "/dev/shm", "/etc/hostname", "/etc/hosts",
        "/etc/resolv.conf", "/proc", "/sys", "/sys/fs/cgroup",
    ]

    fileprivate var places: [String] { Self.usual + mountPoints }
    fileprivate var upper: String { "\(taskDirectory)/upper" }
}

/// What an image that is made from a container says.
package struct CommittedImage: Sendable {
    package var name: String?
    package var config: ImageConfig
    package var author: String?
    package var comment: String?
    /// The command whose work the new layer is.
    package var createdBy: String

    package init(name: String?, config: ImageConfig, author: String?, comment: String?, createdBy: String) {
        self.name = name
        self.config = config
        self.author = author
        self.comment = comment
        self.createdBy = createdBy
    }
}

extension ImageStore {
    /// What a container has made of its image's files.
    ///
    /// - Throws: `ImageError`: notFound, limitExceeded, system.
    package func changes(of layer: ContainerLayer) throws -> [LayerChange] {
        try ImageError.explaining("comparing a container with its image") {
            try pinning(try record(of: layer).chain) { try difference(of: layer).changes }
        }
    }

    /// Makes an image from a container's image and what the container has written.
    ///
    /// - Throws: `ImageError`: invalidArgument, notFound, limitExceeded, noSpace, system. Nothing is kept then.
    package func commit(_ layer: ContainerLayer, as wish: CommittedImage) throws -> ImageRecord {
        let name = try wish.name.map { try Self.newName($0) }
        try wish.config.validate()
        return try ImageError.explaining("making an image of a container") {
            let record = try record(of: layer)
            return try pinning(record.blobs + record.chain) { try make(record, layer, wish, name) }
        }
    }

    private func make(
        _ record: ImageRecord, _ layer: ContainerLayer, _ wish: CommittedImage, _ name: ImageReference?
    ) throws -> ImageRecord {
        guard record.layers.count < limits.layers else {
            throw ImageError(
                .limitExceeded, "the container's image has \(record.layers.count) layers already, which is the most")
        }
        let work = try WorkingDirectory(in: blobs.temporaryDirectory)
        let path = work.newPath()
        let file = try WorkingDirectory.create(path)
        let hasContent = try difference(of: layer).write(to: file.raw)
        try systemCall("fsync", path) { fsync(file.raw) }
        let manifest = try ImageManifest(
            blobs.read(record.digest, limit: limits.documentBytes), announced: nil, digest: record.digest,
            limits: limits)
        var document = try config(of: record)
        var content = StagedContent()
        var layers = manifest.layers.map { layer in
            // Of OCI's types, as the new manifest is.
            var layer = layer
            layer.mediaType = MediaType.layer(MediaType.compression(ofLayer: layer.mediaType) ?? .none)
            return layer
        }
        var sizes = Dictionary(record.layers.map { ($0.diffID, $0.unpackedSize) }) { first, _ in first }
        if hasContent {
            let source = try File.open(path, O_RDONLY)
            let place = work.newPath()
            let unpacked = try snapshots.unpack(
                DescriptorSource(source.raw, subject: "the new layer"), into: place,
                parents: record.chain.reversed().map { snapshots.fileSystem($0) }, isUnknown: false,
                subject: "the new layer")
            layers.append(
                Descriptor(mediaType: MediaType.layer(.none), digest: unpacked.blob, size: unpacked.blobSize))
            document.diffIDs.append(unpacked.diffID)
            sizes[unpacked.diffID] = unpacked.tarSize
            content.files.append((path, unpacked.blob))
            content.layers.append((place, ChainID.all(document.diffIDs)[document.diffIDs.count - 1]))
        }
        let now = Timestamp.now().description
        document.created = now
        document.author = wish.author ?? document.author
        document.config = wish.config
        document.history.append(
            .init(
                created: now, createdBy: wish.createdBy, author: wish.author, comment: wish.comment,
                emptyLayer: hasContent ? nil : true))
        try stage(
            document, layers: layers, names: name.map { [$0] } ?? [], unpackedSizes: sizes, in: work, to: &content)
        let chains = ChainID.all(document.diffIDs)
        return try pinning(chains) {
            guard let image = try commit(content).first else {
                throw ImageError(.system, "the new image is not in the catalog")
            }
            return image
        }
    }

    private func record(of layer: ContainerLayer) throws -> ImageRecord {
        guard let record = state.withLock({ $0.catalog.images[layer.image] }) else {
            throw ImageError(.notFound, "the container's image \(layer.image) is not on this node any more")
        }
        return record
    }

    private func difference(of layer: ContainerLayer) throws -> LayerDifference {
        let flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW
        let upper = SharedFD(try File.open(layer.upper, flags))
        let lowers = try record(of: layer).chain.reversed().map { chain throws in
            SharedFD(try File.open(snapshots.fileSystem(chain), flags))
        }
        var difference = LayerDifference(
            upper: upper, lowers: lowers, places: layer.places, limits: limits)
        try difference.run()
        return difference
    }
}
