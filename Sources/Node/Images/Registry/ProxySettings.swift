import AsyncHTTPClient
import Glibc

/// Which proxy a host is asked through, by the variables that other tools know: `HTTPS_PROXY`, `HTTP_PROXY` and
/// `NO_PROXY`, in capitals or not. This machine is always asked directly.
struct ProxySettings: Sendable {
    struct Proxy: Sendable, Hashable {
        var host: String
        var port: UInt16
        var user: String?
        var password: String?
    }

    private var secure: Proxy?
    private var plain: Proxy?
    /// Hosts, domains with a dot before them, and networks that are asked directly.
    private var direct: [String] = []
    private var networks: [(bytes: [UInt8], bits: Int)] = []

    /// - Parameter variable: a variable's value by its name; nil where it is not set.
    /// - Throws: `ImageError` of kind `invalidArgument` that names the variable and what is not supported in it; the value
    ///   is not told, since it may hold a password.
    init(_ variable: (String) -> String?) throws {
        func value(_ name: String) -> String? {
            [name, name.lowercased()].compactMap(variable).first { !$0.isEmpty }
        }
        secure = try value("HTTPS_PROXY").map { try Self.proxy($0, "HTTPS_PROXY") }
        plain = try value("HTTP_PROXY").map { try Self.proxy($0, "HTTP_PROXY") }
        guard secure != nil || plain != nil else { return }
        for entry in (value("NO_PROXY") ?? "").split(whereSeparator: { $0 == "," || $0 == " " }) {
            if let slash = entry.firstIndex(of: "/") {
                guard let bytes = Self.address(String(entry[..<slash])),
                    let bits = Int(entry[entry.index(after: slash)...]), (0...bytes.count * 8).contains(bits)
                else {
                    throw ImageError(.invalidArgument, "'\(printable(String(entry)))' in NO_PROXY is no network")
                }
                networks.append((bytes, bits))
            } else {
                direct.append((entry.hasPrefix("*.") ? entry.dropFirst() : entry).lowercased())
            }
        }
    }

    private static func proxy(_ text: String, _ variable: String) throws -> Proxy {
        let refusal = ImageError(
            .invalidArgument, "\(variable) is not understood: write http://[user:password@]host[:port]")
        var rest = text[...]
        if let scheme = rest.firstIndex(of: ":"), rest[scheme...].hasPrefix("://") {
            guard rest[..<scheme].lowercased() == "http" else {
                throw ImageError(
                    .unsupported,
                    "\(variable) names a proxy of the kind '\(printable(String(rest[..<scheme].prefix(16))))', which is "
                        + "not supported; http is")
            }
            rest = rest[rest.index(scheme, offsetBy: 3)...]
        }
        if rest.hasSuffix("/") { rest = rest.dropLast() }
        var result = Proxy(host: "", port: 80)
        if let at = rest.lastIndex(of: "@") {
            let parts = rest[..<at].split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false)
            guard let user = decoded(parts[0]), let password = decoded(parts.count > 1 ? parts[1] : "") else {
                throw refusal
            }
            (result.user, result.password) = (user, password)
            rest = rest[rest.index(after: at)...]
        }
        guard let authority = RegistryURL.authority(String(rest)) else { throw refusal }
        result.host = authority.host
        result.port = authority.port ?? 80
        return result
    }

    /// Undoes percent-encoding; nil when it is none.
    private static func decoded(_ text: Substring) -> String? {
        var bytes: [UInt8] = []
        var rest = Array(text.utf8)[...]
        while let byte = rest.popFirst() {
            guard byte == UInt8(ascii: "%") else {
                bytes.append(byte)
                continue
            }
            guard rest.count >= 2, let value = UInt8(String(decoding: rest.prefix(2), as: UTF8.self), radix: 16) else {
                return nil
            }
            bytes.append(value)
            rest = rest.dropFirst(2)
        }
        return String(validating: bytes, as: UTF8.self)
    }

    /// The bytes of an IPv4 or IPv6 address, which may be in brackets.
    private static func address(_ text: String) -> [UInt8]? {
        let bare = text.hasPrefix("[") && text.hasSuffix("]") ? String(text.dropFirst().dropLast()) : text
        for (family, count) in [(AF_INET, 4), (AF_INET6, 16)] {
            var bytes = [UInt8](repeating: 0, count: count)
            if inet_pton(family, bare, &bytes) == 1 { return bytes }
        }
        return nil
    }

    /// The proxy for a URL; nil when its host is asked directly.
    func proxy(for url: RegistryURL) -> Proxy? {
        guard let proxy = url.isSecure ? secure : plain, !RegistryURL.isLoopback(url.host) else { return nil }
        let isDirect = direct.contains { entry in
            if entry == "*" || entry == url.host || entry == "\(url.host):\(url.port)" { return true }
            // As other tools have it, a name stands for what is below it as well.
            return url.host.hasSuffix(entry.hasPrefix(".") ? entry : ".\(entry)")
        }
        if isDirect { return nil }
        guard let address = Self.address(url.host) else { return proxy }
        return networks.contains { network in
            network.bytes.count == address.count
                && zip(network.bytes, address).enumerated().allSatisfy { index, pair in
                    let bits = max(0, min(8, network.bits - index * 8))
                    return (pair.0 ^ pair.1) >> (8 - bits) == 0
                }
        } ? nil : proxy
    }
}

extension HTTPClient.Configuration.Proxy {
    init(_ proxy: ProxySettings.Proxy) {
        let login = proxy.user.map { HTTPClient.Authorization.basic(username: $0, password: proxy.password ?? "") }
        self = .server(host: proxy.host, port: Int(proxy.port), authorization: login)
    }
}
