/// Numbers by which what belongs to overlay networks is known in the kernel, see docs/networks.md. All nodes of a cluster
/// have to agree on the port and on how hardware addresses are made.
package enum OverlayNumbers {
    /// The routing table of all overlay networks of a node.
    package static let table: UInt32 = 28020
    /// That of the policy rule which has the table looked up before the main one.
    package static let rulePriority: UInt32 = 28020
    /// The origin of their routes, see `ip route`'s "proto".
    package static let routeProtocol: UInt8 = 213
    /// The UDP port of VXLAN (RFC 7348, section 8.1).
    package static let port: UInt16 = 4789
    /// That of networks whose packets are encrypted between nodes, by which IPsec knows them. It differs from `port` in the
    /// last bit alone, so that one look with a mask finds both.
    package static let encryptedPort: UInt16 = 4788
    /// What is ours of IPsec's associations and policies bears this (`reqid` of `ip xfrm`).
    package static let request: UInt32 = 28020
    /// Of IPsec's policies for peers; lower ones come first.
    package static let policyPriority: UInt32 = 28020
    /// Of those that drop what is for nobody that is known.
    package static let blockPriority: UInt32 = 28021
    /// VXLAN's network identifiers have 24 bits (RFC 7348, section 5).
    package static let identifiers: ClosedRange<UInt32> = 1...0xff_ffff

    /// The group of all devices of a network, see `ip link`'s "group".
    package static func group(vni: UInt32) -> UInt32 { 0x6d00_0000 | vni }

    /// The hardware address of a node's VXLAN devices: it follows from the address that packets to the node are sent to,
    /// so that nobody has to be told.
    ///
    /// - Parameter underlay: in network order: 4 or 16 bytes.
    package static func mac(of underlay: [UInt8]) -> [UInt8] {
        // 02, 06: locally administered, and never the same for both families.
        guard underlay.count == 16 else { return [0x02, 0x6d] + underlay.prefix(4) }
        var hash: UInt64 = 0xcbf2_9ce4_8422_2325
        for byte in underlay { hash = (hash ^ UInt64(byte)) &* 0x100_0000_01b3 }
        return [0x06] + (0..<5).map { UInt8(truncatingIfNeeded: hash >> (8 * UInt64($0))) }
    }
}
