/// Where a server listens.
package enum Endpoint: Sendable, Equatable, CustomStringConvertible {
    /// A unix socket. Its mode is 0660 with the group named here, if there is such a group, else 0600.
    case unix(path: String, group: String?)
    /// A TCP port, always with TLS. Port 0 lets the kernel choose.
    case tls(host: String, port: Int, TLSIdentity)

    package var description: String {
        switch self {
        case .unix(let path, _): "unix:\(path)"
        case .tls(let host, let port, _): host.contains(":") ? "https://[\(host)]:\(port)" : "https://\(host):\(port)"
        }
    }
}

/// Why a server cannot listen.
package struct ListenError: Error, Sendable, Equatable, CustomStringConvertible {
    /// One sentence with the endpoint and what to do.
    package let description: String
}
