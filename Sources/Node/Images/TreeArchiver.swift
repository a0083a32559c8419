import CKernel
import Glibc
import Kernel

/// Walks a tree inside a root and writes it as tar entries. One directory is open at a time: its names are listed, then
/// each is opened again from the root, inside it.
struct TreeArchiver {
    private let root: Int32
    private let writer: TarWriter
    private let limits: ImageLimits
    private let progress: (UInt64) -> Void
    private var entries = 0
    private var announced: UInt64 = 0
    /// Files with several names that were written already, and the name they were written under.
    private var linked: [FileIdentity: [UInt8]] = [:]

    private struct FileIdentity: Hashable {
        var device: dev_t
        var inode: ino_t
    }

    init(root: Int32, writer: TarWriter, limits: ImageLimits, progress: @escaping (UInt64) -> Void) {
        self.root = root
        self.writer = writer
        self.limits = limits
        self.progress = progress
    }

    /// Adds what `found` (O_PATH) is, under `name`, and if it is a directory all below it. Of a file system of the
    /// kernel that is mounted below, only the mount point is added.
    ///
    /// - Parameters:
    ///   - path: the same thing's path in the root.
    ///   - name: empty: no entry for itself, and what is below it has names from there on.
    mutating func add(_ found: borrowing OwnedFD, at path: EntryPath, named name: [UInt8]) throws {
        if try KernelFileSystem.holds(found.raw, path) {
            throw ImageError(
                .unsupported, "'\(path)' lies in a file system of the kernel; nothing is copied from there")
        }
        if !name.isEmpty { try addOne(found.raw, name: name) }
        // Paths still to be listed, with the names they have in the archive.
        var pending: [(path: EntryPath, name: [UInt8])] = []
        if try Self.status(found.raw, path).isDirectory { pending.append((path, name)) }
        while let (directoryPath, directoryName) = pending.popLast() {
            guard let directory = try Self.openIfThere(directoryPath, in: root, O_RDONLY | O_DIRECTORY) else {
                continue
            }
            var below: [(path: EntryPath, name: [UInt8])] = []
            for child in try ByteName.list(directory.raw, limit: limits.layerEntries).sorted(by: {
                $0.lexicographicallyPrecedes($1)
            }) {
                let childPath = directoryPath.appending(child)
                guard childPath.bytes.count <= limits.pathBytes else {
                    throw ImageError(.limitExceeded, "the path '\(childPath)' is longer than \(limits.pathBytes) bytes")
                }
                let opened: OwnedFD
                do throws(KernelError) {
                    opened = try ByteName.openEntry(child, of: directory.raw, Int32(CK_O_PATH))
                } catch {
                    if error.errno == ENOENT { continue }
                    throw error
                }
                let childName = directoryName.isEmpty ? child : directoryName + [0x2f] + child
                try addOne(opened.raw, name: childName)
                guard try Self.status(opened.raw, childPath).isDirectory else { continue }
                if try !KernelFileSystem.holds(opened.raw, childPath) { below.append((childPath, childName)) }
            }
            pending += below.reversed()
        }
    }

    /// Adds one thing without what is below it.
    mutating func addOne(_ descriptor: Int32, name: [UInt8]) throws {
        entries += 1
        guard entries <= limits.layerEntries else {
            throw ImageError(.limitExceeded, "there are more than the \(limits.layerEntries) entries allowed")
        }
        var info = stat()
        try systemCall("fstat", printable(name)) { fstat(descriptor, &info) }
        guard var entry = Self.entry(info, name: name) else { return }
        if entry.kind == .symbolicLink { entry.target = try ByteName.linkTarget(of: descriptor) }
        if entry.kind != .directory, info.st_nlink > 1 {
            let identity = FileIdentity(device: info.st_dev, inode: info.st_ino)
            if let first = linked[identity] {
                entry.kind = .hardLink
                entry.target = first
                entry.size = 0
            } else {
                linked[identity] = name
            }
        }
        guard entry.kind == .regular || entry.kind == .directory else { return try writer.begin(entry) }
        // The O_PATH descriptor is known to be a regular file or a directory; its entry in /proc opens just that.
        let readable = try File.open("/proc/self/fd/\(descriptor)", O_RDONLY | O_NONBLOCK | O_NOCTTY)
        entry.attributes = try ExtendedAttribute.all(of: readable.raw).filter {
            let name = String(decoding: $0.name, as: UTF8.self)
            return !name.contains("=") && (name == "security.capability" || name.hasPrefix("user."))
        }
        try writer.begin(entry)
        if entry.kind == .regular { try copy(readable.raw, size: entry.size, name: name) }
    }

    /// Copies as many bytes as the header announced: a file that grows is cut, one that shrinks is filled up with zeros.
    private mutating func copy(_ file: Int32, size: UInt64, name: [UInt8]) throws {
        var buffer = [UInt8](repeating: 0, count: 128 << 10)
        var rest = size
        while rest > 0 {
            let room = Int(min(UInt64(buffer.count), rest))
            let count = try systemCall("read", printable(name)) {
                buffer.withUnsafeMutableBytes { read(file, $0.baseAddress, room) }
            }
            if count == 0 { break }
            try buffer.withUnsafeBytes { try writer.write(UnsafeRawBufferPointer(rebasing: $0[..<count])) }
            rest -= UInt64(count)
            if writer.count - announced >= 1 << 20 {
                announced = writer.count
                progress(announced)
            }
        }
        try writer.fillUp()
    }

    /// The entry of a file; nil for a socket.
    private static func entry(_ info: stat, name: [UInt8]) -> TarEntry? {
        let kind: TarEntry.Kind
        switch info.type {
        case S_IFREG: kind = .regular
        case S_IFDIR: kind = .directory
        case S_IFLNK: kind = .symbolicLink
        case S_IFCHR: kind = .characterDevice
        case S_IFBLK: kind = .blockDevice
        case S_IFIFO: kind = .fifo
        default: return nil
        }
        var entry = TarEntry(kind, kind == .directory ? name + [0x2f] : name)
        entry.mode = info.st_mode & 0o7777
        entry.uid = info.st_uid
        entry.gid = info.st_gid
        entry.size = kind == .regular ? UInt64(info.st_size) : 0
        entry.modified = (Int64(info.st_mtim.tv_sec), Int64(info.st_mtim.tv_nsec))
        entry.major = ck_major(UInt64(info.st_rdev))
        entry.minor = ck_minor(UInt64(info.st_rdev))
        return entry
    }

    private static func status(_ descriptor: Int32, _ path: EntryPath) throws -> stat {
        var info = stat()
        try systemCall("fstat", path.description) { fstat(descriptor, &info) }
        return info
    }

    private static func openIfThere(_ path: EntryPath, in root: Int32, _ flags: Int32) throws -> OwnedFD? {
        do throws(KernelError) {
            return try ByteName.open(path.bytes, in: root, flags)
        } catch {
            // Removed or replaced since it was listed.
            if error.errno == ENOENT || error.errno == ENOTDIR { return nil }
            throw error
        }
    }
}
