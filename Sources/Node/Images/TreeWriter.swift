import CKernel
import Glibc
import Kernel

/// Writes the entries of a tar archive below a directory, and nowhere else.
///
/// Each entry's directory is opened with openat2(2) inside the root (symbolic links and `..` stay in it, whoever swaps
/// names meanwhile), and the last name is made by calls that follow no link. So neither an archive nor a process in the
/// container can lead a write out of the root.
final class TreeWriter {
    /// What differs between unpacking a layer and copying into a container.
    struct Policy: Sendable {
        /// `.wh.` names become overlayfs whiteouts; otherwise they are names like any other.
        var whiteouts: Bool
        /// A directory and something else of the same name may replace each other.
        var replacesKinds: Bool
        /// Device nodes are made; otherwise they are refused.
        var devices: Bool
        /// Directories that entries are put into keep their modification time.
        var keepsTimes: Bool
        /// The owner of everything, instead of the archive's.
        var owner: (uid: UInt32, gid: UInt32)?

        /// A layer into its own empty directory that only root can reach.
        static let layer = Policy(whiteouts: true, replacesKinds: true, devices: true, keepsTimes: true)
        /// Files into a container that may be running.
        static let copy = Policy(whiteouts: false, replacesKinds: false, devices: false, keepsTimes: false)
    }

    private let root: Int32
    private let base: EntryPath
    private let lowers: [Int32]
    private let policy: Policy
    private let limits: ImageLimits
    private let subject: String
    private var cursor: Cursor?
    /// Entries written so far.
    private(set) var entries = 0
    private var lackedRoomForAttributes = false

    /// The directory that the last entry went into.
    private final class Cursor {
        let path: EntryPath
        let directory: OwnedFD
        var times: [timespec]

        init(_ path: EntryPath, _ directory: consuming OwnedFD) throws(KernelError) {
            self.path = path
            var info = stat()
            let raw = directory.raw
            try systemCall("fstat", path.description) { fstat(raw, &info) }
            self.directory = directory
            times = [info.st_atim, info.st_mtim]
        }
    }

    /// - Parameters:
    ///   - root: an open directory (for reading or O_PATH) that nothing leads out of; it belongs to the caller.
    ///   - base: the directory inside it that the archive's root stands for; it exists.
    ///   - lowers: for a layer, the directories of the layers below, the topmost first: directories that the archive
    ///     uses but does not mention get their mode and owner from there.
    ///   - subject: what messages call the archive.
    init(
        root: Int32, base: EntryPath = .root, lowers: [Int32] = [], policy: Policy, limits: ImageLimits,
        subject: String
    ) {
        self.root = root
        self.base = base
        self.lowers = lowers
        self.policy = policy
        self.limits = limits
        self.subject = subject
    }

    /// Writes one entry; its data is taken from `reader`.
    func write(_ entry: TarEntry, from reader: TarReader) throws {
        entries += 1
        guard entries <= limits.layerEntries else {
            throw ImageError(.limitExceeded, "\(subject) has more than the \(limits.layerEntries) entries allowed")
        }
        let path = try EntryPath(entry.path, limits: limits)
        do {
            try write(entry, at: path, from: reader)
        } catch let error as KernelError {
            throw explained(error, path)
        }
    }

    /// Gives the last directory its time back. Call once, after the last entry.
    func finish() throws {
        try leave()
    }

    private func write(_ entry: TarEntry, at path: EntryPath, from reader: TarReader) throws {
        guard !path.isRoot else {
            guard entry.kind == .directory else {
                throw ImageError(.invalidArchive, "\(subject) has an entry without a name that is no directory")
            }
            try leave()
            let directory = try ByteName.open(base.bytes, in: root, O_RDONLY | O_DIRECTORY)
            return try applyMetadata(entry, to: directory.raw)
        }
        let name = path.name
        if policy.whiteouts {
            for component in path.parent.bytes.split(separator: 0x2f) where component.starts(with: Whiteout.prefix) {
                throw ImageError(.invalidArchive, "the path '\(path)' has a directory with the reserved prefix .wh.")
            }
            if name.starts(with: Whiteout.prefix) { return try writeWhiteout(name, path, reader) }
        }
        let directory = try enter(path.parent)
        let existing = try ByteName.status(name, of: directory)
        switch entry.kind {
        case .directory: try writeDirectory(entry, name, in: directory, existing, path)
        case .regular: try writeFile(entry, name, in: directory, existing, path, reader)
        case .hardLink: try writeHardLink(entry, name, path)
        case .symbolicLink: try writeSymbolicLink(entry, name, in: directory, existing, path)
        case .characterDevice, .blockDevice, .fifo: try writeNode(entry, name, in: directory, existing, path)
        }
    }

