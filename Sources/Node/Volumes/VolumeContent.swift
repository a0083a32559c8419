import CKernel
import Glibc
import Kernel
import Synchronization

extension VolumeStore {
    /// Gives an empty volume the content of the image directory that it is mounted over, as Docker does at a volume's
    /// first use: files, owners, modes, links, and the directory's own owner and mode.
    ///
    /// The copy is complete and durable beside the data before its entries are moved in, one by one and never over
    /// something that a container made meanwhile; a crash is made good by the next call.
    ///
    /// - Parameters:
    ///   - containerRoot: the mounted root file system on the host.
    ///   - path: the mount point in it, an image's word; it is looked up inside the root.
    /// - Returns: whether something was copied.
    /// - Throws: `VolumeError`: notFound (the volume), noSpace, system.
    @discardableResult
    package func populate(_ name: String, fromRoot containerRoot: String, path: String) throws -> Bool {
        let data = try self.path(name)
        return try VolumeError.explaining("copying the image's '\(ByteName.text(path.utf8))' to the volume \(name)") {
            try turns.withTurn(name) {
                let ready = "\(directory(name))/_data.ready"
                if File.exists(ready) {
                    try Self.move(from: ready, into: data)
                    return true
                }
                guard try Self.isEmpty(data) else { return false }
                let root = try File.open(containerRoot, O_RDONLY | O_DIRECTORY)
                guard let source = try Self.openDirectory(path, in: root.raw) else { return false }
                let copying = "\(directory(name))/_data.copying"
                try Tree.remove(copying)
                do {
                    try File.makeDirectories(copying, mode: 0o755)
                    let target = try File.open(copying, O_RDONLY | O_DIRECTORY | O_NOFOLLOW)
                    try TreeCopy(from: source.raw, to: target.raw).run()
                    let raw = target.raw
                    try systemCall("syncfs", copying) { syncfs(raw) }
                    try systemCall("rename", ready) { rename(copying, ready) }
                } catch {
                    _ = try? Tree.remove(copying)
                    throw error
                }
                try Self.move(from: ready, into: data)
                return true
            }
        }
    }

    private static func isEmpty(_ path: String) throws -> Bool {
        let directory = try File.open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW)
        do throws(KernelError) {
            return try ByteName.list(directory.raw, limit: 0).isEmpty
        } catch {
            guard error.errno == EFBIG else { throw error }
            return false
        }
    }

    /// The directory at a path of the image; nil when there is none.
    private static func openDirectory(_ path: String, in root: Int32) throws -> OwnedFD? {
        guard path.utf8.count <= 4095, !path.utf8.contains(0) else { return nil }
        do throws(KernelError) {
            return try ByteName.open(Array(path.utf8), in: root, O_RDONLY | O_DIRECTORY)
        } catch {
            if [ENOENT, ENOTDIR, ELOOP, EXDEV].contains(error.errno) { return nil }
            throw error
        }
    }

    /// Moves all entries of a finished copy; what is in the way stays.
    private static func move(from ready: String, into data: String) throws {
        let source = try File.open(ready, O_RDONLY | O_DIRECTORY | O_NOFOLLOW)
        let target = try File.open(data, O_RDONLY | O_DIRECTORY | O_NOFOLLOW)
        let (from, into) = (source.raw, target.raw)
        for name in try ByteName.list(from, limit: Int.max) {
            let result = ByteName.with(name) { ck_renameat2(from, $0, into, $0, UInt32(CK_RENAME_NOREPLACE)) }
            if result != 0 && errno != EEXIST { throw KernelError("rename", ByteName.text(name), errno: errno) }
        }
        try FileMetadata.copy(from: from, to: into)
        try systemCall("fsync", data) { fsync(into) }
        try Tree.remove(ready)
    }
}

/// Copies what is in one directory into another, empty one. The source may be a container's: its names are opened one
/// after another without following links.
private struct TreeCopy {
    private struct Identity: Hashable {
        var device: dev_t
        var inode: ino_t
    }

    /// Directories to be done: entered, and left to get their times once all below them is written.
    private enum Step {
        case enter([UInt8])
        case leave([UInt8])
    }

    private let source: Int32
    private let target: Int32
    private static let maximumEntries = 4_000_000
    private static let maximumPath = 4095

    init(from source: Int32, to target: Int32) {
        self.source = source
        self.target = target
    }

    func run() throws {
        var linked: [Identity: [UInt8]] = [:]
        var steps: [Step] = [.leave([]), .enter([])]
        var entries = 0
        while let step = steps.popLast() {
            switch step {
            case .enter(let path):
                let from = try openDirectory(path, in: source)
                let into = try openDirectory(path, in: target)
                for name in try ByteName.list(from.raw, limit: Self.maximumEntries - entries) {
                    entries += 1
                    let below = path.isEmpty ? name : path + [0x2f] + name
                    guard below.count <= Self.maximumPath else {
                        throw KernelError("copy", ByteName.text(below), errno: ENAMETOOLONG)
                    }
                    let isDirectory = try copy(name, from: from.raw, into: into.raw, path: below, linked: &linked)
                    if isDirectory { steps += [.leave(below), .enter(below)] }
                }
            case .leave(let path):
                let from = try openDirectory(path, in: source)
                let into = try openDirectory(path, in: target)
                try FileMetadata.copy(from: from.raw, to: into.raw)
            }
        }
    }

