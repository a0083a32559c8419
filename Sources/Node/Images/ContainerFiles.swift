import CKernel
import Glibc
import JSON
import Kernel

/// What is at a path in a container, as `docker cp` shows it.
package struct ContainerPathStatus: Sendable, Equatable, Codable {
    package enum Kind: String, Sendable, Codable {
        case file, directory, link, device, fifo, socket
    }

    /// The last part of the path; `/` for the root.
    package var name: String
    package var kind: Kind
    /// In bytes.
    package var size: UInt64
    /// Permission bits with setuid, setgid and sticky.
    package var mode: UInt32
    package var modified: Timestamp
    /// What a symbolic link says; empty for anything else.
    package var linkTarget: String
}

/// Copies between a container's root file system and a tar stream, for `martlet cp`.
///
/// The root is the task's `rootfs`, or what shows its volumes as well: `/proc/<pid>/root` of a running container. Every
/// name is looked up by openat2(2) inside the root, so that a container that swaps names meanwhile leads nobody out.
package struct ContainerFiles: Sendable {
    /// Opened once, so that a process number that another gets meanwhile changes nothing.
    private let root: SharedFD
    private let limits: ImageLimits
    /// The longest path that is followed, in bytes.
    private static let maximumPath = 4095

    /// - Parameter root: the root on the host.
    /// - Throws: `ImageError` of kind system when it cannot be opened.
    package init(root: String, limits: ImageLimits = .standard) throws {
        self.root = try ImageError.explaining("opening the container's files") {
            SharedFD(try File.open(root, O_RDONLY | O_DIRECTORY))
        }
        self.limits = limits
    }

    /// - Parameter root: open; O_PATH will do.
    package init(root: SharedFD, limits: ImageLimits = .standard) {
        self.root = root
        self.limits = limits
    }

    /// Looks at a path; a symbolic link at its end is not followed.
    ///
    /// - Throws: `ImageError`: notFound, invalidArgument, system.
    package func status(_ path: String) throws -> ContainerPathStatus {
        try ImageError.explaining("looking at \(printable(path)) in the container") {
            let found = try open(path, in: root.raw)
            return try Self.status(found.raw, name: Self.name(of: path))
        }
    }

    /// Where a path leads to once the links in it are followed, from the container's root, and whether the file system
    /// there is read-only.
    ///
    /// - Parameter directory: a link at its end is followed too, as `extract` does.
    /// - Throws: `ImageError`: notFound, invalidArgument, system.
    package func place(of path: String, directory: Bool) throws -> (path: String, isReadOnly: Bool) {
        try ImageError.explaining("looking at \(printable(path)) in the container") {
            let found = try open(directory ? path + "/" : path, in: root.raw)
            var info = statvfs()
            try systemCall("fstatvfs", path) { fstatvfs(found.raw, &info) }
            let (top, whole) = (try Self.kernelPath(of: root.raw), try Self.kernelPath(of: found.raw))
            let isBelow = top != "/" && (whole == top || whole.isPath(inside: top))
            let inside = isBelow ? String(decoding: whole.utf8.dropFirst(top.utf8.count), as: UTF8.self) : whole
            return (inside.isEmpty ? "/" : inside, info.f_flag & 1 /* ST_RDONLY */ != 0)
        }
    }

    /// Refuses what `archive` would refuse, before anything of the archive is written.
    ///
    /// - Throws: `ImageError`: unsupported (the kernel's files), notFound, invalidArgument, system.
    package func checkContent(of path: String) throws {
        try ImageError.explaining("looking at \(printable(path)) in the container") {
            let found = try open(path, in: root.raw)
            try KernelFileSystem.refuse(found.raw, printable(path))
        }
    }

    /// Writes a tar of a file or directory to `target`. Its entries begin with the last part of the path; of a path that
    /// ends in `/.`, with `.`: the content of the directory.
    ///
    /// Sockets are left out. Devices and FIFOs are entries, their content is not read.
    ///
    /// - Returns: what the path is.
    /// - Throws: `ImageError`: notFound, invalidArgument, limitExceeded, system.
    @discardableResult
    package func archive(
        _ path: String, to target: Int32, progress: ImageProgressHandler? = nil
    ) throws -> ContainerPathStatus {
        try Self.telling("copying \(printable(path)) out of the container") {
            let found = try open(path, in: root.raw)
            let status = try Self.status(found.raw, name: Self.name(of: path))
            let start = try Self.entryPath(path, limits: limits)
            let isContent = path.hasSuffix("/.") || path == "." || start.isRoot
            let writer = TarWriter { try writeAll($0, to: target, subject: "the archive") }
            var walk = TreeArchiver(root: root.raw, writer: writer, limits: limits) { done in
                progress?(ImageProgress(phase: "reading", done: done, total: nil))
            }
            try walk.add(found, at: start, named: isContent ? [0x2e] : start.name)
            try writer.finish()
            return status
        }
    }

    /// Writes a tar of the whole root to `target`, its entries named from there on; of what is mounted in it only the
    /// mount points of the kernel's file systems are left empty.
    ///
    /// - Throws: `ImageError`: limitExceeded, system.
    package func export(to target: Int32) throws {
        try ImageError.explaining("exporting the container's files") {
            let writer = TarWriter { try writeAll($0, to: target, subject: "the archive") }
            var walk = TreeArchiver(root: root.raw, writer: writer, limits: limits) { _ in }
            try walk.add(try ByteName.open([], in: root.raw, Int32(CK_O_PATH)), at: .root, named: [])
            try writer.finish()
        }
    }

    /// Unpacks a tar, plain or compressed, below an existing directory. Nothing outside the root is written whatever the
    /// archive says; device nodes and the kernel's own file systems are refused.
    ///
    /// - Parameters:
    ///   - owner: of everything that is written; nil for the owners in the archive.
    ///   - replacingKinds: a directory and something else of the same name may replace each other.
    /// - Throws: `ImageError`: notFound, invalidArgument (the path is no directory), invalidArchive, limitExceeded,
    ///   unsupported, noSpace, system. Entries before the one at fault have been written then.
    package func extract(
        _ source: Int32, into path: String, owner: (uid: UInt32, gid: UInt32)? = nil, replacingKinds: Bool = false,
        progress: ImageProgressHandler? = nil
    ) throws {
        try Self.telling("copying into \(printable(path)) of the container") {
            let base = try Self.entryPath(path, limits: limits)
            do throws(KernelError) {
                _ = try ByteName.open(base.bytes, in: root.raw, Int32(CK_O_PATH) | O_DIRECTORY)
            } catch {
                throw Self.explained(error, path)
            }
            let blob = HashingSource(
                DescriptorSource(source, subject: "the archive", limit: limits.archiveBytes) { done in
                    progress?(ImageProgress(phase: "reading", done: done, total: nil))
                })
            let decompressor = try Decompressor(blob, subject: "the archive", checksDamage: true)
            let bounded = BoundedSource(
                decompressor, compressed: { blob.count }, limits: limits, subject: "the archive")
            let reader = TarReader(bounded, limits: limits, needsEndMark: true)
            var policy = TreeWriter.Policy.copy
            policy.owner = owner
            policy.replacesKinds = replacingKinds
            let writer = TreeWriter(
                root: root.raw, base: base, policy: policy, limits: limits, subject: "the archive")
            while let entry = try reader.next() { try writer.write(entry, from: reader) }
            try writer.finish()
            try reader.drain()
            try decompressor.finish()
        }
    }
}

