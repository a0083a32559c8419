import CNetlink
import Glibc
import Kernel

/// What a machine knows of an address on one of its links.
package struct Neighbour: Sendable {
    /// In network order: 4 or 16 bytes.
    package var address: [UInt8]
    /// The device's index.
    package var interface: Int32

    package init(_ address: [UInt8], interface: Int32) {
        self.address = address
        self.interface = interface
    }

    /// Has it forgotten, so that it is asked for anew; that nothing is known is no error.
    package func deletion() throws(KernelError) -> NetlinkRequest {
        guard let neighbour = rtnl_neigh_alloc() else { throw KernelError("rtnl_neigh_alloc", errno: ENOMEM) }
        defer { rtnl_neigh_put(neighbour) }
        let subject = "device \(interface)"
        try withAddress(address) { address throws(KernelError) in
            let code = rtnl_neigh_set_dst(neighbour, address)
            if code < 0 { throw KernelError(libnl: code, "RTM_DELNEIGH", subject) }
        }
        rtnl_neigh_set_ifindex(neighbour, interface)
        var message: OpaquePointer?
        let code = rtnl_neigh_build_delete_request(neighbour, 0, &message)
        guard code == 0, let message else { throw KernelError(libnl: code, "RTM_DELNEIGH", subject) }
        return NetlinkRequest(adopting: message, "RTM_DELNEIGH", subject).tolerating(ENOENT)
    }
}
