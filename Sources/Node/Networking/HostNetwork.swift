import CKernel
import CNISpec
import Glibc
import Kernel
import Netlink

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

    /// The addresses of all devices, IPv4 and IPv6. getifaddrs(3) would ask for all devices too, which costs most of the time
    /// where there are thousands.
    static func addresses() throws(KernelError) -> [Network] {
        var socket = try NetlinkSocket()
        var names: [Int32: String] = [:]
        return try Address.all(&socket).compactMap { address in
            guard let name = names[address.interface] ?? name(of: address.interface),
                let ip = IPAddress(bytes: address.bytes),
                let network = CIDR(ip, prefixLength: address.prefixLength)
            else { return nil }
            names[address.interface] = name
            return Network(network: network, interface: name)
        }
    }

    /// nil: the device has gone meanwhile.
    private static func name(of index: Int32) -> String? {
        withUnsafeTemporaryAllocation(of: CChar.self, capacity: Int(IF_NAMESIZE)) { buffer in
            // SAFETY: the buffer has the room that if_indextoname(3) demands.
            if_indextoname(UInt32(bitPattern: index), buffer.baseAddress).map { String(cString: $0) }
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

    /// The main table's IPv6 routes that lead to a device.
    private static func routes6() throws(KernelError) -> [Network] {
        var socket = try NetlinkSocket()
        return try Netlink.Route.all(family: AF_INET6, &socket).compactMap { route in
            guard route.kind == .unicast, route.prefixLength > 0, let address = IPAddress(bytes: route.destination),
                let network = CIDR(address, prefixLength: route.prefixLength), !network.first.isLinkLocal,
                !network.first.isMulticast, let name = name(of: route.interface)
            else { return nil }
            return Network(network: network, interface: name)
        }
    }

    /// The address or route of another device that shares addresses with `subnet`. Default routes share nothing.
    static func conflict(with subnet: CIDR, except interface: String) throws(KernelError) -> Network? {
        let routes =
            try subnet.address.family == .v6
            ? routes6()
            : routes().filter { $0.destination.prefixLength > 0 }
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
