import Glibc
import Kernel

/// The members of an archive of images, kept in a working directory under numbers: no name of the archive becomes a path
/// of the host.
final class ArchiveMembers {
    struct Member {
        /// Where it lies on the host.
        let path: String
        let digest: Digest
        let size: UInt64
    }

    private enum Content {
        case file(Member)
        /// Another member's plain path.
        case link(EntryPath)
    }

    private var members: [EntryPath: Content] = [:]
    private let limits: ImageLimits

    /// Reads a whole archive, compressed or not, and hashes its members on the way.
    ///
    /// - Throws: `ImageError` for a member that appears twice, a name that leads out of the archive, and beyond the limits.
    init(_ source: any ByteSource, in work: WorkingDirectory, limits: ImageLimits) throws {
        self.limits = limits
        var bounds = limits
        bounds.layerBytes = limits.archiveBytes
        let blob = HashingSource(source)
        let decompressor = try Decompressor(blob, subject: "the archive", checksDamage: true)
        let bounded = BoundedSource(decompressor, compressed: { blob.count }, limits: bounds, subject: "the archive")
        let reader = TarReader(bounded, limits: bounds, needsEndMark: true)
        while let entry = try reader.next() {
            guard members.count < limits.members else {
                throw ImageError(.limitExceeded, "the archive has more than the \(limits.members) members allowed")
            }
            let name = try EntryPath(entry.path, limits: limits)
            switch entry.kind {
            case .directory: continue
            case .regular: try insert(name, .file(Self.spool(entry, reader, in: work)))
            case .hardLink: try insert(name, .link(EntryPath(entry.target, limits: limits)))
            case .symbolicLink:
                try insert(name, .link(EntryPath(name.parent.bytes + [0x2f] + entry.target, limits: limits)))
            default:
                throw ImageError(.invalidArchive, "the member '\(name)' of the archive is a device or a FIFO")
            }
        }
        try reader.drain()
        try decompressor.finish()
    }

    private func insert(_ name: EntryPath, _ content: Content) throws {
        guard members.updateValue(content, forKey: name) == nil else {
            throw ImageError(.invalidArchive, "the archive has the member '\(name)' twice")
        }
    }

    private static func spool(_ entry: TarEntry, _ reader: TarReader, in work: WorkingDirectory) throws -> Member {
        let path = work.newPath()
        let file = try WorkingDirectory.create(path)
        let raw = file.raw
        var state = DigestState()
        guard entry.segments == nil else {
            throw ImageError(.unsupported, "the archive has a sparse member, '\(printable(entry.path))'")
        }
        try reader.forEachPiece { _, piece in
            state.update(piece)
            try writeAll(piece, to: raw, subject: path)
        }
        try systemCall("fsync", path) { fsync(raw) }
        return Member(path: path, digest: state.finish(), size: state.count)
    }

    /// A member by its name in the archive, links followed; nil when there is none.
    subscript(name: String) -> Member? {
        guard var path = try? EntryPath(Array(name.utf8), limits: limits) else { return nil }
        for _ in 0..<16 {
            switch members[path] {
            case .file(let member): return member
            case .link(let target): path = target
            case nil: return nil
            }
        }
        return nil
    }

    /// A member that must be there and be small.
    func document(_ name: String) throws -> [UInt8] {
        guard let member = self[name] else {
            throw ImageError(.invalidArchive, "the archive has no '\(printable(name))'")
        }
        return try bytes(member, name: name)
    }

    func bytes(_ member: Member, name: String) throws -> [UInt8] {
        guard member.size <= UInt64(limits.documentBytes) else {
            throw ImageError(
                .limitExceeded,
                "'\(printable(name))' has \(member.size) bytes, over the \(limits.documentBytes) allowed")
        }
        return try File.read(member.path, limit: limits.documentBytes)
    }

    /// The blob of an OCI layout that a descriptor refers to.
    func blob(_ descriptor: Descriptor) throws -> Member {
        guard let member = self["blobs/sha256/\(descriptor.digest.hex)"] else {
            throw ImageError(.invalidArchive, "the archive does not have the content \(descriptor.digest)")
        }
        guard member.digest == descriptor.digest, member.size == descriptor.size else {
            throw ImageError(
                .invalidArchive,
                "the content \(descriptor.digest) of \(descriptor.size) bytes is in fact \(member.digest) of \(member.size)"
            )
        }
        return member
    }
}