    private func explained(_ error: KernelError, _ path: EntryPath) -> any Error {
        switch error.errno {
        case ENOSPC where lackedRoomForAttributes:
            ImageError(
                .invalidArchive, "the extended attributes of '\(path)' in \(subject) are too large for this file system"
            )
        case ENOTDIR:
            ImageError(.invalidArchive, "'\(path)' in \(subject) lies below something that is no directory")
        case ELOOP:
            ImageError(
                .invalidArchive, "'\(path)' in \(subject) leads through a loop of symbolic links or a magic link")
        default: error
        }
    }
}

/// Names with a meaning in layers (OCI image-spec, layer.md, "Whiteouts").
enum Whiteout {
    static let prefix = Array(".wh.".utf8)
    static let opaque = Array(".wh..wh..opq".utf8)
    /// Other names of AUFS's own, which say nothing about files.
    static let reserved = Array(".wh..wh.".utf8)
}

// MARK: - Directories

extension TreeWriter {
    /// Gives the directory that the last entries went into its times back.
    private func leave() throws {
        guard let cursor else { return }
        self.cursor = nil
        guard policy.keepsTimes else { return }
        let raw = cursor.directory.raw
        try systemCall("futimens", cursor.path.description) { futimens(raw, cursor.times) }
    }

    /// Opens the directory of an entry, made with what is missing above it. Valid until the next call.
    private func enter(_ path: EntryPath) throws -> Int32 {
        if let cursor, cursor.path == path { return cursor.directory.raw }
        try leave()
        let place = path.below(base)
        let directory: OwnedFD
        do throws(KernelError) {
            directory = try ByteName.open(place.bytes, in: root, O_RDONLY | O_DIRECTORY)
        } catch {
            guard error.errno == ENOENT || error.errno == ENOTDIR && policy.whiteouts else { throw error }
            try makeMissing(path)
            directory = try ByteName.open(place.bytes, in: root, O_RDONLY | O_DIRECTORY)
        }
        if !policy.devices { try refuseKernelFileSystem(directory.raw, path) }
        let entered = try Cursor(path, directory)
        cursor = entered
        return entered.directory.raw
    }

    /// Makes the missing ones of the directories on the way to `path` and itself.
    private func makeMissing(_ path: EntryPath) throws {
        for step in path.prefixes {
            let place = step.below(base)
            do throws(KernelError) {
                _ = try ByteName.open(place.bytes, in: root, Int32(CK_O_PATH) | O_DIRECTORY)
                continue
            } catch {
                guard error.errno == ENOENT || error.errno == ENOTDIR else { throw error }
            }
            let parent = try ByteName.open(place.parent.bytes, in: root, O_RDONLY | O_DIRECTORY)
            let name = step.name
            let existing = try ByteName.status(name, of: parent.raw)
            let wasWhiteout = policy.whiteouts && existing?.isWhiteout == true
            if existing?.type == S_IFLNK {
                throw ImageError(.invalidArchive, "'\(path)' in \(subject) leads through a symbolic link to nowhere")
            }
            guard existing == nil || wasWhiteout else { throw KernelError("openat2", step.description, errno: ENOTDIR) }
            let times = try Cursor(step.parent, try parent.duplicate())
            if wasWhiteout { try remove(name, of: parent.raw) }
            try makeDirectory(name, in: parent.raw)
            let made = try ByteName.openEntry(name, of: parent.raw, O_RDONLY | O_DIRECTORY)
            try prepareImplicit(made.raw, step, hidesLower: wasWhiteout)
            cursor = times
            try leave()
        }
    }

