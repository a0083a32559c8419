import CNISpec
import Glibc
import Kernel
import Netfilter
import Netlink

/// The table of nf_tables that keeps the overlay networks of a node apart from each other and from all else. Networks and
/// peers are elements of its sets; its rules are always the same.
struct OverlayFilter: Sendable {
    static let name = "martlet"
    /// How the comments of all layouts begin.
    private static let ours = "martlet overlay "
    /// The bridge of the node's own pods.
    let nodeBridge: String
    /// Whether the kernel has IPsec, by which networks are encrypted: it knows the rules about it then. Else all of encrypted
    /// networks is dropped.
    let hasIPsec: Bool

    /// With the number of this layout: a table with another one, or without all of its rules, is made anew.
    private var comment: String { "\(Self.ours)4\(hasIPsec ? "e" : "") \(nodeBridge)" }

    /// The sets of the table.
    enum Part: String, CaseIterable, Sendable {
        /// The groups of networks.
        case networks
        /// Group and group: between which packets pass.
        case pairs
        /// The groups of those of which nothing goes out.
        case closed
        case vnis
        /// VNI and address of those who may send to it, and to whom it is sent.
        case peers4, peers6
        /// Sources and destinations between which the source must become the node.
        case masquerade4, masquerade6
        /// The networks' subnets and all destinations: what bears such a source comes from a network or is forged.
        case subnets4, subnets6

        var set: FilterSet {
            switch self {
            case .networks, .closed: FilterSet(rawValue, key: [.group])
            case .pairs: FilterSet(rawValue, key: [.group, .group])
            case .vnis: FilterSet(rawValue, key: [.mark])
            case .peers4: FilterSet(rawValue, key: [.mark, .ipv4])
            case .peers6: FilterSet(rawValue, key: [.mark, .ipv6])
            case .masquerade4, .subnets4: FilterSet(rawValue, key: [.ipv4, .ipv4], isInterval: true)
            case .masquerade6, .subnets6: FilterSet(rawValue, key: [.ipv6, .ipv6], isInterval: true)
            }
        }
    }

    typealias Elements = [Part: Set<FilterElement>]

    // MARK: Elements

    /// What is in the sets for a network.
    static func elements(of network: OverlayNetworkConfiguration) -> Elements {
        let group = number(network.group)
        var elements: Elements = [
            .networks: [FilterElement(key: group, comment: nil)],
            .pairs: [FilterElement(key: group + group, comment: nil)],
            .vnis: [FilterElement(key: vni(network.vni), comment: nil)],
            .subnets4: [anywhere(from: network.subnet)],
        ]
        if let subnet6 = network.subnet6 { elements[.subnets6] = [anywhere(from: subnet6)] }
        if network.isInternal {
            elements[.closed] = [FilterElement(key: group, comment: nil)]
        } else if network.masquerade {
            elements[.masquerade4] = [anywhere(from: network.subnet)]
            if let subnet6 = network.subnet6 { elements[.masquerade6] = [anywhere(from: subnet6)] }
        }
        return elements
    }

    private static func anywhere(from subnet: CIDR) -> FilterElement {
        let count = subnet.first.bytes.count
        return FilterElement(
            key: subnet.first.bytes + [UInt8](repeating: 0, count: count),
            keyEnd: subnet.last.bytes + [UInt8](repeating: 0xff, count: count), comment: nil)
    }

    /// What is in a set for a peer of a network.
    static func element(of peer: IPAddress, vni: UInt32) -> (part: Part, element: FilterElement) {
        let element = FilterElement(key: Self.vni(vni) + peer.bytes, comment: nil)
        return (peer.family == .v4 ? .peers4 : .peers6, element)
    }

    /// As it is in a packet: three bytes, and one that is zero.
    private static func vni(_ vni: UInt32) -> [UInt8] { withUnsafeBytes(of: (vni << 8).bigEndian) { Array($0) } }

    /// In the machine's order.
    private static func number(_ number: UInt32) -> [UInt8] { withUnsafeBytes(of: number) { Array($0) } }
}

// MARK: - Rules

extension OverlayFilter {
    private typealias Steps = [FilterExpression]

    private static let drop: Steps = [.counter, .verdict(.drop)]
    private static let accept: Steps = [.verdict(.accept)]
    private static let isV4: Steps = [.meta(.family, .word(0)), .equal(.word(0), [UInt8(AF_INET)])]
    private static let isV6: Steps = [.meta(.family, .word(0)), .equal(.word(0), [UInt8(AF_INET6)])]
    private static let anyOfOurs = (mask: number(0xff00_0000), value: number(OverlayNumbers.group(vni: 0)))

