import CKernel
import Glibc

/// A directory that is the root of everything below it: `..` and absolute symbolic links stay inside.
///
/// Every path inside a container's root, a volume or an image goes through here, so that whoever can write there cannot
/// lead the host out of it, not even by swapping names meanwhile (openat2(2), RESOLVE_IN_ROOT). Magic links of procfs
/// are never followed. Results are descriptors; a path is never resolved twice.
package struct Root: ~Copyable, Sendable {
    /// The directory itself, opened with O_PATH or for reading.
    package let directory: OwnedFD
    /// What error messages call it.
    package let name: String

    /// How a path is looked up, beside staying inside; see openat2(2).
    package struct Resolution: OptionSet, Sendable {
        package let rawValue: UInt64
        package init(rawValue: UInt64) { self.rawValue = rawValue }
        /// Any symbolic link on the way is an error (ELOOP).
        package static let withoutSymlinks = Resolution(rawValue: UInt64(CK_RESOLVE_NO_SYMLINKS))
        /// Any mount point on the way is an error (EXDEV).
        package static let withoutCrossing = Resolution(rawValue: UInt64(CK_RESOLVE_NO_XDEV))
    }

    /// Takes over an open directory.
    package init(adopting directory: consuming OwnedFD, name: String) {
        self.directory = directory
        self.name = name
    }

    /// Opens a host directory as a root; the path itself is trusted and may contain symbolic links.
    package init(_ path: String) throws(KernelError) {
        directory = try File.open(path, Int32(CK_O_PATH) | O_DIRECTORY)
        name = path
    }

    /// Opens what `path` means inside this root, close-on-exec. A leading slash is the root.
    ///
    /// - Throws: `KernelError` (ENOENT, ELOOP, EXDEV for a magic link, …) naming root and path.
    package borrowing func open(
        _ path: String, _ flags: Int32, mode: mode_t = 0, _ resolution: Resolution = []
    ) throws(KernelError) -> OwnedFD {
        let how = ck_open_how(
            flags: UInt64(UInt32(bitPattern: flags | O_CLOEXEC)), mode: UInt64(mode),
            resolve: UInt64(CK_RESOLVE_IN_ROOT | CK_RESOLVE_NO_MAGICLINKS) | resolution.rawValue)
        let relative = path.isEmpty ? "." : path
        // The kernel answers EAGAIN when a rename raced with a `..` step; a loop without end would be a lever.
        for _ in 0..<128 {
            let descriptor = withUnsafePointer(to: how) { ck_openat2(directory.raw, relative, $0) }
            if descriptor >= 0 { return OwnedFD(adopting: Int32(descriptor)) }
            guard errno == EAGAIN || errno == EINTR else { break }
        }
        throw KernelError("openat2", "\(path) in \(name)", errno: errno)
    }

    /// True when `path` exists inside this root (a dangling link does not).
    package borrowing func exists(_ path: String) -> Bool {
        (try? open(path, Int32(CK_O_PATH)).raw) != nil
    }

    /// Opens a directory, making it and its missing parents. Symbolic links stay inside, dangling ones included: what
    /// they point to is made.
    ///
    /// - Returns: an O_PATH descriptor of the directory.
    package borrowing func makeDirectories(_ path: String, mode: mode_t = 0o755) throws(KernelError) -> OwnedFD {
        do throws(KernelError) {
            return try open(path, Int32(CK_O_PATH) | O_DIRECTORY)
        } catch {
            guard error.errno == ENOENT else { throw error }
        }
        return try walk(path, makingFile: false, mode: mode)
    }

    /// Opens a file that something can be mounted on, making it (empty) and its missing parents (0755) when it is not
    /// there.
    ///
    /// - Returns: an O_PATH descriptor; what exists already may be of any type.
    package borrowing func makeFile(_ path: String, mode: mode_t = 0o644) throws(KernelError) -> OwnedFD {
        do throws(KernelError) {
            return try open(path, Int32(CK_O_PATH))
        } catch {
            guard error.errno == ENOENT else { throw error }
        }
        return try walk(path, makingFile: true, mode: mode)
    }

    /// Reads a regular file of at most `limit` bytes; nothing else is opened for reading (a FIFO would block).
    ///
    /// - Throws: `KernelError`; EINVAL for something that is no regular file, EFBIG for one that is too large.
    package borrowing func read(_ path: String, limit: Int) throws(KernelError) -> [UInt8] {
        let file = try open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY)
        var info = stat()
        try systemCall("fstat", path) { fstat(file.raw, &info) }
        guard info.st_mode & S_IFMT == S_IFREG else {
            throw KernelError("read", "\(path) in \(name)", errno: EINVAL, hint: "not a regular file")
        }
        return try file.readAll(limit: limit, subject: "\(path) in \(name)")
    }
}

