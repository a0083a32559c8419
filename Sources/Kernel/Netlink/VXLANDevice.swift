import CNetlink
import Glibc
import Kernel

/// A device that carries frames to other machines in UDP (RFC 7348), see `ip link add … type vxlan`. It learns nothing and
/// floods nothing: where frames go is written down (`ForwardingEntry`). It is down at first.
package struct VXLANDevice: Sendable, Equatable {
    package var name: String
    /// 1…16777215.
    package var vni: UInt32
    /// The address that packets to other machines bear, in network order: 4 or 16 bytes.
    package var local: [UInt8]
    package var port: UInt16
    /// In bytes.
    package var mtu: UInt32
    package var mac: [UInt8]
    /// See `ip link`'s "group".
    package var group: UInt32 = 0
    /// Says whose it is.
    package var alias = ""

    package static let kind = "vxlan"
    /// Bytes that are in front of each packet: Ethernet, IPv4 or IPv6, UDP, VXLAN.
    package static func overhead(isV6: Bool) -> UInt32 { isV6 ? 70 : 50 }

    package init(_ name: String, vni: UInt32, local: [UInt8], port: UInt16, mtu: UInt32, mac: [UInt8]) {
        self.name = name
        self.vni = vni
        self.local = local
        self.port = port
        self.mtu = mtu
        self.mac = mac
    }

    /// Makes it. EEXIST: the name is taken, or somebody else has a device with the VNI and the port.
    package func request() throws(KernelError) -> NetlinkRequest {
        let request = try NetlinkRequest(
            RTM_NEWLINK, flags: Int32(NLM_F_CREATE | NLM_F_EXCL), header: ifinfomsg(), "RTM_NEWLINK",
            "\(Self.kind) \(name) with VNI \(vni)")
        try request.put(IFLA_IFNAME, name)
        try request.put(IFLA_MTU, mtu)
        try request.put(IFLA_ADDRESS, mac)
        if group != 0 { try request.put(IFLA_GROUP, group) }
        if !alias.isEmpty { try request.put(IFLA_IFALIAS, alias) }
        try request.nest(IFLA_LINKINFO) { request throws(KernelError) in
            try request.put(IFLA_INFO_KIND, Self.kind)
            try request.nest(IFLA_INFO_DATA) { request throws(KernelError) in
                try request.put(Int(IFLA_VXLAN_ID), vni)
                try request.put(Int(local.count == 4 ? IFLA_VXLAN_LOCAL : IFLA_VXLAN_LOCAL6), local)
                try request.put(Int(IFLA_VXLAN_LEARNING), UInt8(0))
                try request.put(Int(IFLA_VXLAN_PORT), raw: port.bigEndian)
            }
        }
        return request.advising(
            EOPNOTSUPP, "the kernel lacks devices of the type vxlan: load its module vxlan (CONFIG_VXLAN)")
    }
}

extension VXLANDevice {
    /// As the kernel describes it; nil for a device of another type.
    package init?(_ link: Link) {
        guard let tunnel = link.tunnel else { return nil }
        self.init(
            link.name, vni: tunnel.vni, local: tunnel.local, port: tunnel.port, mtu: link.mtu, mac: link.mac)
        group = link.group
        alias = link.alias
    }
}
