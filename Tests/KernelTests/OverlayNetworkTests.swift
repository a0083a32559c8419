import CNISpec
import Glibc
import Kernel
import Networking
import Synchronization
import Testing

extension KernelSuite {
    /// Networks over several nodes, see docs/networks.md.
    @Suite(.serialized) struct PodOverlayNetworks {
        @Test func `pods reach each other on one node and across nodes, in both families`() async throws {
            try await PrivateMachine.run { machine in
                let site = try OverlaySite(machine, nodes: 4)
                let red = try OverlaySite.network(5)
                let one = try site.nodes[0].pod("one", on: red, last: 2)
                let near = try site.nodes[0].pod("near", on: red, last: 3)
                let far = try site.nodes.dropFirst().map { try $0.pod("far-\($0.number)", on: red, last: 2) }
                try site.meet(red)
                #expect(one.address == "10.65.1.2" && one.address6 == "fd65::102")
                #expect(one.found.gateway?.description == "10.65.0.1" && one.found.gateway6?.description == "fd65::1")
                #expect(one.found.address.prefixLength == 20 && one.found.address6?.prefixLength == 64)
                for pod in [near] + far {
                    for packet in Packet.allCases {
                        for (mine, theirs) in [(one.address, pod.address), (one.address6, pod.address6)] {
                            let (mine, theirs) = (try #require(mine), try #require(theirs))
                            #expect(
                                try site.arrives(packet, from: one.namespace, to: theirs, in: pod.namespace),
                                "\(packet) to \(theirs)")
                            #expect(
                                try site.arrives(packet, from: pod.namespace, to: mine, in: one.namespace),
                                "\(packet) from \(theirs)")
                        }
                    }
                }
                // As much as fits: the underlay's 1500 less 50, and less 28 of IPv4 and UDP.
                #expect(try machine.ip("link show eth0", in: one.namespace).contains("mtu 1450"))
                #expect(
                    try site.arrives(.udp, from: one.namespace, to: far[0].address, in: far[0].namespace, bytes: 1422))
                // The node reaches its own pods, by their gateway.
                let node = site.nodes[0]
                #expect(try site.arrives(.tcp, from: node.namespace, to: one.address, in: one.namespace))
                #expect(try site.arrives(.tcp, from: one.namespace, to: "10.65.0.1", in: node.namespace))
                for node in site.nodes { #expect(try node.run { node.networks.check() } == []) }
            }
        }