extension Root {
    /// Symbolic links followed in one walk, as in path_resolution(7).
    private static let maximumLinks = 40

    /// Goes down step by step, making what is missing. Every step opens one name without following it, from a directory
    /// that is held open, and `..` goes back to a directory that the walk came through: it cannot leave the root.
    private borrowing func walk(_ path: String, makingFile: Bool, mode: mode_t) throws(KernelError) -> OwnedFD {
        var pending = Self.components(path)
        var trail: [SharedFD] = []
        var links = 0
        while !pending.isEmpty {
            let component = pending.removeFirst()
            if component == ".." {
                if !trail.isEmpty { trail.removeLast() }
                continue
            }
            let parent = trail.last?.raw ?? directory.raw
            let isLast = pending.isEmpty
            let asFile = makingFile && isLast
            // A file's mode would make directories that nobody can enter.
            let step = try enter(
                component, of: parent, path: path, asFile: asFile, mode: makingFile && !asFile ? 0o755 : mode)
            switch try Self.type(of: step, path: path) {
            case S_IFDIR:
                trail.append(SharedFD(step))
            case S_IFLNK:
                links += 1
                guard links <= Self.maximumLinks else {
                    throw KernelError("open", "\(path) in \(name)", errno: ELOOP)
                }
                let target = try Self.readLink(step, path: path)
                if target.utf8.first == UInt8(ascii: "/") { trail.removeAll() }
                pending = Self.components(target) + pending
            default:
                guard isLast, makingFile else { throw KernelError("open", "\(path) in \(name)", errno: ENOTDIR) }
                return step
            }
        }
        guard !makingFile else { throw KernelError("open", "\(path) in \(name)", errno: EISDIR) }
        if let last = trail.last { return try last.duplicate() }
        return try directory.duplicate()
    }

    /// Opens one name without following it, making a directory (or a file) when it is not there.
    private borrowing func enter(
        _ component: String, of parent: Int32, path: String, asFile: Bool, mode: mode_t
    ) throws(KernelError) -> OwnedFD {
        for _ in 0..<16 {
            let found = ck_openat(parent, component, Int32(CK_O_PATH) | O_NOFOLLOW | O_CLOEXEC, 0)
            if found >= 0 { return OwnedFD(adopting: found) }
            guard errno == ENOENT else { break }
            if asFile {
                let made = ck_openat(parent, component, O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode)
                if made >= 0 { return OwnedFD(adopting: made) }
            } else if mkdirat(parent, component, mode) == 0 {
                continue
            }
            // Somebody else made it meanwhile: look again.
            guard errno == EEXIST else { break }
        }
        throw KernelError(asFile ? "create" : "mkdir", "\(path) in \(name)", errno: errno)
    }

    private static func components(_ path: String) -> [String] {
        path.pathComponents.map { String($0) }.filter { $0 != "." }
    }

    private static func type(of descriptor: borrowing OwnedFD, path: String) throws(KernelError) -> mode_t {
        var info = stat()
        let raw = descriptor.raw
        try systemCall("fstat", path) { fstat(raw, &info) }
        return info.st_mode & S_IFMT
    }

    private static func readLink(_ link: borrowing OwnedFD, path: String) throws(KernelError) -> String {
        var buffer = [CChar](repeating: 0, count: Int(PATH_MAX))
        let raw = link.raw
        let count = try systemCall("readlink", path) { readlinkat(raw, "", &buffer, Int(PATH_MAX)) }
        return String(decoding: buffer[..<count].map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }
}

extension SharedFD {
    /// A second descriptor of the same open file, close-on-exec.
    package func duplicate() throws(KernelError) -> OwnedFD {
        let number = raw
        return OwnedFD(
            adopting: try systemCall("fcntl(F_DUPFD_CLOEXEC)") { ck_fcntl(number, F_DUPFD_CLOEXEC, 3) })
    }
}
