import CNetlink
import Glibc
import Kernel

/// A device that hands what is sent to it back to where it came from, as having arrived: an ifb, see `ip link add … type
/// ifb`. It is down at first.
package struct FunctionalBlock: Sendable {
    package var name: String
    /// In bytes.
    package var mtu: UInt32
    /// Most packets on the way back; the kernel's own 32 are few for what comes in bursts.
    package var queueLength: UInt32 = 1000

    package static let kind = "ifb"

    package init(_ name: String, mtu: UInt32) {
        self.name = name
        self.mtu = mtu
    }

    /// Makes it. EEXIST: the name is taken.
    package func request() throws(KernelError) -> NetlinkRequest {
        let request = try NetlinkRequest(
            RTM_NEWLINK, flags: Int32(NLM_F_CREATE | NLM_F_EXCL), header: ifinfomsg(), "RTM_NEWLINK",
            "\(Self.kind) \(name)")
        try request.put(IFLA_IFNAME, name)
        try request.put(IFLA_MTU, mtu)
        try request.put(IFLA_TXQLEN, queueLength)
        try request.nest(IFLA_LINKINFO) { request throws(KernelError) in
            try request.put(IFLA_INFO_KIND, Self.kind)
        }
        return request.advising(
            EOPNOTSUPP, "the kernel lacks devices of the type ifb: load its module ifb (CONFIG_IFB)")
    }
}
