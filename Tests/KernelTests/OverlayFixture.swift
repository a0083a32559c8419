import CKernel
import CNISpec
import ClusterSecurity
import Glibc
import Kernel
import Networking
import Testing

/// Nodes of a cluster, each a network namespace with a device on one link, on which the machine itself is the world.
///
///     [node 1] 192.0.2.1 ─┐
///     [node 2] 192.0.2.2 ─┼─ ul0 192.0.2.254 [machine]
struct OverlaySite: Sendable {
    let machine: PrivateMachine
    let nodes: [OverlayNode]

    static let world = "192.0.2.254"

    /// - Parameter v6: nodes reach each other by their IPv6 addresses.
    init(_ machine: PrivateMachine, nodes count: Int = 2, v6: Bool = false) throws {
        self.machine = machine
        try machine.command(
            """
            ip link add ul0 type bridge && ip addr add \(Self.world)/24 dev ul0 && ip addr add 2001:db8::fe/64 dev ul0 nodad
            ip link set ul0 up
            """)
        nodes = try (1...count).map { try OverlayNode(machine, $0, v6: v6) }
    }

    /// A network of the site; `number` is in all of its names and numbers.
    static func network(
        _ number: UInt8, v6: Bool = true, _ change: (inout OverlayNetworkConfiguration) -> Void = { _ in }
    ) throws -> OverlayNetworkConfiguration {
        var configuration = OverlayNetworkConfiguration(
            name: "mt-aaaaaaaaaaa\(number)", device: "mx-aaaaaaaaaaa\(number)", vni: UInt32(number),
            subnet: try #require(CIDR("10.6\(number).0.0/20")), gateway: try #require(IPAddress("10.6\(number).0.1")),
            subnet6: v6 ? CIDR("fd6\(number)::/64") : nil, gateway6: v6 ? IPAddress("fd6\(number)::1") : nil)
        change(&configuration)
        return configuration
    }

    /// Tells all nodes of all others.
    func meet(_ network: OverlayNetworkConfiguration) throws {
        for node in nodes {
            let peers = try nodes.filter { $0.number != node.number }.map { try $0.peer(on: network) }
            try node.run { try node.networks.setPeers(peers, of: network.name) }
        }
    }
}

struct OverlayNode: Sendable {
    let machine: PrivateMachine
    let number: Int
    let namespace: String
    let networks: OverlayNetworks
    private let configuration: BridgeNetworkConfiguration

    /// By which the others reach it.
    let underlay: String

