import CKernel
import Glibc
import Kernel

/// A service manager that started this process and waits to hear that it serves, see sd_notify(3).
struct ServiceManager: Sendable {
    private let socket: SharedFD

    /// Connects to `$NOTIFY_SOCKET`; nil where that is not set.
    ///
    /// - Throws: `CommandFailure` for an address that is neither a path nor abstract, and when nobody listens there.
    init?() throws {
        guard let address = getenv("NOTIFY_SOCKET").map({ String(cString: $0) }), !address.isEmpty else { return nil }
        // The longest name of the abstract namespace, see unix(7).
        guard address.hasPrefix("/") || address.hasPrefix("@"), address.utf8.count <= 107 else {
            throw CommandFailure("$NOTIFY_SOCKET '\(address)' is neither a path nor an abstract name of a socket")
        }
        do {
            let socket = SharedFD(
                OwnedFD(
                    adopting: try systemCall("socket") {
                        Glibc.socket(AF_UNIX, Int32(SOCK_DGRAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
                    }))
            if address.hasPrefix("@") {
                try systemCall("connect", address) {
                    ck_unix_connect_abstract(socket.raw, String(address.dropFirst()))
                }
            } else {
                try UnixSocket.connect(socket.raw, to: address)
            }
            self.socket = socket
        } catch {
            throw CommandFailure("$NOTIFY_SOCKET: \(error)")
        }
    }

    /// Says that the process serves, once `serves` says so; asked every 20 milliseconds until then.
    func tellWhenReady(_ serves: @Sendable () async -> Bool) async throws {
        while !(await serves()) { try await Task.sleep(for: .milliseconds(20)) }
        try UnixSocket.send(socket.raw, Array("READY=1\n".utf8))
    }
}
