import CKernel
import Glibc
import Kernel
import Synchronization

/// The source of a bind mount, resolved once.
///
/// The mount is to be made from `descriptor`, as `/proc/self/fd/N` or by open_tree(2); whoever has to use `path` instead
/// checks device and inode of what it finds there.
package struct BindSource: ~Copyable, Sendable {
    /// Opened with O_PATH.
    package let descriptor: OwnedFD
    /// The resolved path on the host, without symbolic links.
    package let path: String
    package let device: UInt64
    package let inode: UInt64
    package let isDirectory: Bool
}

extension VolumeStore {
    /// Opens a host file or directory that a container is to see.
    ///
    /// Symbolic links of the host are followed, once, magic links of procfs are not. Nothing is made: a source that is
    /// not there is an error. Martlet's own directories, and what is below them, are refused, by whatever name they are
    /// reached; a directory above them is not, as binding `/` is a use of its own.
    ///
    /// - Throws: `VolumeError`: invalidArgument, notFound, refused, system.
    package func openBindSource(_ path: String) throws -> BindSource {
        guard path.isAbsolutePath, path.utf8.count <= 4095, !path.utf8.contains(0) else {
            throw VolumeError(
                .invalidArgument,
                "the bind source '\(ByteName.text(path.utf8))' must be an absolute path of at most 4,095 bytes")
        }
        return try VolumeError.explaining("opening the bind source \(ByteName.text(path.utf8))") {
            let how = ck_open_how(
                flags: UInt64(UInt32(bitPattern: Int32(CK_O_PATH) | O_CLOEXEC)), mode: 0,
                resolve: UInt64(CK_RESOLVE_NO_MAGICLINKS))
            let raw = withUnsafePointer(to: how) { ck_openat2(AT_FDCWD, path, $0) }
            guard raw >= 0 else { throw Self.explained(errno, path) }
            let descriptor = OwnedFD(adopting: Int32(raw))
            var info = stat()
            let number = descriptor.raw
            try systemCall("fstat", path) { fstat(number, &info) }
            let resolved = try Self.resolvedPath(number)
            try refuseOwn(number, isDirectory: info.isDirectory, resolved: resolved, path: path)
            return BindSource(
                descriptor: descriptor, path: resolved, device: UInt64(info.st_dev), inode: UInt64(info.st_ino),
                isDirectory: info.isDirectory)
        }
    }

    private static func explained(_ number: Int32, _ path: String) -> any Error {
        let shown = ByteName.text(path.utf8)
        return switch number {
        case ENOENT: VolumeError(.notFound, "the bind source '\(shown)' does not exist; make it first")
        case ENOTDIR: VolumeError(.notFound, "the bind source '\(shown)' lies below something that is no directory")
        case ELOOP:
            VolumeError(
                .invalidArgument, "the bind source '\(shown)' leads through a loop of links or a magic link of procfs")
        default: KernelError("openat2", path, errno: number)
        }
    }

    /// The path that the kernel knows an open file by.
    private static func resolvedPath(_ descriptor: Int32) throws -> String {
        var buffer = [CChar](repeating: 0, count: 4097)
        let link = "/proc/self/fd/\(descriptor)"
        let count = try systemCall("readlink", link) { readlink(link, &buffer, buffer.count - 1) }
        return String(decoding: buffer[..<count].map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }

    /// Compares by path and by device and inode of every directory on the way up: the same place may be mounted under
    /// another name.
    private func refuseOwn(_ descriptor: Int32, isDirectory: Bool, resolved: String, path: String) throws {
        let refusal = VolumeError(
            .refused,
            "'\(ByteName.text(path.utf8))' belongs to Martlet itself and cannot be a bind mount"
                + " (a named volume is mounted by its name)")
        var own: [(device: UInt64, inode: UInt64)] = []
        for directory in refusedSources {
            var info = stat()
            guard stat(directory, &info) == 0 else { continue }
            own.append((UInt64(info.st_dev), UInt64(info.st_ino)))
            let opened = try File.open(directory, Int32(CK_O_PATH))
            let real = try Self.resolvedPath(opened.raw)
            if resolved == real || resolved.isPath(inside: real) { throw refusal }
        }
        var current: SharedFD
        if isDirectory {
            current = SharedFD(OwnedFD(adopting: try systemCall("dup") { ck_fcntl(descriptor, F_DUPFD_CLOEXEC, 3) }))
        } else {
            let above = resolved[..<(resolved.lastSlash ?? resolved.startIndex)]
            current = SharedFD(try File.open(above.isEmpty ? "/" : String(above), Int32(CK_O_PATH) | O_DIRECTORY))
        }
        var before: (device: UInt64, inode: UInt64)?
        for _ in 0..<4096 {
            var info = stat()
            try systemCall("fstat", path) { fstat(current.raw, &info) }
            let here = (device: UInt64(info.st_dev), inode: UInt64(info.st_ino))
            if own.contains(where: { $0 == here }) { throw refusal }
            if let before, before == here { return }
            before = here
            let above = try systemCall("openat", path) {
                ck_openat(current.raw, "..", Int32(CK_O_PATH) | O_DIRECTORY | O_CLOEXEC, 0)
            }
            current = SharedFD(OwnedFD(adopting: above))
        }
    }
}