    /// Mode, owner and attributes of a directory that the archive does not mention: as in the layers below, else 0755
    /// and the owner that all entries have.
    private func prepareImplicit(_ directory: Int32, _ path: EntryPath, hidesLower: Bool) throws {
        if hidesLower {
            try setOpaque(directory)
        } else {
            for lower in lowers {
                let found: OwnedFD
                do throws(KernelError) {
                    found = try ByteName.open(
                        path.bytes, in: lower, O_RDONLY | O_NONBLOCK | O_DIRECTORY, withoutLinks: true)
                } catch {
                    if error.errno == ENOENT { continue }
                    break
                }
                return try FileMetadata.copy(from: found.raw, to: directory)
            }
        }
        let owner = policy.owner ?? (0, 0)
        try systemCall("fchown", path.description) { fchown(directory, owner.uid, owner.gid) }
        try systemCall("fchmod", path.description) { fchmod(directory, 0o755) }
    }

    private func makeDirectory(_ name: [UInt8], in directory: Int32) throws {
        try systemCall("mkdirat", printable(name)) { ByteName.with(name) { mkdirat(directory, $0, 0o700) } }
    }

    private func remove(_ name: [UInt8], of directory: Int32) throws {
        var result: Result<Void, KernelError> = .success(())
        ByteName.with(name) { pointer in
            do throws(KernelError) {
                try Tree.removeEntry(pointer, of: directory, subject: printable(name))
            } catch {
                result = .failure(error)
            }
        }
        try result.get()
    }

    private func setOpaque(_ directory: Int32) throws {
        try systemCall("fsetxattr trusted.overlay.opaque") {
            fsetxattr(directory, "trusted.overlay.opaque", "y", 1, 0)
        }
    }

    /// A container can mount procfs and lead a copy into it; there the host's root would write what the container's may
    /// not.
    private func refuseKernelFileSystem(_ directory: Int32, _ path: EntryPath) throws {
        if try KernelFileSystem.holds(directory, path) {
            throw ImageError(.unsupported, "'\(path)' lies in a file system of the kernel; nothing is copied there")
        }
    }

    private func writeDirectory(
        _ entry: TarEntry, _ name: [UInt8], in directory: Int32, _ existing: stat?, _ path: EntryPath
    ) throws {
        var hidesLower = false
        if let existing, !existing.isDirectory {
            hidesLower = policy.whiteouts && existing.isWhiteout
            try replace(name, in: directory, path)
        }
        if existing?.isDirectory != true { try makeDirectory(name, in: directory) }
        let made = try ByteName.openEntry(name, of: directory, O_RDONLY | O_DIRECTORY)
        if hidesLower { try setOpaque(made.raw) }
        try applyMetadata(entry, to: made.raw)
    }

    /// Makes room for an entry of another kind.
    private func replace(_ name: [UInt8], in directory: Int32, _ path: EntryPath) throws {
        guard policy.replacesKinds else {
            throw ImageError(
                .invalidArgument,
                "'\(path)' exists in the container and is a directory where the copy is none, or reverse")
        }
        try remove(name, of: directory)
    }
}

// MARK: - Everything else

extension TreeWriter {
    private func writeFile(
        _ entry: TarEntry, _ name: [UInt8], in directory: Int32, _ existing: stat?, _ path: EntryPath,
        _ reader: TarReader
    ) throws {
        try clear(name, in: directory, existing, path)
        let file = try ByteName.openEntry(name, of: directory, O_WRONLY | O_CREAT | O_EXCL, mode: 0o600)
        let raw = file.raw
        var end: UInt64 = 0
        try reader.forEachPiece { offset, piece in
            try Self.write(piece, to: raw, at: offset, path)
            end = offset + UInt64(piece.count)
        }
        if end < entry.size {
            try systemCall("ftruncate", path.description) { ftruncate(raw, off_t(entry.size)) }
        }
        try applyMetadata(entry, to: raw)
    }

