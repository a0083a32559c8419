import Glibc
import Kernel

/// Whether this machine passes packets on, in the network namespace of the calling thread. What it was before is written
/// down, so that it can be so again.
struct Forwarding: Sendable {
    let isV6: Bool
    /// Where the record is.
    let directory: String

    private var control: String {
        isV6 ? "/proc/sys/net/ipv6/conf/all/forwarding" : "/proc/sys/net/ipv4/ip_forward"
    }
    /// What the control was; for IPv6 then the devices that had `accept_ra` 1.
    private var record: String { "\(directory)/\(isV6 ? "ip6_forward" : "ip_forward").before" }
    private static let devices = "/proc/sys/net/ipv6/conf"
    /// Whether the kernel has IPv6.
    static var hasV6: Bool { File.exists(devices) }

    /// What is switched on, in words.
    var name: String { isV6 ? "net.ipv6.conf.all.forwarding" : "net.ipv4.ip_forward" }

    func isOn() throws(KernelError) -> Bool { try File.text(control, limit: 16) != "0" }

    func enable() throws(KernelError) {
        if try isOn() { return }
        // A router takes no router advertisements, and drops what it was told by them, unless it is told 2: the machine's own
        // way out may be one of them.
        let told = isV6 ? try devicesThatListen() : []
        if !File.exists(record) {
            try File.makeDirectories(directory)
            try File.replace(record, with: Array((["0"] + told).joined(separator: "\n").utf8))
        }
        for device in told { try? File.writeControl("\(Self.devices)/\(device)/accept_ra", "2") }
        try File.writeControl(control, "1")
    }

    private func devicesThatListen() throws(KernelError) -> [String] {
        try File.list(Self.devices).filter { device in
            !["all", "default", "lo"].contains(device)
                && (try? File.text("\(Self.devices)/\(device)/accept_ra", limit: 16)) == "1"
        }
    }

    /// Switches it off if it was off before and nobody else needs it: bridges and overlays do.
    func restore() throws(KernelError) {
        guard File.exists(record) else { return }
        let others = try File.list("/sys/class/net").contains { device in
            File.exists("/sys/class/net/\(device)/bridge") || device.hasPrefix(OverlayNetworkConfiguration.devicePrefix)
        }
        if others { return }
        let lines = try File.text(record, limit: 1 << 16).split(separator: "\n").map { String($0) }
        try File.writeControl(control, lines.first ?? "0")
        for device in lines.dropFirst() where device != "." && device != ".." && !device.contains("/") {
            let path = "\(Self.devices)/\(device)/accept_ra"
            if (try? File.text(path, limit: 16)) == "2" { try? File.writeControl(path, "1") }
        }
    }
}