    /// Of the device's group of whatever overlay network.
    private static func isOverlay(_ side: FilterExpression.Meta) -> Steps {
        [.meta(side, .word(0)), .mask(.word(0), anyOfOurs.mask), .equal(.word(0), anyOfOurs.value)]
    }

    private static func isNoOverlay(_ side: FilterExpression.Meta) -> Steps {
        [.meta(side, .word(0)), .mask(.word(0), anyOfOurs.mask), .notEqual(.word(0), anyOfOurs.value)]
    }

    private static func isNamed(_ prefix: String, _ side: FilterExpression.Meta) -> Steps {
        [.meta(side, .word(0)), .equal(.word(0), Array(prefix.utf8))]
    }

    /// It is called as devices of pods are, `mv` and 13 digits, and in no group: names of 15 bytes, so that `mv0` of
    /// somebody else's is none of our business.
    private static func isWithoutNetwork(
        _ name: FilterExpression.Meta, _ group: FilterExpression.Meta
    ) -> Steps {
        isNamed("mv", name) + [.mask(.word(3), [0, 0, 0xff, 0]), .notEqual(.word(3), [0, 0, 0, 0])]
            + [.meta(group, .word(0)), .equal(.word(0), number(0))]
    }

    /// There is no way back to its source by the device that it came by.
    private static let hasNoWayBack: Steps = [.wayBack(.word(0)), .equal(.word(0), number(0))]

    /// Its source is of a network's subnet, but it comes by none of the networks' devices, nor from the node itself.
    private static func isForeign(_ family: Steps, _ part: Part, offset: Int, count: Int) -> Steps {
        isNoOverlay(.inputGroup) + [.meta(.inputName, .word(0)), .notEqual(.word(0), Array("lo\0".utf8))] + family + [
            .payload(.network, offset: offset, count: 2 * count, .word(0)),
            .lookup(part.rawValue, key: .word(0), value: nil),
        ]
    }

    private static func isIn(_ part: Part, _ side: FilterExpression.Meta) -> Steps {
        [.meta(side, .word(0)), .lookup(part.rawValue, key: .word(0), value: nil)]
    }

    private static func hasConnection(_ bits: UInt32) -> Steps {
        [.connectionState(.word(0)), .mask(.word(0), number(bits)), .notEqual(.word(0), number(0))]
    }

    /// It came to a published port, or not.
    private static func isPublished(_ yes: Bool) -> Steps {
        let status: Steps = [.connectionStatus(.word(0)), .mask(.word(0), number(1 << 5 /* IPS_DST_NAT */))]
        return status + [yes ? .notEqual(.word(0), number(0)) : .equal(.word(0), number(0))]
    }

    private static let loadPort: Steps = [
        .meta(.transport, .word(0)), .equal(.word(0), [17 /* IPPROTO_UDP */]),
        .payload(.transport, offset: 2, count: 2, .word(0)),
    ]
    private static let encryptedPort = withUnsafeBytes(of: OverlayNumbers.encryptedPort.bigEndian) { Array($0) }

    /// To either port.
    private static let isTunnel: Steps =
        loadPort + [.mask(.word(0), [0xff, 0xfe]), .equal(.word(0), encryptedPort)]

    /// The network's identifier of a VXLAN packet; the reserved byte behind it does not count (RFC 7348, section 5).
    private static let loadVNI: Steps = [
        .payload(.transport, offset: 12, count: 4, .word(0)), .mask(.word(0), [0xff, 0xff, 0xff, 0]),
    ]

    /// VNI and source, or destination, of a VXLAN packet are a peer's.
    private static func isPeer(isV6: Bool, source: Bool) -> Steps {
        let offset = isV6 ? (source ? 8 : 24) : (source ? 12 : 16)
        let part = isV6 ? Part.peers6 : .peers4
        return (isV6 ? Self.isV6 : isV4) + isTunnel + loadVNI + [
            .payload(.network, offset: offset, count: isV6 ? 16 : 4, .word(1)),
            .lookup(part.rawValue, key: .word(0), value: nil),
        ]
    }

    private static let isOurTunnel = isTunnel + loadVNI + [.lookup(Part.vnis.rawValue, key: .word(0), value: nil)]

    /// Of a network of ours, to the port where all is encrypted.
    private static let isEncryptedTunnel: Steps =
        loadPort + [.equal(.word(0), encryptedPort)] + loadVNI
        + [.lookup(Part.vnis.rawValue, key: .word(0), value: nil)]

