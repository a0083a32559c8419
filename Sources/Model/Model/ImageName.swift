/// A name under which an image is known: `[host[:port]/]path[:tag][@digest]`, kept in the familiar form: without
/// `docker.io/library/`, with a tag.
package struct ImageName: Sendable, Hashable, CustomStringConvertible {
    /// Host and path in the familiar form: `busybox`, `registry.example:5000/team/web`.
    package let repository: String
    package let tag: String?
    /// `sha256:…`.
    package let digest: String?

    /// nil when the text is no image name.
    package init?(_ text: String) {
        guard text.utf8.count <= 512 else { return nil }
        var rest = text[...]
        var digest: String?
        if let at = rest.firstIndex(of: "@") {
            digest = String(rest[rest.index(after: at)...])
            rest = rest[..<at]
            guard let digest, Self.isDigest(digest) else { return nil }
        }
        var tag: String?
        if let colon = rest.lastIndex(of: ":"), !rest[colon...].contains("/") {
            tag = String(rest[rest.index(after: colon)...])
            rest = rest[..<colon]
            guard let tag, Self.isTag(tag) else { return nil }
        }
        guard let repository = Self.familiar(rest) else { return nil }
        self.repository = repository
        self.tag = tag ?? (digest == nil ? "latest" : nil)
        self.digest = digest
    }

    package var description: String {
        repository + (tag.map { ":\($0)" } ?? "") + (digest.map { "@\($0)" } ?? "")
    }

    /// `repository:tag`; nil when it has only a digest.
    package var tagged: String? { tag.map { "\(repository):\($0)" } }

    /// `sha256:` and 64 lower-case hexadecimal digits.
    package static func isDigest(_ text: String) -> Bool {
        let bytes = text.utf8
        return text.hasPrefix("sha256:") && bytes.count == 71 && bytes.dropFirst(7).allSatisfy(isHexadecimal)
    }

    private static func isTag(_ text: String) -> Bool {
        let bytes = Array(text.utf8)
        guard (1...128).contains(bytes.count), isWord(bytes[0]) else { return false }
        return bytes.allSatisfy { isWord($0) || $0 == UInt8(ascii: ".") || $0 == UInt8(ascii: "-") }
    }

    private static func familiar(_ text: Substring) -> String? {
        var parts = text.split(separator: "/", omittingEmptySubsequences: false).map(String.init)
        var host: String?
        if parts.count > 1, let first = parts.first,
            first.contains(".") || first.contains(":") || first == "localhost"
        {
            guard isHost(first) else { return nil }
            host = parts.removeFirst()
        }
        guard !parts.isEmpty, parts.allSatisfy(isComponent) else { return nil }
        if host == "docker.io" || host == "index.docker.io" { host = nil }
        if host == nil, parts.count == 2, parts[0] == "library" { parts.removeFirst() }
        return ((host.map { [$0] } ?? []) + parts).joined(separator: "/")
    }

    private static func isHost(_ text: String) -> Bool {
        let halves = text.split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false)
        guard let name = halves.first, !name.isEmpty,
            name.utf8.allSatisfy({ isAlphanumeric($0) || $0 == UInt8(ascii: "-") || $0 == UInt8(ascii: ".") })
        else { return false }
        guard halves.count == 2 else { return true }
        return Int(halves[1]).map { (1...65535).contains($0) } ?? false
    }

    private static func isComponent(_ text: String) -> Bool {
        let bytes = Array(text.utf8)
        guard let first = bytes.first, let last = bytes.last else { return false }
        func isLower(_ byte: UInt8) -> Bool {
            (UInt8(ascii: "a")...UInt8(ascii: "z")).contains(byte)
                || (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte)
        }
        guard isLower(first), isLower(last) else { return false }
        return bytes.allSatisfy {
            isLower($0) || $0 == UInt8(ascii: ".") || $0 == UInt8(ascii: "_") || $0 == UInt8(ascii: "-")
        }
    }

    private static func isHexadecimal(_ byte: UInt8) -> Bool {
        (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte) || (UInt8(ascii: "a")...UInt8(ascii: "f")).contains(byte)
    }

    private static func isAlphanumeric(_ byte: UInt8) -> Bool {
        (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte)
            || (UInt8(ascii: "a")...UInt8(ascii: "z")).contains(byte | 0x20)
    }

    private static func isWord(_ byte: UInt8) -> Bool { isAlphanumeric(byte) || byte == UInt8(ascii: "_") }
}
