import CNetlink
import Glibc
import Kernel

/// What a machine knows of an address on one of its links.
package struct Neighbour: Sendable, Hashable {
    /// In network order: 4 or 16 bytes.
    package var address: [UInt8]
    /// The device's index.
    package var interface: Int32
    /// The hardware address; empty: not known.
    package var mac: [UInt8] = []
    /// Never asked for again, and not to be changed by what others say.
    package var isPermanent = false

    package init(_ address: [UInt8], interface: Int32) {
        self.address = address
        self.interface = interface
    }

    /// One that is written down.
    package init(_ address: [UInt8], interface: Int32, mac: [UInt8]) {
        self.init(address, interface: interface)
        self.mac = mac
        isPermanent = true
    }

    /// Writes it down, whatever was known before.
    package func request() throws(KernelError) -> NetlinkRequest {
        let request = try message(
            RTM_NEWNEIGH, "RTM_NEWNEIGH", flags: Int32(NLM_F_CREATE | NLM_F_REPLACE))
        try request.put(Int(NDA_LLADDR), mac)
        return request
    }

    /// Has it forgotten, so that it is asked for anew; that nothing is known is no error.
    package func deletion() throws(KernelError) -> NetlinkRequest {
        try message(RTM_DELNEIGH, "RTM_DELNEIGH", flags: 0).tolerating(ENOENT)
    }

    private func message(_ type: Int, _ operation: String, flags: Int32) throws(KernelError) -> NetlinkRequest {
        var header = ndmsg()
        header.ndm_family = UInt8(address.count == 4 ? AF_INET : AF_INET6)
        header.ndm_ifindex = interface
        header.ndm_state = UInt16(isPermanent ? NUD_PERMANENT : NUD_REACHABLE)
        let request = try NetlinkRequest(type, flags: flags, header: header, operation, "device \(interface)")
        try request.put(Int(NDA_DST), address)
        return request
    }

    /// All of a family (AF_INET, AF_INET6).
    ///
    /// - Parameter interface: of one device only; nil: of all.
    package static func all(
        family: Int32, interface: Int32? = nil, _ socket: inout NetlinkSocket
    ) throws(KernelError) -> [Neighbour] {
        var header = ndmsg()
        header.ndm_family = UInt8(family)
        let request = try NetlinkRequest(RTM_GETNEIGH, header: header, "RTM_GETNEIGH", "all neighbours")
        if let interface { try request.put(Int(NDA_IFINDEX), UInt32(bitPattern: interface)) }
        return try socket.ask(request, isDump: true).compactMap { Neighbour($0) }
    }

    /// From an RTM_NEWNEIGH or RTM_DELNEIGH of IPv4 or IPv6; nil when it is neither.
    package init?(_ reply: NetlinkReply) {
        guard let entry = NeighbourEntry(reply), [AF_INET, AF_INET6].contains(entry.family),
            let address = entry.attributes[Int(NDA_DST)], [4, 16].contains(address.count)
        else { return nil }
        self.init(Array(address), interface: entry.interface)
        mac = Array(entry.attributes[Int(NDA_LLADDR)] ?? [])
        isPermanent = entry.state & UInt16(NUD_PERMANENT) != 0
    }
}

/// Where a VXLAN device sends frames for a hardware address (`bridge fdb`).
package struct ForwardingEntry: Sendable, Hashable {
    /// The address that the frame is for; six zero bytes: all that have no entry.
    package var mac: [UInt8]
    /// The VXLAN device's index.
    package var interface: Int32
    /// The machine behind which it is, in network order: 4 or 16 bytes.
    package var destination: [UInt8]

    package init(_ mac: [UInt8], interface: Int32, destination: [UInt8]) {
        self.mac = mac
        self.interface = interface
        self.destination = destination
    }

    /// Writes it down, whatever was known of the address before.
    package func request() throws(KernelError) -> NetlinkRequest {
        try message(RTM_NEWNEIGH, "RTM_NEWNEIGH", flags: Int32(NLM_F_CREATE | NLM_F_REPLACE))
    }

    /// Takes it away; that there is none is no error.
    package func deletion() throws(KernelError) -> NetlinkRequest {
        try message(RTM_DELNEIGH, "RTM_DELNEIGH", flags: 0).tolerating(ENOENT)
    }

    private func message(_ type: Int, _ operation: String, flags: Int32) throws(KernelError) -> NetlinkRequest {
        var header = ndmsg()
        header.ndm_family = UInt8(AF_BRIDGE)
        header.ndm_ifindex = interface
        header.ndm_state = UInt16(NUD_PERMANENT)
        header.ndm_flags = UInt8(NTF_SELF)
        let request = try NetlinkRequest(
            type, flags: flags, header: header, operation, "forwarding entry of device \(interface)")
        try request.put(Int(NDA_LLADDR), mac)
        try request.put(Int(NDA_DST), destination)
        return request
    }

    /// All of a VXLAN device; without one those of all VXLAN devices.
    package static func all(
        interface: Int32? = nil, _ socket: inout NetlinkSocket
    ) throws(KernelError) -> [ForwardingEntry] {
        var header = ndmsg()
        header.ndm_family = UInt8(AF_BRIDGE)
        header.ndm_ifindex = interface ?? 0
        let request = try NetlinkRequest(RTM_GETNEIGH, header: header, "RTM_GETNEIGH", "forwarding entries")
        return try socket.ask(request, isDump: true).compactMap { ForwardingEntry($0) }
            .filter { interface == nil || $0.interface == interface }
    }

    /// From an RTM_NEWNEIGH or RTM_DELNEIGH of a device's own table; nil when it is neither.
    package init?(_ reply: NetlinkReply) {
        guard let entry = NeighbourEntry(reply), entry.family == AF_BRIDGE, entry.flags & UInt8(NTF_SELF) != 0,
            let mac = entry.attributes[Int(NDA_LLADDR)], let destination = entry.attributes[Int(NDA_DST)],
            [4, 16].contains(destination.count)
        else { return nil }
        self.init(Array(mac), interface: entry.interface, destination: Array(destination))
    }
}

