import CNetlink
import Glibc
import Kernel

/// A route with one next hop, or one that refuses (`ip route`).
package struct Route: Sendable, Hashable {
    package enum Kind: Sendable, Hashable {
        case unicast
        /// Packets are refused with "host unreachable".
        case unreachable
    }

    package var kind: Kind = .unicast
    /// In network order: 4 or 16 bytes.
    package var destination: [UInt8]
    /// In bits; 0 is the way to everywhere else.
    package var prefixLength: Int
    /// nil: the destination is on the link itself. One to IPv4 addresses may have an IPv6 gateway.
    package var gateway: [UInt8]?
    /// The gateway is on the link, whatever the device's addresses say.
    package var isOnLink = false
    /// The device's index; 0: none.
    package var interface: Int32
    package var table = Self.mainTable
    /// Who made it, see rtnetlink(7), `rtm_protocol`.
    package var origin = Self.administrator

    package static let mainTable: UInt32 = 254
    /// RTPROT_STATIC.
    package static let administrator: UInt8 = 4

    package init(to destination: [UInt8], prefixLength: Int, gateway: [UInt8]?, interface: Int32) {
        self.destination = destination
        self.prefixLength = prefixLength
        self.gateway = gateway
        self.interface = interface
    }

    private var family: Int32 { destination.count == 4 ? AF_INET : AF_INET6 }

    private var subject: String { interface == 0 ? "no device" : "device \(interface)" }

    /// Makes it. EEXIST: there is one to that destination; ENETUNREACH: the gateway is on no network of the device's.
    ///
    /// - Parameter replaces: one to the same destination in the same table goes.
    package func request(replaces: Bool = false) throws(KernelError) -> NetlinkRequest {
        try message(
            RTM_NEWROUTE, "RTM_NEWROUTE", flags: Int32(NLM_F_CREATE | (replaces ? NLM_F_REPLACE : NLM_F_EXCL)))
    }

    /// Takes it away; that there is none is no error.
    package func deletion() throws(KernelError) -> NetlinkRequest {
        try message(RTM_DELROUTE, "RTM_DELROUTE", flags: 0).tolerating(ESRCH)
    }

    private func message(_ type: Int, _ operation: String, flags: Int32) throws(KernelError) -> NetlinkRequest {
        var header = rtmsg()
        header.rtm_family = UInt8(family)
        header.rtm_dst_len = UInt8(prefixLength)
        // A byte is too small for all tables: the attribute has the number.
        header.rtm_table = UInt8(table < 256 ? table : UInt32(RT_TABLE_UNSPEC.rawValue))
        header.rtm_protocol = origin
        header.rtm_type = UInt8(kind == .unicast ? RTN_UNICAST : RTN_UNREACHABLE)
        let isLink = kind == .unicast && gateway == nil && family == AF_INET
        header.rtm_scope = UInt8(isLink ? RT_SCOPE_LINK.rawValue : RT_SCOPE_UNIVERSE.rawValue)
        if isOnLink { header.rtm_flags = UInt32(RTNH_F_ONLINK) }
        let request = try NetlinkRequest(type, flags: flags, header: header, operation, subject)
        try request.put(Int(RTA_TABLE.rawValue), table)
        if prefixLength > 0 { try request.put(Int(RTA_DST.rawValue), destination) }
        if let gateway, gateway.count == destination.count {
            try request.put(Int(RTA_GATEWAY.rawValue), gateway)
        } else if let gateway {
            // struct rtvia: the family, then the address.
            let family = withUnsafeBytes(of: UInt16(gateway.count == 4 ? AF_INET : AF_INET6)) { Array($0) }
            try request.put(Int(RTA_VIA.rawValue), family + gateway)
        }
        if interface != 0 { try request.put(Int(RTA_OIF.rawValue), UInt32(bitPattern: interface)) }
        return request
    }

    /// A table's routes of a family (AF_INET, AF_INET6), without those of several hops.
    package static func all(
        family: Int32, table: UInt32 = mainTable, _ socket: inout NetlinkSocket
    ) throws(KernelError) -> [Route] {
        var header = rtmsg()
        header.rtm_family = UInt8(family)
        // ENOENT: a table in which there never was a route.
        let request = try NetlinkRequest(RTM_GETROUTE, header: header, "RTM_GETROUTE", "all routes")
            .tolerating(ENOENT)
        try request.put(Int(RTA_TABLE.rawValue), table)
        do throws(KernelError) {
            return try socket.ask(request, isDump: true).compactMap { Route($0) }.filter { $0.table == table }
        } catch {
            if error.errno == ENOENT { return [] }
            throw error
        }
    }

    /// The device by which the host reaches an address without a router between; nil: there is none such.
    ///
    /// - Parameter address: in network order: 4 or 16 bytes.
    /// - Returns: the device's index.
    package static func device(to address: [UInt8], _ socket: inout NetlinkSocket) throws(KernelError) -> Int32? {
        var header = rtmsg()
        header.rtm_family = UInt8(address.count == 4 ? AF_INET : AF_INET6)
        header.rtm_dst_len = UInt8(8 * address.count)
        let request = try NetlinkRequest(RTM_GETROUTE, header: header, "RTM_GETROUTE", "way to a container")
            .tolerating(ENETUNREACH, EHOSTUNREACH)
        try request.put(Int(RTA_DST.rawValue), address)
        for reply in try socket.ask(request, isDump: false) where reply.type == UInt16(RTM_NEWROUTE) {
            let attributes = NetlinkAttributes(reply.payload.dropFirst(MemoryLayout<rtmsg>.size))
            guard attributes[Int(RTA_GATEWAY.rawValue)] == nil, attributes[Int(RTA_VIA.rawValue)] == nil,
                reply.payload.number(at: 7, as: UInt8.self) == UInt8(RTN_UNICAST)
            else { return nil }
            return attributes.number(Int(RTA_OIF.rawValue))
        }
        return nil
    }

    /// From an RTM_NEWROUTE or RTM_DELROUTE; nil when it is neither, of another kind, or of several hops.
    package init?(_ reply: NetlinkReply) {
        guard [UInt16(RTM_NEWROUTE), UInt16(RTM_DELROUTE)].contains(reply.type),
            let family = reply.payload.number(at: 0, as: UInt8.self),
            let prefix = reply.payload.number(at: 1, as: UInt8.self),
            let table = reply.payload.number(at: 4, as: UInt8.self),
            let origin = reply.payload.number(at: 5, as: UInt8.self),
            let kind = reply.payload.number(at: 7, as: UInt8.self),
            let flags = reply.payload.number(at: 8, as: UInt32.self)
        else { return nil }
        let attributes = NetlinkAttributes(reply.payload.dropFirst(MemoryLayout<rtmsg>.size))
        let interface: Int32
        switch kind {
        case UInt8(RTN_UNICAST):
            guard let device = attributes.number(Int(RTA_OIF.rawValue), as: Int32.self) else { return nil }
            interface = device
            self.kind = .unicast
        case UInt8(RTN_UNREACHABLE):
            // IPv6 names the device lo.
            interface = 0
            self.kind = .unreachable
        default: return nil
        }
        let everywhere = [UInt8](repeating: 0, count: Int32(family) == AF_INET ? 4 : 16)
        destination = attributes[Int(RTA_DST.rawValue)].map { Array($0) } ?? everywhere
        guard destination.count == everywhere.count, Int(prefix) <= 8 * everywhere.count else { return nil }
        prefixLength = Int(prefix)
        gateway = (attributes[Int(RTA_GATEWAY.rawValue)] ?? attributes[Int(RTA_VIA.rawValue)]?.dropFirst(2))
            .map { Array($0) }
        if let gateway, ![4, 16].contains(gateway.count) { return nil }
        self.interface = interface
        isOnLink = flags & UInt32(RTNH_F_ONLINK) != 0
        self.table = attributes.number(Int(RTA_TABLE.rawValue)) ?? UInt32(table)
        self.origin = origin
    }
}
