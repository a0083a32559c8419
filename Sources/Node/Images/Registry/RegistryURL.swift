/// Where a request goes: an absolute `http` or `https` URL without user and fragment (RFC 3986).
///
/// It is read strictly, because redirects and token servers name it: what is compared here must be what is asked.
struct RegistryURL: Sendable, Equatable, CustomStringConvertible {
    let isSecure: Bool
    /// Lower case; an IPv6 address is in brackets.
    let host: String
    let port: UInt16
    /// Path and query; begins with a slash.
    let target: String

    private static let maximumLength = 8192

    /// Reads an absolute URL; nil for anything else.
    init?(_ text: String) {
        guard text.utf8.count <= Self.maximumLength, text.utf8.allSatisfy({ $0 > 0x20 && $0 < 0x7f && $0 != 0x5c })
        else {
            return nil
        }
        guard let colon = text.range(of: "://") else { return nil }
        switch text[..<colon.lowerBound].lowercased() {
        case "https": isSecure = true
        case "http": isSecure = false
        default: return nil
        }
        let rest = text[colon.upperBound...].prefix { $0 != "#" }
        let end = rest.firstIndex { $0 == "/" || $0 == "?" } ?? rest.endIndex
        guard let authority = Self.authority(String(rest[..<end])) else { return nil }
        host = authority.host
        port = authority.port ?? (isSecure ? 443 : 80)
        target = (rest[end...].hasPrefix("/") ? "" : "/") + rest[end...]
    }

    init(isSecure: Bool, authority: (host: String, port: UInt16?), target: String) {
        self.isSecure = isSecure
        host = authority.host
        port = authority.port ?? (isSecure ? 443 : 80)
        self.target = target
    }

    /// Takes `host[:port]` apart; nil when it is neither a name nor an address.
    static func authority(_ text: String) -> (host: String, port: UInt16?)? {
        var host = text.lowercased()[...]
        var port: UInt16?
        let afterAddress = host.lastIndex(of: "]") ?? host.startIndex
        if let colon = host[afterAddress...].lastIndex(of: ":") {
            let digits = host[host.index(after: colon)...]
            guard digits.utf8.allSatisfy({ (0x30...0x39).contains($0) }), let number = UInt16(digits), number > 0 else {
                return nil
            }
            port = number
            host = host[..<colon]
        }
        let bytes = host.utf8
        let isName = bytes.allSatisfy { byte in
            (0x61...0x7a).contains(byte) || (0x30...0x39).contains(byte) || "-._".utf8.contains(byte)
        }
        let isAddress =
            host.hasPrefix("[") && host.hasSuffix("]")
            && host.dropFirst().dropLast().utf8.allSatisfy { Digest.isHexadecimal($0) || $0 == 0x3a || $0 == 0x2e }
        guard (1...255).contains(bytes.count), isName || isAddress else { return nil }
        return (String(host), port)
    }

    /// What a `Location` header means here: a whole URL, or a path on the same server.
    func resolving(_ location: String) -> RegistryURL? {
        if location.hasPrefix("//") { return RegistryURL((isSecure ? "https:" : "http:") + location) }
        if location.hasPrefix("/") { return RegistryURL(origin + location) }
        return RegistryURL(location)
    }

    func with(target: String) -> RegistryURL {
        RegistryURL(isSecure: isSecure, authority: (host, port), target: target)
    }

    /// `host`, or `host:port` where the port is not the scheme's own.
    var authority: String { port == (isSecure ? 443 : 80) ? host : "\(host):\(port)" }
    /// Scheme, host and port: what credentials are bound to.
    var origin: String { "\(isSecure ? "https" : "http")://\(authority)" }
    var description: String { origin + target }

    /// Whether the host is this machine, by a loopback address or by the name `localhost`.
    static func isLoopback(_ host: String) -> Bool {
        if host == "localhost" || host == "[::1]" { return true }
        let parts = host.split(separator: ".", omittingEmptySubsequences: false)
        return parts.count == 4 && parts[0] == "127" && parts.allSatisfy { UInt8($0) != nil }
    }

    /// A URL with one more query parameter.
    func adding(_ name: String, _ value: String) -> RegistryURL {
        with(target: target + (target.contains("?") ? "&" : "?") + name + "=" + Self.encoded(value))
    }

    /// Percent-encodes a query value or a form field (RFC 3986, section 2.3).
    static func encoded(_ value: String) -> String {
        let digits = Array("0123456789ABCDEF".utf8)
        var result: [UInt8] = []
        for byte in value.utf8 {
            let isPlain =
                (0x61...0x7a).contains(byte) || (0x41...0x5a).contains(byte) || (0x30...0x39).contains(byte)
                || "-._~".utf8.contains(byte)
            result += isPlain ? [byte] : [UInt8(ascii: "%"), digits[Int(byte >> 4)], digits[Int(byte & 15)]]
        }
        return String(decoding: result, as: UTF8.self)
    }
}

extension String {
    /// The first place of a short text in this one.
    fileprivate func range(of text: String) -> Range<String.Index>? {
        var start = startIndex
        while start < endIndex {
            if self[start...].hasPrefix(text) { return start..<index(start, offsetBy: text.count) }
            start = index(after: start)
        }
        return nil
    }
}
