import CNIPlugin
import CNISpec
import Glibc
import Netfilter

/// The table of nf_tables in which all published ports of a host are, and all that is known of them. An element of it
/// carries network, container and device as its comment.
enum PortTable {
    static let name = "martlet_portmap"
    /// With the number of this layout: a table with another one, or without all of its rules, is made anew.
    static let comment = "martlet portmap 1"
    /// How the comments of all layouts begin.
    static let ours = "martlet portmap "

    /// The sets of the table.
    enum Part: String, CaseIterable {
        /// Transport and port, at all addresses of the host.
        case any4, any6
        /// Address, transport and port.
        case at4, at6
        /// Transport and port, at 127.0.0.0/8.
        case loopback4
        /// Sources and destinations between which the source must become the host.
        case masquerade4, masquerade6
        /// Devices that were given route_localnet by us; one that leads to one container alone is that one's.
        case localnet

        var isPublished: Bool { [.any4, .any6, .at4, .at6].contains(self) }

        var set: FilterSet {
            let (to4, to6): ([FilterSet.Field], [FilterSet.Field]) = ([.ipv4, .port], [.ipv6, .port])
            return switch self {
            case .any4, .loopback4: FilterSet(rawValue, key: [.transport, .port], value: to4)
            case .any6: FilterSet(rawValue, key: [.transport, .port], value: to6)
            case .at4: FilterSet(rawValue, key: [.ipv4, .transport, .port], value: to4)
            case .at6: FilterSet(rawValue, key: [.ipv6, .transport, .port], value: to6)
            case .masquerade4: FilterSet(rawValue, key: [.ipv4, .ipv4], isInterval: true)
            case .masquerade6: FilterSet(rawValue, key: [.ipv6, .ipv6], isInterval: true)
            case .localnet: FilterSet(rawValue, key: [.interface])
            }
        }
    }

    typealias Elements = [Part: [FilterElement]]

    static let table = FilterTable(
        name, comment: comment, sets: Part.allCases.map(\.set),
        chains: [
            FilterChain(
                "guard", .init(.filter, .prerouting, priority: -300),
                rules: [
                    // What the kernel refuses by itself as long as no device has route_localnet (RFC 1122, 3.2.1.3).
                    FilterRule("to 127.0.0.0/8 from outside", fromOutside + destinationIsLoopback4 + drop),
                    FilterRule("from 127.0.0.0/8 from outside", fromOutside + sourceIsLoopback4 + drop),
                ]),
            FilterChain(
                "prerouting", .init(.nat, .prerouting, priority: -100),
                rules: [
                    // The translation comes before the kernel refuses these as coming from outside.
                    FilterRule("127.0.0.0/8 is nobody's", destinationIsLoopback4 + [.verdict(.return)]),
                    FilterRule("published ports", [.verdict(.jump("published"))]),
                ]),
            FilterChain(
                "output", .init(.nat, .output, priority: -100),
                rules: [
                    FilterRule("at 127.0.0.0/8", destinationIsLoopback4 + publish4(.loopback4, [])),
                    FilterRule("published ports", [.verdict(.jump("published"))]),
                ]),
            FilterChain(
                "postrouting", .init(.nat, .postrouting, priority: 100),
                rules: [
                    FilterRule("IPv4 that answers would not come back", translated + masquerade(.masquerade4)),
                    FilterRule("IPv6 that answers would not come back", translated + masquerade(.masquerade6)),
                ]),
            FilterChain(
                "published",
                rules: [
                    FilterRule("IPv4 at one address", isV4 + publish4(.at4, [destination4(.word(0))])),
                    FilterRule("IPv6 at one address", isV6 + publish6(.at6, [destination6(.word(0))])),
                    FilterRule(
                        "no IPv4 loopback", destinationIsLoopback4 + [.verdict(.return)]),
                    FilterRule(
                        "no IPv6 loopback",
                        isV6 + [destination6(.word(0)), .equal(.word(0), IPAddress(.v6, 1).bytes), .verdict(.return)]),
                    FilterRule("IPv4 at all addresses", isV4 + isLocal + publish4(.any4, [])),
                    FilterRule("IPv6 at all addresses", isV6 + isLocal + publish6(.any6, [])),
                ]),
        ])

