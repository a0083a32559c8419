import CNISpec
import Glibc
import Kernel
import Netfilter

/// The tables of nf_tables that hold pods on bridges to their own addresses: a frame of a pod has the hardware address and
/// the IP address that it was given, or goes nowhere.
///
/// `bridge martlet_bridges` looks at all frames before a bridge does; what it looks at is known by the group of the device
/// that the frame comes by, which the device has from its first moment on. `inet martlet_bridges` drops what comes to the
/// node itself past the bridge: frames for 01:80:c2:00:00:00 to …0f are not the bridge's to forward (IEEE 802.1D, 7.12.6).
struct BridgeFilter: Sendable {
    static let name = "martlet_bridges"
    private static let ours = "martlet bridges "
    /// With the number of this layout.
    private static let comment = "martlet bridges 2"
    /// Of the host's ends of the devices of pods on bridges, see `ip link`'s "group". No overlay's: those begin with 0x6d.
    static let group: UInt32 = 0x6e00_0001

    enum Part: String {
        /// Device and hardware address.
        case senders
        /// Device, hardware address and IPv4 address.
        case addresses4
        /// Device, hardware address, IPv6 address and the bridge's hardware address.
        case addresses6
    }

    // MARK: Elements

    /// What is in the sets for a pod.
    static func elements(of pod: BridgedPod) -> KeptTable.Elements {
        let name = Array(pod.device.utf8.prefix(15))
        let device = name + [UInt8](repeating: 0, count: 16 - name.count)
        func element(_ key: [UInt8]) -> FilterElement { FilterElement(key: key, comment: pod.comment) }
        return [
            Part.senders.rawValue: [element(FilterElement.padded(device, pod.mac.bytes))],
            Part.addresses4.rawValue: Set(
                pod.addresses.filter { $0.family == .v4 }
                    .map { element(FilterElement.padded(device, pod.mac.bytes, $0.bytes)) }),
            Part.addresses6.rawValue: Set(
                pod.addresses.filter { $0.family == .v6 }
                    .map { element(FilterElement.padded(device, pod.mac.bytes, $0.bytes, pod.bridgeMAC)) }),
        ]
    }

    // MARK: Rules

    private typealias Steps = [FilterExpression]

    private static let drop: Steps = [.counter, .verdict(.drop)]
    private static let accept: Steps = [.verdict(.accept)]
    private static let inputGroup: FilterExpression = .meta(.inputGroup, .word(0))
    private static let groupBytes = withUnsafeBytes(of: group) { Array($0) }

    /// Ethernet's type as it is in the frame: one with a VLAN's tag has another.
    private static func isType(_ type: UInt16) -> Steps {
        [
            .payload(.link, offset: 12, count: 2, .word(0)),
            .equal(.word(0), withUnsafeBytes(of: type.bigEndian) { Array($0) }),
        ]
    }

    private static let device: FilterExpression = .meta(.inputName, .word(0))
    private static let sender: FilterExpression = .payload(.link, offset: 6, count: 6, .word(4))

    private static let isV6 = isType(0x86dd)

    private static func isIn(_ part: Part) -> FilterExpression {
        .lookup(part.rawValue, key: .word(0), value: nil)
    }

    /// For Ethernet and IPv4, with the addresses' lengths (RFC 826).
    private static let isARPForIPv4: Steps =
        isType(0x0806) + [.payload(.network, offset: 0, count: 6, .word(0)), .equal(.word(0), [0, 1, 8, 0, 6, 4])]

