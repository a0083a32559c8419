import CNetlink
import Glibc
import Kernel

/// A network device as the kernel describes it.
package struct Link: Sendable, Equatable {
    package let index: Int32
    package let name: String
    /// IFF_UP: whether somebody wants it up.
    package let isUp: Bool
    /// In bytes.
    package let mtu: UInt32
    /// The hardware address; empty where there is none.
    package let mac: [UInt8]
    /// The index of the bridge it is a port of; 0: of none.
    package let master: Int32
    /// The index of the device at the other end, of a veth pair say, in that one's own namespace; 0: there is none.
    package let peer: Int32
    /// What `ip link` shows as alias.
    package let alias: String
    /// `veth`, `bridge` …; empty for what is no virtual device.
    package let kind: String
    /// A number that several devices may have, see `ip link`'s "group"; 0: none.
    package let group: UInt32
    /// What a VXLAN device is about; nil for any other.
    package let tunnel: Tunnel?
    /// What its bridge does at it; nil: it is no bridge's port.
    package let port: BridgePort?

    package struct Tunnel: Sendable, Equatable {
        package let vni: UInt32
        /// In network order: 4 or 16 bytes; empty: any of the machine's.
        package let local: [UInt8]
        package let port: UInt16
        /// Senders' addresses are learnt.
        package let learns: Bool
    }

    /// From an RTM_NEWLINK or RTM_DELLINK; nil when it is neither.
    package init?(_ reply: NetlinkReply) {
        guard [UInt16(RTM_NEWLINK), UInt16(RTM_DELLINK)].contains(reply.type),
            let index = reply.payload.number(at: 4, as: Int32.self),
            let flags = reply.payload.number(at: 8, as: UInt32.self)
        else { return nil }
        let attributes = NetlinkAttributes(reply.payload.dropFirst(MemoryLayout<ifinfomsg>.size))
        guard let name = attributes.text(IFLA_IFNAME) else { return nil }
        self.index = index
        self.name = name
        isUp = flags & UInt32(IFF_UP) != 0
        mtu = attributes.number(IFLA_MTU) ?? 0
        mac = Array(attributes[IFLA_ADDRESS] ?? [])
        master = attributes.number(IFLA_MASTER) ?? 0
        peer = attributes.number(IFLA_LINK) ?? 0
        alias = attributes.text(IFLA_IFALIAS) ?? ""
        group = attributes.number(Int(IFLA_GROUP)) ?? 0
        let info = attributes.nested(IFLA_LINKINFO)
        kind = info.text(IFLA_INFO_KIND) ?? ""
        tunnel = kind == VXLANDevice.kind ? Tunnel(info.nested(IFLA_INFO_DATA)) : nil
        port =
            info.text(IFLA_INFO_SLAVE_KIND) == BridgePort.kind ? BridgePort(info.nested(IFLA_INFO_SLAVE_DATA)) : nil
    }

    /// The device of a name or nil.
    package static func named(_ name: String, _ socket: inout NetlinkSocket) throws(KernelError) -> Link? {
        let request = try NetlinkRequest(RTM_GETLINK, header: ifinfomsg(), "RTM_GETLINK", name).tolerating(ENODEV)
        try request.put(IFLA_IFNAME, name)
        let found = try socket.ask(request, isDump: false)
        return found.compactMap { Link($0) }.first
    }

    /// All devices of the namespace.
    package static func all(_ socket: inout NetlinkSocket) throws(KernelError) -> [Link] {
        let request = try NetlinkRequest(RTM_GETLINK, header: ifinfomsg(), "RTM_GETLINK", "all devices")
        return try socket.ask(request, isDump: true).compactMap { Link($0) }
    }

    /// Deletes the device of a name; that there is none is no error. The kernel waits here until nobody uses it any
    /// more: 10 to 50 ms.
    package static func deletion(of name: String) throws(KernelError) -> NetlinkRequest {
        let request = try NetlinkRequest(RTM_DELLINK, header: ifinfomsg(), "RTM_DELLINK", name).tolerating(ENODEV)
        try request.put(IFLA_IFNAME, name)
        return request
    }
}

