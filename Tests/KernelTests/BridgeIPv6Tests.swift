import CNISpec
import Glibc
import Kernel
import Networking
import Testing

extension KernelSuite {
    /// Bridge networks with IPv6: as reachable, as apart from each other, and as safe from their pods as with IPv4.
    @Suite(.serialized) struct BridgeIPv6 {
        private typealias Site = BridgeSite

        @Test func `pods reach each other, the node and the world, and other networks reach nobody`() async throws {
            try await PrivateMachine.run { machine in
                try machine.makeDual()
                let site = try Site(machine)
                let (one, two) = (try site.dual("one"), try site.dual("two"))
                let other = try site.dual("other", on: Site.dualBlue)
                // The number in the subnet is that of IPv4.
                #expect(one.address == "172.18.0.2" && one.address6 == "fd00:a::2" && two.address6 == "fd00:a::3")
                #expect(one.pod.found.address6?.prefixLength == 64)
                #expect(one.pod.found.gateway6?.description == "fd00:a::1")
                #expect(try site.users.addresses(of: "one", on: Site.dualRed.name) == one.pod.found)
                #expect(site.users.check() == [])
                let service = try machine.listen6(80, in: one.namespace)
                func talk(_ address: String, from namespace: String?, within milliseconds: Int = 2000) throws -> String?
                {
                    try machine.talk6(
                        to: address, 80, from: namespace, listener: service, milliseconds: milliseconds)
                }
                #expect(try talk(one.address6, from: two.namespace) == two.address6)
                #expect(try talk(one.address, from: two.namespace) == two.address)
                #expect(try talk(one.address6, from: nil) == "fd00:a::1")
                // The world sees the node's address.
                let outside = try machine.listen6(81, in: machine.outside)
                #expect(
                    try machine.talk6(to: "2001:db8::1", 81, from: one.namespace, listener: outside) == "2001:db8::2")
                // Nobody comes in, nor from another network, and it is the rules that keep them out.
                #expect(try talk(one.address6, from: other.namespace, within: 300) == nil)
                #expect(try talk(one.address6, from: machine.outside, within: 300) == nil)
                try machine.command("ip6tables -t mangle -F")
                #expect(try talk(one.address6, from: other.namespace) == "fd00:a::1")
                #expect(try talk(one.address6, from: machine.outside) == "2001:db8::1")
                // Where somebody's policy is to drop, pods still pass.
                #expect(site.users.repair() != [])
                try machine.command("ip6tables -P FORWARD DROP")
                #expect(try talk(one.address6, from: two.namespace) == two.address6)
                #expect(
                    try machine.talk6(to: "2001:db8::1", 81, from: one.namespace, listener: outside) == "2001:db8::2")
            }
        }

        @Test func `an internal network has no way out, and one without IPv6 has none of it`() async throws {
            try await PrivateMachine.run { machine in
                try machine.makeDual()
                let site = try Site(machine)
                let plain = try site.pod("plain", on: Site.blue)
                #expect(
                    try machine.command("ip6tables -t mangle -S")
                        == "-P PREROUTING ACCEPT\n-P INPUT ACCEPT\n-P FORWARD ACCEPT\n-P OUTPUT ACCEPT\n-P POSTROUTING ACCEPT\n"
                )
                #expect(try File.text("/proc/sys/net/ipv6/conf/all/forwarding") == "0")
                #expect(plain.found.address6 == nil && plain.found.gateway6 == nil)
                let closed = Site.Dual(
                    name: "mt-cccccccccccc", subnet: "172.20.0.0/16", subnet6: "fd00:c::/64", isInternal: true)
                let (one, two) = (try site.dual("one", on: closed), try site.dual("two", on: closed))
                let service = try machine.listen6(80, in: one.namespace)
                #expect(
                    try machine.talk6(to: one.address6, 80, from: two.namespace, listener: service) == two.address6)
                #expect(try machine.ip("-6 route show default", in: one.namespace) == "")
                try machine.ip("-6 route add default via fd00:c::1", in: one.namespace)
                let outside = try machine.listen6(81, in: machine.outside)
                let reached = try machine.talk6(
                    to: "2001:db8::1", 81, from: one.namespace, listener: outside, milliseconds: 300)
                #expect(reached == nil)
                let came = try machine.talk6(
                    to: one.address6, 80, from: machine.outside, listener: service, milliseconds: 300)
                #expect(came == nil)
                #expect(try File.text("/proc/sys/net/ipv6/conf/\(Site.blue.name)/disable_ipv6") == "1")
            }
        }

        @Test func `a fixed address is had by one, and the last who goes leaves nothing`() async throws {
            try await PrivateMachine.run { machine in
                try machine.makeDual()
                let site = try Site(machine)
                let one = try site.dual("one", address6: "fd00:a::77")
                #expect(one.address6 == "fd00:a::77")
                let error = #expect(throws: NetworkError.self) {
                    _ = try site.dual("two", address6: "fd00:a::77")
                }
                #expect(error?.description.contains("is task one's: choose another") == true)
                // Whoever's number is taken gets another.
                _ = try site.dual("three", address6: "fd00:a::3")
                let four = try site.dual("four")
                #expect(four.address6 != "fd00:a::3" && !four.address6.isEmpty)
                #expect(throws: NetworkError.self) {
                    var configuration = site.users.configuration(name: Site.blue.name, subnet: Site.blue.subnet)
                    configuration.subnet6 = "2001:db8::/64"
                    _ = try site.users.attach(
                        "five", to: configuration, namespacePath: machine.pin("five"), interface: "eth0",
                        isDefaultRoute: true)
                }
                try site.users.detach("one")
                let neighbours = try machine.ip("-6 neigh show dev \(Site.red.name) nud permanent")
                #expect(!neighbours.contains("fd00:a::77") && neighbours.contains(four.address6), "\(neighbours)")
                for id in ["three", "four"] { try site.users.detach(id) }
                #expect(try !machine.devices().contains(Site.red.name))
                for table in ["mangle", "filter", "nat"] {
                    #expect(try !machine.command("ip6tables -t \(table) -S").contains("martlet"))
                }
                #expect(site.own.removeLeftovers() == [])
                #expect(try File.text("/proc/sys/net/ipv6/conf/all/forwarding") == "0")
            }
        }

        // MARK: Forged frames

        /// What a pod can send that may write frames, and nobody is to see.
        private func forged(
            _ one: Site.DualPod, _ two: Site.DualPod, gateway: [UInt8]
        ) -> [(name: String, frame: [UInt8])] {
            let (mine, theirs) = (one.mac, two.mac)
            let all: [UInt8] = [0x33, 0x33, 0, 0, 0, 1]
            func frame(
                _ name: String, to mac: [UInt8], from source: [UInt8]? = nil, tag: UInt16? = nil, _ content: [UInt8]
            )
                -> (name: String, frame: [UInt8])
            {
                (name, Frames.frame(name, from: source ?? mine, to: mac, type: 0x86dd, tag: tag, content))
            }
            func udp(_ name: String, from source: String, to destination: String) -> [UInt8] {
                let count = 8 + name.utf8.count
                return [0x60, 0, 0, 0, 0, UInt8(count), 17, 64] + Frames.bytes(source) + Frames.bytes(destination)
                    + [0x13, 0x88, 0, 9, 0, UInt8(count), 0, 0]
            }
            /// With a header of so many bytes before the message.
            func behind(_ header: [UInt8], next: UInt8, _ message: [UInt8], _ name: String) -> [UInt8] {
                var packet = message
                packet.insert(contentsOf: header, at: 40)
                packet[6] = next
                packet[5] = UInt8(packet.count - 40 + name.utf8.count)
                return packet
            }
            let router = "fd00:a::1"
            // RFC 4861, section 4.4: the target, and its hardware address as the second option.
            let advert = [0x20, 0, 0, 0] + Frames.bytes(router) + [2, 1] + mine
            let solicit = [0, 0, 0, 0] + Frames.bytes(router) + [1, 1] + mine
            let ra: [UInt8] = [64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1] + mine
            func icmp(_ name: String, _ type: UInt8, from source: String, to target: String, _ body: [UInt8]) -> [UInt8]
            {
                Frames.icmp6(name, type: type, from: source, to: target, body)
            }
            let own = one.address6
            let hidden = icmp("hidden", 136, from: own, to: router, advert)
            return [
                frame("another's address", to: gateway, udp("another's address", from: two.address6, to: router)),
                frame("the gateway's", to: gateway, udp("the gateway's", from: router, to: two.address6)),
                frame("a stranger's", to: gateway, udp("a stranger's", from: "2001:db8::9", to: router)),
                frame("a link's own", to: gateway, udp("a link's own", from: "fe80::9", to: router)),
                frame("no address", to: gateway, udp("no address", from: "::", to: router)),
                frame("another's MAC", to: gateway, from: theirs, udp("another's MAC", from: own, to: router)),
                frame("past the host", to: theirs, udp("past the host", from: own, to: two.address6)),
                frame("on a VLAN", to: gateway, tag: 7, udp("on a VLAN", from: own, to: router)),
                frame("to a group", to: gateway, udp("to a group", from: own, to: "ff02::fb")),
                frame("to all of them", to: all, udp("to all of them", from: own, to: "ff02::1")),
                frame(
                    "the gateway is here", to: theirs,
                    icmp("the gateway is here", 136, from: own, to: two.address6, advert)),
                frame("a neighbour", to: all, icmp("a neighbour", 136, from: own, to: "ff02::1", advert)),
                frame("told the host", to: gateway, icmp("told the host", 136, from: own, to: router, advert)),
                frame(
                    "who is it", to: [0x33, 0x33, 0xff, 0, 0, 1],
                    icmp("who is it", 135, from: own, to: "ff02::1:ff00:1", solicit)),
                frame("asked the host", to: gateway, icmp("asked the host", 135, from: own, to: router, solicit)),
                frame("a router", to: all, icmp("a router", 134, from: "fe80::1", to: "ff02::1", ra)),
                frame("a router of its own", to: gateway, icmp("a router of its own", 134, from: own, to: router, ra)),
                frame(
                    "a redirect", to: theirs,
                    icmp(
                        "a redirect", 137, from: router, to: two.address6,
                        [0, 0, 0, 0] + Frames.bytes(own) + Frames.bytes("2001:db8::1"))),
                frame(
                    "a listener", to: [0x33, 0x33, 0, 0, 0, 0x16],
                    icmp("a listener", 143, from: own, to: "ff02::16", [0, 0, 0, 0])),
                // Hop-by-hop options with padding, and the first and only fragment (RFC 8200, sections 4.3 and 4.5).
                frame("hidden", to: gateway, behind([58, 0, 1, 4, 0, 0, 0, 0], next: 0, hidden, "hidden")),
                frame(
                    "in a fragment", to: gateway, behind([58, 0, 0, 0, 0, 0, 0, 7], next: 44, hidden, "in a fragment")),
                frame(
                    "in an option", to: gateway, behind([58, 0, 1, 4, 0, 0, 0, 0], next: 60, hidden, "in an option")),
            ]
        }

        @Test func `a pod that forges IPv6 is seen by nobody`() async throws {
            try await PrivateMachine.run { machine in
                let site = try Site(machine)
                let (one, two) = (try site.dual("one"), try site.dual("two"))
                let forged = self.forged(one, two, gateway: try site.mac(of: Site.red.name))
                let sender = try FrameSocket("eth0", in: one.namespace)
                let victim = try FrameSocket("eth0", in: two.namespace)
                let host = try FrameSocket(Site.red.name)
                /// Of what was sent, what came to either.
                func seen() throws -> Set<String> {
                    for (_, frame) in forged { try sender.send(frame) }
                    let last = Array("honest".utf8)
                    try sender.send(
                        Frames.frame(
                            "honest", from: one.mac, to: Frames.everybody, type: 0x0806,
                            Frames.arp(answer: false, one.mac, one.address, to: two.mac, two.address)))
                    let frames =
                        try #require(victim.frames(upTo: last), "what is right comes")
                        + #require(host.frames(upTo: last), "what is right comes")
                    return Set(
                        forged.filter { name, _ in
                            frames.contains { $0.suffix(name.utf8.count) == Array(name.utf8)[...] }
                        }.map(\.name))
                }
                #expect(try seen() == [])
                let service = try machine.listen6(80, in: two.namespace)
                #expect(
                    try machine.talk6(to: two.address6, 80, from: one.namespace, listener: service) == one.address6)
                // Large packets come in fragments.
                #expect(
                    try machine.datagram(of: 3000, to: two.address6, in: two.namespace, from: one.namespace)
                        == one.address6)
                // Another address of its own is not heard.
                try machine.ip("addr add fd00:a::99/128 dev eth0 nodad", in: one.namespace)
                try machine.ip("addr del \(one.address6)/128 dev eth0", in: one.namespace)
                try machine.ip("-6 route replace default via fd00:a::1 dev eth0 onlink", in: one.namespace)
                #expect(
                    try machine.talk6(
                        to: two.address6, 80, from: one.namespace, listener: service, milliseconds: 300) == nil)
                // It is the table that keeps them apart.
                try machine.command("nft delete table bridge martlet_bridges")
                #expect(try seen() == Set(forged.map(\.name)))
            }
        }

        // MARK: Meddling

        @Test func `whatever of IPv6 somebody takes away is told in words, and mended`() async throws {
            try await PrivateMachine.run { machine in
                try machine.makeDual()
                let first = try Site(machine)
                let port = PortMapping(hostPort: 8080, containerPort: 80)
                let (one, two) = (try first.dual("one", ports: [port]), try first.dual("two"))
                let service = try machine.listen6(80, in: one.namespace)
                // As the next process knows it.
                let site = try first.restarted()
                #expect(site.users.check() == [])
                let red = Site.red.name
                let damages: [(command: String, words: String)] = [
                    (
                        "nft flush set bridge martlet_bridges addresses6",
                        "2 elements of the set addresses6 of the table bridge martlet_bridges are missing"
                    ),
                    (
                        "nft flush map inet martlet_portmap any6",
                        "of the published ports 0.0.0.0:8080/tcp, [::]:8080/tcp of one something is missing"
                    ),
                    ("ip6tables -F", "the rule 'FORWARD -i \(red) -j ACCEPT' of ip6tables' table filter is missing"),
                    (
                        "ip6tables -t mangle -F",
                        "the rule 'FORWARD ! -i \(red) -o \(red) -m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP' of ip6tables' table mangle is missing"
                    ),
                    (
                        "ip6tables -t nat -F",
                        "the rule 'POSTROUTING -s fd00:a::/64 ! -o \(red) -j MASQUERADE' of ip6tables' table nat is missing"
                    ),
                    (
                        "ip6tables -I FORWARD -i mt-gone -m comment --comment martlet:mt-gone -j ACCEPT",
                        "the rule 'FORWARD -i mt-gone -j ACCEPT' of ip6tables' table filter is too much"
                    ),
                    ("sysctl -qw net.ipv6.conf.all.forwarding=0", "net.ipv6.conf.all.forwarding is off"),
                    ("sysctl -qw net.ipv6.conf.\(red).accept_ra=2", "net.ipv6.conf.\(red).accept_ra is not 0"),
                    ("sysctl -qw net.ipv6.conf.\(red).disable_ipv6=1", "net.ipv6.conf.\(red).disable_ipv6 is not 0"),
                    ("ip addr del fd00:a::1/64 dev \(red)", "the address fd00:a::1/64 is missing on \(red)"),
                    (
                        "ip neigh del \(two.address6) dev \(red)",
                        "the neighbour \(two.address6) of the bridge \(red) is missing"
                    ),
                    (
                        "ip neigh replace \(two.address6) lladdr 02:00:00:00:00:09 dev \(red) nud permanent",
                        "the neighbour \(two.address6) of the bridge \(red) is missing"
                    ),
                    (
                        "ip neigh add fd00:a::99 lladdr 02:00:00:00:00:09 dev \(red) nud permanent",
                        "the neighbour fd00:a::99 of the bridge \(red) is too much"
                    ),
                    ("ip link set \(red) address 02:00:00:00:00:07", "the bridge \(red) has another hardware address"),
                    ("ip link set \(red) down", "the bridge \(red) is down"),
                    ("ip link del \(red)", "the bridge \(red) is missing"),
                ]
                for (command, words) in damages {
                    try machine.command(command)
                    let found = site.users.check()
                    #expect(found.contains(words), "\(command): \(found)")
                    #expect(site.users.repair().contains(words))
                    #expect(site.users.check() == [], "\(command)")
                }
                #expect(
                    try machine.talk6(to: one.address6, 80, from: two.namespace, listener: service) == two.address6)
                let seen = try machine.talk6(to: "2001:db8::2", 8080, from: machine.outside, listener: service)
                #expect(seen == "2001:db8::1")
            }
        }

        // MARK: Published ports

        @Test func `a port is published in each family that the pod has, at one address or all`() async throws {
            try await PrivateMachine.run { machine in
                try machine.makeDual()
                let site = try Site(machine)
                func port(_ number: UInt16, at address: String? = nil) -> PortMapping {
                    PortMapping(
                        hostPort: number, containerPort: 80, transport: .tcp,
                        hostAddress: address.flatMap { IPAddress($0) })
                }
                let one = try site.dual(
                    "one", ports: [port(8080), port(8081, at: "2001:db8::2"), port(8082, at: "::")])
                let two = try site.dual("two", ports: [port(8082, at: "0.0.0.0"), port(8083, at: "2001:db8::2")])
                let service = try machine.listen6(80, in: one.namespace)
                func talk(_ address: String, _ number: UInt16, from namespace: String, _ milliseconds: Int = 2000)
                    throws
                    -> String?
                {
                    try machine.talk6(
                        to: address, number, from: namespace, listener: service, milliseconds: milliseconds)
                }
                // Who comes keeps his address.
                for number in [8080, 8081, 8082] as [UInt16] {
                    #expect(try talk("2001:db8::2", number, from: machine.outside) == "2001:db8::1", "\(number)")
                }
                #expect(try talk("198.51.100.2", 8080, from: machine.outside) == "198.51.100.1")
                #expect(try talk("198.51.100.2", 8081, from: machine.outside, 300) == nil)
                // Neighbours and the pod itself come by the host.
                #expect(try talk("2001:db8::2", 8080, from: two.namespace) != nil)
                #expect(try talk("2001:db8::2", 8080, from: one.namespace) != nil)
                #expect(try talk("fd00:a::1", 8080, from: two.namespace) != nil)
                for address in ["fd00:a::1", "2001:db8::2"] {
                    #expect(try machine.talk6(to: address, 8080, listener: service) != nil, "the node at \(address)")
                }
                // What is somebody's already, or cannot be.
                func refusal(_ mapping: PortMapping, _ pod: (PortMapping) throws -> Void) -> String {
                    let error = #expect(throws: NetworkError.self) { try pod(mapping) }
                    return error?.description ?? ""
                }
                for (id, mapping) in [("three", port(8083, at: "::")), ("four", port(8083))] {
                    let words = refusal(mapping) { _ = try site.dual(id, ports: [$0]) }
                    #expect(words.contains("port 8083/tcp is published by task two already"), "\(words)")
                }
                let busy = try machine.listen6(8090, on: "2001:db8::2")
                let words = refusal(port(8090)) { _ = try site.dual("five", ports: [$0]) }
                #expect(words.contains("port [::]:8090/tcp is in use"), "\(words)")
                withExtendedLifetime(busy) {}
                let plain = refusal(port(8091, at: "2001:db8::2")) {
                    _ = try site.pod("plain", on: Site.blue, ports: [$0])
                }
                #expect(plain.contains("the pod has no IPv6 address there") && plain.contains("--ipv6"), "\(plain)")
                // What goes is free again.
                try site.users.detach("two")
                _ = try site.dual("six", ports: [port(8083)])
            }
        }
    }
}
