import CNISpec
import Glibc
import Kernel
import Networking
import Testing

/// Bridge networks with IPv6 beside IPv4, on a machine that reaches the world with both.
extension BridgeSite {
    struct Dual: Sendable {
        let name: String
        let subnet: String
        let subnet6: String
        var isInternal = false

        /// The network's address of that number.
        func address(_ number: Int) -> String { subnet6.replacing("/64", with: String(number, radix: 16)) }
    }

    static let dualRed = Dual(name: red.name, subnet: red.subnet, subnet6: "fd00:a::/64")
    static let dualBlue = Dual(name: blue.name, subnet: blue.subnet, subnet6: "fd00:b::/64")

    /// What of a pod's is IPv6.
    struct DualPod: Sendable {
        let pod: Pod
        var namespace: String { pod.namespace }
        var mac: [UInt8] { pod.mac }
        var address: String { pod.address }
        var address6: String { pod.found.address6?.address.description ?? "" }
    }

    func dual(
        _ id: String, on network: Dual = dualRed, ports: [PortMapping] = [], address6: String? = nil,
        interface: String = "eth0"
    ) throws -> DualPod {
        let namespace = interface == "eth0" ? try machine.pin(id) : "\(machine.run)/netns/\(id)"
        var configuration = users.configuration(name: network.name, subnet: network.subnet)
        configuration.subnet6 = network.subnet6
        configuration.isInternal = network.isInternal
        let found = try users.attach(
            id, to: configuration, namespacePath: namespace, interface: interface, ports: ports,
            address6: address6.flatMap { IPAddress($0) }, isDefaultRoute: interface == "eth0")
        return DualPod(pod: Pod(namespace: namespace, found: found))
    }
}

extension PrivateMachine {
    /// Gives the uplink IPv6, 2001:db8::2, and the neighbour 2001:db8::1 with a way to all that may be behind the machine.
    func makeDual() throws {
        try command(
            """
            ip addr add 2001:db8::2/64 dev up0 nodad && ip addr add fe80::2/64 dev up0 nodad
            ip -6 route add default via 2001:db8::1
            """)
        try command(
            """
            ip addr add 2001:db8::1/64 dev down0 nodad && ip addr add fe80::1/64 dev down0 nodad
            ip -6 route add fd00::/16 via 2001:db8::2
            """, in: outside)
    }

    /// Listens with TCP at one address or, with `::`, at all of both families.
    func listen6(_ port: UInt16, on address: String = "::", in namespace: String? = nil) throws -> SharedFD {
        let name = SocketName(try #require(IPAddress(address)), port)
        let open = { @Sendable () throws(KernelError) -> SharedFD in
            let fd = try PortmapProgram.open("tcp", name)
            var on: Int32 = 1
            setsockopt(fd.raw, SOL_SOCKET, SO_REUSEADDR, &on, 4)
            try systemCall("bind", "\(port)") { name.use { bind(fd.raw, $0, $1) } }
            try systemCall("listen") { Glibc.listen(fd.raw, 16) }
            return fd
        }
        if let namespace { return try NetworkNamespace.run(in: namespace, open) }
        return try open()
    }

    /// Whom the server sees of who connects to an address of either family; nil: there is no connection.
    func talk6(
        to address: String, _ port: UInt16, from namespace: String? = nil, listener: SharedFD,
        milliseconds: Int = 2000
    ) throws -> String? {
        let name = SocketName(try #require(IPAddress(address)), port)
        let talk = { @Sendable () throws(KernelError) -> String? in
            let client = try PortmapProgram.open("tcp", name)
            var limit = timeval(tv_sec: milliseconds / 1000, tv_usec: milliseconds % 1000 * 1000)
            setsockopt(client.raw, SOL_SOCKET, SO_SNDTIMEO, &limit, socklen_t(MemoryLayout<timeval>.size))
            guard name.use({ connect(client.raw, $0, $1) }) == 0 else { return nil }
            var wait = pollfd(fd: listener.raw, events: Int16(POLLIN), revents: 0)
            guard poll(&wait, 1, 1000) == 1 else { return nil }
            var peer = SocketName()
            let accepted = peer.fill { accept(listener.raw, $0, $1) }
            guard accepted >= 0 else { return nil }
            close(accepted)
            return peer.address
        }
        if let namespace { return try NetworkNamespace.run(in: namespace, talk) }
        return try talk()
    }

    /// Sends a datagram of so many bytes; returns from whom it came whole, or nil.
    func datagram(of count: Int, to address: String, in target: String, from source: String) throws -> String? {
        let name = SocketName(try #require(IPAddress(address)), 9)
        let server = try NetworkNamespace.run(in: target) { () throws(KernelError) in
            let fd = try PortmapProgram.open("udp", name)
            try systemCall("bind") { name.use { bind(fd.raw, $0, $1) } }
            return fd
        }
        let client = try NetworkNamespace.run(in: source) { () throws(KernelError) in
            try PortmapProgram.open("udp", name)
        }
        let bytes = [UInt8](repeating: 7, count: count)
        guard name.use({ sendto(client.raw, bytes, count, 0, $0, $1) }) == count else { return nil }
        var wait = pollfd(fd: server.raw, events: Int16(POLLIN), revents: 0)
        guard poll(&wait, 1, 2000) == 1 else { return nil }
        var buffer = [UInt8](repeating: 0, count: count + 1)
        var peer = SocketName()
        let size = buffer.count
        guard peer.fill({ Int32(recvfrom(server.raw, &buffer, size, 0, $0, $1)) }) == Int32(count) else { return nil }
        return peer.address
    }
}
