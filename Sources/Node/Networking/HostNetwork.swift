import CKernel
import CNISpec
import Glibc
import Kernel

/// What the machine's network looks like now, in the calling thread's network namespace.
enum HostNetwork {
    /// A network that the machine already reaches, and the device it is on.
    struct Network: Equatable {
        let network: CIDR
        let interface: String
    }

    struct Route: Equatable {
        let destination: CIDR
        let interface: String
        let metric: Int
    }

    /// The addresses of all devices, IPv4 and IPv6.
    static func addresses() throws(KernelError) -> [Network] {
        var first: UnsafeMutablePointer<ifaddrs>?
        try systemCall("getifaddrs") { getifaddrs(&first) }
        defer { freeifaddrs(first) }
        var result: [Network] = []
        var entry = first
        while let current = entry {
            entry = current.pointee.ifa_next
            guard let address = ipAddress(current.pointee.ifa_addr), let mask = ipAddress(current.pointee.ifa_netmask),
                let network = CIDR(address, mask: mask)
            else { continue }
            result.append(Network(network: network, interface: String(cString: current.pointee.ifa_name)))
        }
        return result
    }

    private static func ipAddress(_ pointer: UnsafeMutablePointer<sockaddr>?) -> IPAddress? {
        guard let pointer else { return nil }
        switch Int32(pointer.pointee.sa_family) {
        case AF_INET:
            return pointer.withMemoryRebound(to: sockaddr_in.self, capacity: 1) {
                IPAddress(.v4, UInt128(UInt32(bigEndian: $0.pointee.sin_addr.s_addr)))
            }
        case AF_INET6:
            return pointer.withMemoryRebound(to: sockaddr_in6.self, capacity: 1) {
                withUnsafeBytes(of: $0.pointee.sin6_addr) { IPAddress(bytes: Array($0)) }
            }
        default: return nil
        }
    }

    /// The main table's IPv4 routes. /proc/net would be the main thread's namespace.
    static func routes() throws(KernelError) -> [Route] {
        parse(routes: try File.text("/proc/thread-self/net/route", limit: 16 << 20))
    }

    /// Reads /proc/net/route: numbers are hexadecimal, addresses in the machine's byte order. Lines that are no routes
    /// are left out.
    static func parse(routes text: String) -> [Route] {
        text.split(separator: "\n").dropFirst().compactMap { line in
            let fields = line.split(whereSeparator: { $0 == "\t" || $0 == " " })
            guard fields.count >= 8, let destination = UInt32(fields[1], radix: 16),
                let mask = UInt32(fields[7], radix: 16), let metric = Int(fields[6])
            else { return nil }
            let network = CIDR(
                IPAddress(.v4, UInt128(UInt32(bigEndian: destination))),
                mask: IPAddress(.v4, UInt128(UInt32(bigEndian: mask))))
            return network.map { Route(destination: $0, interface: String(fields[0]), metric: metric) }
        }
    }

    /// The address or route of another device that shares addresses with `subnet`. Default routes share nothing.
    static func conflict(with subnet: CIDR, except interface: String) throws(KernelError) -> Network? {
        let routes = try routes().filter { $0.destination.prefixLength > 0 }
            .map { Network(network: $0.destination, interface: $0.interface) }
        return (try addresses() + routes).first { $0.interface != interface && $0.network.overlaps(subnet) }
    }

    /// The MTU of the device that the default route leaves through; 1500 when there is none.
    static func defaultMTU() throws(KernelError) -> Int {
        let best = try routes().filter { $0.destination.prefixLength == 0 }.min { $0.metric < $1.metric }
        var mtu: Int32 = 0
        guard let best, ck_interface_mtu(best.interface, &mtu) == 0 else { return 1500 }
        return Int(mtu)
    }
}