    private static func write(_ piece: UnsafeRawBufferPointer, to file: Int32, at start: UInt64, _ path: EntryPath)
        throws
    {
        var rest = piece
        var offset = off_t(start)
        while !rest.isEmpty {
            let count = try systemCall("pwrite", path.description) {
                pwrite(file, rest.baseAddress, rest.count, offset)
            }
            offset += off_t(count)
            rest = UnsafeRawBufferPointer(rebasing: rest[count...])
        }
    }

    /// Removes what an entry that is no directory replaces.
    private func clear(_ name: [UInt8], in directory: Int32, _ existing: stat?, _ path: EntryPath) throws {
        guard let existing else { return }
        if existing.isDirectory { return try replace(name, in: directory, path) }
        try remove(name, of: directory)
    }

    /// Another name for a file of the same archive. The target is looked up inside the root, and if its last name is a
    /// symbolic link, that link itself gets the new name.
    private func writeHardLink(_ entry: TarEntry, _ name: [UInt8], _ path: EntryPath) throws {
        let target = try EntryPath(entry.target, limits: limits)
        let place = target.below(base)
        let missing = ImageError(
            .invalidArchive, "'\(path)' in \(subject) is a hard link to '\(target)', which is no file in it")
        guard !target.isRoot else { throw missing }
        let parent: OwnedFD
        do throws(KernelError) {
            parent = try ByteName.open(place.parent.bytes, in: root, O_RDONLY | O_DIRECTORY)
        } catch {
            guard error.errno == ENOENT || error.errno == ENOTDIR || error.errno == ELOOP else { throw error }
            throw missing
        }
        guard let file = try ByteName.status(place.name, of: parent.raw), !file.isDirectory,
            !(policy.whiteouts && file.isWhiteout)
        else { throw missing }
        let from = parent.raw
        if !policy.devices { try refuseKernelFileSystem(from, target) }
        let directory = try enter(path.parent)
        let existing = try ByteName.status(name, of: directory)
        if let existing, existing.st_ino == file.st_ino, existing.st_dev == file.st_dev { return }
        try clear(name, in: directory, existing, path)
        try systemCall("linkat", path.description) {
            ByteName.with(place.name) { old in ByteName.with(name) { linkat(from, old, directory, $0, 0) } }
        }
    }

    private func writeSymbolicLink(
        _ entry: TarEntry, _ name: [UInt8], in directory: Int32, _ existing: stat?, _ path: EntryPath
    ) throws {
        guard !entry.target.isEmpty, entry.target.count <= limits.pathBytes, !entry.target.contains(0) else {
            throw ImageError(
                .invalidArchive, "the symbolic link '\(path)' in \(subject) has no target, or too long a one")
        }
        try clear(name, in: directory, existing, path)
        try systemCall("symlinkat", path.description) {
            ByteName.with(entry.target) { target in ByteName.with(name) { symlinkat(target, directory, $0) } }
        }
        let owner = policy.owner ?? (entry.uid, entry.gid)
        try systemCall("fchownat", path.description) {
            ByteName.with(name) { fchownat(directory, $0, owner.uid, owner.gid, AT_SYMLINK_NOFOLLOW) }
        }
        let times = Self.times(entry)
        try systemCall("utimensat", path.description) {
            ByteName.with(name) { utimensat(directory, $0, times, AT_SYMLINK_NOFOLLOW) }
        }
    }

    private func writeNode(
        _ entry: TarEntry, _ name: [UInt8], in directory: Int32, _ existing: stat?, _ path: EntryPath
    ) throws {
        guard entry.kind == .fifo || policy.devices else {
            throw ImageError(.unsupported, "'\(path)' is a device node; devices are not copied into containers")
        }
        try clear(name, in: directory, existing, path)
        let type =
            switch entry.kind {
            case .characterDevice: S_IFCHR
            case .blockDevice: S_IFBLK
            default: S_IFIFO
            }
        let device = entry.kind == .fifo ? 0 : dev_t(ck_makedev(entry.major, entry.minor))
        try systemCall("mknodat", path.description) {
            ByteName.with(name) { mknodat(directory, $0, type | 0o600, device) }
        }
        let node = try ByteName.openEntry(name, of: directory, Int32(CK_O_PATH))
        var info = stat()
        try systemCall("fstat", path.description) { fstat(node.raw, &info) }
        guard info.type == type else { throw KernelError("mknodat", path.description, errno: EBUSY) }
        // An O_PATH descriptor takes no fchmod; its entry in /proc leads to exactly that node.
        let handle = "/proc/self/fd/\(node.raw)"
        let owner = policy.owner ?? (entry.uid, entry.gid)
        try systemCall("chown", path.description) { chown(handle, owner.uid, owner.gid) }
        try systemCall("chmod", path.description) { chmod(handle, entry.mode) }
        let times = Self.times(entry)
        try systemCall("utimensat", path.description) { utimensat(AT_FDCWD, handle, times, 0) }
    }