/// Behind which port of its bridge a hardware address is (`bridge fdb … master static sticky`): nobody at another port can
/// take it along.
package struct BridgeEntry: Sendable, Hashable {
    package var mac: [UInt8]
    /// The port's index.
    package var port: Int32

    package init(_ mac: [UInt8], port: Int32) {
        self.mac = mac
        self.port = port
    }

    /// Writes it down. EEXIST: the bridge knows the address already, as its own or behind a port.
    package func request() throws(KernelError) -> NetlinkRequest {
        try message(RTM_NEWNEIGH, "RTM_NEWNEIGH", flags: Int32(NLM_F_CREATE | NLM_F_EXCL))
    }

    /// Takes it away; that there is none is no error.
    package func deletion() throws(KernelError) -> NetlinkRequest {
        try message(RTM_DELNEIGH, "RTM_DELNEIGH", flags: 0).tolerating(ENOENT)
    }

    private func message(_ type: Int, _ operation: String, flags: Int32) throws(KernelError) -> NetlinkRequest {
        var header = ndmsg()
        header.ndm_family = UInt8(AF_BRIDGE)
        header.ndm_ifindex = port
        header.ndm_state = UInt16(NUD_NOARP)
        header.ndm_flags = UInt8(NTF_MASTER | NTF_STICKY)
        let words = mac.map { byte in (byte < 16 ? "0" : "") + String(byte, radix: 16) }.joined(separator: ":")
        let request = try NetlinkRequest(
            type, flags: flags, header: header, operation, "hardware address \(words) of port \(port)")
        try request.put(Int(NDA_LLADDR), mac)
        return request
    }

    /// Those of all bridges that were written down.
    package static func all(_ socket: inout NetlinkSocket) throws(KernelError) -> [BridgeEntry] {
        var header = ndmsg()
        header.ndm_family = UInt8(AF_BRIDGE)
        let request = try NetlinkRequest(RTM_GETNEIGH, header: header, "RTM_GETNEIGH", "bridges' entries")
        return try socket.ask(request, isDump: true).compactMap { BridgeEntry($0) }
    }

    /// From an RTM_NEWNEIGH or RTM_DELNEIGH of a bridge's table; nil when it is neither, or was not written down.
    package init?(_ reply: NetlinkReply) {
        guard let entry = NeighbourEntry(reply), entry.family == AF_BRIDGE, entry.flags & UInt8(NTF_SELF) == 0,
            entry.attributes[Int(NDA_MASTER)] != nil, entry.state & UInt16(NUD_NOARP) != 0,
            let mac = entry.attributes[Int(NDA_LLADDR)]
        else { return nil }
        self.init(Array(mac), port: entry.interface)
    }
}

/// What RTM_NEWNEIGH and RTM_DELNEIGH say, of all families.
private struct NeighbourEntry {
    let family: Int32
    let interface: Int32
    let state: UInt16
    let flags: UInt8
    let attributes: NetlinkAttributes

    /// Reads `struct ndmsg`; nil when it is another message.
    init?(_ reply: NetlinkReply) {
        guard [UInt16(RTM_NEWNEIGH), UInt16(RTM_DELNEIGH)].contains(reply.type),
            let family = reply.payload.number(at: 0, as: UInt8.self),
            let interface = reply.payload.number(at: 4, as: Int32.self),
            let state = reply.payload.number(at: 8, as: UInt16.self),
            let flags = reply.payload.number(at: 10, as: UInt8.self)
        else { return nil }
        self.family = Int32(family)
        self.interface = interface
        self.state = state
        self.flags = flags
        attributes = NetlinkAttributes(reply.payload.dropFirst(MemoryLayout<ndmsg>.size))
    }
}
