import CKernel
import CNISpec
import Glibc
import Kernel
import Netlink

/// The bridge that the pods of a node hang off. It is made here and not by the bridge plugin, so that it has our mark,
/// a fixed hardware address (the plugin's changes with its members, and peers lose it for a while) and its guards
/// before the first pod comes.
struct BridgeDevice: Sendable {
    let name: String
    /// The gateway's address with the subnet's prefix.
    let address: CIDR
    /// The same of IPv6; nil: there is none on it.
    let address6: CIDR?
    /// Says whose it is, in the device's alias (`ip link` shows it).
    let mark: String

    private var folder: String { "/sys/class/net/\(name)" }
    var exists: Bool { if_nametoindex(name) != 0 }

    /// What stands under the name.
    enum Owner: Equatable {
        case nobody
        case us
        /// A bridge without alias, address and members: of a start of ours that was cut off, or of no use to anyone.
        case abandoned
        case someoneElse(String)
    }

    func owner() throws(KernelError) -> Owner {
        guard exists else { return .nobody }
        guard File.exists("\(folder)/bridge") else { return .someoneElse("a device that is no bridge") }
        let alias = try File.text("\(folder)/ifalias", limit: 4096)
        if alias == mark { return .us }
        if !alias.isEmpty { return .someoneElse("a bridge marked '\(alias)'") }
        let members = try File.list("\(folder)/brif")
        let addresses = try HostNetwork.addresses().filter { $0.interface == name && !$0.network.address.isLinkLocal }
        let used = !members.isEmpty || !addresses.isEmpty
        return used ? .someoneElse("a bridge that somebody else made") : .abandoned
    }

    /// Whether it has its address.
    func hasAddress() throws(KernelError) -> Bool {
        try HostNetwork.addresses().contains { $0.interface == name && $0.network == address }
    }

    /// In bytes.
    ///
    /// - Throws: `KernelError` with ENODEV when there is no such device.
    func mtu() throws(KernelError) -> Int { try Self.mtu(of: name) }

    /// The same of any device.
    static func mtu(of name: String) throws(KernelError) -> Int {
        var mtu: Int32 = 0
        try systemCall("ioctl(SIOCGIFMTU)", name) { ck_interface_mtu(name, &mtu) }
        return Int(mtu)
    }

    /// Makes it, or gives an abandoned one its properties, and brings it up.
    func create(mtu: Int) throws(KernelError) {
        if !exists { try systemCall("ioctl(SIOCBRADDBR)", name) { ck_bridge_add(name) } }
        failpoint("network.after_bridge")
        try File.writeControl("\(folder)/ifalias", mark)
        try systemCall("ioctl(SIOCSIFHWADDR)", name) { ck_interface_set_mac(name, mac) }
        try systemCall("ioctl(SIOCSIFMTU)", name) { ck_interface_set_mtu(name, Int32(mtu)) }
        let (ip, mask, broadcast) = (Self.raw(address.address), Self.raw(address.mask), Self.raw(address.last))
        try systemCall("ioctl(SIOCSIFADDR)", name) { ck_interface_set_ipv4(name, ip, mask, broadcast) }
        try makeReady()
    }

    /// Its guards, up, and then what a device that is down cannot have.
    func makeReady() throws(KernelError) {
        try guardAgainstPods()
        try bringUp()
        try addAddress6()
    }

    /// 02: locally administered. The rest only has to be stable and differ between bridges of a link.
    var mac: [UInt8] { [0x02, 0x6d] + address.address.bytes }

    /// Whether it has the hardware address that it was made with: by that alone pods reach it with IPv6.
    func hasMAC() throws(KernelError) -> Bool {
        MACAddress(String(try File.text("\(folder)/address", limit: 64).prefix { $0 != "\n" }))?.bytes == mac
    }

    func hasAddress6() throws(KernelError) -> Bool {
        guard let address6 else { return true }
        return try HostNetwork.addresses().contains { $0.interface == name && $0.network == address6 }
    }

    /// Without asking first whether somebody else has it: nobody else can.
    private func addAddress6() throws(KernelError) {
        guard let address6 else { return }
        var socket = try NetlinkSocket()
        let index = Int32(bitPattern: if_nametoindex(name))
        let own = Address(address6.address.bytes, prefixLength: address6.prefixLength, interface: index)
        try socket.send(own.request().tolerating(EEXIST))
    }

    /// Switches it on, also when somebody has switched it off.
    private func bringUp() throws(KernelError) {
        try systemCall("ioctl(SIOCSIFFLAGS)", name) { ck_interface_up(name) }
    }

    /// Of net.ipv6.conf.<name>: there is no IPv6 on it that nobody asked for, and no pod may give the host routes by router
    /// advertisements (CVE-2020-10749), whoever switches it on. It has no address that is not ours: without a link-local one
    /// (IN6_ADDR_GEN_MODE_NONE is 1) the node answers no solicitation of routers and sends no redirect.
    var settings: [(name: String, value: String)] {
        guard address6 != nil else { return [("disable_ipv6", "1"), ("accept_ra", "0")] }
        return [("accept_ra", "0"), ("addr_gen_mode", "1"), ("accept_redirects", "0"), ("disable_ipv6", "0")]
    }

    private func path(_ setting: String) -> String { "/proc/sys/net/ipv6/conf/\(name)/\(setting)" }

    /// Nil: the kernel has no IPv6.
    func setting(_ name: String) -> String? { try? File.text(path(name), limit: 16) }

    private func guardAgainstPods() throws(KernelError) {
        for (name, value) in settings where File.exists(path(name)) { try File.writeControl(path(name), value) }
    }

    func isUp() throws(KernelError) -> Bool {
        let flags = try File.text("\(folder)/flags", limit: 16).dropFirst(2)
        return (UInt32(flags, radix: 16) ?? 0) & 1 /* IFF_UP */ != 0
    }

    /// Deletes it; its members become free devices.
    func delete() throws(KernelError) {
        try systemCall("ioctl(SIOCSIFFLAGS)", name) { ck_interface_down(name) }
        try systemCall("ioctl(SIOCBRDELBR)", name) { ck_bridge_delete(name) }
    }

    /// In network byte order, as ioctls want it.
    private static func raw(_ address: IPAddress) -> UInt32 { UInt32(address.value).bigEndian }
}