    /// IPsec's policies say the same; but what a device's `disable_policy` and `disable_xfrm` are set to has them not asked.
    private var notDecrypted: FilterRule {
        let isClear: Steps = hasIPsec ? [.meta(.isDecrypted, .word(0)), .equal(.word(0), [0])] : []
        return FilterRule("VXLAN that came in the clear", Self.isEncryptedTunnel + isClear + Self.drop)
    }

    private var notEncrypting: FilterRule {
        let isClear: Steps = hasIPsec ? [.isEncrypting(.word(0)), .equal(.word(0), [0])] : []
        return FilterRule("VXLAN that would leave in the clear", Self.isEncryptedTunnel + isClear + Self.drop)
    }

    private var isFromNodeBridge: [FilterExpression] {
        // With the NUL byte that ends it: no name that is longer.
        [.meta(.inputName, .word(0)), .equal(.word(0), Array(nodeBridge.utf8) + [0])]
    }

    private var isToNodeBridge: [FilterExpression] {
        [.meta(.outputName, .word(0)), .equal(.word(0), Array(nodeBridge.utf8) + [0])]
    }

    private static let established = FilterExpression.State.established | FilterExpression.State.related

    /// What is in front of connection tracking: a packet that nobody may send is none of a connection.
    private var prerouting: FilterChain {
        FilterChain(
            "prerouting", .init(.filter, .prerouting, priority: -310),
            rules: [
                FilterRule(
                    "a source that is not the sender's",
                    Self.isOverlay(.inputGroup) + Self.hasNoWayBack + Self.drop),
                FilterRule("known networks", Self.isIn(.networks, .inputGroup) + Self.accept),
                FilterRule("an overlay that is not known", Self.isOverlay(.inputGroup) + Self.drop),
                FilterRule(
                    "a pod without a network", Self.isWithoutNetwork(.inputName, .inputGroup) + Self.drop),
                // Whatever the sender's bridge is called; a peer's packets come by the way that leads to it.
                FilterRule("VXLAN from where its source is not", Self.isOurTunnel + Self.hasNoWayBack + Self.drop),
                // It would pass as an answer of the pod whose address it bears.
                FilterRule(
                    "a pod's IPv4 address from elsewhere",
                    Self.isForeign(Self.isV4, .subnets4, offset: 12, count: 4) + Self.drop),
                FilterRule(
                    "a pod's IPv6 address from elsewhere",
                    Self.isForeign(Self.isV6, .subnets6, offset: 8, count: 16) + Self.drop),
            ])
    }

    private var input: FilterChain {
        FilterChain(
            "input", .init(.filter, .input, priority: -155),
            rules: [
                FilterRule(
                    "nothing for the node itself comes by a tunnel", Self.isNamed("mx-", .inputName) + Self.drop),
                FilterRule("VXLAN of a pod", Self.isOverlay(.inputGroup) + Self.isOurTunnel + Self.drop),
                FilterRule("VXLAN of a pod on the node's bridge", isFromNodeBridge + Self.isOurTunnel + Self.drop),
                FilterRule(
                    "VXLAN of a pod on a bridge", Self.isNamed("mt-", .inputName) + Self.isOurTunnel + Self.drop),
                notDecrypted,
                FilterRule("VXLAN of a peer at IPv4", Self.isPeer(isV6: false, source: true) + Self.accept),
                FilterRule("VXLAN of a peer at IPv6", Self.isPeer(isV6: true, source: true) + Self.accept),
                FilterRule("VXLAN of a stranger", Self.isOurTunnel + Self.drop),
                FilterRule(
                    "answers from an internal network",
                    Self.isIn(.closed, .inputGroup) + Self.hasConnection(Self.established) + Self.accept),
                FilterRule("an internal network to the node", Self.isIn(.closed, .inputGroup) + Self.drop),
            ])
    }

