import CKernel
import Glibc
import Kernel
import Logging

/// A service manager that started this process and waits to hear that it serves, see sd_notify(3).
struct ServiceManager: Sendable {
    private let socket: SharedFD

    /// Connects to `$NOTIFY_SOCKET`; nil where that is not set. A socket that is of no use is warned of: without it, too, the
    /// process serves, and who waits for its word has a time-out.
    init?(_ logger: Logger) {
        guard let address = getenv("NOTIFY_SOCKET").map({ String(cString: $0) }), !address.isEmpty else { return nil }
        // The longest name of the abstract namespace, see unix(7).
        guard address.hasPrefix("/") || address.hasPrefix("@"), address.utf8.count <= 107 else {
            logger.warning("$NOTIFY_SOCKET '\(address)' is neither a path nor an abstract name of a socket")
            return nil
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
            logger.warning("$NOTIFY_SOCKET: \(error)")
            return nil
        }
    }

    /// Says that the process serves, once `serves` says so; asked every 20 milliseconds until then.
    func tellWhenReady(_ serves: @Sendable () async -> Bool) async throws {
        while !(await serves()) { try await Task.sleep(for: .milliseconds(20)) }
        // One that is gone meanwhile is no reason to go too.
        try? UnixSocket.send(socket.raw, Array("READY=1\n".utf8))
    }
}
