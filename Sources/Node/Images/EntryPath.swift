import CKernel
import Glibc
import Kernel

/// A path from an archive in its plain form: no empty component, no `.` and no `..`, relative to the root that the
/// archive is unpacked into. The empty path is that root.
struct EntryPath: Hashable, Sendable {
    /// Components with a slash between each two.
    let bytes: [UInt8]

    /// - Throws: `ImageError` for a path that climbs above the root, or is longer or deeper than allowed.
    init(_ path: [UInt8], limits: ImageLimits) throws {
        guard path.count <= limits.pathBytes else {
            throw ImageError(
                .limitExceeded, "the path '\(printable(path))' has \(path.count) bytes, over the \(limits.pathBytes) allowed")
        }
        var components: [ArraySlice<UInt8>] = []
        for component in path.split(separator: UInt8(ascii: "/")) {
            if component.elementsEqual([0x2e]) { continue }
            if component.elementsEqual([0x2e, 0x2e]) {
                guard !components.isEmpty else {
                    throw ImageError(.invalidArchive, "the path '\(printable(path))' leads out of the archive's root")
                }
                components.removeLast()
                continue
            }
            guard component.count <= limits.nameBytes, !component.contains(0) else {
                throw ImageError(.limitExceeded, "the path '\(printable(path))' has a name over \(limits.nameBytes) bytes")
            }
            components.append(component)
        }
        guard components.count <= limits.depth else {
            throw ImageError(
                .limitExceeded, "the path '\(printable(path))' is deeper than the \(limits.depth) levels allowed")
        }
        bytes = Array(components.joined(separator: [0x2f]))
    }

    private init(plain bytes: [UInt8]) { self.bytes = bytes }

    /// The root itself.
    static let root = EntryPath(plain: [])

    var isRoot: Bool { bytes.isEmpty }

    /// The directory that this lies in; the root's is the root.
    var parent: EntryPath {
        guard let slash = bytes.lastIndex(of: 0x2f) else { return .root }
        return EntryPath(plain: Array(bytes[..<slash]))
    }

    /// The last component; empty for the root.
    var name: [UInt8] {
        guard let slash = bytes.lastIndex(of: 0x2f) else { return bytes }
        return Array(bytes[(slash + 1)...])
    }

    /// This path and every directory above it, the outermost first, without the root.
    var prefixes: [EntryPath] {
        var result = bytes.indices.filter { bytes[$0] == 0x2f }.map { EntryPath(plain: Array(bytes[..<$0])) }
        if !isRoot { result.append(self) }
        return result
    }

    /// The entry `name` in this directory.
    func appending(_ name: [UInt8]) -> EntryPath {
        EntryPath(plain: isRoot ? name : bytes + [0x2f] + name)
    }

    /// This path seen from a root in which it lies below `base`.
    func below(_ base: EntryPath) -> EntryPath {
        if base.isRoot { return self }
        return isRoot ? base : EntryPath(plain: base.bytes + [0x2f] + bytes)
    }
}

extension EntryPath: CustomStringConvertible {
    var description: String { "/\(printable(bytes))" }
}

/// System calls on names that are bytes, relative to open directories.
enum ByteName {
    /// Calls `body` with the bytes as a C string.
    static func with<Result>(_ bytes: [UInt8], _ body: (UnsafePointer<CChar>) -> Result) -> Result {
        (bytes + [0]).withUnsafeBytes { raw in
            // SAFETY: the array ends in NUL, so it is not empty and is a C string.
            body(raw.baseAddress.unsafelyUnwrapped.assumingMemoryBound(to: CChar.self))
        }
    }

    /// Opens a path inside a root directory: symbolic links and `..` stay in it, magic links of procfs are refused.
    /// The empty path is the root.
    ///
    /// - Parameter withoutLinks: refuse any symbolic link on the way (ELOOP).
    static func open(
        _ path: [UInt8], in root: Int32, _ flags: Int32, withoutLinks: Bool = false
    ) throws(KernelError) -> OwnedFD {
        let resolve = CK_RESOLVE_IN_ROOT | CK_RESOLVE_NO_MAGICLINKS | (withoutLinks ? CK_RESOLVE_NO_SYMLINKS : 0)
        let how = ck_open_how(
            flags: UInt64(UInt32(bitPattern: flags | O_CLOEXEC)), mode: 0, resolve: UInt64(resolve))
        // The kernel answers EAGAIN when a rename raced with a `..`; a loop without end would be a lever.
        for _ in 0..<128 {
            let raw = with(path.isEmpty ? [0x2e] : path) { name in
                withUnsafePointer(to: how) { ck_openat2(root, name, $0) }
            }
            if raw >= 0 { return OwnedFD(adopting: Int32(raw)) }
            guard errno == EAGAIN || errno == EINTR else { break }
        }
        throw KernelError("openat2", printable(path), errno: errno)
    }

    /// Opens one name in a directory, never following a symbolic link.
    static func openEntry(
        _ name: [UInt8], of directory: Int32, _ flags: Int32, mode: mode_t = 0
    ) throws(KernelError) -> OwnedFD {
        OwnedFD(
            adopting: try systemCall("openat", printable(name)) {
                with(name) { ck_openat(directory, $0, flags | O_NOFOLLOW | O_CLOEXEC, mode) }
            })
    }

    /// What a name in a directory is, symbolic links not followed; nil when there is nothing.
    static func status(_ name: [UInt8], of directory: Int32) throws(KernelError) -> stat? {
        var info = stat()
        if with(name, { fstatat(directory, $0, &info, AT_SYMLINK_NOFOLLOW) }) == 0 { return info }
        if errno == ENOENT { return nil }
        throw KernelError("fstatat", printable(name), errno: errno)
    }
}

extension stat {
    var type: mode_t { st_mode & S_IFMT }
    var isDirectory: Bool { type == S_IFDIR }
    /// Overlayfs's mark for a name that is gone: a character device 0:0.
    var isWhiteout: Bool { type == S_IFCHR && st_rdev == 0 }
}
