import CNISpec
import Glibc
import Kernel
import Networking
import Testing

/// A machine with its own bridge network and those that users make, kept together as the agent keeps them.
struct BridgeSite: Sendable {
    let machine: PrivateMachine
    let own: BridgeNetwork
    let users: UserNetworks

    static let red = (name: "mt-aaaaaaaaaaaa", subnet: "172.18.0.0/16")
    static let blue = (name: "mt-bbbbbbbbbbbb", subnet: "172.19.0.0/16")

    init(_ machine: PrivateMachine) throws {
        self.machine = machine
        own = try machine.network()
        try own.prepare()
        users = UserNetworks(beside: own, prefix: "mt-")
    }

    /// As another process finds it.
    func restarted() throws -> BridgeSite { try BridgeSite(machine) }

    struct Pod: Sendable {
        let namespace: String
        let found: EndpointAddresses
        var address: String { found.address.address.description }
        var mac: [UInt8] { found.mac?.bytes ?? [] }
    }

    func pod(
        _ id: String, on network: (name: String, subnet: String) = red, ports: [PortMapping] = [],
        interface: String = "eth0", mac: String? = nil
    ) throws -> Pod {
        let namespace = interface == "eth0" ? try machine.pin(id) : "\(machine.run)/netns/\(id)"
        let found = try users.attach(
            id, to: users.configuration(name: network.name, subnet: network.subnet), namespacePath: namespace,
            interface: interface, ports: ports, mac: mac.flatMap { MACAddress($0) }, isDefaultRoute: interface == "eth0"
        )
        return Pod(namespace: namespace, found: found)
    }

    /// The hardware address of a device of the machine.
    func mac(of device: String) throws -> [UInt8] {
        let text = try File.text("/sys/class/net/\(device)/address", limit: 32)
        return try #require(MACAddress(text)).bytes
    }
}

/// A socket that takes and gives whole frames at a device, packet(7).
struct FrameSocket: Sendable {
    private let fd: SharedFD

    init(_ device: String, in namespace: String? = nil) throws {
        let open = { @Sendable () throws(KernelError) -> SharedFD in
            let all = UInt16(3 /* ETH_P_ALL */).bigEndian
            let fd = SharedFD(
                OwnedFD(
                    adopting: try systemCall("socket", device) {
                        socket(
                            17 /* AF_PACKET */, Int32(SOCK_RAW.rawValue) | Int32(SOCK_CLOEXEC.rawValue), Int32(all))
                    }))
            // struct sockaddr_ll: family, protocol, index, and twelve bytes that bind does not look at.
            var name = withUnsafeBytes(of: UInt16(17)) { Array($0) } + withUnsafeBytes(of: all) { Array($0) }
            name += withUnsafeBytes(of: if_nametoindex(device)) { Array($0) } + [UInt8](repeating: 0, count: 12)
            try systemCall("bind", device) {
                name.withUnsafeBytes { bytes in
                    bytes.withMemoryRebound(to: sockaddr.self) { bind(fd.raw, $0.baseAddress, socklen_t(bytes.count)) }
                }
            }
            return fd
        }
        if let namespace { fd = try NetworkNamespace.run(in: namespace, open) } else { fd = try open() }
    }

    func send(_ frame: [UInt8]) throws {
        try systemCall("send") { Glibc.send(fd.raw, frame, frame.count, 0) }
    }

    /// All frames that have come, up to the one that ends with `last`; nil: that one does not come within two seconds.
    func frames(upTo last: [UInt8]) -> [[UInt8]]? {
        var found: [[UInt8]] = []
        while true {
            var wait = pollfd(fd: fd.raw, events: Int16(POLLIN), revents: 0)
            guard poll(&wait, 1, 2000) == 1 else { return nil }
            var buffer = [UInt8](repeating: 0, count: 2048)
            let count = recv(fd.raw, &buffer, buffer.count, 0)
            guard count > 0 else { return nil }
            found.append(Array(buffer.prefix(count)))
            if found.last?.suffix(last.count) == last[...] { return found }
        }
    }
}

/// Frames as somebody makes them who can write what he likes. Each ends with its name, by which it is known again.
enum Frames {
    static let everybody = [UInt8](repeating: 0xff, count: 6)

    static func frame(
        _ name: String, from source: [UInt8], to destination: [UInt8], type: UInt16, tag: UInt16? = nil,
        _ content: [UInt8]
    ) -> [UInt8] {
        func bytes(_ number: UInt16) -> [UInt8] { [UInt8(number >> 8), UInt8(number & 0xff)] }
        let vlan = tag.map { bytes(0x8100) + bytes($0) } ?? []
        return destination + source + vlan + bytes(type) + content + Array(name.utf8)
    }

    /// RFC 826.
    static func arp(answer: Bool, _ mac: [UInt8], _ address: String, to target: [UInt8], _ asked: String) -> [UInt8] {
        [0, 1, 8, 0, 6, 4, 0, answer ? 2 : 1] + mac + bytes(address) + target + bytes(asked)
    }

    /// A UDP packet to port 9; its length counts on that of the name.
    static func udp(_ name: String, from source: String, to destination: String, port: UInt16 = 9) -> [UInt8] {
        let count = 28 + name.utf8.count
        var header: [UInt8] = [
            0x45, 0, UInt8(count >> 8), UInt8(count & 0xff), 0, 1, 0, 0, 64, 17, 0, 0,
        ]
        header += bytes(source) + bytes(destination)
        let sum = checksum(header)
        (header[10], header[11]) = (UInt8(sum >> 8), UInt8(sum & 0xff))
        let length = count - 20
        return header + [
            0x13, 0x88, UInt8(port >> 8), UInt8(port & 0xff), UInt8(length >> 8), UInt8(length & 0xff), 0, 0,
        ]
    }

    /// A message of ICMPv6 with what the name adds to it; its checksum is nobody's care here.
    static func icmp6(_ name: String, type: UInt8, from source: String, to destination: String, _ body: [UInt8])
        -> [UInt8]
    {
        let count = 4 + body.count + name.utf8.count
        return [0x60, 0, 0, 0, UInt8(count >> 8), UInt8(count & 0xff), 58, 255] + bytes(source) + bytes(destination)
            + [type, 0, 0, 0] + body
    }

    static func bytes(_ address: String) -> [UInt8] { IPAddress(address)?.bytes ?? [] }

    private static func checksum(_ header: [UInt8]) -> UInt16 {
        var sum: UInt32 = 0
        for index in stride(from: 0, to: header.count, by: 2) {
            sum += UInt32(header[index]) << 8 | UInt32(header[index + 1])
        }
        while sum > 0xffff { sum = (sum & 0xffff) + (sum >> 16) }
        return ~UInt16(sum)
    }
}
