import CNetlink
import Glibc
import Kernel

/// What the kernel tells by itself of changes in the network namespace of the thread that made it (netlink(7), multicast
/// groups).
package struct NetlinkEvents: ~Copyable {
    /// libnl's `struct nl_sock`.
    private let socket: OpaquePointer
    private let name: String

    /// Room for what comes while nobody looks: a route or neighbour takes less than a kilobyte of it.
    private static let bufferBytes: Int32 = 8 << 20

    /// Begins to listen.
    ///
    /// - Parameter groups: `RTNLGRP_…`, `NFNLGRP_…`.
    package init(_ service: NetlinkSocket.Service, groups: [UInt32]) throws(KernelError) {
        guard let socket = nl_socket_alloc() else { throw KernelError("nl_socket_alloc", errno: ENOMEM) }
        do throws(KernelError) {
            try NetlinkSocket.connect(socket, service)
            let descriptor = nl_socket_get_fd(socket)
            var bytes = Self.bufferBytes
            // Refused without privilege: then less fits, and more is lost.
            setsockopt(descriptor, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, 4)
            for group in groups {
                let code = nl_socket_add_membership(socket, Int32(group))
                if code < 0 { throw KernelError(libnl: code, "NETLINK_ADD_MEMBERSHIP", service.name) }
            }
        } catch {
            nl_socket_free(socket)
            throw error
        }
        self.socket = socket
        name = service.name
    }

    deinit { nl_socket_free(socket) }

    /// Devices, neighbours, routes, addresses and policy rules.
    package static func routing() throws(KernelError) -> NetlinkEvents {
        try NetlinkEvents(
            .routing,
            groups: [
                RTNLGRP_LINK, RTNLGRP_NEIGH, RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV6_IFADDR, RTNLGRP_IPV4_ROUTE,
                RTNLGRP_IPV6_ROUTE, RTNLGRP_IPV4_RULE, RTNLGRP_IPV6_RULE,
            ].map(\.rawValue))
    }

    /// For poll(2); valid as long as this value lives.
    package var descriptor: Int32 { nl_socket_get_fd(socket) }

    /// The messages of the next datagram; nil: there is none now.
    ///
    /// - Throws: ENOBUFS when some were lost.
    package borrowing func next() throws(KernelError) -> [NetlinkReply]? {
        var buffer = [UInt8](repeating: 0, count: 64 << 10)
        let descriptor = nl_socket_get_fd(socket)
        while true {
            var sender = sockaddr_nl()
            var length = socklen_t(MemoryLayout<sockaddr_nl>.size)
            let count: Int
            do throws(KernelError) {
                count = try systemCall("recv(netlink)", name) {
                    buffer.withUnsafeMutableBytes { bytes in
                        withUnsafeMutablePointer(to: &sender) {
                            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                                recvfrom(
                                    descriptor, bytes.baseAddress, bytes.count,
                                    Int32(MSG_TRUNC) | Int32(MSG_DONTWAIT), $0, &length)
                            }
                        }
                    }
                }
            } catch {
                if error.errno == EAGAIN { return nil }
                throw error
            }
            // Other processes can send here too.
            guard sender.nl_pid == 0 else { continue }
            guard count <= buffer.count else { throw KernelError("recv(netlink)", name, errno: ENOBUFS) }
            return try NetlinkReply.parse(Array(buffer[..<count]))
        }
    }
}

/// A change of devices, routes and the like that the kernel tells of.
package enum RoutingEvent: Sendable, Equatable {
    case link(Link, isGone: Bool)
    case address(Address, isGone: Bool)
    case route(Route, isGone: Bool)
    case neighbour(Neighbour, isGone: Bool)
    case forwarding(ForwardingEntry, isGone: Bool)
    case rule(PolicyRule, isGone: Bool)

    /// nil for a message that says something else.
    package init?(_ reply: NetlinkReply) {
        switch Int(reply.type) {
        case RTM_NEWLINK, RTM_DELLINK:
            // Those of AF_BRIDGE are about ports of bridges.
            guard reply.payload.number(at: 0, as: UInt8.self) == UInt8(AF_UNSPEC), let link = Link(reply) else {
                return nil
            }
            self = .link(link, isGone: Int(reply.type) == RTM_DELLINK)
        case RTM_NEWADDR, RTM_DELADDR:
            guard let address = Address(reply) else { return nil }
            self = .address(address, isGone: Int(reply.type) == RTM_DELADDR)
        case RTM_NEWROUTE, RTM_DELROUTE:
            guard let route = Route(reply) else { return nil }
            self = .route(route, isGone: Int(reply.type) == RTM_DELROUTE)
        case RTM_NEWNEIGH, RTM_DELNEIGH:
            let isGone = Int(reply.type) == RTM_DELNEIGH
            if let neighbour = Neighbour(reply) {
                self = .neighbour(neighbour, isGone: isGone)
            } else if let entry = ForwardingEntry(reply) {
                self = .forwarding(entry, isGone: isGone)
            } else {
                return nil
            }
        case RTM_NEWRULE, RTM_DELRULE:
            guard let rule = PolicyRule(reply) else { return nil }
            self = .rule(rule, isGone: Int(reply.type) == RTM_DELRULE)
        default: return nil
        }
    }
}
