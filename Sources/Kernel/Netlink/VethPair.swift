import CNetlink
import Glibc
import Kernel

/// Two devices tied together, veth(4), the second of which is made in another namespace: to move it there would wait for
/// an RCU grace period. Both are down at first.
package struct VethPair: Sendable {
    /// The near end's name.
    package var name: String
    /// The far end's.
    package var peer: String
    /// A descriptor of the far end's namespace; the caller's.
    package var namespace: Int32
    /// Of both, in bytes.
    package var mtu: UInt32
    /// The near end's hardware address; nil: any.
    package var mac: [UInt8]?
    /// The far end's.
    package var peerMAC: [UInt8]?
    /// The index of the bridge that the near end is a port of; 0: of none.
    package var master: Int32 = 0
    /// The near end's group, see `ip link`'s "group".
    package var group: UInt32 = 0

    package init(_ name: String, peer: String, namespace: Int32, mtu: UInt32) {
        self.name = name
        self.peer = peer
        self.namespace = namespace
        self.mtu = mtu
    }

    /// Makes the pair. EEXIST: one of the names is taken.
    package func request() throws(KernelError) -> NetlinkRequest {
        guard let link = rtnl_link_veth_alloc() else { throw KernelError("rtnl_link_veth_alloc", name, errno: ENOMEM) }
        defer { rtnl_link_veth_release(link) }
        guard let far = rtnl_link_veth_get_peer(link) else {
            throw KernelError("rtnl_link_veth_get_peer", name, errno: ENOMEM)
        }
        defer { rtnl_link_put(far) }
        rtnl_link_set_name(link, name)
        rtnl_link_set_name(far, peer)
        rtnl_link_set_ns_fd(far, namespace)
        for end in [link, far] { rtnl_link_set_mtu(end, mtu) }
        try Self.set(mac, on: link)
        try Self.set(peerMAC, on: far)
        if master != 0 { rtnl_link_set_master(link, master) }
        if group != 0 { rtnl_link_set_group(link, group) }
        var message: OpaquePointer?
        let code = rtnl_link_build_add_request(link, Int32(NLM_F_CREATE | NLM_F_EXCL), &message)
        guard code == 0, let message else { throw KernelError(libnl: code, "RTM_NEWLINK", name) }
        return NetlinkRequest(adopting: message, "RTM_NEWLINK", "\(name) with peer \(peer)")
    }

    private static func set(_ mac: [UInt8]?, on link: OpaquePointer) throws(KernelError) {
        guard let mac else { return }
        try withAddress(mac, family: AF_LLC) { rtnl_link_set_addr(link, $0) }
    }
}
