import CKernel
import Glibc

/// Removal of trees that somebody else shaped: any depth, any names, never across a mount.
///
/// At most 64 directories are open at a time: what lies deeper is moved up to the top of the tree first, so that a
/// container that made a hundred thousand directories within each other costs neither stack nor descriptors. Names are
/// bytes: one that is not UTF-8 is removed as well.
package enum Tree {
    /// What a removal gave back.
    package struct Removed: Sendable, Equatable {
        /// Files, links and directories that went.
        package var entries = 0
        /// Blocks of those files whose last name went, in bytes.
        package var bytes: UInt64 = 0

        package init() {}
    }

    /// How many levels are kept open before the deeper ones are moved up.
    private static let openLevels = 64

    /// Removes a file or a tree; one that is not there is no error. Symbolic links are removed, never followed.
    ///
    /// - Throws: `KernelError` EXDEV or EBUSY when something is mounted below: nothing beyond the mount is touched.
    @discardableResult
    package static func remove(_ path: String) throws(KernelError) -> Removed {
        var removed = Removed()
        var info = stat()
        guard lstat(path, &info) == 0 else {
            if errno == ENOENT { return removed }
            throw KernelError("lstat", path, errno: errno)
        }
        guard info.st_mode & S_IFMT == S_IFDIR else {
            try File.removeFile(path)
            count(info, into: &removed)
            return removed
        }
        do {
            let directory = try File.open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW)
            try removeEntries(of: directory.raw, subject: path, counting: &removed)
        }
        if rmdir(path) != 0 && errno != ENOENT { throw KernelError("rmdir", path, errno: errno) }
        count(info, into: &removed)
        return removed
    }

    /// Removes one entry of an open directory with all that is below it; one that is not there is no error.
    package static func removeEntry(
        _ name: UnsafePointer<CChar>, of directory: Int32, subject: String
    ) throws(KernelError) {
        if unlinkat(directory, name, 0) == 0 || errno == ENOENT { return }
        guard errno == EISDIR else { throw KernelError("unlink", subject, errno: errno) }
        var removed = Removed()
        do {
            let child = try open(name, of: directory, subject: subject)
            try removeEntries(of: child.raw, subject: subject, counting: &removed)
        }
        if unlinkat(directory, name, AT_REMOVEDIR) != 0 && errno != ENOENT {
            throw KernelError("rmdir", subject, errno: errno)
        }
    }

    /// Empties an open directory.
    package static func removeEntries(
        of directory: Int32, subject: String, counting removed: inout Removed
    ) throws(KernelError) {
        var moved = 0
        repeat {
            moved = 0
            let top = try Listing(try open(".", of: directory, subject: subject), subject: subject)
            var levels = [top]
            while let level = levels.last {
                guard let name = level.next() else {
                    levels.removeLast()
                    try finish(level, in: levels.last, subject: subject, counting: &removed)
                    continue
                }
                if try removeFile(name, of: level.descriptor, subject: subject, counting: &removed) { continue }
                if levels.count < openLevels {
                    let child = try open(name, of: level.descriptor, subject: subject)
                    levels.append(try Listing(child, name: name, subject: subject))
                } else {
                    try moveUp(name, of: level.descriptor, to: directory, number: &moved, subject: subject)
                }
            }
        } while moved > 0
    }

    /// Moves a directory to the top of the tree, under a name that is new there; the next listing of the top finds it.
    private static func moveUp(
        _ name: UnsafePointer<CChar>, of directory: Int32, to top: Int32, number: inout Int, subject: String
    ) throws(KernelError) {
        repeat {
            number += 1
            if ck_renameat2(directory, name, top, ".removed.\(number)", UInt32(CK_RENAME_NOREPLACE)) == 0 { return }
        } while errno == EEXIST
        if errno != ENOENT { throw KernelError("rename", subject, errno: errno, hint: "below it") }
    }

    private static func finish(
        _ level: Listing, in parent: Listing?, subject: String, counting removed: inout Removed
    ) throws(KernelError) {
        guard let parent, let name = level.name else { return }
        let result = name.withUnsafeBufferPointer { name in
            name.baseAddress.map { unlinkat(parent.descriptor, $0, AT_REMOVEDIR) } ?? 0
        }
        // A directory that was too deep to be emptied in this pass stays for the next one.
        if result != 0 && errno != ENOENT && errno != ENOTEMPTY {
            throw KernelError("rmdir", subject, errno: errno, hint: "below it")
        }
        if result == 0 { removed.entries += 1 }
    }

    /// Removes what is no directory; false for a directory.
    private static func removeFile(
        _ name: UnsafePointer<CChar>, of directory: Int32, subject: String, counting removed: inout Removed
    ) throws(KernelError) -> Bool {
        var info = stat()
        guard fstatat(directory, name, &info, AT_SYMLINK_NOFOLLOW) == 0 else {
            if errno == ENOENT { return true }
            throw KernelError("fstatat", subject, errno: errno, hint: "below it")
        }
        if info.st_mode & S_IFMT == S_IFDIR { return false }
        guard unlinkat(directory, name, 0) == 0 || errno == ENOENT else {
            throw KernelError("unlink", "\(subject)/…/\(String(cString: name))", errno: errno)
        }
        count(info, into: &removed)
        return true
    }

    private static func count(_ info: stat, into removed: inout Removed) {
        removed.entries += 1
        if info.st_mode & S_IFMT == S_IFDIR || info.st_nlink <= 1 { removed.bytes += UInt64(info.st_blocks) * 512 }
    }

    private static func open(
        _ name: UnsafePointer<CChar>, of directory: Int32, subject: String
    ) throws(KernelError) -> OwnedFD {
        var how = ck_open_how()
        how.flags = UInt64(O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)
        how.resolve = UInt64(CK_RESOLVE_NO_XDEV | CK_RESOLVE_NO_SYMLINKS)
        let raw = ck_openat2(directory, name, &how)
        guard raw >= 0 else {
            let hint =
                errno == EXDEV ? "something is mounted at \(String(cString: name)) below it; unmount it first" : ""
            throw KernelError("openat2", subject, errno: errno, hint: hint)
        }
        return OwnedFD(adopting: Int32(raw))
    }

    /// An open directory stream; closed with its last reference.
    private final class Listing {
        private let stream: OpaquePointer
        /// The name in the directory above, with its terminating NUL; nil at the top.
        let name: [CChar]?

        init(_ directory: consuming OwnedFD, name: UnsafePointer<CChar>? = nil, subject: String) throws(KernelError) {
            self.name = name.map { Array(UnsafeBufferPointer(start: $0, count: strlen($0) + 1)) }
            let raw = directory.release()
            guard let stream = fdopendir(raw) else {
                let number = errno
                close(raw)
                throw KernelError("fdopendir", subject, errno: number)
            }
            self.stream = stream
        }

        deinit { closedir(stream) }

        var descriptor: Int32 { dirfd(stream) }

        /// The next entry that is neither `.` nor `..`. Its name is valid until the next call.
        func next() -> UnsafePointer<CChar>? {
            while let entry = readdir(stream) {
                // SAFETY: d_name lies inside the entry that readdir keeps until its next call on this stream.
                let name = UnsafeRawPointer(entry).advanced(by: MemoryLayout<dirent>.offset(of: \.d_name) ?? 19)
                    .assumingMemoryBound(to: CChar.self)
                if strcmp(name, ".") != 0 && strcmp(name, "..") != 0 { return name }
            }
            return nil
        }
    }
}
