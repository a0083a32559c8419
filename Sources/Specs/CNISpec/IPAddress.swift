/// An IPv4 or IPv6 address, without zone.
package struct IPAddress: Sendable, Hashable {
    package enum Family: Sendable, Hashable {
        case v4
        case v6

        /// Length of an address in bits.
        package var bits: Int { self == .v4 ? 32 : 128 }
    }

    package let family: Family
    /// The address as a number, its first byte highest; an IPv4 address in the low 32 bits.
    package let value: UInt128

    /// - Parameter value: of an IPv4 address only the low 32 bits count.
    package init(_ family: Family, _ value: UInt128) {
        self.family = family
        self.value = family == .v4 ? value & 0xffff_ffff : value
    }

    /// From bytes in network order; nil unless there are 4 or 16.
    package init?(bytes: some Collection<UInt8>) {
        guard bytes.count == 4 || bytes.count == 16 else { return nil }
        self.init(bytes.count == 4 ? .v4 : .v6, bytes.reduce(0) { $0 << 8 | UInt128($1) })
    }

    /// Reads the strict text forms: four decimal numbers without leading zeros, or RFC 4291 with one `::` at most and
    /// possibly an IPv4 tail. Nil for everything else, also for zones and white space.
    package init?(_ text: String) {
        let bytes = Array(text.utf8)
        guard bytes.count <= 45 else { return nil }
        if bytes.contains(UInt8(ascii: ":")) {
            guard let value = Self.parseV6(bytes[...]) else { return nil }
            self.init(.v6, value)
        } else {
            guard let value = Self.parseV4(bytes[...]) else { return nil }
            self.init(.v4, UInt128(value))
        }
    }

    private static func parseV4(_ text: ArraySlice<UInt8>) -> UInt32? {
        let parts = text.split(separator: UInt8(ascii: "."), omittingEmptySubsequences: false)
        guard parts.count == 4 else { return nil }
        var value: UInt32 = 0
        for part in parts {
            guard let byte = UInt8(digits: part) else { return nil }
            value = value << 8 | UInt32(byte)
        }
        return value
    }

    private static func parseV6(_ text: ArraySlice<UInt8>) -> UInt128? {
        let colon = UInt8(ascii: ":")
        var groups: [UInt16] = []
        var gap: Int?
        var rest = text
        if rest.starts(with: [colon, colon]) {
            gap = 0
            rest = rest.dropFirst(2)
        }
        while !rest.isEmpty {
            let end = rest.firstIndex(of: colon) ?? rest.endIndex
            let part = rest[rest.startIndex..<end]
            if part.contains(UInt8(ascii: ".")) {
                guard end == rest.endIndex, let tail = parseV4(part) else { return nil }
                groups.append(UInt16(tail >> 16))
                groups.append(UInt16(tail & 0xffff))
                break
            }
            guard (1...4).contains(part.count), let group = UInt16(hexadecimal: part) else { return nil }
            groups.append(group)
            if end == rest.endIndex { break }
            rest = rest[(end + 1)...]
            if rest.isEmpty { return nil }
            if rest.first == colon {
                guard gap == nil else { return nil }
                gap = groups.count
                rest = rest.dropFirst()
            }
        }
        if let gap {
            guard groups.count < 8 else { return nil }
            groups.insert(contentsOf: [UInt16](repeating: 0, count: 8 - groups.count), at: gap)
        }
        guard groups.count == 8 else { return nil }
        return groups.reduce(0) { $0 << 16 | UInt128($1) }
    }

    /// In network order: 4 or 16 bytes.
    package var bytes: [UInt8] {
        stride(from: family.bits - 8, through: 0, by: -8).map { UInt8(truncatingIfNeeded: value >> UInt128($0)) }
    }

    /// 127.0.0.0/8 or ::1.
    package var isLoopback: Bool { family == .v4 ? value >> 24 == 127 : value == 1 }
    /// 0.0.0.0 or ::, which binds all addresses.
    package var isUnspecified: Bool { value == 0 }
    /// 224.0.0.0/4 or ff00::/8.
    package var isMulticast: Bool { family == .v4 ? value >> 28 == 14 : value >> 120 == 0xff }
    /// fe80::/10 or 169.254.0.0/16.
    package var isLinkLocal: Bool { family == .v4 ? value >> 16 == 0xa9fe : value >> 118 == 0x3fa }

    /// The address so many further; nil beyond the family's first or last.
    package func advanced(by distance: Int64) -> IPAddress? {
        let magnitude = UInt128(distance.magnitude)
        let (result, overflow) =
            distance < 0 ? value.subtractingReportingOverflow(magnitude) : value.addingReportingOverflow(magnitude)
        guard !overflow, family == .v6 || result <= 0xffff_ffff else { return nil }
        return IPAddress(family, result)
    }
}

extension IPAddress: CustomStringConvertible {
    /// The canonical text: for IPv6 that of RFC 5952.
    package var description: String {
        switch family {
        case .v4: bytes.map { String($0) }.joined(separator: ".")
        case .v6: descriptionV6
        }
    }

    private var descriptionV6: String {
        if value >> 32 == 0xffff { return "::ffff:\(IPAddress(.v4, value))" }
        let groups = (0..<8).map { UInt16(truncatingIfNeeded: value >> UInt128(112 - 16 * $0)) }
        var (longest, start, index) = (1, 8, 0)
        while index < 8 {
            let length = groups[index...].prefix { $0 == 0 }.count
            if length > longest { (longest, start) = (length, index) }
            index += max(1, length)
        }
        let text = { (part: ArraySlice<UInt16>) in part.map { String($0, radix: 16) }.joined(separator: ":") }
        if start == 8 { return text(groups[...]) }
        return text(groups[..<start]) + "::" + text(groups[(start + longest)...])
    }
}