    // MARK: Pieces of rules

    private static let isV4: [FilterExpression] = [.meta(.family, .word(0)), .equal(.word(0), [UInt8(AF_INET)])]
    private static let isV6: [FilterExpression] = [.meta(.family, .word(0)), .equal(.word(0), [UInt8(AF_INET6)])]
    private static let drop: [FilterExpression] = [.counter, .verdict(.drop)]
    private static let fromOutside: [FilterExpression] = [
        .meta(.inputName, .word(0)), .notEqual(.word(0), interfaceKey("lo")),
    ]
    /// Offsets are those of RFC 791 and RFC 8200.
    private static let sourceIsLoopback4: [FilterExpression] =
        isV4 + [.payload(.network, offset: 12, count: 1, .word(0)), .equal(.word(0), [127])]
    private static let destinationIsLoopback4: [FilterExpression] =
        isV4 + [.payload(.network, offset: 16, count: 1, .word(0)), .equal(.word(0), [127])]
    private static let isLocal: [FilterExpression] = [
        .destinationType(.word(0)), .equal(.word(0), hostOrder(UInt32(2 /* RTN_LOCAL */))),
    ]
    private static let translated: [FilterExpression] = [
        .connectionStatus(.word(0)), .mask(.word(0), hostOrder(1 << 5 /* IPS_DST_NAT */)),
        .notEqual(.word(0), hostOrder(0)),
    ]

    private static func hostOrder(_ number: UInt32) -> [UInt8] { withUnsafeBytes(of: number) { Array($0) } }

    private static func destination4(_ register: FilterRegister) -> FilterExpression {
        .payload(.network, offset: 16, count: 4, register)
    }

    private static func destination6(_ register: FilterRegister) -> FilterExpression {
        .payload(.network, offset: 24, count: 16, register)
    }

    /// Transport and destination port behind what is in the registers already, and the look-up of all of it.
    private static func publish(
        _ part: Part, _ front: [FilterExpression], words: Int, isV6: Bool
    ) -> [FilterExpression] {
        front + [
            .meta(.transport, .word(words)), .payload(.transport, offset: 2, count: 2, .word(words + 1)),
            .lookup(part.rawValue, key: .word(0), value: .word(0)),
            .translate(.destination, isV6: isV6, address: .word(0), port: .word(isV6 ? 4 : 1)),
        ]
    }

    private static func publish4(_ part: Part, _ front: [FilterExpression]) -> [FilterExpression] {
        publish(part, front, words: front.isEmpty ? 0 : 1, isV6: false)
    }

    private static func publish6(_ part: Part, _ front: [FilterExpression]) -> [FilterExpression] {
        publish(part, front, words: front.isEmpty ? 0 : 4, isV6: true)
    }

    private static func masquerade(_ part: Part) -> [FilterExpression] {
        let isFour = part == .masquerade4
        return (isFour ? isV4 : isV6) + [
            .payload(.network, offset: isFour ? 12 : 8, count: isFour ? 4 : 16, .word(0)),
            .payload(.network, offset: isFour ? 16 : 24, count: isFour ? 4 : 16, .word(isFour ? 1 : 4)),
            .lookup(part.rawValue, key: .word(0), value: nil), .masquerade,
        ]
    }

    /// A device's name, filled with NUL.
    static func interfaceKey(_ name: String) -> [UInt8] {
        let bytes = Array(name.utf8.prefix(15))
        return bytes + [UInt8](repeating: 0, count: 16 - bytes.count)
    }

    static func interfaceName(_ key: [UInt8]) -> String { String(decoding: key.prefix { $0 != 0 }, as: UTF8.self) }
}

/// To whom an element of the table belongs.
struct PortOwner: Sendable, Hashable {
    let network: String
    let attachment: PluginAttachment