    /// A name that hides one of a layer below. In this layer itself it hides nothing, but a directory of that name no
    /// longer shows what lies below it.
    private func writeWhiteout(_ name: [UInt8], _ path: EntryPath, _ reader: TarReader) throws {
        if name == Whiteout.opaque { return try setOpaque(enter(path.parent)) }
        if name.starts(with: Whiteout.reserved) { return }
        let hidden = Array(name.dropFirst(Whiteout.prefix.count))
        guard !hidden.isEmpty, hidden != [0x2e], hidden != [0x2e, 0x2e] else {
            throw ImageError(.invalidArchive, "'\(path)' in \(subject) is a whiteout of no name or of a parent")
        }
        let directory = try enter(path.parent)
        if let existing = try ByteName.status(hidden, of: directory) {
            guard existing.isDirectory else { return }
            let kept = try ByteName.openEntry(hidden, of: directory, O_RDONLY | O_DIRECTORY)
            return try setOpaque(kept.raw)
        }
        try systemCall("mknodat", path.description) {
            ByteName.with(hidden) { mknodat(directory, $0, S_IFCHR, 0) }
        }
    }

    private static func times(_ entry: TarEntry) -> [timespec] {
        let time = timespec(tv_sec: Int(entry.modified.seconds), tv_nsec: Int(entry.modified.nanoseconds))
        return [time, time]
    }

    /// Owner, then mode (a change of owner clears setuid), then attributes (it clears capabilities), then time.
    private func applyMetadata(_ entry: TarEntry, to descriptor: Int32) throws {
        let owner = policy.owner ?? (entry.uid, entry.gid)
        try systemCall("fchown") { fchown(descriptor, owner.uid, owner.gid) }
        try systemCall("fchmod") { fchmod(descriptor, entry.mode) }
        for attribute in entry.attributes {
            try set(attribute, on: descriptor)
        }
        let times = Self.times(entry)
        try systemCall("futimens") { futimens(descriptor, times) }
    }

    /// Sets the attributes that mean something inside a container. Overlayfs's own would steer the host's mounts and are
    /// refused; security labels of another machine and the like are left out.
    private func set(_ attribute: TarEntry.Attribute, on descriptor: Int32) throws {
        let name = String(decoding: attribute.name, as: UTF8.self)
        guard !name.hasPrefix("trusted.overlay."), !name.hasPrefix("user.overlay.") else {
            throw ImageError(
                .invalidArchive, "\(subject) sets the attribute \(printable(name)), which is overlayfs's own")
        }
        let isOptional = name.hasPrefix("user.") || name.hasPrefix("system.posix_acl_")
        guard isOptional || name == "security.capability" else { return }
        let result = ByteName.with(attribute.name) { key in
            attribute.value.withUnsafeBytes { fsetxattr(descriptor, key, $0.baseAddress, $0.count, 0) }
        }
        if result == 0 || isOptional && errno == EOPNOTSUPP { return }
        lackedRoomForAttributes = errno == ENOSPC || errno == E2BIG
        throw KernelError("fsetxattr", name, errno: lackedRoomForAttributes ? ENOSPC : errno)
    }
}

extension stat {
    /// Overlayfs's mark for a name that is gone: a character device 0:0.
    var isWhiteout: Bool { type == S_IFCHR && st_rdev == 0 }
}
