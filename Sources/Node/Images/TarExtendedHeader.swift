import Kernel

/// The records of a pax extended header (POSIX.1-2017, pax, "pax Extended Header") as far as they say something about an
/// entry. Records that Martlet has no use for (access time, comments, names of users) are passed over.
struct TarExtendedHeader {
    var path: [UInt8]?
    var target: [UInt8]?
    var size: UInt64?
    var uid: UInt32?
    var gid: UInt32?
    var modified: (seconds: Int64, nanoseconds: Int64)?
    var attributes: [TarEntry.Attribute] = []
    /// GNU's sparse formats 0.0, 0.1 and 1.0 (GNU tar manual, "Storing Sparse Files").
    var sparse = Sparse()

    struct Sparse {
        var major: Int64?
        var minor: Int64?
        var name: [UInt8]?
        var realSize: UInt64?
        /// Offsets and lengths in turn, from the records of 0.0 and 0.1.
        var map: [UInt64] = []
        var isPresent: Bool { major != nil || !map.isEmpty }
    }

    private let limits: ImageLimits

    init(limits: ImageLimits) { self.limits = limits }

    /// Reads a header's records.
    init(_ bytes: [UInt8], limits: ImageLimits) throws {
        self.limits = limits
        var offset = 0
        while offset < bytes.count {
            let (key, value, next) = try Self.record(bytes, at: offset)
            try apply(key, value)
            offset = next
        }
    }

    /// One record, `<length> <key>=<value>\n`, whose length counts all of it.
    private static func record(
        _ bytes: [UInt8], at start: Int
    ) throws -> (key: ArraySlice<UInt8>, value: ArraySlice<UInt8>, next: Int) {
        let malformed = ImageError(.invalidArchive, "a pax header has a malformed record")
        let digits = bytes[start...].prefix(10).prefix { (0x30...0x39).contains($0) }
        guard !digits.isEmpty, digits.first != 0x30, let length = Int(String(decoding: digits, as: UTF8.self)),
            digits.endIndex < bytes.count, bytes[digits.endIndex] == 0x20, length <= bytes.count - start
        else { throw malformed }
        let end = start + length
        guard end > digits.endIndex + 2, bytes[end - 1] == 0x0a else { throw malformed }
        let body = bytes[(digits.endIndex + 1)..<(end - 1)]
        guard let equals = body.firstIndex(of: UInt8(ascii: "=")), equals > body.startIndex else { throw malformed }
        return (body[..<equals], body[(equals + 1)...], end)
    }

    private mutating func apply(_ keyBytes: ArraySlice<UInt8>, _ value: ArraySlice<UInt8>) throws {
        let attributePrefix = "SCHILY.xattr.".utf8
        if keyBytes.starts(with: attributePrefix) {
            return try addAttribute(Array(keyBytes.dropFirst(attributePrefix.count)), Array(value))
        }
        let key = String(decoding: keyBytes, as: UTF8.self)
        switch key {
        case "path": path = try Self.name(key, value)
        case "linkpath": target = try Self.name(key, value)
        case "size": size = try Self.decimal(key, value)
        case "uid": uid = try Self.identifier(key, value)
        case "gid": gid = try Self.identifier(key, value)
        case "mtime": modified = try Self.time(value)
        default:
            if key.hasPrefix("GNU.sparse.") { try applySparse(key, value) }
        }
    }