    init(_ machine: PrivateMachine, _ number: Int, v6: Bool) throws {
        self.machine = machine
        self.number = number
        underlay = v6 ? "2001:db8::\(number)" : "192.0.2.\(number)"
        namespace = try machine.pin("node-\(number)")
        try machine.command(
            """
            ip link add ul\(number) type veth peer name eth0 netns \(namespace) && ip link set ul\(number) master ul0 up
            """)
        try machine.command(
            """
            ip link set eth0 up && ip addr add 192.0.2.\(number)/24 dev eth0
            ip addr add 2001:db8::\(number)/64 dev eth0 nodad && ip route add default via \(OverlaySite.world)
            """, in: namespace)
        var configuration = machine.configuration()
        configuration.dataDirectory = "\(machine.directory)/node-\(number)/data"
        configuration.runDirectory = "\(machine.directory)/node-\(number)/run"
        self.configuration = configuration
        networks = OverlayNetworks(
            configuration, underlay: try #require(IPAddress(underlay)), cryptography: .nodes)
    }

    /// Another process of the node's agent: what it knows it knows from what the first has left.
    ///
    /// - Parameters:
    ///   - underlay: what it believes to be the node's address; nil: what is.
    ///   - script: runs in front of our plugin, which it runs itself as `$plugin`; nil: none does.
    ///   - cryptography: nil: it can encrypt nothing.
    func restarted(
        underlay: String? = nil, script: String? = nil, cryptography: TunnelCryptography? = .nodes
    ) throws -> OverlayNetworks {
        var configuration = configuration
        if let script {
            let program = "\(machine.directory)/node-\(number)/plugin"
            let text =
                "#!/bin/sh\nPATH=/usr/sbin:/usr/bin:/sbin:/bin\nplugin=\(configuration.overlayProgram)\n\(script)\n"
            try File.makeDirectories("\(machine.directory)/node-\(number)")
            try File.replace(program, with: Array(text.utf8))
            chmod(program, 0o755)
            configuration.overlayProgram = program
        }
        return OverlayNetworks(
            configuration, underlay: try #require(IPAddress(underlay ?? self.underlay)), cryptography: cryptography)
    }

    /// The node's own network.
    func bridge() throws -> BridgeNetwork { try BridgeNetwork(configuration) }

    /// Runs `body` on the node.
    @discardableResult
    func run<T: Sendable>(_ body: @escaping @Sendable () throws -> T) throws -> T {
        let outcome = try NetworkNamespace.run(in: namespace) { () throws(KernelError) -> Result<T, any Error> in
            Result { try body() }
        }
        return try outcome.get()
    }

    @discardableResult
    func command(_ line: String) throws -> String { try machine.command(line, in: namespace) }

    /// The node as the others know it: it has the addresses 256 × number and 63 more of the network's.
    func peer(
        on network: OverlayNetworkConfiguration, more: [String] = [], without: Bool = false
    ) throws -> OverlayPeer {
        let four = network.subnet.first.advanced(by: Int64(number) << 8).flatMap { CIDR($0, prefixLength: 26) }
        let six = network.subnet6?.first.advanced(by: Int64(number) << 8).flatMap { CIDR($0, prefixLength: 122) }
        let own = without ? [] : [four, six].compactMap { $0 }
        return OverlayPeer(
            key: "node-\(number)", underlay: try #require(IPAddress(underlay)),
            blocks: try own + more.map { try #require(CIDR($0)) },
            publicKey: try run { try networks.publicKey() ?? [] })
    }

    struct Pod: Sendable {
        let id: String
        let namespace: String
        let address: String
        let address6: String?
        let found: EndpointAddresses
    }

    /// Attaches a pod.
    ///
    /// - Parameter last: of its address, in the node's block.
    func pod(
        _ id: String, on network: OverlayNetworkConfiguration, last: Int, ports: [PortMapping] = [],
        address: String? = nil, networks: OverlayNetworks? = nil
    ) throws -> Pod {
        let path = try machine.pin(id)
        let subnets = [network.subnet, network.subnet6].compactMap { $0 }
        let addresses =
            try address.map { [try #require(IPAddress($0))] }
            ?? subnets.compactMap { $0.first.advanced(by: Int64(number) << 8 + Int64(last)) }
        let networks = networks ?? self.networks
        let found = try run {
            try networks.attach(
                id, to: network, namespacePath: path, interface: "eth0", ports: ports, addresses: addresses,
                isDefaultRoute: true)
        }
        return Pod(
            id: id, namespace: path, address: found.address.address.description,
            address6: found.address6?.address.description, found: found)
    }

    /// How many packets a rule of our table has dropped.
    func drops(_ comment: String) throws -> Int {
        let lines = try command("nft list table inet martlet").split(separator: "\n")
        let line = try #require(lines.first { $0.contains("comment \"\(comment)\"") }, "no rule \(comment)")
        let words = line.split(separator: " ")
        let index = try #require(words.firstIndex(of: "packets"))
        return try #require(Int(words[index + 1]))
    }

    /// Nothing of any overlay is here any more.
    func expectNothing() throws {
        #expect(try !command("ip link").contains("mx-"))
        #expect(try !command("ip rule; ip -6 rule").contains("28020"))
        let routes = try command(
            "ip route show table 28020 2>/dev/null || true; ip -6 route show table 28020 2>/dev/null || true")
        #expect(routes == "")
        #expect(try !command("nft list tables").contains("inet martlet\n"))
        #expect(try command("ip xfrm state 2>/dev/null; ip xfrm policy 2>/dev/null || true") == "")
        #expect(try !command("iptables -S; ip6tables -S").contains("martlet"))
    }
}

/// What a packet is of.
enum Packet: String, CaseIterable, Sendable {
    case tcp, udp, icmp
}

extension OverlaySite {
    /// Whether a packet of one namespace comes to an address that another one has.
    ///
    /// - Parameters:
    ///   - source: the address that it bears, which the sender must have; nil: the kernel chooses.
    ///   - bytes: of its content.
    ///   - milliseconds: how long it is waited for.
    func arrives(
        _ packet: Packet, from: String?, to address: String, in receiver: String?, source: String? = nil,
        bytes: Int = 8, within milliseconds: Int32 = 400
    ) throws -> Bool {
        let target = try #require(IPAddress(address))
        let (isFour, port) = (target.family == .v4, UInt16(7007))
        let family = isFour ? AF_INET : AF_INET6
        let type: Int32 =
            switch packet {
            case .tcp: Int32(SOCK_STREAM.rawValue)
            case .udp: Int32(SOCK_DGRAM.rawValue)
            case .icmp: Int32(SOCK_RAW.rawValue)
            }
        let number: Int32 = packet == .icmp ? (isFour ? 1 : 58) : 0
        func open(in namespace: String?) throws -> SharedFD {
            let make = { @Sendable () throws(KernelError) -> SharedFD in
                SharedFD(
                    OwnedFD(
                        adopting: try systemCall("socket") {
                            socket(family, type | Int32(SOCK_CLOEXEC.rawValue) | Int32(SOCK_NONBLOCK.rawValue), number)
                        }))
            }
            guard let namespace else { return try make() }
            return try NetworkNamespace.run(in: namespace, make)
        }
        let (sender, listener) = (try open(in: from), try open(in: receiver))
        if packet != .icmp {
            var on: Int32 = 1
            setsockopt(listener.raw, SOL_SOCKET, SO_REUSEADDR, &on, 4)
            let name = SocketName(IPAddress(target.family, 0), port)
            try systemCall("bind", "listener") { name.use { bind(listener.raw, $0, $1) } }
        }
        if packet == .tcp { try systemCall("listen") { Glibc.listen(listener.raw, 4) } }
        if let source {
            let name = SocketName(try #require(IPAddress(source)), 0)
            try systemCall("bind", source) { name.use { bind(sender.raw, $0, $1) } }
        }
        var content = [UInt8](repeating: 7, count: bytes)
        // An echo request with the identifier 0x1234 and its checksum, which the kernel makes for IPv6.
        if packet == .icmp {
            content = isFour ? [8, 0, 0xe5, 0xca, 0x12, 0x34, 0, 1] : [128, 0, 0, 0, 0x12, 0x34, 0, 1]
        }
        SocketName(target, packet == .icmp ? 0 : port).use { name, length in
            if packet == .tcp {
                _ = connect(sender.raw, name, length)
            } else {
                _ = sendto(sender.raw, content, content.count, 0, name, length)
            }
        }
        while true {
            var wait = pollfd(fd: listener.raw, events: Int16(POLLIN), revents: 0)
            guard poll(&wait, 1, milliseconds) == 1 else { return false }
            if packet == .tcp {
                let connection = accept(listener.raw, nil, nil)
                if connection >= 0 { close(connection) }
                return connection >= 0
            }
            var buffer = [UInt8](repeating: 0, count: 65_536)
            let count = recv(listener.raw, &buffer, buffer.count, 0)
            let received = Array(buffer.prefix(max(0, count)))
            if packet == .udp { return received == content }
            // Of IPv4 the header comes along.
            let echo = isFour ? received.dropFirst(20) : received[...]
            if echo.count >= 8, echo.first == content[0], Array(echo.dropFirst(4)) == Array(content[4...]) {
                return true
            }
        }
    }
}

/// A VXLAN packet with a datagram in it, as a forger makes it.
enum ForgedTunnel {
    /// The content of the UDP packet.
    static func packet(
        vni: UInt32, mac: [UInt8], from source: String, to destination: String, port: UInt16, _ content: [UInt8]
    ) throws -> [UInt8] {
        func short(_ number: Int) -> [UInt8] { [UInt8(number >> 8 & 0xff), UInt8(number & 0xff)] }
        let udp = short(4000) + short(Int(port)) + short(8 + content.count) + [0, 0] + content
        var header: [UInt8] = [0x45, 0] + short(20 + udp.count) + [0, 1, 0, 0, 64, 17, 0, 0]
        header += try #require(IPAddress(source)).bytes + #require(IPAddress(destination)).bytes
        var sum = stride(from: 0, to: 20, by: 2).reduce(0) { $0 + Int(header[$1]) << 8 + Int(header[$1 + 1]) }
        while sum > 0xffff { sum = sum >> 16 + sum & 0xffff }
        header.replaceSubrange(10..<12, with: short(~sum & 0xffff))
        let tunnel: [UInt8] = [8, 0, 0, 0, UInt8(vni >> 16 & 0xff), UInt8(vni >> 8 & 0xff), UInt8(vni & 0xff), 0]
        return tunnel + mac + [2, 0, 0, 0, 0, 9, 8, 0] + header + udp
    }
}

extension OverlaySite {
    /// Sends bytes to the VXLAN port of a node.
    func forge(_ bytes: [UInt8], to node: OverlayNode, from namespace: String?, port: UInt16 = 4789) throws {
        let name = SocketName(try #require(IPAddress(node.underlay)), port)
        let send = { @Sendable () throws(KernelError) -> Void in
            let type = Int32(SOCK_DGRAM.rawValue)
            let sender = SharedFD(OwnedFD(adopting: try systemCall("socket") { socket(AF_INET, type, 0) }))
            name.use { _ = sendto(sender.raw, bytes, bytes.count, 0, $0, $1) }
        }
        if let namespace { try NetworkNamespace.run(in: namespace, send) } else { try send() }
    }

    /// A socket that takes datagrams.
    func datagrams(_ port: UInt16, in namespace: String) throws -> SharedFD {
        let name = SocketName(IPAddress(.v4, 0), port)
        return try NetworkNamespace.run(in: namespace) { () throws(KernelError) -> SharedFD in
            let type = Int32(SOCK_DGRAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue)
            let fd = SharedFD(OwnedFD(adopting: try systemCall("socket") { socket(AF_INET, type, 0) }))
            try systemCall("bind", "port \(port)") { name.use { bind(fd.raw, $0, $1) } }
            return fd
        }
    }

    func hasDatagram(_ socket: SharedFD, within milliseconds: Int32 = 400) -> Bool {
        var wait = pollfd(fd: socket.raw, events: Int16(POLLIN), revents: 0)
        guard poll(&wait, 1, milliseconds) == 1 else { return false }
        var byte: UInt8 = 0
        return recv(socket.raw, &byte, 1, 0) >= 0
    }
}

extension TunnelCryptography {
    /// As agents have it.
    static let nodes = TunnelCryptography(
        makeKey: { TunnelKeys.makeKey() }, publicKey: { TunnelKeys.publicKey(of: $0) },
        agree: { key, address, peerKey, peerAddress in
            TunnelKeys.secrets(
                key: key, address: address, peerKey: peerKey, peerAddress: peerAddress, bytes: Secrets.bytes
            ).map { Secrets(outgoing: $0.outgoing, incoming: $0.incoming) }
        })
}
