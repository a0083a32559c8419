import CNetlink
import Glibc
import Kernel

/// A route of the main table.
package struct Route: Sendable, Equatable {
    /// In network order: 4 or 16 bytes.
    package var destination: [UInt8]
    /// In bits; 0 is the way to everywhere else.
    package var prefixLength: Int
    /// nil: the destination is on the link itself.
    package var gateway: [UInt8]?
    /// The device's index.
    package var interface: Int32

    package init(to destination: [UInt8], prefixLength: Int, gateway: [UInt8]?, interface: Int32) {
        self.destination = destination
        self.prefixLength = prefixLength
        self.gateway = gateway
        self.interface = interface
    }

    /// Makes it. EEXIST: there is one to that destination; ENETUNREACH: the gateway is on no network of the device's.
    package func request() throws(KernelError) -> NetlinkRequest {
        guard let route = rtnl_route_alloc() else { throw KernelError("rtnl_route_alloc", errno: ENOMEM) }
        defer { rtnl_route_put(route) }
        let subject = "device \(interface)"
        try withAddress(destination, prefixLength: prefixLength) { address throws(KernelError) in
            let code = rtnl_route_set_dst(route, address)
            if code < 0 { throw KernelError(libnl: code, "RTM_NEWROUTE", subject) }
        }
        // The route owns the hop from `add` on.
        guard let hop = rtnl_route_nh_alloc() else { throw KernelError("rtnl_route_nh_alloc", errno: ENOMEM) }
        rtnl_route_nh_set_ifindex(hop, interface)
        if let gateway {
            do throws(KernelError) {
                try withAddress(gateway) { rtnl_route_nh_set_gateway(hop, $0) }
            } catch {
                rtnl_route_nh_free(hop)
                throw error
            }
        }
        rtnl_route_add_nexthop(route, hop)
        var message: OpaquePointer?
        let code = rtnl_route_build_add_request(route, Int32(NLM_F_CREATE | NLM_F_EXCL), &message)
        guard code == 0, let message else { throw KernelError(libnl: code, "RTM_NEWROUTE", subject) }
        return NetlinkRequest(adopting: message, "RTM_NEWROUTE", subject)
    }

    /// The main table's routes of a family (AF_INET, AF_INET6) with one next hop.
    package static func all(family: Int32, _ socket: inout NetlinkSocket) throws(KernelError) -> [Route] {
        var header = rtmsg()
        header.rtm_family = UInt8(family)
        let request = try NetlinkRequest(RTM_GETROUTE, header: header, "RTM_GETROUTE", "all routes")
        return try socket.ask(request, isDump: true).compactMap { Route($0) }
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

    /// From an RTM_NEWROUTE; nil when it is none, or another table's.
    init?(_ reply: NetlinkReply) {
        guard reply.type == UInt16(RTM_NEWROUTE), let family = reply.payload.number(at: 0, as: UInt8.self),
            let prefix = reply.payload.number(at: 1, as: UInt8.self),
            reply.payload.number(at: 4, as: UInt8.self) == UInt8(RT_TABLE_MAIN.rawValue)
        else { return nil }
        let attributes = NetlinkAttributes(reply.payload.dropFirst(MemoryLayout<rtmsg>.size))
        guard let interface = attributes.number(Int(RTA_OIF.rawValue), as: Int32.self) else { return nil }
        let everywhere = [UInt8](repeating: 0, count: family == UInt8(AF_INET) ? 4 : 16)
        self.init(
            to: attributes[Int(RTA_DST.rawValue)].map { Array($0) } ?? everywhere, prefixLength: Int(prefix),
            gateway: attributes[Int(RTA_GATEWAY.rawValue)].map { Array($0) }, interface: interface)
    }
}
