import CKernel
import Glibc

/// Who is at the other end of a unix socket, as the kernel saw it when it connected.
package struct PeerCredentials: Sendable, Equatable {
    package let pid: pid_t
    package let uid: uid_t
    package let gid: gid_t
}

/// Two connected sockets; which end is near is up to the caller.
package struct SocketPair: ~Copyable {
    /// The end that the maker keeps.
    package let near: OwnedFD
    /// The end for somebody else.
    package let far: OwnedFD
}

/// Unix sockets with pathnames; blocking, close-on-exec. Paths longer than sun_path (107 bytes) work.
package enum UnixSocket {
    /// The kinds of sockets.
    package enum Kind: Sendable {
        /// A stream of bytes.
        case stream
        /// Messages with boundaries, in order, and an end.
        case packets
        /// Messages with boundaries, without a connection that ends.
        case datagram

        var type: Int32 {
            switch self {
            case .stream: Int32(SOCK_STREAM.rawValue)
            case .packets: Int32(SOCK_SEQPACKET.rawValue)
            case .datagram: Int32(SOCK_DGRAM.rawValue)
            }
        }
    }

    /// A listening socket at `path`, which must not exist.
    package static func listen(
        _ path: String, kind: Kind = .stream, mode: mode_t = 0o600, backlog: Int32 = 128
    ) throws(KernelError) -> OwnedFD {
        let socket = try make(kind)
        let raw = socket.raw
        // The mode of the new node comes from the umask; chmod afterwards would leave a moment with a wider one.
        let before = umask(0o777 & ~mode)
        defer { umask(before) }
        try withShortPath(path) { short throws(KernelError) in
            try systemCall("bind", path) { ck_unix_bind(raw, short) }
        }
        try systemCall("listen", path) { Glibc.listen(raw, backlog) }
        return socket
    }

    /// Connects to `path`.
    ///
    /// - Throws: `KernelError`; ENOENT or ECONNREFUSED when nobody listens.
    package static func connect(_ path: String, kind: Kind = .stream) throws(KernelError) -> OwnedFD {
        let socket = try make(kind)
        try connect(socket.raw, to: path)
        return socket
    }

    /// Connects a unix socket that was made before.
    package static func connect(_ socket: Int32, to path: String) throws(KernelError) {
        try withShortPath(path) { short throws(KernelError) in
            try systemCall("connect", path) { ck_unix_connect(socket, short) }
        }
    }

    /// The next connection; waits on a blocking socket.
    package static func accept(_ listener: Int32) throws(KernelError) -> OwnedFD {
        OwnedFD(
            adopting: try systemCall("accept") {
                accept4(listener, nil, nil, Int32(SOCK_CLOEXEC.rawValue))
            })
    }

    /// Two connected sockets.
    package static func pair(_ kind: Kind) throws(KernelError) -> SocketPair {
        var ends: [Int32] = [-1, -1]
        try systemCall("socketpair") {
            socketpair(AF_UNIX, kind.type | Int32(SOCK_CLOEXEC.rawValue), 0, &ends)
        }
        return SocketPair(near: OwnedFD(adopting: ends[0]), far: OwnedFD(adopting: ends[1]))
    }

    /// The process at the other end.
    package static func peer(_ socket: Int32) throws(KernelError) -> PeerCredentials {
        var pid: pid_t = 0
        var uid: uid_t = 0
        var gid: gid_t = 0
        try systemCall("getsockopt(SO_PEERCRED)") { ck_peer_credentials(socket, &pid, &uid, &gid) }
        return PeerCredentials(pid: pid, uid: uid, gid: gid)
    }

    /// Sends bytes (at least one) and up to 64 descriptors in one message.
    package static func send(_ socket: Int32, _ bytes: [UInt8], descriptors: [Int32] = []) throws(KernelError) {
        let sent = try systemCall("sendmsg") {
            ck_send_descriptors(socket, bytes, bytes.count, descriptors, Int32(descriptors.count), 0)
        }
        guard sent == bytes.count else { throw KernelError("sendmsg", errno: EMSGSIZE) }
    }

    /// Receives one message of at most `limit` bytes with at most `maximumDescriptors` descriptors. No bytes and no
    /// descriptors: the other side has closed.
    package static func receive(
        _ socket: Int32, limit: Int, maximumDescriptors: Int = 0
    ) throws(KernelError) -> (bytes: [UInt8], descriptors: [SharedFD]) {
        var buffer = [UInt8](repeating: 0, count: limit)
        var descriptors = [Int32](repeating: -1, count: max(1, maximumDescriptors))
        var count: Int32 = 0
        let received = try systemCall("recvmsg") {
            ck_receive_descriptors(
                socket, &buffer, limit, &descriptors, Int32(maximumDescriptors), &count, 0)
        }
        buffer.removeLast(limit - received)
        return (buffer, descriptors[..<Int(count)].map { SharedFD(OwnedFD(adopting: $0)) })
    }

    /// A socket that is neither bound nor connected yet.
    package static func make(_ kind: Kind) throws(KernelError) -> OwnedFD {
        OwnedFD(
            adopting: try systemCall("socket") { socket(AF_UNIX, kind.type | Int32(SOCK_CLOEXEC.rawValue), 0) })
    }

    /// Calls `body` with a name of `path` that fits into sun_path: through a descriptor of its directory when needed.
    private static func withShortPath(
        _ path: String, _ body: (String) throws(KernelError) -> Void
    ) throws(KernelError) {
        guard path.utf8.count > 107, let slash = path.lastSlash else { return try body(path) }
        let directory = try File.open(String(path[...slash]), Int32(CK_O_PATH) | O_DIRECTORY)
        try body("/proc/self/fd/\(directory.raw)/\(path[path.utf8.index(after: slash)...])")
    }
}
