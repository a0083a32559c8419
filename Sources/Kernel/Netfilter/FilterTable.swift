import CNetfilter

/// Which packets a table of nf_tables sees (nft(8), "ADDRESS FAMILIES"). The raw value is what nft(8) calls it.
package enum FilterFamily: String, Sendable, CaseIterable {
    /// IPv4 and IPv6.
    case inet
    case ipv4 = "ip"
    case ipv6 = "ip6"
    /// Frames that come to bridges.
    case bridge

    var number: UInt8 {
        switch self {
        case .inet: UInt8(NFPROTO_INET)
        case .ipv4: UInt8(NFPROTO_IPV4)
        case .ipv6: UInt8(NFPROTO_IPV6)
        case .bridge: UInt8(NFPROTO_BRIDGE)
        }
    }

    init?(number: UInt8) {
        guard let family = Self.allCases.first(where: { $0.number == number }) else { return nil }
        self = family
    }
}

/// A table of nf_tables (nft(8)).
package struct FilterTable: Sendable {
    package let family: FilterFamily
    package let name: String
    /// By which it is known as ours.
    package let comment: String
    package let sets: [FilterSet]
    package let chains: [FilterChain]

    package init(
        _ name: String, family: FilterFamily = .inet, comment: String, sets: [FilterSet], chains: [FilterChain]
    ) {
        self.family = family
        self.name = name
        self.comment = comment
        self.sets = sets
        self.chains = chains
    }

    /// What the kernel lists of a table that is whole: of each rule its chain and comment.
    package var outline: [FilterRuleRecord] {
        chains.flatMap { chain in chain.rules.map { FilterRuleRecord(chain: chain.name, comment: $0.comment) } }
    }
}

/// A set of keys, or a map from keys to values.
package struct FilterSet: Sendable {
    /// A part of a key or a value. In both each takes a multiple of four bytes.
    package struct Field: Sendable, Equatable {
        /// By which nft(8) knows how to show it.
        let type: UInt32
        let bytes: Int

        package static let ipv4 = Field(type: 7, bytes: 4)
        package static let ipv6 = Field(type: 8, bytes: 16)
        /// A hardware address of Ethernet.
        package static let mac = Field(type: 9, bytes: 6)
        package static let transport = Field(type: 12, bytes: 1)
        package static let port = Field(type: 13, bytes: 2)
        /// A number of four bytes that nft(8) shows as a mark.
        package static let mark = Field(type: 19, bytes: 4)
        /// The group of a device, in the machine's order.
        package static let group = Field(type: 35, bytes: 4)
        package static let interface = Field(type: 41, bytes: 16)

        var paddedBytes: Int { (bytes + 3) & ~3 }
    }

    package let name: String
    package let key: [Field]
    /// Empty: no map.
    package let value: [Field]
    /// Elements are ranges, of which no two share a key.
    package let isInterval: Bool

    package init(_ name: String, key: [Field], value: [Field] = [], isInterval: Bool = false) {
        self.name = name
        self.key = key
        self.value = value
        self.isInterval = isInterval
    }

    /// The number of a type that is put together: six bits for each.
    static func type(_ fields: [Field]) -> UInt32 { fields.reduce(0) { $0 << 6 | $1.type } }
    /// What nft(8) must be told to show keys: a byte 0, a length, and 1 for keys in the machine's order, which names and
    /// groups of devices are, or 2 for keys in network order.
    var byteOrder: [UInt8] {
        let isOurs = key.allSatisfy { [.interface, .group].contains($0) }
        return [0, 4] + withUnsafeBytes(of: UInt32(isOurs ? 1 : 2)) { Array($0) }
    }

    static func bytes(_ fields: [Field]) -> Int { fields.reduce(0) { $0 + $1.paddedBytes } }
}

/// An element of a set or map, with its key and value in the kernel's form.
package struct FilterElement: Sendable, Hashable {
    package var key: [UInt8]
    /// The last key, where the element is a range.
    package var keyEnd: [UInt8]?
    package var value: [UInt8]
    /// What nft(8) shows as comment; nil: there is none.
    package var comment: String?

    package init(key: [UInt8], keyEnd: [UInt8]? = nil, value: [UInt8] = [], comment: String?) {
        self.key = key
        self.keyEnd = keyEnd
        self.value = value
        self.comment = comment
    }

    /// Each part filled with NUL to a multiple of four bytes.
    package static func padded(_ parts: [UInt8]...) -> [UInt8] {
        parts.flatMap { $0 + [UInt8](repeating: 0, count: -$0.count & 3) }
    }
}

/// A list of rules; with a hook the kernel begins there.
package struct FilterChain: Sendable {
    package enum Kind: String, Sendable {
        case filter
        case nat
    }

    package enum Hook: UInt32, Sendable {
        case prerouting = 0
        case input = 1
        case forward = 2
        case output = 3
        case postrouting = 4
    }

    package struct Base: Sendable {
        package let kind: Kind
        package let hook: Hook
        /// Lower ones come first; address translation is at -100 for destinations and at 100 for sources.
        package let priority: Int32
        /// What happens to a packet that no rule decides.
        package let drops: Bool

        package init(_ kind: Kind, _ hook: Hook, priority: Int32, drops: Bool = false) {
            self.kind = kind
            self.hook = hook
            self.priority = priority
            self.drops = drops
        }
    }

    package let name: String
    package let base: Base?
    package let rules: [FilterRule]

    package init(_ name: String, _ base: Base? = nil, rules: [FilterRule]) {
        self.name = name
        self.base = base
        self.rules = rules
    }
}

package struct FilterRule: Sendable {
    package let comment: String
    package let expressions: [FilterExpression]

    package init(_ comment: String, _ expressions: [FilterExpression]) {
        self.comment = comment
        self.expressions = expressions
    }
}

/// A rule as the kernel lists it.
package struct FilterRuleRecord: Sendable, Equatable {
    package let chain: String
    package let comment: String?
}
