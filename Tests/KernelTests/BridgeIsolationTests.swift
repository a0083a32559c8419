import CNISpec
import Glibc
import Kernel
import Networking
import Testing

extension KernelSuite {
    /// Pods on one bridge share a link, and none of them can pass for another, for the gateway or for a router there.
    @Suite(.serialized) struct BridgeIsolation {
        /// What a pod can send that may write frames, and nobody is to see.
        private func forged(
            _ one: BridgeSite.Pod, _ two: BridgeSite.Pod, gateway: [UInt8]
        ) -> [(name: String, frame: [UInt8])] {
            let (mine, theirs, router) = (one.mac, two.mac, "172.18.0.1")
            let all = Frames.everybody
            let solicited: [UInt8] = [0x33, 0x33, 0, 0, 0, 1]
            func ip(_ name: String, _ mac: [UInt8], _ source: String) -> (String, [UInt8]) {
                (
                    name,
                    Frames.frame(
                        name, from: mac, to: theirs, type: 0x0800, Frames.udp(name, from: source, to: two.address))
                )
            }
            func arp(_ name: String, _ mac: [UInt8], says: [UInt8], _ address: String, tag: UInt16? = nil) -> (
                String, [UInt8]
            ) {
                let content = Frames.arp(answer: true, says, address, to: theirs, two.address)
                return (name, Frames.frame(name, from: mac, to: theirs, type: 0x0806, tag: tag, content))
            }
            func six(_ name: String, _ type: UInt8, _ body: [UInt8]) -> (String, [UInt8]) {
                let content = Frames.icmp6(name, type: type, from: "fe80::1", to: "ff02::1", body)
                return (name, Frames.frame(name, from: mine, to: solicited, type: 0x86dd, content))
            }
            let target = [0x20, 0, 0, 0] + Frames.bytes("fe80::1") + [2, 1] + mine
            return [
                ip("the gateway's address", mine, router), ip("a stranger's address", mine, "198.51.100.77"),
                ip("no address", mine, "0.0.0.0"), ip("the gateway's MAC", gateway, one.address),
                ip("nobody's MAC", [2, 1, 2, 3, 4, 5], one.address),
                arp("the gateway is here", mine, says: mine, router),
                arp("I am elsewhere", mine, says: gateway, one.address),
                arp("said by the gateway", gateway, says: mine, one.address),
                arp("on a VLAN", mine, says: mine, one.address, tag: 7),
                (
                    "gratuitous",
                    Frames.frame(
                        "gratuitous", from: mine, to: all, type: 0x0806,
                        Frames.arp(answer: false, mine, two.address, to: all, two.address))
                ),
                six("a router", 134, [64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1] + mine),
                six("a neighbour", 136, target),
                six("a redirect", 137, [0, 0, 0, 0] + Frames.bytes("fe80::1") + Frames.bytes("2001:db8::1")),
                ("a protocol", Frames.frame("a protocol", from: mine, to: all, type: 0x88b5, [1, 2, 3, 4])),
            ]
        }

        /// Of what was sent, what came before a frame that nobody forbids.
        private func seen(
            _ forged: [(name: String, frame: [UInt8])], by pod: FrameSocket, and machine: FrameSocket,
            from one: BridgeSite.Pod, _ two: BridgeSite.Pod, _ sender: FrameSocket
        ) throws -> (pod: Set<String>, machine: Set<String>) {
            for (_, frame) in forged { try sender.send(frame) }
            let last = Frames.frame(
                "honest", from: one.mac, to: Frames.everybody, type: 0x0806,
                Frames.arp(answer: false, one.mac, one.address, to: two.mac, two.address))
            try sender.send(last)
            func names(_ frames: [[UInt8]]?) throws -> Set<String> {
                let frames = try #require(frames, "what is right comes")
                return Set(
                    forged.filter { name, _ in frames.contains { $0.suffix(name.utf8.count) == Array(name.utf8)[...] } }
                        .map(\.name))
            }
            let end = Array("honest".utf8)
            return (try names(pod.frames(upTo: end)), try names(machine.frames(upTo: end)))
        }