extension Link.Tunnel {
    /// From what `IFLA_INFO_DATA` of a VXLAN device holds.
    fileprivate init?(_ data: NetlinkAttributes) {
        guard let vni = data.number(Int(IFLA_VXLAN_ID), as: UInt32.self) else { return nil }
        self.vni = vni
        local = Array(data[Int(IFLA_VXLAN_LOCAL)] ?? data[Int(IFLA_VXLAN_LOCAL6)] ?? [])
        port = UInt16(bigEndian: data.number(Int(IFLA_VXLAN_PORT)) ?? 0)
        learns = data.number(Int(IFLA_VXLAN_LEARNING), as: UInt8.self) != 0
    }
}

/// What to change of a device.
package struct LinkChange: Sendable {
    package var isUp: Bool?
    /// In bytes.
    package var mtu: UInt32?
    package var mac: [UInt8]?
    /// A bridge's index, 0 for none.
    package var master: Int32?
    package var alias: String?
    package var group: UInt32?
    /// No link-local IPv6 address by itself. Before the device is first brought up; without IPv6 in the kernel it is
    /// true anyway.
    package var hasNoGeneratedAddress = false
    /// For a port of a bridge.
    package var port: BridgePort?

    package init() {}

    package func request(for name: String) throws(KernelError) -> NetlinkRequest {
        var header = ifinfomsg()
        if let isUp {
            header.ifi_change = UInt32(IFF_UP)
            header.ifi_flags = isUp ? UInt32(IFF_UP) : 0
        }
        var request = try NetlinkRequest(RTM_NEWLINK, header: header, "RTM_NEWLINK", name)
        try request.put(IFLA_IFNAME, name)
        if let mtu { try request.put(IFLA_MTU, mtu) }
        if let mac { try request.put(IFLA_ADDRESS, mac) }
        if let master { try request.put(IFLA_MASTER, UInt32(bitPattern: master)) }
        if let alias { try request.put(IFLA_IFALIAS, alias) }
        if let group { try request.put(Int(IFLA_GROUP), group) }
        if hasNoGeneratedAddress {
            try request.nest(IFLA_AF_SPEC) { request throws(KernelError) in
                try request.nest(Int(AF_INET6)) { request throws(KernelError) in
                    try request.put(IFLA_INET6_ADDR_GEN_MODE, UInt8(IN6_ADDR_GEN_MODE_NONE.rawValue))
                }
            }
            request.tolerated = [EAFNOSUPPORT, EOPNOTSUPP]
        }
        try port?.put(request)
        return request
    }
}

/// What a bridge does at one of its ports; nil: as it was.
package struct BridgePort: Sendable, Equatable {
    /// Frames may leave by the port they came in.
    package var hairpin: Bool?
    /// Addresses of senders are learnt.
    package var learning: Bool?
    /// No frames from and to other isolated ports.
    package var isIsolated: Bool?

    package init() {}

    static let kind = "bridge"

    /// From what `IFLA_INFO_SLAVE_DATA` of a bridge's port holds.
    fileprivate init(_ data: NetlinkAttributes) {
        hairpin = data.number(IFLA_BRPORT_MODE, as: UInt8.self).map { $0 != 0 }
        learning = data.number(IFLA_BRPORT_LEARNING, as: UInt8.self).map { $0 != 0 }
        isIsolated = data.number(IFLA_BRPORT_ISOLATED, as: UInt8.self).map { $0 != 0 }
    }

    /// As `ip link set … type bridge_slave` does it: by the device's name.
    func put(_ request: borrowing NetlinkRequest) throws(KernelError) {
        let flags = [(IFLA_BRPORT_MODE, hairpin), (IFLA_BRPORT_LEARNING, learning), (IFLA_BRPORT_ISOLATED, isIsolated)]
        try request.nest(IFLA_LINKINFO) { request throws(KernelError) in
            try request.put(IFLA_INFO_SLAVE_KIND, Self.kind)
            try request.nest(IFLA_INFO_SLAVE_DATA) { request throws(KernelError) in
                for case (let type, let flag?) in flags { try request.put(type, UInt8(flag ? 1 : 0)) }
            }
        }
    }
}