extension ContainerFiles {
    /// Copies, and says so when the container's own programs have changed the files meanwhile.
    private static func telling<Result>(_ operation: String, _ body: () throws -> Result) throws -> Result {
        try ImageError.explaining(operation) {
            do {
                return try body()
            } catch let error as KernelError
                where [ENOENT, ENOTDIR, ELOOP, EEXIST, EISDIR, EXDEV, EAGAIN, ENOTEMPTY].contains(error.errno)
            {
                throw ImageError(.inUse, "the files changed while \(operation) (\(error)): repeat")
            }
        }
    }

    private static func kernelPath(of descriptor: Int32) throws -> String {
        let link = "/proc/self/fd/\(descriptor)"
        var bytes = [CChar](repeating: 0, count: Int(PATH_MAX))
        let count = try systemCall("readlink", link) { readlink(link, &bytes, bytes.count) }
        return String(decoding: bytes[..<count].map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }

    private static func entryPath(_ path: String, limits: ImageLimits) throws -> EntryPath {
        guard !path.isEmpty, path.utf8.count <= maximumPath, !path.utf8.contains(0) else {
            throw ImageError(.invalidArgument, "a path in a container has 1 to \(maximumPath) bytes and no NUL")
        }
        // In a container `..` of the root is the root, so it is in a path that a user types.
        var parts: [Substring] = []
        for part in path.pathComponents where part != "." {
            if part == ".." { _ = parts.popLast() } else { parts.append(part) }
        }
        return try EntryPath(Array(parts.joined(separator: "/").utf8), limits: limits)
    }

    private static func name(of path: String) -> String {
        path.pathComponents.last { $0 != "." }.map { String($0) } ?? "/"
    }

    /// A slash or `/.` at the end asks for the directory that a link leads to.
    private func open(_ path: String, in root: Int32) throws -> OwnedFD {
        let place = try Self.entryPath(path, limits: limits)
        let follows = path.utf8.last == UInt8(ascii: "/") || path.utf8.reversed().starts(with: "./".utf8)
        let flags = Int32(CK_O_PATH) | (follows ? O_DIRECTORY : O_NOFOLLOW)
        do throws(KernelError) {
            return try ByteName.open(place.bytes, in: root, flags)
        } catch {
            throw Self.explained(error, path)
        }
    }

    private static func explained(_ error: KernelError, _ path: String) -> any Error {
        switch error.errno {
        case ENOENT: ImageError(.notFound, "there is no '\(printable(path))' in the container")
        case ENOTDIR: ImageError(.invalidArgument, "'\(printable(path))' in the container is no directory")
        case ELOOP: ImageError(.invalidArgument, "'\(printable(path))' in the container leads through a loop of links")
        default: error
        }
    }

    private static func status(_ descriptor: Int32, name: String) throws -> ContainerPathStatus {
        var info = stat()
        try systemCall("fstat", name) { fstat(descriptor, &info) }
        let kind: ContainerPathStatus.Kind =
            switch info.type {
            case S_IFDIR: .directory
            case S_IFLNK: .link
            case S_IFIFO: .fifo
            case S_IFSOCK: .socket
            case S_IFCHR, S_IFBLK: .device
            default: .file
            }
        let target = kind == .link ? try ByteName.linkTarget(of: descriptor) : []
        let nanoseconds = Int64(info.st_mtim.tv_sec).multipliedReportingOverflow(by: 1_000_000_000)
        return ContainerPathStatus(
            name: name, kind: kind, size: UInt64(max(0, info.st_size)), mode: info.st_mode & 0o7777,
            modified: Timestamp(
                nanoseconds: nanoseconds.overflow ? 0 : nanoseconds.partialValue + Int64(info.st_mtim.tv_nsec)),
            linkTarget: String(decoding: target, as: UTF8.self))
    }
}
