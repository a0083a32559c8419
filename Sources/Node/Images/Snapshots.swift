import CKernel
import Glibc
import Kernel

/// What unpacking a layer found out about it.
struct UnpackedLayer: Sendable {
    /// Of the bytes as they were read.
    var blob: Digest
    var blobSize: UInt64
    /// Of the uncompressed tar.
    var diffID: Digest
    var tarSize: UInt64
    var compression: Compression

    /// gzip and zstd layers are kept as they come, since registries and other engines read them; what OCI has no media
    /// type for is kept as a plain tar.
    static func isKept(_ compression: Compression) -> Bool { compression != .xz && compression != .bzip2 }
}

/// Unpacked layers: `snapshots/<chain id>/fs`, each complete or not there.
struct SnapshotStore: Sendable {
    let root: String
    let limits: ImageLimits

    private var directory: String { "\(root)/snapshots" }
    /// A lower directory for images without layers, and the second one that overlayfs wants for a read-only mount.
    var emptyDirectory: String { "\(root)/empty" }

    func prepare() throws {
        try File.makeDirectories(directory, mode: 0o700)
        try File.makeDirectories(emptyDirectory, mode: 0o755)
    }

    func path(_ chain: Digest) -> String { "\(directory)/\(chain.hex)" }
    func fileSystem(_ chain: Digest) -> String { "\(path(chain))/fs" }
    func contains(_ chain: Digest) -> Bool { File.exists(fileSystem(chain)) }
    func list() throws -> [Digest] { try File.list(directory).compactMap { Digest(hex: $0) } }

    /// Unpacks one layer into a new directory `<place>/fs`, durably, and drains the source.
    ///
    /// - Parameters:
    ///   - parents: the `fs` directories of the layers below, the topmost first.
    ///   - isUnknown: nobody has announced a digest, so the archive has to show by itself that it is whole.
    ///   - copy: a descriptor that gets what is to be kept as the layer's blob, see `UnpackedLayer.isKept`.
    func unpack(
        _ source: any ByteSource, into place: String, parents: [String], isUnknown: Bool, subject: String,
        copyingTo copy: Int32? = nil
    ) throws -> UnpackedLayer {
        try File.makeDirectories("\(place)/fs", mode: 0o755)
        let target = try File.open("\(place)/fs", O_RDONLY | O_DIRECTORY | O_NOFOLLOW)
        let root = target.raw
        let lowers = try parents.map { path throws in SharedFD(try File.open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW))
        }
        if let below = lowers.first {
            try FileMetadata.copy(from: below.raw, to: root)
        } else {
            try systemCall("fchmod", place) { fchmod(root, 0o755) }
        }
        let blob = HashingSource(source, subject: subject)
        let decompressor = try Decompressor(blob, subject: subject, checksDamage: isUnknown)
        let bounded = BoundedSource(decompressor, compressed: { blob.count }, limits: limits, subject: subject)
        let tar = HashingSource(bounded, subject: subject)
        if let copy, UnpackedLayer.isKept(decompressor.compression) {
            try decompressor.prefix.withUnsafeBytes { try writeAll($0, to: copy, subject: subject) }
            blob.copy = copy
        } else {
            tar.copy = copy
        }
        let reader = TarReader(tar, limits: limits, needsEndMark: isUnknown)
        let writer = TreeWriter(
            root: root, lowers: lowers.map(\.raw), policy: .layer, limits: limits, subject: subject)
        while let entry = try reader.next() { try writer.write(entry, from: reader) }
        try writer.finish()
        try reader.drain()
        try decompressor.finish()
        try systemCall("syncfs", place) { syncfs(root) }
        return UnpackedLayer(
            blob: blob.digest, blobSize: blob.count, diffID: tar.digest, tarSize: tar.count,
            compression: decompressor.compression)
    }

    /// Takes an unpacked layer over as the snapshot of its chain id; if there is one already, that one stays.
    func adopt(_ place: String, as chain: Digest) throws {
        let target = path(chain)
        if ck_renameat2(AT_FDCWD, place, AT_FDCWD, target, UInt32(CK_RENAME_NOREPLACE)) != 0 {
            guard errno == EEXIST else { throw KernelError("rename", target, errno: errno) }
            try Tree.remove(place)
        }
    }

    func synchronize() throws { try File.syncDirectory(of: "\(directory)/.") }
}
