import Glibc
import Synchronization

/// A listening unix socket and the file that stands for it.
///
/// The socket is bound in a directory that nobody else can enter and renamed to its path when mode, group and queue are
/// set, so it is never reachable with other rights. A lock file beside it says whose the path is: of two daemons that
/// start at once one gets it, and what a dead one left behind is replaced.
final class UnixListener: Sendable {
    let path: String
    private let descriptor: Mutex<Int32>
    private let lock: Int32
    private let identity: (device: dev_t, inode: ino_t)

    /// Binds and listens.
    ///
    /// - Parameter role: what listens there, for the error: "master".
    /// - Throws: `ListenError` when another process listens, or with the call that failed.
    init(path: String, group: String?, role: String) throws(ListenError) {
        guard path.hasPrefix("/") else { throw ListenError(description: "the socket path '\(path)' is not absolute") }
        try Self.withAddress(path) { _, _ in }
        self.path = path
        lock = try Self.lock(path, role: role)
        do throws(ListenError) {
            if try Self.isAnswered(path) { throw Self.occupied(path, role) }
            let socket = try Self.bind(path, group: group)
            descriptor = Mutex(socket)
            var info = stat()
            lstat(path, &info)
            identity = (info.st_dev, info.st_ino)
        } catch {
            Self.unlock(path, lock)
            throw error
        }
    }

    /// The listening descriptor; the caller closes it.
    func takeDescriptor() -> Int32 {
        descriptor.withLock { descriptor in
            defer { descriptor = -1 }
            return descriptor
        }
    }

    /// Takes the file away if it is still this socket's. The path is let go with the object.
    func remove() {
        var info = stat()
        if lstat(path, &info) == 0, info.st_dev == identity.device, info.st_ino == identity.inode { unlink(path) }
    }

    deinit {
        let unused = descriptor.withLock { $0 }
        if unused >= 0 { close(unused) }
        Self.unlock(path, lock)
    }

    private static func occupied(_ path: String, _ role: String) -> ListenError {
        ListenError(
            description: "another \(role) is listening on unix:\(path): use that one, or stop it first")
    }

    private static func failed(_ call: String, _ path: String) -> ListenError {
        let number = errno
        let reason = strerror(number).map { String(cString: $0) } ?? "error \(number)"
        return ListenError(description: "cannot listen on unix:\(path): \(call): \(reason)")
    }

    private static func lock(_ path: String, role: String) throws(ListenError) -> Int32 {
        let file = lockFile(path)
        while true {
            let descriptor = open(file, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0o600)
            guard descriptor >= 0 else { throw failed("open \(file)", path) }
            guard flock(descriptor, LOCK_EX | LOCK_NB) == 0 else {
                defer { close(descriptor) }
                if errno == EWOULDBLOCK { throw occupied(path, role) }
                throw failed("flock \(file)", path)
            }
            if isAt(file, descriptor) { return descriptor }
            // The one who had the path took the file away between our open and our flock: it guards nothing any more.
            close(descriptor)
        }
    }

    /// Takes the lock file away while it is still locked, and lets it go. Whoever has opened it meanwhile sees that it
    /// is no longer the one at the path, and makes another.
    private static func unlock(_ path: String, _ descriptor: Int32) {
        if isAt(lockFile(path), descriptor) { unlink(lockFile(path)) }
        close(descriptor)
    }

    private static func lockFile(_ path: String) -> String { path + ".lock" }

    /// Whether the file at a path is the one that a descriptor stands for.
    private static func isAt(_ file: String, _ descriptor: Int32) -> Bool {
        var (there, ours) = (stat(), stat())
        return lstat(file, &there) == 0 && fstat(descriptor, &ours) == 0
            && (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino)
    }

    /// Whether someone accepts connections there. What is there and not a socket is an error: it is not ours to remove.
    private static func isAnswered(_ path: String) throws(ListenError) -> Bool {
        var info = stat()
        guard lstat(path, &info) == 0 else { return false }
        guard info.st_mode & S_IFMT == S_IFSOCK else {
            throw ListenError(description: "cannot listen on unix:\(path): there is something else than a socket")
        }
        let socket = try makeSocket(path)
        defer { close(socket) }
        // A full queue (EAGAIN) has a listener behind it too.
        return try withAddress(path) { connect(socket, $0, $1) } == 0 || errno == EAGAIN
    }

    private static func bind(_ path: String, group: String?) throws(ListenError) -> Int32 {
        let parent = path.lastIndex(of: "/").map { path[..<$0] } ?? ""
        let directory = "\(parent)/.\(getpid())"
        let temporary = directory + "/s"
        unlink(temporary)
        rmdir(directory)
        guard mkdir(directory, 0o700) == 0 else { throw failed("mkdir \(directory)", path) }
        defer {
            unlink(temporary)
            rmdir(directory)
        }
        let socket = try makeSocket(path)
        do throws(ListenError) {
            guard try withAddress(temporary, { Glibc.bind(socket, $0, $1) }) == 0 else { throw failed("bind", path) }
            var mode: mode_t = 0o600
            // Reads the group database: a short file, once at the start.
            if let group, let entry = getgrnam(group) {
                guard chown(temporary, uid_t.max, entry.pointee.gr_gid) == 0 else {
                    throw failed("chown to group \(group)", path)
                }
                mode = 0o660
            }
            guard chmod(temporary, mode) == 0 else { throw failed("chmod", path) }
            guard listen(socket, Acceptor.backlog) == 0 else { throw failed("listen", path) }
            guard rename(temporary, path) == 0 else { throw failed("rename", path) }
            return socket
        } catch {
            close(socket)
            throw error
        }
    }

    private static func makeSocket(_ path: String) throws(ListenError) -> Int32 {
        let type = Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue | SOCK_NONBLOCK.rawValue)
        let descriptor = socket(AF_UNIX, type, 0)
        guard descriptor >= 0 else { throw failed("socket", path) }
        return descriptor
    }

    private static func withAddress<Result>(
        _ path: String, _ body: (UnsafePointer<sockaddr>, socklen_t) -> Result
    ) throws(ListenError) -> Result {
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        let bytes = Array(path.utf8)
        let room = MemoryLayout.size(ofValue: address.sun_path)
        guard bytes.count < room, !bytes.contains(0) else {
            throw ListenError(
                description:
                    "the socket path '\(path)' is longer than the \(room - 1) bytes that a unix socket may have")
        }
        withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: bytes) }
        return withUnsafePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                body($0, socklen_t(MemoryLayout<sockaddr_un>.size))
            }
        }
    }
}
