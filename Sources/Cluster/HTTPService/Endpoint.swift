/// Where a server listens.
package enum Endpoint: Sendable, Equatable, CustomStringConvertible {
    /// A unix socket. Its mode is 0660 with the group named here, if there is such a group, else 0600.
    case unix(path: String, group: String?)
    /// A TCP port of this machine, without TLS: loopback addresses only. Port 0 lets the kernel choose.
    case tcp(host: String, port: Int)

    package var description: String {
        switch self {
        case .unix(let path, _): "unix:\(path)"
        case .tcp(let host, let port): host.contains(":") ? "http://[\(host)]:\(port)" : "http://\(host):\(port)"
        }
    }
}

/// Why a server cannot listen.
package struct ListenError: Error, Sendable, Equatable, CustomStringConvertible {
    /// One sentence with the endpoint and what to do.
    package let description: String
}
