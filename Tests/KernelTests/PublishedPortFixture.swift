import CKernel
import CNISpec
import Glibc
import JSON
import Kernel
import Testing

/// portmap as any CNI host calls it, on a machine with a bridge, containers that the test wires itself, and a neighbour.
///
///     containers ── br0 (10.9.0.1/24, fd09::1/64) ── [machine] ── up0 198.51.100.2, 2001:db8::2 ── .1, ::1 ── [outside]
struct PortmapProgram: Sendable {
    let machine: PrivateMachine
    let path: String

    /// With addresses of IPv6 that need no second before they can be used.
    init(_ machine: PrivateMachine) throws {
        self.machine = machine
        path = try ShimFixture.program("portmap")
        try machine.command(
            """
            ip link add br0 type bridge && ip addr add 10.9.0.1/24 dev br0 && ip addr add fd09::1/64 dev br0 nodad
            ip addr add fe80::1/64 dev br0 nodad && ip link set br0 up
            ip addr add 2001:db8::2/64 dev up0 nodad && ip addr add fe80::2/64 dev up0 nodad
            echo 1 >/proc/sys/net/ipv4/ip_forward && echo 1 >/proc/sys/net/ipv6/conf/all/forwarding
            """)
        try machine.command(
            "ip addr add 2001:db8::1/64 dev down0 nodad && ip addr add fe80::1/64 dev down0 nodad",
            in: machine.outside)
    }

    struct Container: Sendable {
        let id: String
        let namespace: String
        let addresses: [String]
    }

    /// A container at 10.9.0.`number` and fd09::`number`.
    func container(_ id: String, _ number: Int) throws -> Container {
        let namespace = try machine.pin(id)
        try machine.command(
            """
            ip link add h\(number) type veth peer name eth0 netns \(namespace)
            ip link set h\(number) master br0 up
            ip link set h\(number) type bridge_slave hairpin on
            """)
        try machine.command(
            """
            ip addr add 10.9.0.\(number)/24 dev eth0 && ip addr add fd09::\(number)/64 dev eth0 nodad
            ip addr add fe80::\(number)/64 dev eth0 nodad && ip link set eth0 up && ip route add default via 10.9.0.1 && ip route add default via fd09::1
            """, in: namespace)
        return Container(
            id: id, namespace: namespace, addresses: ["10.9.0.\(number)/24", "fd09::\(number)/64"])
    }

    func call(
        _ verb: String, _ container: Container?, _ ports: [JSONValue] = [], more: [String] = [],
        _ change: (inout JSONObject) -> Void = { _ in }
    ) throws -> OverlayProgram.Answer {
        var configuration: JSONObject = [
            "cniVersion": "1.1.0", "name": "net", "type": "portmap", "runtimeConfig": ["portMappings": .array(ports)],
        ]
        if let container {
            configuration["prevResult"] = [
                "cniVersion": "1.1.0",
                "interfaces": [["name": "br0"], ["name": "eth0", "sandbox": .string(container.namespace)]],
                "ips": .array(container.addresses.map { ["address": .string($0), "interface": 1] }),
            ]
        }
        change(&configuration)
        let environment = [
            "CNI_COMMAND=\(verb)", "CNI_CONTAINERID=\(container?.id ?? "")", "CNI_IFNAME=eth0",
            "CNI_NETNS=\(container?.namespace ?? "")",
        ]
        let result = try Program(
            path, environment: environment + more, input: JSONValue.object(configuration).serialized()
        ).run()
        let json = result.output.isEmpty ? JSONValue.null : try JSONValue.parse(result.output)
        return OverlayProgram.Answer(status: result.status, json: json)
    }

    static func port(
        _ host: Int64, _ container: Int64, _ transport: String = "tcp", at address: String? = nil
    ) -> JSONValue {
        var port: JSONObject = [
            "hostPort": .integer(host), "containerPort": .integer(container), "protocol": .string(transport),
        ]
        if let address { port["hostIP"] = .string(address) }
        return .object(port)
    }

    func rules() throws -> String { try machine.command("nft list ruleset") }

    func routesLoopback() throws -> Bool {
        try machine.command("cat /proc/sys/net/ipv4/conf/br0/route_localnet").hasPrefix("1")
    }

    /// Nothing of any container is here any more.
    func expectNothing() throws {
        #expect(try rules() == "")
        #expect(try !routesLoopback())
    }

    // MARK: Conversations

