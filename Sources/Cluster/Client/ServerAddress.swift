/// Where a server listens.
package enum ServerAddress: Sendable, Hashable, CustomStringConvertible {
    /// An absolute path of a unix socket.
    case unix(path: String)
    /// HTTP over TCP, without TLS.
    case tcp(host: String, port: Int)

    /// Reads `unix:/run/martlet/martlet.sock` (also `unix:///…`) or `http://host:port`.
    ///
    /// - Throws: `ClientError` of kind `badAddress` that says what is accepted.
    package init(_ text: String) throws(ClientError) {
        if text.hasPrefix("unix:") {
            var path = text.dropFirst(5)
            if path.hasPrefix("///") { path = path.dropFirst(2) }
            guard path.hasPrefix("/"), !path.hasPrefix("//"), path.utf8.count < 108 else { throw Self.refused(text) }
            self = .unix(path: String(path))
        } else if text.hasPrefix("http://") {
            var rest = text.dropFirst(7)
            if rest.hasSuffix("/") { rest = rest.dropLast() }
            guard let colon = rest.lastIndex(of: ":"), let port = UInt16(rest[rest.index(after: colon)...]), port > 0
            else { throw Self.refused(text) }
            var host = rest[..<colon]
            if host.hasPrefix("["), host.hasSuffix("]") {
                host = host.dropFirst().dropLast()
            } else if host.contains(":") {
                throw Self.refused(text)
            }
            guard !host.isEmpty, !host.contains(where: { "/?#@ ".contains($0) }) else { throw Self.refused(text) }
            self = .tcp(host: String(host), port: Int(port))
        } else {
            throw Self.refused(text)
        }
    }

    private static func refused(_ text: String) -> ClientError {
        ClientError(
            .badAddress, "'\(text)' is no address of a server: give unix:/absolute/path or http://host:port")
    }

    package var description: String {
        switch self {
        case .unix(let path): "unix:\(path)"
        case .tcp(let host, let port): "http://\(authority(host, port))"
        }
    }

    /// What goes into the `Host` header field.
    var authority: String {
        switch self {
        case .unix: "martlet"
        case .tcp(let host, let port): authority(host, port)
        }
    }

    private func authority(_ host: String, _ port: Int) -> String {
        host.contains(":") ? "[\(host)]:\(port)" : "\(host):\(port)"
    }
}