    private var forward: FilterChain {
        let toPeer = [false, true].map { Self.isPeer(isV6: $0, source: false) }
        return FilterChain(
            "forward", .init(.filter, .forward, priority: -155),
            rules: [
                // A node sends to the one that has a pod; on the way back from one that has it no more it could go round.
                FilterRule(
                    "from tunnel to tunnel",
                    Self.isOverlay(.inputGroup) + Self.isNamed("mx-", .inputName) + Self.isNamed("mx-", .outputName)
                        + Self.drop),
                FilterRule(
                    "within a network",
                    [
                        .meta(.inputGroup, .word(0)), .meta(.outputGroup, .word(1)),
                        .lookup(Part.pairs.rawValue, key: .word(0), value: nil),
                    ] + Self.accept),
                FilterRule("out of an internal network", Self.isIn(.closed, .inputGroup) + Self.drop),
                FilterRule("into an internal network", Self.isIn(.closed, .outputGroup) + Self.drop),
                // Under the node's address it would be a peer's.
                FilterRule("VXLAN of a pod outwards", Self.isOverlay(.inputGroup) + Self.isTunnel + Self.drop),
                FilterRule(
                    "VXLAN of a pod on the node's bridge outwards", isFromNodeBridge + Self.isTunnel + Self.drop),
                FilterRule(
                    "VXLAN of a pod on a bridge outwards", Self.isNamed("mt-", .inputName) + Self.isTunnel + Self.drop),
                FilterRule("VXLAN to a peer at IPv4", toPeer[0] + [.verdict(.jump("tunnels"))]),
                FilterRule("VXLAN to a peer at IPv6", toPeer[1] + [.verdict(.jump("tunnels"))]),
                FilterRule("answers", Self.hasConnection(Self.established) + Self.accept),
                FilterRule(
                    "to a published port", Self.isIn(.networks, .outputGroup) + Self.isPublished(true) + Self.accept),
                FilterRule("into a network", Self.isOverlay(.outputGroup) + Self.drop),
                FilterRule(
                    "to a pod without a network", Self.isWithoutNetwork(.outputName, .outputGroup) + Self.drop),
                FilterRule(
                    "to the node's bridge",
                    Self.isIn(.networks, .inputGroup) + isToNodeBridge + Self.isPublished(false) + Self.drop),
            ])
    }

    /// VXLAN to a peer that passes through this node: from other peers only.
    private var tunnels: FilterChain {
        FilterChain(
            "tunnels",
            rules: [
                FilterRule("of a peer at IPv4", Self.isPeer(isV6: false, source: true) + Self.accept),
                FilterRule("of a peer at IPv6", Self.isPeer(isV6: true, source: true) + Self.accept),
                FilterRule("of a stranger", Self.drop),
            ])
    }

    private var output: FilterChain {
        FilterChain(
            "output", .init(.filter, .output, priority: -155),
            rules: [
                FilterRule(
                    "VXLAN of a program of a user's",
                    Self.isOurTunnel + [.meta(.sender, .word(0)), .notEqual(.word(0), Self.number(0))] + Self.drop),
                notEncrypting,
            ])
    }

    private var postrouting: FilterChain {
        func outwards(_ family: [FilterExpression], _ part: Part, offset: Int, count: Int) -> [FilterExpression] {
            Self.isNoOverlay(.outputGroup) + family + [
                .payload(.network, offset: offset, count: 2 * count, .word(0)),
                .lookup(part.rawValue, key: .word(0), value: nil), .masquerade,
            ]
        }
        return FilterChain(
            "postrouting", .init(.nat, .postrouting, priority: 95),
            rules: [
                FilterRule("IPv4 outwards", outwards(Self.isV4, .masquerade4, offset: 12, count: 4)),
                FilterRule("IPv6 outwards", outwards(Self.isV6, .masquerade6, offset: 8, count: 16)),
            ])
    }

    private var table: FilterTable {
        FilterTable(
            Self.name, comment: comment, sets: Part.allCases.map(\.set),
            chains: [tunnels, prerouting, input, forward, output, postrouting])
    }
}

// MARK: - The kernel

extension OverlayFilter {
    private var kept: KeptTable { KeptTable(table: table, ours: Self.ours) }

    private static func named(_ elements: Elements) -> KeptTable.Elements {
        Dictionary(uniqueKeysWithValues: elements.map { ($0.key.rawValue, $0.value) })
    }

    /// Makes the changes of elements, see `KeptTable.change`.
    func change(add: Elements, remove: Elements = [:], _ socket: inout NetfilterSocket) throws(KernelError) {
        try kept.change(add: Self.named(add), remove: Self.named(remove), &socket)
    }

    /// Compares the table with what it should hold, see `KeptTable.look`.
    func look(
        _ wanted: Elements, repairs: Bool, _ socket: inout NetfilterSocket
    ) throws(KernelError) -> [String] {
        try kept.look(Self.named(wanted), repairs: repairs, &socket)
    }

    /// Takes the table away; one of somebody else's stays.
    func remove(_ socket: inout NetfilterSocket) throws(KernelError) { try kept.remove(&socket) }
}