    /// A server of a transport and either family, on all addresses of a namespace or on one.
    func serve(
        _ transport: String, _ port: UInt16, on address: String = "::", in namespace: String? = nil
    ) throws -> SharedFD {
        let name = SocketName(try #require(IPAddress(address)), port)
        return try inside(namespace) { () throws(KernelError) in
            let fd = try Self.open(transport, name)
            var on: Int32 = 1
            setsockopt(fd.raw, SOL_SOCKET, SO_REUSEADDR, &on, 4)
            try systemCall("bind", "\(port)") { name.use { bind(fd.raw, $0, $1) } }
            if Self.isConnected(transport) { try systemCall("listen") { listen(fd.raw, 16) } }
            return fd
        }
    }

    /// Speaks to an address from a namespace, waits for the answer, and returns whom the server sees; nil where no answer
    /// comes, or another server got it.
    func talk(
        _ transport: String, to address: String, _ port: UInt16, from namespace: String? = nil, server: SharedFD,
        bound: String? = nil, patience milliseconds: Int32 = 2000
    ) throws -> String? {
        let name = SocketName(try #require(IPAddress(address)), port)
        let own = bound.flatMap { IPAddress($0) }.map { SocketName($0, 0) }
        let client = try inside(namespace) { () throws(KernelError) in
            let fd = try Self.open(transport, name)
            if let own { try systemCall("bind") { own.use { bind(fd.raw, $0, $1) } } }
            return fd
        }
        return try talk(transport, client, to: name, server, milliseconds)
    }

    /// The same with a socket that is kept.
    func talk(
        _ transport: String, _ client: SharedFD, to name: SocketName, _ server: SharedFD, _ milliseconds: Int32 = 2000
    ) throws -> String? {
        // What came too late for those who spoke before.
        var late: UInt8 = 0
        while transport == "udp", recv(server.raw, &late, 1, Int32(MSG_DONTWAIT)) >= 0 {}
        var limit = timeval(tv_sec: Int(milliseconds / 1000), tv_usec: Int(milliseconds % 1000) * 1000)
        setsockopt(client.raw, SOL_SOCKET, SO_SNDTIMEO, &limit, socklen_t(MemoryLayout<timeval>.size))
        guard name.use({ connect(client.raw, $0, $1) }) == 0, send(client.raw, "x", 1, 0) == 1 else { return nil }
        guard Self.waits(server, milliseconds) else { return nil }
        var peer = SocketName()
        var conversation = server.raw
        if Self.isConnected(transport) {
            conversation = peer.fill { accept(server.raw, $0, $1) }
            guard conversation >= 0 else { return nil }
        } else {
            var byte: UInt8 = 0
            guard peer.fill({ Int32(recvfrom(server.raw, &byte, 1, 0, $0, $1)) }) == 1,
                peer.use({ sendto(server.raw, "y", 1, 0, $0, $1) }) == 1
            else { return nil }
        }
        defer { if conversation != server.raw { close(conversation) } }
        if Self.isConnected(transport), send(conversation, "y", 1, Int32(MSG_NOSIGNAL)) != 1 { return nil }
        var answer: UInt8 = 0
        guard Self.waits(client, milliseconds), recv(client.raw, &answer, 1, 0) == 1 else { return nil }
        return peer.address
    }

    func inside<T: Sendable>(
        _ namespace: String?, _ body: @escaping @Sendable () throws(KernelError) -> T
    ) throws -> T {
        if let namespace { return try NetworkNamespace.run(in: namespace, body) }
        return try body()
    }

    static func open(_ transport: String, _ name: SocketName) throws(KernelError) -> SharedFD {
        let type = Int32(isConnected(transport) ? SOCK_STREAM.rawValue : SOCK_DGRAM.rawValue)
        let family = name.family
        // SCTP's one-to-one sockets are used as those of TCP are (sctp(7)).
        let number = transport == "sctp" ? Int32(IPPROTO_SCTP) : 0
        return SharedFD(
            OwnedFD(
                adopting: try systemCall("socket(\(transport))") {
                    socket(family, type | Int32(SOCK_CLOEXEC.rawValue), number)
                }))
    }

    /// Whether the kernel has SCTP, or a module of it that it finds.
    static let hasSCTP = (try? open("sctp", SocketName(IPAddress(.v4, 0), 0))) != nil

    private static func isConnected(_ transport: String) -> Bool { transport != "udp" }

    private static func waits(_ fd: SharedFD, _ milliseconds: Int32) -> Bool {
        var wait = pollfd(fd: fd.raw, events: Int16(POLLIN), revents: 0)
        return poll(&wait, 1, milliseconds) == 1
    }
}

/// A socket's address of either family (ip(7), ipv6(7)), as the kernel wants it.
struct SocketName: Sendable {
    private var storage = sockaddr_storage()
    private var length = socklen_t(MemoryLayout<sockaddr_storage>.size)

    init() {}

    init(_ address: IPAddress, _ port: UInt16) {
        let isFour = address.family == .v4
        let family = UInt8(isFour ? AF_INET : AF_INET6)
        let front = [family, 0, UInt8(port >> 8), UInt8(port & 0xff)]
        let zeros = [UInt8](repeating: 0, count: isFour ? 8 : 4)
        let bytes = isFour ? front + address.bytes + zeros : front + zeros + address.bytes + zeros
        withUnsafeMutableBytes(of: &storage) { $0.copyBytes(from: bytes) }
        length = socklen_t(bytes.count)
    }

    var family: Int32 { Int32(storage.ss_family) }

    /// An IPv4 address also where the socket is one of IPv6.
    var address: String? {
        let bytes = withUnsafeBytes(of: storage) { Array($0) }
        let found = IPAddress(bytes: family == AF_INET ? bytes[4..<8] : bytes[8..<24])
        guard let found, found.family == .v6, found.value >> 32 == 0xffff else { return found?.description }
        return IPAddress(.v4, found.value).description
    }

    func use<T>(_ body: (UnsafePointer<sockaddr>, socklen_t) -> T) -> T {
        withUnsafePointer(to: storage) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { body($0, length) }
        }
    }

    mutating func fill<T>(_ body: (UnsafeMutablePointer<sockaddr>, UnsafeMutablePointer<socklen_t>) -> T) -> T {
        var length = socklen_t(MemoryLayout<sockaddr_storage>.size)
        defer { self.length = length }
        return withUnsafeMutablePointer(to: &storage) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { body($0, &length) }
        }
    }
}
