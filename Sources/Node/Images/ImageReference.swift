/// The name of an image as Docker writes it: `[domain[:port]/]path[:tag][@sha256:…]`.
///
/// Kept in full (`docker.io/library/busybox:latest`), shown short (`busybox:latest`). The grammar is the one of the
/// distribution project's `reference` package: what has no domain is on docker.io, what has no path prefix there is in
/// `library`, what has neither tag nor digest has the tag `latest`.
package struct ImageReference: Sendable, Hashable, Comparable, CustomStringConvertible {
    package let domain: String
    package let path: String
    /// nil only when there is a digest.
    package let tag: String?
    package let digest: Digest?

    /// The longest name, domain and path together, in bytes.
    static let maximumName = 255
    private static let defaultDomain = "docker.io"
    private static let officialPrefix = "library/"

    /// Reads a name as a user types it.
    ///
    /// - Throws: `ImageError` of kind `invalidArgument` that says what is wrong.
    package init(_ text: String) throws {
        guard !text.isEmpty, text.utf8.count <= 600, text.utf8.allSatisfy({ $0 > 0x20 && $0 < 0x7f }) else {
            throw Self.invalid(text, "a name is 1 to 600 printable ASCII characters")
        }
        var rest = text[...]
        if let at = rest.firstIndex(of: "@") {
            guard let digest = Digest(String(rest[rest.index(after: at)...])) else {
                throw Self.invalid(text, "what follows @ must be sha256: and 64 lower-case hexadecimal digits")
            }
            self.digest = digest
            rest = rest[..<at]
        } else {
            digest = nil
        }
        let lastPart = rest.lastIndex(of: "/").map { rest.index(after: $0) } ?? rest.startIndex
        if let colon = rest[lastPart...].firstIndex(of: ":") {
            let tag = String(rest[rest.index(after: colon)...])
            guard Self.isTag(tag) else {
                throw Self.invalid(
                    text, "a tag is 1 to 128 letters, digits, _, . and -, and does not begin with . or -")
            }
            self.tag = tag
            rest = rest[..<colon]
        } else {
            tag = digest == nil ? "latest" : nil
        }
        (domain, path) = try Self.name(rest, in: text)
    }

    /// Domain and path of what is left without tag and digest.
    private static func name(_ rest: Substring, in text: String) throws -> (domain: String, path: String) {
        if Digest(hex: String(rest)) != nil {
            throw invalid(text, "64 hexadecimal digits are an image id and cannot be a name")
        }
        var domain = Self.defaultDomain
        var path = String(rest)
        if let slash = rest.firstIndex(of: "/") {
            let first = rest[..<slash]
            if first.contains(".") || first.contains(":") || first == "localhost" || first.lowercased() != first {
                domain = String(first)
                path = String(rest[rest.index(after: slash)...])
            }
        }
        if domain == "index.docker.io" { domain = Self.defaultDomain }
        if domain == Self.defaultDomain, !path.contains("/") { path = Self.officialPrefix + path }
        guard isDomain(domain) else {
            throw invalid(text, "'\(printable(domain))' is no domain name with optional port")
        }
        guard path.split(separator: "/", omittingEmptySubsequences: false).allSatisfy(isPathComponent) else {
            throw invalid(
                text, "each part of the path must be lower-case letters and digits, separated by one of . _ __ or by -")
        }
        guard domain.utf8.count + 1 + path.utf8.count <= maximumName else {
            throw invalid(text, "domain and path together have more than \(maximumName) characters")
        }
        return (domain, path)
    }

    /// The whole name without tag and digest: `docker.io/library/busybox`.
    package var repository: String { "\(domain)/\(path)" }

    /// The whole name, as it is stored.
    package var description: String { repository + suffix }

    /// The short name, as it is shown: `busybox:latest`.
    package var familiar: String {
        guard domain == Self.defaultDomain else { return description }
        return (path.hasPrefix(Self.officialPrefix) ? String(path.dropFirst(Self.officialPrefix.count)) : path) + suffix
    }

    private var suffix: String { (tag.map { ":\($0)" } ?? "") + (digest.map { "@\($0)" } ?? "") }

    package static func < (left: ImageReference, right: ImageReference) -> Bool { left.description < right.description }

    private static func invalid(_ text: String, _ reason: String) -> ImageError {
        ImageError(.invalidArgument, "'\(printable(text))' is no image name: \(reason)")
    }
}

extension ImageReference {
    private static func isLower(_ byte: UInt8) -> Bool { (UInt8(ascii: "a")...UInt8(ascii: "z")).contains(byte) }
    private static func isUpper(_ byte: UInt8) -> Bool { (UInt8(ascii: "A")...UInt8(ascii: "Z")).contains(byte) }
    private static func isDigit(_ byte: UInt8) -> Bool { (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte) }
    private static func isAlphanumeric(_ byte: UInt8) -> Bool { isLower(byte) || isUpper(byte) || isDigit(byte) }