    private func openDirectory(_ path: [UInt8], in root: Int32) throws -> OwnedFD {
        try ByteName.open(path, in: root, O_RDONLY | O_DIRECTORY, withoutLinks: true)
    }

    /// Copies one name; true for a directory, whose content is still to be copied.
    private func copy(
        _ name: [UInt8], from: Int32, into: Int32, path: [UInt8], linked: inout [Identity: [UInt8]]
    ) throws -> Bool {
        let shown = ByteName.text(path)
        let found = try ByteName.openEntry(name, of: from, Int32(CK_O_PATH))
        let raw = found.raw
        var info = stat()
        try systemCall("fstat", shown) { fstat(raw, &info) }
        if info.isDirectory {
            try systemCall("mkdirat", shown) { ByteName.with(name) { mkdirat(into, $0, 0o700) } }
            return true
        }
        if info.st_nlink > 1 {
            let identity = Identity(device: info.st_dev, inode: info.st_ino)
            if let first = linked[identity] {
                try systemCall("linkat", shown) {
                    ByteName.with(first) { old in ByteName.with(name) { linkat(target, old, into, $0, 0) } }
                }
                return false
            }
            linked[identity] = path
        }
        switch info.type {
        case S_IFREG: try copyFile(raw, size: info.st_size, name: name, into: into, shown)
        case S_IFLNK: try copyLink(raw, info, name: name, into: into, shown)
        case S_IFCHR, S_IFBLK, S_IFIFO: try copyNode(info, name: name, into: into, shown)
        // A socket is nothing without the process that listens on it.
        default: break
        }
        return false
    }

    private func copyFile(_ found: Int32, size: off_t, name: [UInt8], into: Int32, _ shown: String) throws {
        // The O_PATH descriptor is known to be a regular file; its entry in /proc opens just that.
        let from = try File.open("/proc/self/fd/\(found)", O_RDONLY | O_NOCTTY)
        let to = try ByteName.openEntry(name, of: into, O_WRONLY | O_CREAT | O_EXCL, mode: 0o600)
        let (input, output) = (from.raw, to.raw)
        var offset: off_t = 0
        var buffer = [UInt8](repeating: 0, count: 256 << 10)
        while offset < size {
            // SEEK_DATA and SEEK_HOLE, see lseek(2): holes stay holes.
            let data = lseek(input, offset, 3)
            if data < 0 { break }
            let hole = max(lseek(input, data, 4), data)
            offset = data
            while offset < hole {
                let room = min(buffer.count, hole - offset)
                let count = try systemCall("pread", shown) { pread(input, &buffer, room, offset) }
                if count == 0 { break }
                var written = 0
                while written < count {
                    let start = written
                    written += try systemCall("pwrite", shown) {
                        buffer.withUnsafeBytes {
                            pwrite(output, $0.baseAddress.map { $0 + start }, count - start, offset + off_t(start))
                        }
                    }
                }
                offset += off_t(count)
            }
            if hole == data { break }
        }
        try systemCall("ftruncate", shown) { ftruncate(output, size) }
        try FileMetadata.copy(from: input, to: output)
    }

    private func copyLink(_ found: Int32, _ info: stat, name: [UInt8], into: Int32, _ shown: String) throws {
        let link = try ByteName.linkTarget(of: found)
        try systemCall("symlinkat", shown) {
            ByteName.with(link) { target in ByteName.with(name) { symlinkat(target, into, $0) } }
        }
        try finish(info, name: name, into: into, shown)
    }

    private func copyNode(_ info: stat, name: [UInt8], into: Int32, _ shown: String) throws {
        try systemCall("mknodat", shown) { ByteName.with(name) { mknodat(into, $0, info.st_mode, info.st_rdev) } }
        // The copy lies where only root can reach it, so the name still is what was just made.
        try systemCall("fchmodat", shown) { ByteName.with(name) { fchmodat(into, $0, info.st_mode & 0o7777, 0) } }
        try finish(info, name: name, into: into, shown)
    }

    /// Owner and times of something that is not opened.
    private func finish(_ info: stat, name: [UInt8], into: Int32, _ shown: String) throws {
        try systemCall("fchownat", shown) {
            ByteName.with(name) { fchownat(into, $0, info.st_uid, info.st_gid, AT_SYMLINK_NOFOLLOW) }
        }
        let times = [info.st_atim, info.st_mtim]
        try systemCall("utimensat", shown) {
            ByteName.with(name) { utimensat(into, $0, times, AT_SYMLINK_NOFOLLOW) }
        }
    }
}