    private mutating func applySparse(_ key: String, _ value: ArraySlice<UInt8>) throws {
        switch key {
        case "GNU.sparse.major": sparse.major = try Self.decimal(key, value).map { Int64(clamping: $0) }
        case "GNU.sparse.minor": sparse.minor = try Self.decimal(key, value).map { Int64(clamping: $0) }
        case "GNU.sparse.name": sparse.name = try Self.name(key, value)
        case "GNU.sparse.size", "GNU.sparse.realsize": sparse.realSize = try Self.decimal(key, value)
        case "GNU.sparse.offset", "GNU.sparse.numbytes":
            guard let number = try Self.decimal(key, value) else { return }
            guard (sparse.map.count % 2 == 0) == (key == "GNU.sparse.offset") else {
                throw ImageError(.invalidArchive, "a pax header has \(key) out of order")
            }
            sparse.map.append(number)
        case "GNU.sparse.map":
            sparse.map = try value.split(separator: UInt8(ascii: ","), omittingEmptySubsequences: false).map { piece in
                guard let number = try Self.decimal(key, piece) else {
                    throw ImageError(.invalidArchive, "a pax header has a malformed \(key)")
                }
                return number
            }
        default: break
        }
        guard sparse.map.count <= 2 * limits.sparseSegments else {
            throw ImageError(.limitExceeded, "a sparse file has more than \(limits.sparseSegments) segments")
        }
    }

    private mutating func addAttribute(_ name: [UInt8], _ value: [UInt8]) throws {
        guard !name.isEmpty, name.count <= 255, !name.contains(0) else {
            throw ImageError(.invalidArchive, "a pax header has a malformed extended attribute")
        }
        guard value.count <= limits.attributeBytes, attributes.count < limits.attributes else {
            throw ImageError(
                .limitExceeded,
                "an entry has more than \(limits.attributes) extended attributes, or one over "
                    + "\(limits.attributeBytes) bytes")
        }
        attributes.removeAll { $0.name == name }
        attributes.append(TarEntry.Attribute(name: name, value: value))
    }

    /// A path; an empty value takes an earlier one back.
    private static func name(_ key: String, _ value: ArraySlice<UInt8>) throws -> [UInt8]? {
        guard !value.contains(0) else { throw ImageError(.invalidArchive, "a pax header has a NUL in its \(key)") }
        return value.isEmpty ? nil : Array(value)
    }

    private static func decimal(_ key: String, _ value: ArraySlice<UInt8>) throws -> UInt64? {
        if value.isEmpty { return nil }
        guard value.count <= 20, value.allSatisfy({ (0x30...0x39).contains($0) }),
            let number = UInt64(String(decoding: value, as: UTF8.self)), number <= UInt64(Int64.max)
        else { throw ImageError(.invalidArchive, "a pax header has a malformed \(key)") }
        return number
    }

    private static func identifier(_ key: String, _ value: ArraySlice<UInt8>) throws -> UInt32? {
        guard let number = try decimal(key, value) else { return nil }
        guard number < UInt64(UInt32.max) else {
            throw ImageError(.invalidArchive, "a pax header has a \(key) out of range: \(number)")
        }
        return UInt32(number)
    }

    /// Seconds with an optional fraction, negative before 1970; digits beyond nanoseconds are cut off.
    static func time(_ value: ArraySlice<UInt8>) throws -> (seconds: Int64, nanoseconds: Int64)? {
        if value.isEmpty { return nil }
        let negative = value.first == UInt8(ascii: "-")
        let parts = (negative ? value.dropFirst() : value).split(
            separator: UInt8(ascii: "."), maxSplits: 1, omittingEmptySubsequences: false)
        let fraction = parts.count == 2 ? parts[1] : []
        guard let whole = parts.first, whole.allSatisfy({ (0x30...0x39).contains($0) }),
            let seconds = Int64(String(decoding: whole, as: UTF8.self)), seconds < 1 << 60,
            fraction.allSatisfy({ (0x30...0x39).contains($0) })
        else { throw ImageError(.invalidArchive, "a pax header has a malformed mtime") }
        var nanoseconds: Int64 = 0
        for index in 0..<9 {
            let digit = index < fraction.count ? fraction[fraction.startIndex + index] - 0x30 : 0
            nanoseconds = nanoseconds * 10 + Int64(digit)
        }
        guard negative else { return (seconds, nanoseconds) }
        return nanoseconds == 0 ? (-seconds, 0) : (-seconds - 1, 1_000_000_000 - nanoseconds)
    }
}