    /// At the bridges.
    static let frames = KeptTable(
        table: FilterTable(
            name, family: .bridge, comment: comment,
            sets: [
                FilterSet(Part.senders.rawValue, key: [.interface, .mac]),
                FilterSet(Part.addresses4.rawValue, key: [.interface, .mac, .ipv4]),
                FilterSet(Part.addresses6.rawValue, key: [.interface, .mac, .ipv6, .mac]),
            ],
            chains: [
                FilterChain(
                    "prerouting", .init(.filter, .prerouting, priority: -300),
                    rules: [
                        FilterRule("of no pod", [inputGroup, .notEqual(.word(0), groupBytes)] + accept),
                        FilterRule(
                            "IPv4 of its sender",
                            isType(0x0800) + [
                                device, sender, .payload(.network, offset: 12, count: 4, .word(6)), isIn(.addresses4),
                            ] + accept),
                        // Whom it says that it is of is who it is of, twice.
                        FilterRule(
                            "ARP of its sender",
                            isARPForIPv4 + [
                                device, sender, isIn(.senders), .payload(.network, offset: 8, count: 6, .word(4)),
                                .payload(.network, offset: 14, count: 4, .word(6)), isIn(.addresses4),
                            ] + accept),
                        // Groups are nobody's here, and the host's services are in some.
                        FilterRule(
                            "IPv6 to a group",
                            isV6 + [.payload(.network, offset: 24, count: 1, .word(0)), .equal(.word(0), [0xff])] + drop
                        ),
                        // Only so many hops make anybody believe a neighbour, router or redirect (RFC 4861, sections 6.1, 7.1
                        // and 8.1), whatever headers and fragments are around it. All of them are written down here.
                        FilterRule(
                            "IPv6 of neighbours",
                            isV6 + [
                                .payload(.network, offset: 7, count: 1, .word(0)), .equal(.word(0), [255]),
                                .payload(.network, offset: 6, count: 1, .word(0)),
                                .notEqual(.word(0), [6 /* IPPROTO_TCP */]),
                                .notEqual(.word(0), [17 /* IPPROTO_UDP */]),
                            ] + drop),
                        // Nowhere but to the bridge's own device: no pod's IPv6 is heard by another but by way of the host.
                        FilterRule(
                            "IPv6 of its sender",
                            isV6 + [
                                device, sender, .payload(.network, offset: 8, count: 16, .word(6)),
                                .payload(.link, offset: 0, count: 6, .word(10)), isIn(.addresses6),
                            ] + accept),
                        FilterRule("all else of a pod", drop),
                    ])
            ]), ours: ours)

    /// At the node.
    static let packets = KeptTable(
        table: FilterTable(
            name, comment: comment, sets: [],
            chains: [
                FilterChain(
                    "prerouting", .init(.filter, .prerouting, priority: -310),
                    rules: [FilterRule("past the bridge", [inputGroup, .equal(.word(0), groupBytes)] + drop)])
            ]), ours: ours)
}

/// A pod of this node on a bridge network, as the plugin wired it.
struct BridgedPod: Sendable, Equatable {
    let network: String
    /// The network's bridge: of two agents on a machine each has its own, whereas both may have a network of a name.
    let bridge: String
    let id: String
    /// The container's device.
    let interface: String
    /// The host's end of it, a port of the bridge.
    let device: String
    /// Of the container's end.
    let mac: MACAddress
    let addresses: [IPAddress]
    /// To which it sends all of its IPv6.
    let bridgeMAC: [UInt8]

    /// Nil when the result does not say what is needed, which ours does.
    init?(_ attachment: NetworkAttachment, on network: String, bridge: String, _ result: CNIResult) {
        guard let device = result.interfaces.last(where: { $0.sandbox == nil })?.name,
            let mac = result.interfaces.first(where: { $0.sandbox != nil && $0.name == attachment.interface })?.mac
        else { return nil }
        self.network = network
        self.bridge = bridge
        id = attachment.containerID
        interface = attachment.interface
        self.device = device
        self.mac = mac
        addresses = result.inside.map(\.address.address)
        bridgeMAC = result.interfaces.first { $0.sandbox == nil && $0.name == bridge }?.mac?.bytes ?? []
        if bridgeMAC.isEmpty, addresses.contains(where: { $0.family == .v6 }) { return nil }
    }

    /// What says in the kernel whose an element is. None of the words has a space in it.
    var comment: String { "\(bridge) \(id) \(interface)" }

    /// The bridge of such a comment; nil: it is none.
    static func bridge(ofComment comment: String?) -> String? {
        let words = (comment ?? "").split(separator: " ", omittingEmptySubsequences: false)
        return words.count == 3 ? String(words[0]) : nil
    }
}