        @Test func `nodes that reach each other by IPv6 carry both families`() async throws {
            try await PrivateMachine.run { machine in
                let site = try OverlaySite(machine, v6: true)
                let (red, four) = (try OverlaySite.network(5), try OverlaySite.network(6, v6: false))
                for network in [red, four] {
                    let pods = try site.nodes.map { try $0.pod("\(network.name)-\($0.number)", on: network, last: 2) }
                    try site.meet(network)
                    for to in [pods[1].address, pods[1].address6].compactMap({ $0 }) {
                        for packet in Packet.allCases {
                            #expect(
                                try site.arrives(packet, from: pods[0].namespace, to: to, in: pods[1].namespace),
                                "\(packet) to \(to)")
                        }
                    }
                    #expect(try machine.ip("link show eth0", in: pods[0].namespace).contains("mtu 1430"))
                    #expect((pods[1].address6 == nil) == (network.subnet6 == nil))
                }
                for node in site.nodes {
                    #expect(try node.run { node.networks.check() } == [])
                    try node.command("ip route flush table 28020; ip -6 route flush table 28020")
                    _ = try node.run { node.networks.repair() }
                    #expect(try node.run { node.networks.check() } == [])
                    #expect(try node.run { node.networks.removeLeftovers() } == [])
                    try node.expectNothing()
                }
            }
        }

        @Test func `a pod of another network, of a bridge or of nowhere is not let in`() async throws {
            try await PrivateMachine.run { machine in
                let site = try OverlaySite(machine)
                let (red, blue) = (try OverlaySite.network(5), try OverlaySite.network(6))
                let (here, there) = (site.nodes[0], site.nodes[1])
                let one = try here.pod("one", on: red, last: 2)
                let others = [try here.pod("near", on: blue, last: 2), try there.pod("far", on: blue, last: 2)]
                try site.meet(red)
                try site.meet(blue)
                for other in others {
                    for packet in Packet.allCases {
                        for (mine, theirs) in [
                            (one.address, other.address), (one.address6 ?? "", other.address6 ?? ""),
                        ] {
                            #expect(
                                try !site.arrives(
                                    packet, from: one.namespace, to: theirs, in: other.namespace, within: 100))
                            #expect(
                                try !site.arrives(
                                    packet, from: other.namespace, to: mine, in: one.namespace, within: 100))
                        }
                    }
                }
                // Those of a node are dropped, those between nodes find no way.
                #expect(try here.drops("into a network") >= 12)
                // As the node's own network is.
                let (plain, address) = (try machine.pin("plain"), "10.213.0.2")
                try here.command(
                    """
                    ip link add martlet0 type bridge && ip addr add 10.213.0.1/16 dev martlet0 && ip link set martlet0 up
                    ip link add p0 type veth peer name eth0 netns \(plain) && ip link set p0 master martlet0 up
                    """)
                try machine.command(
                    "ip addr add \(address)/16 dev eth0; ip link set eth0 up; ip route add default via 10.213.0.1",
                    in: plain)
                #expect(try site.arrives(.tcp, from: here.namespace, to: address, in: plain))
                #expect(try !site.arrives(.tcp, from: plain, to: one.address, in: one.namespace, within: 100))
                #expect(try !site.arrives(.tcp, from: one.namespace, to: address, in: plain, within: 100))
                #expect(try here.drops("to the node's bridge") > 0)
                try machine.ip("route add 10.65.0.0/20 via 192.0.2.1")
                #expect(try !site.arrives(.tcp, from: nil, to: one.address, in: one.namespace, within: 100))
                // It is our table that keeps them apart.
                try here.command("nft delete table inet martlet")
                #expect(try site.arrives(.udp, from: one.namespace, to: others[0].address, in: others[0].namespace))
            }
        }

        @Test func `a source that is not the sender's is dropped`() async throws {
            try await PrivateMachine.run { machine in
                let site = try OverlaySite(machine)
                let red = try OverlaySite.network(5)
                let node = site.nodes[0]
                let (one, two) = (try node.pod("one", on: red, last: 2), try node.pod("two", on: red, last: 3))
                let far = try site.nodes[1].pod("far", on: red, last: 2)
                try site.meet(red)
                for (count, false_) in ["10.65.1.3", "10.65.2.2", "198.51.100.7"].enumerated() {
                    try machine.ip("addr add \(false_)/32 dev lo", in: one.namespace)
                    #expect(
                        try !site.arrives(
                            .udp, from: one.namespace, to: two.address, in: two.namespace, source: false_, within: 100))
                    #expect(
                        try !site.arrives(
                            .udp, from: one.namespace, to: far.address, in: far.namespace, source: false_, within: 100))
                    // What is for an address that the sender has itself does not leave it.
                    #expect(try node.drops("a source that is not the sender's") >= count + 1)
                    try machine.ip("addr del \(false_)/32 dev lo", in: one.namespace)
                }
                try machine.ip("addr add fd65::203/128 dev lo nodad", in: one.namespace)
                let six = try #require(two.address6)
                #expect(
                    try !site.arrives(
                        .udp, from: one.namespace, to: six, in: two.namespace, source: "fd65::203", within: 100))
                #expect(try site.arrives(.udp, from: one.namespace, to: six, in: two.namespace))
            }
        }

        @Test func `the way out is the node's address, and an internal network has none`() async throws {
            try await PrivateMachine.run { machine in
                let site = try OverlaySite(machine)
                let red = try OverlaySite.network(5)
                let closed = try OverlaySite.network(6) { $0.isInternal = true }
                let bare = try OverlaySite.network(7) { $0.masquerade = false }
                let (here, there) = (site.nodes[0], site.nodes[1])
                let port = PortMapping(hostPort: 8080, containerPort: 80)
                let one = try here.pod("one", on: red, last: 2, ports: [port])
                let inner = try here.pod("inner", on: closed, last: 2)
                let far = try there.pod("far", on: closed, last: 2)
                let plain = try here.pod("plain", on: bare, last: 2)
                for network in [red, closed] { try site.meet(network) }
                let world = try machine.listen(80)
                #expect(
                    try machine.talk(to: OverlaySite.world, 80, from: one.namespace, listener: world) == "192.0.2.1")
                #expect(try site.arrives(.udp, from: one.namespace, to: "2001:db8::fe", in: nil))
                try machine.ip("route add 10.67.0.0/20 via 192.0.2.1")
                #expect(
                    try machine.talk(to: OverlaySite.world, 80, from: plain.namespace, listener: world) == plain.address
                )
                // A published port is a way in, from the world and from other networks.
                let service = try machine.listen(80, in: one.namespace)
                #expect(try machine.talk(to: "192.0.2.1", 8080, listener: service) != nil)
                #expect(try machine.talk(to: "192.0.2.1", 8080, from: plain.namespace, listener: service) != nil)
                for packet in [Packet.tcp, .udp, .icmp] {
                    #expect(try site.arrives(packet, from: inner.namespace, to: far.address, in: far.namespace))
                    #expect(
                        try !site.arrives(
                            packet, from: inner.namespace, to: OverlaySite.world, in: nil, within: 100))
                    #expect(
                        try !site.arrives(
                            packet, from: inner.namespace, to: "10.66.0.1", in: here.namespace, within: 100))
                }
                try machine.ip("route add default via 10.66.0.1", in: inner.namespace)
                #expect(
                    try !site.arrives(.udp, from: inner.namespace, to: OverlaySite.world, in: nil, within: 100))
                #expect(try here.drops("out of an internal network") > 0)
                #expect(try here.drops("an internal network to the node") >= 3)
                // Who looks after pods reaches them.
                #expect(try site.arrives(.tcp, from: here.namespace, to: inner.address, in: inner.namespace))
            }
        }

        @Test func `VXLAN is taken from peers of the network only, and never from a pod`() async throws {
            try await PrivateMachine.run { machine in
                let site = try OverlaySite(machine)
                let (red, blue) = (try OverlaySite.network(5), try OverlaySite.network(6))
                let node = site.nodes[0]
                let one = try node.pod("one", on: red, last: 2)
                let inside = try site.nodes[1].pod("inside", on: blue, last: 2)
                _ = try node.pod("blue", on: blue, last: 2)
                try site.meet(red)
                try site.meet(blue)
                let service = try site.datagrams(7007, in: one.namespace)
                let forged = try ForgedTunnel.packet(
                    vni: 5, mac: [2, 0x6d, 192, 0, 2, 1], from: "10.65.2.9", to: one.address, port: 7007, [1])
                try site.forge(forged, to: node, from: nil)
                #expect(!site.hasDatagram(service, within: 100))
                #expect(try node.drops("VXLAN of a stranger") == 1)
                // It would pass under the node's address, which is a peer's.
                try site.forge(forged, to: node, from: inside.namespace)
                #expect(!site.hasDatagram(service, within: 100))
                #expect(try site.nodes[1].drops("VXLAN of a pod outwards") == 1)
                try site.forge(forged, to: node, from: one.namespace)
                #expect(!site.hasDatagram(service, within: 100))
                #expect(try node.drops("VXLAN of a pod") == 1)
                // The same packet of a peer is what it says.
                let stranger = OverlayPeer(
                    key: "stranger", underlay: try #require(IPAddress(OverlaySite.world)),
                    blocks: [try #require(CIDR("10.65.2.9/32"))])
                try node.run { try node.networks.update(stranger, of: red.name) }
                try site.forge(forged, to: node, from: nil)
                #expect(site.hasDatagram(service))
                // It is for this node's pods, not for those of the next.
                let onward = try ForgedTunnel.packet(
                    vni: 5, mac: [2, 0x6d, 192, 0, 2, 1], from: "10.65.2.9", to: "10.65.2.3", port: 7007, [1])
                try site.forge(onward, to: node, from: nil)
                #expect(!site.hasDatagram(service, within: 100))
                #expect(try node.drops("from tunnel to tunnel") == 1)
                try node.run { try node.networks.remove(peer: "stranger", of: red.name) }
                try site.forge(forged, to: node, from: nil)
                #expect(!site.hasDatagram(service, within: 100))
            }
        }

        @Test func `nobody on a bridge passes for a peer or a pod, whatever the bridge is called`() async throws {
            try await PrivateMachine.run { machine in
                let site = try OverlaySite(machine)
                let red = try OverlaySite.network(5)
                let node = site.nodes[0]
                let one = try node.pod("one", on: red, last: 2)
                _ = try site.nodes[1].pod("far", on: red, last: 2)
                try site.meet(red)
                let plain = try machine.pin("plain")
                try node.command(
                    """
                    ip link add br0 type bridge && ip addr add 10.213.0.1/16 dev br0 && ip link set br0 up
                    ip link add p0 type veth peer name eth0 netns \(plain) && ip link set p0 master br0 up
                    """)
                // Addresses of the other node and of its pod.
                try machine.command(
                    """
                    ip addr add 10.213.0.2/16 dev eth0 && ip link set eth0 up
                    ip link set lo up && ip addr add 192.0.2.2/32 dev lo && ip addr add 10.65.2.2/32 dev lo
                    ip route add default via 10.213.0.1 src 192.0.2.2
                    """, in: plain)
                let service = try site.datagrams(7008, in: one.namespace)
                let forged = try ForgedTunnel.packet(
                    vni: 5, mac: [2, 0x6d, 192, 0, 2, 1], from: "10.65.2.9", to: one.address, port: 7008, [1])
                try site.forge(forged, to: node, from: plain)
                #expect(!site.hasDatagram(service, within: 100))
                #expect(try node.drops("VXLAN from where its source is not") == 1)
                #expect(
                    try !site.arrives(
                        .udp, from: plain, to: one.address, in: one.namespace, source: "10.65.2.2", within: 100))
                #expect(try node.drops("a pod's IPv4 address from elsewhere") == 1)
                // A device is not a pod's because its name begins like those of pods.
                let stranger = try machine.pin("stranger")
                try node.command(
                    """
                    ip link add mv0 type veth peer name eth0 netns \(stranger) && ip addr add 10.214.0.1/24 dev mv0
                    ip link set mv0 up && ip link add mv0123456789abc type veth peer name x0
                    ip addr add 10.215.0.1/24 dev mv0123456789abc && ip link set mv0123456789abc up
                    ip link set x0 netns \(stranger)
                    """)
                try machine.command(
                    """
                    ip addr add 10.214.0.2/24 dev eth0 && ip link set eth0 up
                    ip addr add 10.215.0.2/24 dev x0 && ip link set x0 up
                    """, in: stranger)
                #expect(try site.arrives(.udp, from: stranger, to: "10.214.0.1", in: node.namespace))
                #expect(try !site.arrives(.udp, from: stranger, to: "10.215.0.1", in: node.namespace, within: 100))
                #expect(try node.drops("a pod without a network") > 0)
            }
        }

        @Test func `an address goes with its pod from node to node, whichever is heard of first`() async throws {
            try await PrivateMachine.run { machine in
                let site = try OverlaySite(machine, nodes: 3)
                let red = try OverlaySite.network(5)
                let one = try site.nodes[0].pod("one", on: red, last: 2)
                let far = try site.nodes[1].pod("far", on: red, last: 2)
                try site.meet(red)
                #expect(try site.arrives(.udp, from: one.namespace, to: far.address, in: far.namespace))
                // It moves to the third node, which borrows it; the first hears so before the second has let go.
                try site.nodes[1].run { try site.nodes[1].networks.detach("far") }
                let moved = try site.nodes[2].pod("moved", on: red, last: 2 - 256)
                #expect(moved.address == far.address)
                let borrower = try site.nodes[2].peer(on: red, more: ["10.65.2.2/32", "fd65::202/128"])
                let first = site.nodes[0]
                try first.run { try first.networks.update(borrower, of: red.name) }
                #expect(try site.arrives(.udp, from: one.namespace, to: moved.address, in: moved.namespace))
                #expect(try site.arrives(.udp, from: moved.namespace, to: one.address, in: one.namespace))
                let six = try #require(moved.address6)
                #expect(try site.arrives(.udp, from: one.namespace, to: six, in: moved.namespace))
                #expect(try first.run { first.networks.check() } == [])
                // And to the first node itself, while the third still says to have it.
                try site.nodes[2].run { try site.nodes[2].networks.detach("moved") }
                let home = try first.pod("home", on: red, last: 2 + 256)
                #expect(home.address == far.address)
                #expect(try site.arrives(.udp, from: one.namespace, to: home.address, in: home.namespace))
                #expect(try first.run { first.networks.check() } == [])
                try first.run { try first.networks.detach("home") }
                #expect(try first.command("ip route get 10.65.2.2").contains("via 192.0.2.3"))
                #expect(try first.run { first.networks.check() } == [])
                try first.run { try first.networks.remove(peer: "node-3", of: red.name) }
                #expect(try first.command("ip route get 10.65.2.2").contains("via 192.0.2.2"))
                // A node that has got another address.
                var second = try site.nodes[1].peer(on: red)
                second.underlay = try #require(IPAddress("192.0.2.9"))
                let changed = second
                try first.run { try first.networks.update(changed, of: red.name) }
                #expect(try first.command("ip route get 10.65.2.2").contains("via 192.0.2.9"))
                #expect(try !first.command("bridge fdb; ip neigh show dev \(red.device)").contains("192.0.2.2 "))
                #expect(try first.run { first.networks.check() } == [])
            }
        }
    }
}
