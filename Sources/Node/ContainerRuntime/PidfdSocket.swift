import Glibc
import Kernel

/// The socket of `--pidfd-socket`: who listens there gets a descriptor of the process.
struct PidfdSocket {
    private let socket: SharedFD

    /// nil for no path.
    ///
    /// - Throws: when nobody listens at the path.
    init?(_ path: String?) throws {
        guard let path else { return nil }
        socket = try withContext("--pidfd-socket") { SharedFD(try UnixSocket.connect(path)) }
    }

    /// - Parameter kind: what runc sends along: `standard` for a container's first process, `setns` for others.
    func send(_ pidfd: Int32, _ kind: String) throws {
        try withContext("--pidfd-socket") {
            try UnixSocket.send(socket.raw, Array(kind.utf8), descriptors: [pidfd])
        }
    }
}