        @Test func `a pod that forges frames is seen by nobody, and honest ones are`() async throws {
            try await PrivateMachine.run { machine in
                let site = try BridgeSite(machine)
                let (one, two) = (try site.pod("one"), try site.pod("two"))
                let gateway = try site.mac(of: BridgeSite.red.name)
                let forged = self.forged(one, two, gateway: gateway)
                let sender = try FrameSocket("eth0", in: one.namespace)
                let victim = try FrameSocket("eth0", in: two.namespace)
                let host = try FrameSocket(BridgeSite.red.name)
                let found = try self.seen(forged, by: victim, and: host, from: one, two, sender)
                #expect(found.pod == [] && found.machine == [])
                let service = try machine.listen(80, in: two.namespace)
                #expect(try machine.talk(to: two.address, 80, from: one.namespace, listener: service) == one.address)
                // A pod that changes its own addresses is only not heard, and is again when it has them back.
                try machine.ip("addr add 172.18.9.9/16 dev eth0", in: one.namespace)
                try machine.command("ip link set eth0 address 02:00:00:00:00:77", in: one.namespace)
                #expect(
                    try machine.talk(to: two.address, 80, from: one.namespace, listener: service, within: 1) == nil)
                let mac = one.found.mac?.description ?? ""
                try machine.command("ip link set eth0 address \(mac)", in: one.namespace)
                #expect(try machine.talk(to: two.address, 80, from: one.namespace, listener: service) == one.address)
                // It is the table that keeps them apart.
                try machine.command("nft delete table bridge martlet_bridges")
                let open = try self.seen(forged, by: victim, and: host, from: one, two, sender)
                #expect(open.pod == Set(forged.map(\.name)))
                #expect(
                    open.machine.isSuperset(of: ["gratuitous", "a router", "a neighbour", "a redirect", "a protocol"]))
            }
        }

        @Test func `no way leads past the bridge, and nobody takes another's place there`() async throws {
            try await PrivateMachine.run { machine in
                let site = try BridgeSite(machine)
                let (one, two) = (try site.pod("one"), try site.pod("two"))
                let sender = try FrameSocket("eth0", in: one.namespace)
                try machine.command("for file in /proc/sys/net/ipv4/conf/*/rp_filter; do echo 0 >$file; done")
                let service = try Datagrams(9)
                // Who is to be spoken to by this hardware address no bridge forwards.
                let lldp: [UInt8] = [0x01, 0x80, 0xc2, 0, 0, 0x0e]
                func forge(_ name: String) throws {
                    let packet = Frames.udp(name, from: "198.51.100.77", to: "198.51.100.2")
                    try sender.send(Frames.frame(name, from: two.mac, to: lldp, type: 0x0800, packet))
                }
                func ask(_ name: String) throws {
                    let packet = Frames.udp(name, from: one.address, to: "172.18.0.1")
                    let bridge = try site.mac(of: BridgeSite.red.name)
                    try sender.send(Frames.frame(name, from: one.mac, to: bridge, type: 0x0800, packet))
                }
                try forge("forged")
                try ask("honest")
                #expect(service.next() == "honest")
                let entry = try machine.command("bridge fdb show br \(BridgeSite.red.name)").split(separator: "\n")
                    .filter { $0.hasPrefix(two.found.mac?.description ?? "?") }
                #expect(entry.count == 1 && entry.allSatisfy { $0.contains("static") }, "\(entry)")
                let listener = try machine.listen(80, in: two.namespace)
                #expect(try machine.talk(to: two.address, 80, from: one.namespace, listener: listener) == one.address)
                try machine.command("nft delete table inet martlet_bridges")
                try forge("forged")
                #expect(service.next() == "forged", "it is the table that keeps it out")
                // Who wants a hardware address that is somebody's on the bridge gets none.
                for (id, taken) in [("three", two.found.mac?.description ?? ""), ("four", "02:6d:ac:12:00:01")] {
                    let error = #expect(throws: NetworkError.self) { _ = try site.pod(id, mac: taken) }
                    let words = error?.description ?? ""
                    #expect(words.contains("knows that hardware address already"), "\(words)")
                }
            }
        }

        @Test func `IPv6 is off where nobody asked for it`() async throws {
            try await PrivateMachine.run { machine in
                let site = try BridgeSite(machine)
                let one = try site.pod("one")
                let plain = try machine.pin("plain")
                _ = try site.own.attach("plain", namespacePath: plain)
                for namespace in [one.namespace, plain] {
                    #expect(try machine.ip("-6 addr show dev eth0", in: namespace) == "")
                    #expect(
                        try machine.command("cat /proc/sys/net/ipv6/conf/eth0/disable_ipv6", in: namespace) == "1\n")
                    // The container's own loopback is its own.
                    #expect(try machine.ip("-6 addr show dev lo", in: namespace).contains("::1/128"))
                }
                let ports = try machine.devices().filter { $0.hasPrefix("mv") }
                #expect(ports.count == 2)
                for device in ports + ["martlet0", BridgeSite.red.name] {
                    #expect(try machine.ip("-6 addr show dev \(device)") == "", "\(device)")
                    #expect(try File.text("/proc/sys/net/ipv6/conf/\(device)/disable_ipv6") == "1")
                }
            }
        }
    }
}

/// What comes to a UDP port of the machine.
private struct Datagrams {
    private let fd: SharedFD

    init(_ port: UInt16) throws {
        fd = SharedFD(OwnedFD(adopting: try systemCall("socket") { socket(AF_INET, Int32(SOCK_DGRAM.rawValue), 0) }))
        let name = SocketName(IPAddress(.v4, 0), port)
        let fd = fd
        try systemCall("bind", "\(port)") { name.use { bind(fd.raw, $0, $1) } }
    }

    /// The content of the next; nil: none comes within two seconds.
    func next() -> String? {
        var wait = pollfd(fd: fd.raw, events: Int16(POLLIN), revents: 0)
        guard poll(&wait, 1, 2000) == 1 else { return nil }
        var buffer = [UInt8](repeating: 0, count: 256)
        let count = recv(fd.raw, &buffer, buffer.count, 0)
        return count > 0 ? String(decoding: buffer.prefix(count), as: UTF8.self) : nil
    }
}
