import CKernel
import Glibc
import Kernel

/// Fills a new tmpfs with what the image has in its place (`tmpcopyup`).
///
/// Everything is opened by one name at a time from a directory that is held open, and no symbolic link is followed. What
/// is kept: content, types, owners, modes, link targets, device numbers, times, and those extended attributes that the
/// tmpfs takes. Hard links become files of their own. The content is bounded by the tmpfs's size, and by the container's
/// memory limit, which holds already.
struct TmpfsCopy {
    /// In the whole tree, and levels of it.
    static let maximumEntries = 1_000_000
    static let maximumDepth = 128

    private let subject: String
    private var entries = 0

    /// - Parameters:
    ///   - source: a directory, opened with O_PATH or for reading.
    ///   - target: the root of the tmpfs, likewise.
    ///   - subject: the mount's destination, for errors.
    static func run(
        from source: borrowing OwnedFD, to target: borrowing OwnedFD, subject: String
    ) throws {
        var copy = TmpfsCopy(subject: subject)
        do throws(KernelError) {
            try copy.copyEntries(of: source.raw, to: target.raw, depth: 0)
        } catch {
            let hint = error.isOutOfSpace ? "does it fit into the tmpfs? see its option size" : error.hint
            throw RuntimeError(
                "tmpcopyup", KernelError(error.operation, error.subject, errno: error.errno, hint: hint))
        }
    }

    private init(subject: String) { self.subject = subject }

    private mutating func copyEntries(of source: Int32, to target: Int32, depth: Int) throws(KernelError) {
        guard depth < Self.maximumDepth else {
            throw KernelError("copy", subject, errno: ELOOP, hint: "deeper than \(Self.maximumDepth) directories")
        }
        for name in try ByteName.list(source, limit: Self.maximumEntries - entries) {
            entries += 1
            // Somebody who has the image too may have removed it meanwhile.
            guard try ByteName.status(name, of: source) != nil else { continue }
            try copy(name, of: source, to: target, depth: depth)
        }
    }

    private mutating func copy(
        _ name: [UInt8], of source: Int32, to target: Int32, depth: Int
    ) throws(KernelError) {
        let found = try ByteName.openEntry(name, of: source, Int32(CK_O_PATH))
        let raw = found.raw
        var info = stat()
        try systemCall("fstat", ByteName.text(name)) { fstat(raw, &info) }
        switch info.type {
        case S_IFDIR:
            try systemCall("mkdirat", ByteName.text(name)) { ByteName.with(name) { mkdirat(target, $0, 0o700) } }
            let from = try ByteName.openEntry([0x2e], of: raw, O_RDONLY | O_DIRECTORY)
            let to = try ByteName.openEntry(name, of: target, O_RDONLY | O_DIRECTORY)
            try copyEntries(of: from.raw, to: to.raw, depth: depth + 1)
            try FileMetadata.copy(from: from.raw, to: to.raw, asFarAsPermitted: true)
        case S_IFREG:
            // The very file that was looked at, whatever has its name by now.
            let from = try File.open("/proc/self/fd/\(raw)", O_RDONLY | O_NOCTTY)
            let to = try ByteName.openEntry(name, of: target, O_WRONLY | O_CREAT | O_EXCL, mode: 0o600)
            try Self.copyContent(from.raw, to.raw, name)
            try FileMetadata.copy(from: from.raw, to: to.raw, asFarAsPermitted: true)
        case S_IFLNK:
            let link = try ByteName.linkTarget(of: raw)
            try systemCall("symlinkat", ByteName.text(name)) {
                ByteName.with(link) { text in ByteName.with(name) { symlinkat(text, target, $0) } }
            }
            try Self.keepOwner(info, name, of: target)
        default:
            try systemCall("mknodat", ByteName.text(name)) {
                ByteName.with(name) { mknodat(target, $0, info.st_mode & (S_IFMT | 0o7777), info.st_rdev) }
            }
            try Self.keepOwner(info, name, of: target)
        }
    }

    private static func copyContent(_ source: Int32, _ target: Int32, _ name: [UInt8]) throws(KernelError) {
        while try systemCall("sendfile", ByteName.text(name), { sendfile(target, source, nil, 1 << 30) }) > 0 {}
    }

    private static func keepOwner(_ info: stat, _ name: [UInt8], of directory: Int32) throws(KernelError) {
        try systemCall("fchownat", ByteName.text(name)) {
            ByteName.with(name) { fchownat(directory, $0, info.st_uid, info.st_gid, AT_SYMLINK_NOFOLLOW) }
        }
    }
}
