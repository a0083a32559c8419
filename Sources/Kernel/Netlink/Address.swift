import CNetlink
import Glibc
import Kernel

/// An address of a device.
package struct Address: Sendable, Hashable {
    /// In network order: 4 or 16 bytes.
    package var bytes: [UInt8]
    /// In bits.
    package var prefixLength: Int
    /// The device's index.
    package var interface: Int32

    package init(_ bytes: [UInt8], prefixLength: Int, interface: Int32) {
        self.bytes = bytes
        self.prefixLength = prefixLength
        self.interface = interface
    }

    /// Gives it to the device, with the broadcast address that belongs to it, and for IPv6 without asking first whether
    /// somebody else has it. EEXIST: it is there.
    package func request() throws(KernelError) -> NetlinkRequest {
        guard let address = rtnl_addr_alloc() else { throw KernelError("rtnl_addr_alloc", errno: ENOMEM) }
        defer { rtnl_addr_put(address) }
        let subject = "device \(interface)"
        rtnl_addr_set_ifindex(address, interface)
        try withAddress(bytes, prefixLength: prefixLength) { local throws(KernelError) in
            let code = rtnl_addr_set_local(address, local)
            if code < 0 { throw KernelError(libnl: code, "RTM_NEWADDR", subject) }
        }
        if bytes.count == 4, prefixLength < 31 {
            try withAddress(broadcast) { broadcast throws(KernelError) in
                let code = rtnl_addr_set_broadcast(address, broadcast)
                if code < 0 { throw KernelError(libnl: code, "RTM_NEWADDR", subject) }
            }
        }
        if bytes.count == 16 { rtnl_addr_set_flags(address, UInt32(IFA_F_NODAD)) }
        var message: OpaquePointer?
        let code = rtnl_addr_build_add_request(address, Int32(NLM_F_CREATE | NLM_F_EXCL), &message)
        guard code == 0, let message else { throw KernelError(libnl: code, "RTM_NEWADDR", subject) }
        return NetlinkRequest(adopting: message, "RTM_NEWADDR", subject)
    }

    /// The last address of the network.
    private var broadcast: [UInt8] {
        bytes.enumerated().map { index, byte in
            byte | UInt8(truncatingIfNeeded: 0xff >> max(0, min(8, prefixLength - 8 * index)))
        }
    }

    /// All addresses of the namespace.
    package static func all(_ socket: inout NetlinkSocket) throws(KernelError) -> [Address] {
        let request = try NetlinkRequest(RTM_GETADDR, header: ifaddrmsg(), "RTM_GETADDR", "all devices")
        return try socket.ask(request, isDump: true).compactMap { Address($0) }
    }

    /// From an RTM_NEWADDR or RTM_DELADDR; nil when it is neither.
    package init?(_ reply: NetlinkReply) {
        guard [UInt16(RTM_NEWADDR), UInt16(RTM_DELADDR)].contains(reply.type),
            let prefix = reply.payload.number(at: 1, as: UInt8.self),
            let interface = reply.payload.number(at: 4, as: Int32.self)
        else { return nil }
        let attributes = NetlinkAttributes(reply.payload.dropFirst(MemoryLayout<ifaddrmsg>.size))
        guard let bytes = attributes[Int(IFA_LOCAL)] ?? attributes[Int(IFA_ADDRESS)], [4, 16].contains(bytes.count)
        else { return nil }
        self.init(Array(bytes), prefixLength: Int(prefix), interface: interface)
    }
}