    init(network: String, attachment: PluginAttachment) {
        self.network = network
        self.attachment = attachment
    }

    /// None of the words has a space in it.
    var comment: String { "\(network) \(attachment.containerID) \(attachment.interface)" }

    /// Nil: the comment is not of ours.
    init?(_ comment: String?) {
        let words = (comment ?? "").split(separator: " ", omittingEmptySubsequences: false).map { String($0) }
        guard words.count == 3, CNINames.isName(words[0]), CNINames.isName(words[1]), CNINames.isInterface(words[2])
        else { return nil }
        self.init(network: words[0], attachment: PluginAttachment(containerID: words[1], interface: words[2]))
    }
}

extension PublishedPort {
    /// The elements that publish it, with the owner's comment.
    func elements(_ owner: PortOwner, masquerades: Bool) -> PortTable.Elements {
        let isFour = container.family == .v4
        let port = FilterElement.padded([transport.number], bytes(hostPort))
        let value = FilterElement.padded(container.bytes, bytes(containerPort))
        func element(_ key: [UInt8]) -> FilterElement {
            FilterElement(key: key, value: value, comment: owner.comment)
        }
        if let host { return [isFour ? .at4 : .at6: [element(host.bytes + port)]] }
        var elements: PortTable.Elements = [isFour ? .any4 : .any6: [element(port)]]
        if isFour, masquerades { elements[.loopback4] = [element(port)] }
        return elements
    }

    /// From an element of the kernel's; nil when it is none that publishes.
    init?(_ element: FilterElement, in part: PortTable.Part) {
        guard part.isPublished else { return nil }
        let isFour = [.any4, .at4].contains(part)
        let addressBytes = isFour ? 4 : 16
        let hostBytes = [.at4, .at6].contains(part) ? addressBytes : 0
        let (key, value) = (element.key, element.value)
        guard key.count == hostBytes + 8, value.count == addressBytes + 4,
            let transport = PortMapping.Transport.allCases.first(where: { $0.number == key[hostBytes] }),
            let container = IPAddress(bytes: value.prefix(addressBytes))
        else { return nil }
        func port(_ bytes: [UInt8], _ offset: Int) -> UInt16 { UInt16(bytes[offset]) << 8 | UInt16(bytes[offset + 1]) }
        self.init(
            host: IPAddress(bytes: key.prefix(hostBytes)), hostPort: port(key, hostBytes + 4), transport: transport,
            container: container, containerPort: port(value, addressBytes))
    }

    private func bytes(_ port: UInt16) -> [UInt8] { [UInt8(port >> 8), UInt8(port & 0xff)] }
}

extension PortmapConfiguration {
    /// Whether 127.0.0.0/8 of the host leads to the container.
    var servesLoopback: Bool {
        masquerades && ports.contains { $0.container.family == .v4 && ($0.host == nil || $0.host?.isLoopback == true) }
    }

    /// The host's device that leads to the container leads to nobody else: the container has an address without a subnet.
    var hasDeviceOfItsOwn: Bool {
        addresses.contains { $0.address.family == .v4 && $0.prefixLength == $0.address.family.bits }
    }

    /// All elements of this container.
    func elements(_ owner: PortOwner) -> PortTable.Elements {
        var elements: PortTable.Elements = [:]
        for port in ports { elements.merge(port.elements(owner, masquerades: masquerades)) { $0 + $1 } }
        guard masquerades else { return elements }
        func between(_ sources: CIDR, _ container: IPAddress) -> FilterElement {
            FilterElement(
                key: sources.first.bytes + container.bytes, keyEnd: sources.last.bytes + container.bytes,
                comment: owner.comment)
        }
        for address in addresses where ports.contains(where: { $0.container == address.address }) {
            let part: PortTable.Part = address.address.family == .v4 ? .masquerade4 : .masquerade6
            elements[part, default: []].append(between(address, address.address))
            if part == .masquerade4, servesLoopback, let loopback = CIDR("127.0.0.0/8") {
                elements[part, default: []].append(between(loopback, address.address))
            }
        }
        return elements
    }
}