/// An address with the length of its network's prefix: `10.1.2.3/16`. The bits after the prefix are kept.
package struct CIDR: Sendable, Hashable {
    package let address: IPAddress
    /// 0 to 32 or 128.
    package let prefixLength: Int

    /// Nil when the prefix is longer than the address.
    package init?(_ address: IPAddress, prefixLength: Int) {
        guard (0...address.family.bits).contains(prefixLength) else { return nil }
        self.address = address
        self.prefixLength = prefixLength
    }

    /// Reads `address/length`; nil for everything else.
    package init?(_ text: String) {
        let bytes = Array(text.utf8)
        guard let slash = bytes.firstIndex(of: UInt8(ascii: "/")),
            let length = UInt8(digits: bytes[(slash + 1)...]),
            let address = IPAddress(String(decoding: bytes[..<slash], as: UTF8.self))
        else { return nil }
        self.init(address, prefixLength: Int(length))
    }

    /// From a netmask such as 255.255.0.0; nil when its ones are not all in front.
    package init?(_ address: IPAddress, mask: IPAddress) {
        guard mask.family == address.family else { return nil }
        let length = mask.family.bits - mask.value.trailingZeroBitCount(in: mask.family)
        self.init(address, prefixLength: length)
        if mask != self.mask { return nil }
    }

    private var hostBits: UInt128 {
        let bits = address.family.bits - prefixLength
        return bits == 128 ? .max : (UInt128(1) << UInt128(bits)) - 1
    }

    /// The netmask.
    package var mask: IPAddress { IPAddress(address.family, ~hostBits) }
    /// The network's first address.
    package var first: IPAddress { IPAddress(address.family, address.value & ~hostBits) }
    /// The network's last address; for IPv4 its broadcast address.
    package var last: IPAddress { IPAddress(address.family, address.value | hostBits) }
    /// The same prefix without the bits after it.
    package var network: CIDR { CIDR(network: first, prefixLength) }
    /// No bit is set after the prefix.
    package var isNetwork: Bool { address == first }

    private init(network: IPAddress, _ length: Int) {
        address = network
        prefixLength = length
    }

    package func contains(_ other: IPAddress) -> Bool {
        other.family == address.family && other.value & ~hostBits == first.value
    }

    /// Whether every address of `other`'s network is in this one.
    package func contains(_ other: CIDR) -> Bool { other.prefixLength >= prefixLength && contains(other.address) }

    /// Whether the two networks share an address: then one contains the other.
    package func overlaps(_ other: CIDR) -> Bool { contains(other) || other.contains(self) }
}

extension CIDR: CustomStringConvertible {
    package var description: String { "\(address)/\(prefixLength)" }
}

/// A hardware address of 6, 8 or 20 bytes (EUI-48, EUI-64, InfiniBand).
package struct MACAddress: Sendable, Hashable, CustomStringConvertible {
    package let bytes: [UInt8]

    /// Nil unless there are 6, 8 or 20.
    package init?(bytes: [UInt8]) {
        guard [6, 8, 20].contains(bytes.count) else { return nil }
        self.bytes = bytes
    }

    /// Reads pairs of hexadecimal digits with `:` or `-` between them, always the same.
    package init?(_ text: String) {
        let characters = Array(text.utf8)
        guard characters.count >= 17, characters[2] == UInt8(ascii: ":") || characters[2] == UInt8(ascii: "-")
        else { return nil }
        var bytes: [UInt8] = []
        for part in characters.split(separator: characters[2], omittingEmptySubsequences: false) {
            guard part.count == 2, let byte = UInt16(hexadecimal: part) else { return nil }
            bytes.append(UInt8(byte))
        }
        self.init(bytes: bytes)
    }

    package var description: String {
        bytes.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined(separator: ":")
    }
}

extension UInt8 {
    /// A decimal number without sign and leading zeros.
    fileprivate init?(digits: ArraySlice<UInt8>) {
        guard (1...3).contains(digits.count), digits.count == 1 || digits.first != UInt8(ascii: "0") else { return nil }
        var value = 0
        for digit in digits {
            guard (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(digit) else { return nil }
            value = value * 10 + Int(digit - UInt8(ascii: "0"))
        }
        guard value <= 255 else { return nil }
        self = UInt8(value)
    }
}

extension UInt16 {
    /// One to four hexadecimal digits.
    fileprivate init?(hexadecimal digits: ArraySlice<UInt8>) {
        guard (1...4).contains(digits.count) else { return nil }
        var value: UInt16 = 0
        for digit in digits {
            let number: UInt8
            switch digit {
            case UInt8(ascii: "0")...UInt8(ascii: "9"): number = digit - UInt8(ascii: "0")
            case UInt8(ascii: "a")...UInt8(ascii: "f"): number = digit - UInt8(ascii: "a") + 10
            case UInt8(ascii: "A")...UInt8(ascii: "F"): number = digit - UInt8(ascii: "A") + 10
            default: return nil
            }
            value = value << 4 | UInt16(number)
        }
        self = value
    }
}

extension UInt128 {
    fileprivate func trailingZeroBitCount(in family: IPAddress.Family) -> Int {
        Swift.min(trailingZeroBitCount, family.bits)
    }
}

extension IPAddress: Comparable {
    /// IPv4 first.
    package static func < (left: IPAddress, right: IPAddress) -> Bool {
        left.family == right.family ? left.value < right.value : left.family == .v4
    }
}
