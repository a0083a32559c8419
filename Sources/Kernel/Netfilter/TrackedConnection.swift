import CNetfilter
import Glibc
import Kernel
import Netlink

/// A connection of which the kernel keeps track (conntrack): what it was first, and what answers to it look like.
package struct TrackedConnection: Sendable, Equatable {
    /// One direction. Addresses are in network order: 4 or 16 bytes.
    package struct Direction: Sendable, Equatable {
        package let source: [UInt8]
        package let destination: [UInt8]
        /// IPPROTO_TCP …
        package let transport: UInt8
        /// 0 where the transport has none.
        package let sourcePort: UInt16
        package let destinationPort: UInt16

        init?(_ tuple: NetlinkAttributes) {
            let (network, transport) = (tuple.nested(CTA_TUPLE_IP), tuple.nested(CTA_TUPLE_PROTO))
            guard let source = network[CTA_IP_V4_SRC] ?? network[CTA_IP_V6_SRC],
                let destination = network[CTA_IP_V4_DST] ?? network[CTA_IP_V6_DST],
                let number = transport.number(Int(CTA_PROTO_NUM.rawValue), as: UInt8.self)
            else { return nil }
            self.source = Array(source)
            self.destination = Array(destination)
            self.transport = number
            sourcePort = transport.short(CTA_PROTO_SRC_PORT) ?? 0
            destinationPort = transport.short(CTA_PROTO_DST_PORT) ?? 0
        }
    }

    package let original: Direction
    package let reply: Direction
    /// By which the kernel knows it again, in its own form.
    private let tuple: [UInt8]
    private let id: [UInt8]
    private let zone: [UInt8]?

    init?(_ attributes: NetlinkAttributes) {
        guard let tuple = attributes[CTA_TUPLE_ORIG], let original = Direction(attributes.nested(CTA_TUPLE_ORIG)),
            let reply = Direction(attributes.nested(CTA_TUPLE_REPLY)), let id = attributes[CTA_ID]
        else { return nil }
        self.original = original
        self.reply = reply
        self.tuple = Array(tuple)
        self.id = Array(id)
        zone = attributes[CTA_ZONE].map { Array($0) }
    }

    /// One that ended meanwhile is no error.
    func deletion(family: UInt8) throws(KernelError) -> NetlinkRequest {
        let request = try NetlinkRequest(
            .conntrack, IPCTNL_MSG_CT_DELETE, family: family, "IPCTNL_MSG_CT_DELETE",
            "connection to port \(original.destinationPort)"
        ).tolerating(ENOENT)
        // NLA_F_NESTED
        try request.put(Int(CTA_TUPLE_ORIG.rawValue) | 0x8000, tuple)
        try request.put(CTA_ID, bytes: id)
        if let zone { try request.put(CTA_ZONE, bytes: zone) }
        return request
    }
}