    private static func isTag(_ tag: String) -> Bool {
        let bytes = Array(tag.utf8)
        guard (1...128).contains(bytes.count), let first = bytes.first else { return false }
        guard isAlphanumeric(first) || first == UInt8(ascii: "_") else { return false }
        return bytes.allSatisfy { isAlphanumeric($0) || "_.-".utf8.contains($0) }
    }

    /// Runs of lower-case letters and digits with exactly one separator between each two.
    private static func isPathComponent(_ component: Substring) -> Bool {
        let bytes = Array(component.utf8)
        var index = 0
        while index < bytes.count {
            let run = bytes[index...].prefix { isLower($0) || isDigit($0) }
            guard !run.isEmpty else { return false }
            if run.endIndex == bytes.count { return true }
            let separator = bytes[run.endIndex...].prefix { !isLower($0) && !isDigit($0) }
            let text = String(decoding: separator, as: UTF8.self)
            guard text == "." || text == "_" || text == "__" || text.allSatisfy({ $0 == "-" }) else { return false }
            index = separator.endIndex
        }
        return false
    }

    /// Host name labels, or an IPv6 address in brackets, and an optional port.
    private static func isDomain(_ domain: String) -> Bool {
        var host = domain[...]
        if domain.hasPrefix("[") {
            guard let end = domain.firstIndex(of: "]") else { return false }
            let address = domain[domain.index(after: domain.startIndex)..<end]
            guard !address.isEmpty, address.allSatisfy({ $0.isHexDigit || $0 == ":" }) else { return false }
            let port = domain[domain.index(after: end)...]
            return port.isEmpty || port.hasPrefix(":") && isPort(port.dropFirst())
        }
        if let colon = domain.firstIndex(of: ":") {
            guard isPort(domain[domain.index(after: colon)...]) else { return false }
            host = domain[..<colon]
        }
        return host.split(separator: ".", omittingEmptySubsequences: false).allSatisfy { label in
            let bytes = Array(label.utf8)
            guard let first = bytes.first, let last = bytes.last, isAlphanumeric(first), isAlphanumeric(last) else {
                return false
            }
            return bytes.allSatisfy { isAlphanumeric($0) || $0 == UInt8(ascii: "-") }
        }
    }

    private static func isPort(_ text: Substring) -> Bool {
        !text.isEmpty && text.utf8.count <= 5 && text.utf8.allSatisfy(isDigit) && UInt16(text) != nil
    }
}

extension ImageReference: Codable {
    package init(from decoder: any Decoder) throws {
        let container = try decoder.singleValueContainer()
        do {
            try self.init(try container.decode(String.self))
        } catch let error as ImageError {
            throw DecodingError.dataCorruptedError(in: container, debugDescription: error.message)
        }
    }

    package func encode(to encoder: any Encoder) throws {
        var container = encoder.singleValueContainer()
        try container.encode(description)
    }
}

/// What an image runs on.
package struct Platform: Sendable, Hashable, Codable, CustomStringConvertible {
    /// As Go names it: `linux`.
    package var os: String
    /// As Go names it: `amd64`, `arm64`.
    package var architecture: String
    /// `v7`, `v8`; nil where the architecture has none.
    package var variant: String?

    package init(os: String = "linux", architecture: String, variant: String? = nil) {
        self.os = os
        self.architecture = architecture
        self.variant = variant
    }

    /// Reads `os/architecture[/variant]`.
    ///
    /// - Throws: `ImageError` of kind `invalidArgument`.
    package init(_ text: String) throws {
        let parts = text.split(separator: "/", omittingEmptySubsequences: false).map(String.init)
        let isWord = { (part: String) in
            (1...32).contains(part.utf8.count) && part.utf8.allSatisfy { ImageReference.isPlatformByte($0) }
        }
        guard (2...3).contains(parts.count), parts.allSatisfy(isWord) else {
            throw ImageError(
                .invalidArgument, "'\(printable(text))' is no platform; write os/architecture, such as linux/amd64")
        }
        self.init(os: parts[0], architecture: parts[1], variant: parts.count == 3 ? parts[2] : nil)
    }

    /// The machine that this program was built for.
    package static var host: Platform {
        #if arch(x86_64)
            Platform(architecture: "amd64")
        #elseif arch(arm64)
            Platform(architecture: "arm64", variant: "v8")
        #else
            #error("name this architecture as Go does")
        #endif
    }

    /// True when an image of `other` runs here; a variant counts only where both name one.
    package func accepts(_ other: Platform) -> Bool {
        os == other.os && architecture == other.architecture
            && (variant == nil || other.variant == nil || variant == other.variant)
    }

    package var description: String { "\(os)/\(architecture)" + (variant.map { "/\($0)" } ?? "") }
}

extension ImageReference {
    fileprivate static func isPlatformByte(_ byte: UInt8) -> Bool {
        isLower(byte) || isDigit(byte) || byte == UInt8(ascii: "_") || byte == UInt8(ascii: ".")
    }
}
