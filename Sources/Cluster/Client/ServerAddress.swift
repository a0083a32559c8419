/// Where a server listens.
package enum ServerAddress: Sendable, Hashable, CustomStringConvertible {
    /// An absolute path of a unix socket.
    case unix(path: String)
    /// HTTP over TLS.
    case tls(host: String, port: Int)

    /// The port of a master, where an address names none.
    package static let masterPort = 7070

    var isOnNetwork: Bool { if case .tls = self { true } else { false } }

    /// Reads `unix:/run/martlet/martlet.sock` (also `unix:///…`) or `https://host[:port]`.
    ///
    /// - Throws: `ClientError` of kind `badAddress` that says what is accepted.
    package init(_ text: String) throws(ClientError) {
        if text.hasPrefix("unix:") {
            var path = text.dropFirst(5)
            if path.hasPrefix("///") { path = path.dropFirst(2) }
            guard path.hasPrefix("/"), !path.hasPrefix("//"), path.utf8.count < 108 else { throw Self.refused(text) }
            self = .unix(path: String(path))
        } else if text.hasPrefix("https://") {
            var rest = text.dropFirst(8)
            if rest.hasSuffix("/") { rest = rest.dropLast() }
            var host = rest
            var port = Self.masterPort
            if let colon = rest.lastIndex(of: ":"), !rest[colon...].contains("]") {
                guard let number = UInt16(rest[rest.index(after: colon)...]), number > 0 else {
                    throw Self.refused(text)
                }
                (host, port) = (rest[..<colon], Int(number))
            }
            if host.hasPrefix("["), host.hasSuffix("]") {
                host = host.dropFirst().dropLast()
            } else if host.contains(":") {
                throw Self.refused(text)
            }
            guard !host.isEmpty, !host.contains(where: { "/?#@ ".contains($0) }) else { throw Self.refused(text) }
            self = .tls(host: String(host), port: port)
        } else {
            throw Self.refused(text)
        }
    }

    private static func refused(_ text: String) -> ClientError {
        ClientError(
            .badAddress,
            "'\(text)' is no address of a server: give unix:/absolute/path or https://host:port; plain http is not spoken"
        )
    }

    package var description: String {
        switch self {
        case .unix(let path): "unix:\(path)"
        case .tls(let host, let port): "https://\(authority(host, port))"
        }
    }

    /// What goes into the `Host` header field.
    var authority: String {
        switch self {
        case .unix: "martlet"
        case .tls(let host, let port): authority(host, port)
        }
    }

    private func authority(_ host: String, _ port: Int) -> String {
        host.contains(":") ? "[\(host)]:\(port)" : "\(host):\(port)"
    }
}
