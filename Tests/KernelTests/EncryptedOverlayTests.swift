import CNISpec
import ClusterSecurity
import Glibc
import Kernel
import Netlink
import Networking
import Synchronization
import Testing

/// Why there are no encrypted networks here; nil: there are.
private let lack: String? = {
    let node = BridgeNetworkConfiguration(dataDirectory: "/nowhere", runDirectory: "/nowhere")
    return OverlayNetworks(node, underlay: IPAddress(.v4, 0x7f00_0001), cryptography: .nodes).encryptionLack
}()
private let needs: ConditionTrait = .enabled(if: lack == nil, "the kernel has no IPsec: \(lack ?? "")")

extension KernelSuite {
    /// Overlay networks whose packets are encrypted between nodes, see docs/networks.md.
    @Suite(.serialized) struct EncryptedOverlay {
        private static func secret(
            _ number: UInt8, v6: Bool = true, _ change: (inout OverlayNetworkConfiguration) -> Void = { _ in }
        ) throws -> OverlayNetworkConfiguration {
            try OverlaySite.network(number, v6: v6) {
                $0.isEncrypted = true
                change(&$0)
            }
        }

        /// Has what goes from node to node counted, by what it is.
        private func watch(_ site: OverlaySite) throws {
            try site.machine.command(
                """
                nft add table bridge wire && nft 'add chain bridge wire seen { type filter hook forward priority 0; }'
                nft 'add rule bridge wire seen meta l4proto esp counter comment "esp"'
                nft 'add rule bridge wire seen udp dport { 4788, 4789 } counter comment "clear"'
                nft 'add rule bridge wire seen ip frag-off & 0x3fff != 0 counter comment "fragment"'
                nft 'add rule bridge wire seen exthdr frag exists counter comment "fragment of IPv6"'
                """)
        }

        private func seen(_ what: String, _ site: OverlaySite) throws -> Int {
            let lines = try site.machine.command("nft list table bridge wire").split(separator: "\n")
            let words = try #require(lines.first { $0.contains("\"\(what)\"") }).split(separator: " ")
            let index = try #require(words.firstIndex(of: "packets"))
            return try #require(Int(words[index + 1]))
        }

        @Test(needs) func `all that goes from node to node is ESP, in both families, and as large as can be`()
            async throws
        {
            for isV6 in [false, true] {
                try await PrivateMachine.run { machine in
                    let site = try OverlaySite(machine, nodes: 2, v6: isV6)
                    try self.watch(site)
                    let red = try Self.secret(5)
                    let pods = try site.nodes.map { try $0.pod("pod-\($0.number)", on: red, last: 2) }
                    try site.meet(red)
                    for packet in Packet.allCases {
                        for to in [pods[1].address, try #require(pods[1].address6)] {
                            #expect(
                                try site.arrives(packet, from: pods[0].namespace, to: to, in: pods[1].namespace),
                                "\(packet) to \(to)")
                        }
                        #expect(
                            try site.arrives(
                                packet, from: pods[1].namespace, to: pods[0].address, in: pods[0].namespace))
                    }
                    // 1500 less 50 and 34, of which two fill up; over IPv6 20 less. Not a fragment.
                    let mtu = isV6 ? 1396 : 1416
                    #expect(try machine.ip("link show eth0", in: pods[0].namespace).contains("mtu \(mtu)"))
                    #expect(
                        try site.arrives(
                            .udp, from: pods[0].namespace, to: pods[1].address, in: pods[1].namespace, bytes: mtu - 28))
                    // Pods may use that port as they like.
                    let listener = try site.datagrams(4788, in: pods[1].namespace)
                    try machine.command(
                        "bash -c 'echo x > /dev/udp/\(pods[1].address)/4788'", in: pods[0].namespace)
                    #expect(site.hasDatagram(listener))
                    #expect(try self.seen("esp", site) > 9 && self.seen("clear", site) == 0)
                    #expect(try self.seen("fragment", site) == 0 && self.seen("fragment of IPv6", site) == 0)
                    for node in site.nodes {
                        #expect(try node.run { node.networks.check() } == [])
                        #expect(try node.run { node.networks.removeLeftovers() } == [])
                        try node.expectNothing()
                    }
                }
            }
        }

        @Test(needs) func `what comes in the clear is dropped, whoever says to have sent it`() async throws {
            try await PrivateMachine.run { machine in
                let site = try OverlaySite(machine)
                let red = try Self.secret(5, v6: false)
                let pods = try site.nodes.map { try $0.pod("pod-\($0.number)", on: red, last: 2) }
                try site.meet(red)
                let (here, there) = (site.nodes[0], site.nodes[1])
                let inner = Array("in the clear".utf8)
                let mac = OverlayNumbers.mac(of: [192, 0, 2, 1])
                let packet = try ForgedTunnel.packet(
                    vni: red.vni, mac: mac, from: pods[1].address, to: pods[0].address, port: 7008, inner)
                let socket = try site.datagrams(7008, in: pods[0].namespace)
                // From the peer's address without its keys: it has no policies of IPsec.
                try there.command("ip xfrm policy flush; nft flush ruleset")
                for port in [UInt16(4788), 4789] {
                    try site.forge(packet, to: here, from: there.namespace, port: port)
                    #expect(!site.hasDatagram(socket), "\(port)")
                }
                // The device says that IPsec's policies are not asked: then the packet filter drops it.
                let rule = "VXLAN that came in the clear"
                let before = try here.drops(rule)
                try here.command("sysctl -qw net.ipv4.conf.all.disable_policy=1 net.ipv4.conf.eth0.disable_policy=1")
                try site.forge(packet, to: here, from: there.namespace, port: 4788)
                #expect(!site.hasDatagram(socket))
                #expect(try here.drops(rule) > before)
                // Either is enough, and without both it comes.
                try here.command("nft flush chain inet martlet input")
                try here.command("sysctl -qw net.ipv4.conf.all.disable_policy=0 net.ipv4.conf.eth0.disable_policy=0")
                try site.forge(packet, to: here, from: there.namespace, port: 4788)
                #expect(!site.hasDatagram(socket))
                try here.command("sysctl -qw net.ipv4.conf.all.disable_policy=1 net.ipv4.conf.eth0.disable_policy=1")
                try site.forge(packet, to: here, from: there.namespace, port: 4788)
                #expect(site.hasDatagram(socket))
            }
        }

        @Test(needs) func `what cannot be encrypted does not go out`() async throws {
            try await PrivateMachine.run { machine in
                let site = try OverlaySite(machine)
                try self.watch(site)
                let red = try Self.secret(5, v6: false)
                let pods = try site.nodes.map { try $0.pod("pod-\($0.number)", on: red, last: 2) }
                try site.meet(red)
                let node = site.nodes[0]
                func arrives() throws -> Bool {
                    try site.arrives(.udp, from: pods[0].namespace, to: pods[1].address, in: pods[1].namespace)
                }
                #expect(try arrives())
                // Associations gone; policies for the peer gone; a device that asks no policies; a peer without a key.
                for damage in [
                    "ip xfrm state flush",
                    "ip xfrm policy delete src 192.0.2.1 dst 192.0.2.2 proto udp dport 4788 dir out",
                    "sysctl -qw net.ipv4.conf.eth0.disable_xfrm=1",
                ] {
                    try node.command(damage)
                    #expect(try !arrives(), "\(damage)")
                    #expect(try self.seen("clear", site) == 0, "\(damage)")
                    try node.command("sysctl -qw net.ipv4.conf.eth0.disable_xfrm=0")
                    _ = try node.run { node.networks.repair() }
                    try site.meet(red)
                    #expect(try arrives(), "\(damage)")
                }
                var keyless = try site.nodes[1].peer(on: red)
                (keyless.key, keyless.publicKey, keyless.blocks) = ("node-3", [], [])
                keyless.underlay = try #require(IPAddress("192.0.2.3"))
                let third = keyless
                try node.run { try node.networks.update(third, of: red.name) }
                let words = "nothing of encrypted networks goes to 192.0.2.3: it has no public key for it"
                #expect(try node.run { node.networks.check() } == [words])
                try node.command("echo x | timeout 1 bash -c 'cat > /dev/udp/192.0.2.3/4788' || true")
                #expect(try self.seen("clear", site) == 0)
            }
        }

        @Test(needs) func `what is taken away is told in words and comes back, under a key that was never used`()
            async throws
        {
            try await PrivateMachine.run { machine in
                let site = try OverlaySite(machine)
                let red = try Self.secret(5, v6: false)
                let pods = try site.nodes.map { try $0.pod("pod-\($0.number)", on: red, last: 2) }
                try site.meet(red)
                let node = site.nodes[0]
                let changes = Atomic(0)
                node.networks.onKeyChange { changes.add(1, ordering: .relaxed) }
                let damages: [(command: String, words: String, isKeyChanged: Bool)] = [
                    (
                        "ip xfrm policy delete src 192.0.2.1 dst 192.0.2.2 proto udp dport 4788 dir out",
                        "the policy that encrypts what goes to 192.0.2.2 is missing", false
                    ),
                    (
                        "ip xfrm policy delete src 192.0.2.2 dst 192.0.2.1 proto udp dport 4788 dir in",
                        "the policy that encrypts what comes from 192.0.2.2 is missing", false
                    ),
                    (
                        "ip xfrm policy delete src 0.0.0.0/0 dst 0.0.0.0/0 proto udp dport 4788 dir in",
                        "the policy that drops what is not encrypted (in) is missing", false
                    ),
                    (
                        "ip xfrm policy add src 192.0.2.1 dst 192.0.2.9 proto udp dport 4788 dir out priority 28020 action allow "
                            + "tmpl proto esp reqid 28020 mode transport",
                        "the policy that encrypts what goes to 192.0.2.9 is too much", false
                    ),
                    (
                        "ip xfrm state flush", "the security associations with 192.0.2.2 are missing", true
                    ),
                ]
                for (command, words, isKeyChanged) in damages {
                    let (before, count) = (
                        try node.run { try node.networks.publicKey() }, changes.load(ordering: .relaxed)
                    )
                    try node.command(command)
                    #expect(try node.run { node.networks.check() } == [words], "\(command)")
                    #expect(try node.run { node.networks.repair() } == [words], "\(command)")
                    #expect(try node.run { node.networks.check() } == [], "\(command)")
                    #expect(try (node.run { try node.networks.publicKey() } != before) == isKeyChanged)
                    #expect(changes.load(ordering: .relaxed) == count + (isKeyChanged ? 1 : 0))
                    // The other side hears of the key.
                    try site.meet(red)
                    for (one, two) in [(0, 1), (1, 0)] {
                        #expect(
                            try site.arrives(
                                .udp, from: pods[one].namespace, to: pods[two].address, in: pods[two].namespace),
                            "\(command)")
                    }
                }
            }
        }

        @Test(needs) func `another process of the agent has the same key, and cuts nothing`() async throws {
            try await PrivateMachine.run { machine in
                let site = try OverlaySite(machine)
                let red = try Self.secret(5, v6: false)
                let pods = try site.nodes.map { try $0.pod("pod-\($0.number)", on: red, last: 2) }
                try site.meet(red)
                let node = site.nodes[0]
                let key = try node.run { try node.networks.publicKey() }
                func numbers() throws -> [String] {
                    try node.command("ip xfrm state").split(separator: "\n").filter { $0.contains("spi") }.map {
                        String($0)
                    }.sorted()
                }
                let before = try numbers()
                #expect(before.count == 2)
                let next = try node.restarted()
                #expect(try node.run { next.check() } == [])
                #expect(try node.run { next.repair() } == [])
                #expect(try node.run { try next.publicKey() } == key && numbers() == before)
                let peer = try site.nodes[1].peer(on: red)
                try node.run { try next.setPeers([red.name: [peer]]) }
                #expect(try numbers() == before)
                #expect(try site.arrives(.udp, from: pods[0].namespace, to: pods[1].address, in: pods[1].namespace))
                // Nobody else reads the key. It outlives the last such network, and so do associations, which nothing uses.
                let file = try machine.command("find \(machine.directory)/node-1/run -name tunnels")
                #expect(try machine.command("stat -c %a \(file)") == "600\n")
                try node.run { try next.detach("pod-1") }
                #expect(try node.command("ip xfrm policy; ip -br link show type vxlan") == "" && numbers() == before)
                #expect(try node.run { next.check() } == [])
                let again = try node.pod("pod-again", on: red, last: 3, networks: next)
                #expect(try node.run { next.check() } == [])
                #expect(try node.run { try next.publicKey() } == key && numbers() == before)
                #expect(try site.arrives(.udp, from: again.namespace, to: pods[1].address, in: pods[1].namespace))
                #expect(try node.run { next.removeLeftovers() } == [])
                try node.expectNothing()
                #expect(try node.run { try next.publicKey() } != key)
            }
        }

        @Test(needs) func `what a key is on record for takes another key, whether it came to be or not`() async throws {
            try await PrivateMachine.run { machine in
                let site = try OverlaySite(machine)
                let red = try Self.secret(5, v6: false)
                let pods = try site.nodes.map { try $0.pod("pod-\($0.number)", on: red, last: 2) }
                let node = site.nodes[0]
                let key = try node.run { try node.networks.publicKey() }
                let peer = try site.nodes[1].peer(on: red)
                let file = try machine.command("find \(machine.directory)/node-1/run -name tunnels")
                    .split(separator: "\n").joined()
                try machine.command("echo peer 192.0.2.1 192.0.2.2 \(Hexadecimal.text(peer.publicKey)) >> \(file)")
                let next = try node.restarted()
                try node.run { try next.setPeers([red.name: [peer]]) }
                // It makes another key at once, and none after that for a while.
                #expect(
                    try node.run { next.repair() } == ["the security associations with 192.0.2.2 are missing"])
                let second = try node.run { try next.publicKey() }
                #expect(second != key)
                #expect(try node.run { next.check() } == [])
                var there = try node.peer(on: red)
                there.publicKey = try #require(second)
                let known = there
                try site.nodes[1].run { try site.nodes[1].networks.setPeers([known], of: red.name) }
                #expect(try site.arrives(.udp, from: pods[0].namespace, to: pods[1].address, in: pods[1].namespace))
                try node.command("ip xfrm state flush")
                let words = try node.run { next.repair() }
                #expect(words.contains { $0.contains("which it makes later") }, "\(words)")
                #expect(try node.run { try next.publicKey() } == second)
                #expect(try node.command("ip xfrm state") == "")
                #expect(try !site.arrives(.udp, from: pods[0].namespace, to: pods[1].address, in: pods[1].namespace))
            }
        }

        @Test(needs) func `a peer that says an earlier key again brings no node to another key`()
            async throws
        {
            try await PrivateMachine.run { machine in
                let site = try OverlaySite(machine)
                try self.watch(site)
                let red = try Self.secret(5, v6: false)
                let pods = try site.nodes.map { try $0.pod("pod-\($0.number)", on: red, last: 2) }
                try site.meet(red)
                let node = site.nodes[0]
                let key = try node.run { try node.networks.publicKey() }
                let peer = try site.nodes[1].peer(on: red)
                func arrives() throws -> Bool {
                    try site.arrives(.udp, from: pods[0].namespace, to: pods[1].address, in: pods[1].namespace)
                }
                func says(_ peer: OverlayPeer) throws {
                    try node.run { try node.networks.update(peer, of: red.name) }
                }
                #expect(try arrives())
                // It has another key, and then the first again, which is not used a second time.
                var other = peer
                other.publicKey = TunnelKeys.publicKey(of: TunnelKeys.makeKey()) ?? []
                try says(other)
                #expect(try !arrives())
                #expect(try node.run { node.networks.check() } == [])
                try says(peer)
                let replaced =
                    "nothing of encrypted networks goes to 192.0.2.2: its public key was replaced by another before; "
                    + "restart its machine, so that it makes one"
                for _ in 0..<2 { #expect(try node.run { node.networks.repair() } == [replaced]) }
                #expect(try node.run { try node.networks.publicKey() } == key)
                #expect(try !arrives())
                #expect(try !node.command("ip xfrm policy").contains("reqid 28020"))
                #expect(try self.seen("clear", site) == 0)
            }
        }

        @Test(needs) func `two nodes at one address with different keys are heard by none until one of them goes`()
            async throws
        {
            try await PrivateMachine.run { machine in
                let site = try OverlaySite(machine)
                try self.watch(site)
                let (red, blue) = (try Self.secret(5, v6: false), try Self.secret(6, v6: false))
                let pods = try site.nodes.map { try $0.pod("pod-\($0.number)", on: red, last: 2) }
                let node = site.nodes[0]
                _ = try node.pod("blue-1", on: blue, last: 2)
                try site.meet(red)
                let key = try node.run { try node.networks.publicKey() }
                var liar = try site.nodes[1].peer(on: blue)
                (liar.key, liar.blocks) = ("liar", [])
                liar.publicKey = TunnelKeys.publicKey(of: TunnelKeys.makeKey()) ?? []
                let lie = liar
                let words =
                    "nothing of encrypted networks goes to 192.0.2.2: several nodes with different public keys are at that "
                    + "address; remove those that are there no more"
                for isRestarted in [false, true] {
                    let networks = isRestarted ? try node.restarted() : node.networks
                    try node.run { try networks.update(lie, of: blue.name) }
                    #expect(try node.run { networks.check() } == [words])
                    #expect(
                        try !site.arrives(.udp, from: pods[0].namespace, to: pods[1].address, in: pods[1].namespace))
                    #expect(
                        try !site.arrives(.udp, from: pods[1].namespace, to: pods[0].address, in: pods[0].namespace))
                    try node.run { try networks.remove(peer: "liar", of: blue.name) }
                    #expect(try node.run { networks.check() } == [])
                    #expect(
                        try site.arrives(.udp, from: pods[0].namespace, to: pods[1].address, in: pods[1].namespace))
                    #expect(try node.run { try networks.publicKey() } == key)
                }
                #expect(try self.seen("clear", site) == 0)
            }
        }

        @Test(needs) func `a peer whose key is none keeps no other from being reached, and others' associations stay`()
            async throws
        {
            try await PrivateMachine.run { machine in
                let site = try OverlaySite(machine)
                let red = try Self.secret(5, v6: false)
                let pods = try site.nodes.map { try $0.pod("pod-\($0.number)", on: red, last: 2) }
                try site.meet(red)
                let node = site.nodes[0]
                let good = try site.nodes[1].peer(on: red)
                try node.run { try node.networks.setPeers([], of: red.name) }
                let bad = OverlayPeer(
                    key: "bad", underlay: try #require(IPAddress("192.0.2.9")), blocks: [],
                    publicKey: [UInt8](repeating: 0, count: 32))
                #expect(throws: NetworkError.self) {
                    try node.run { try node.networks.setPeers([bad, good], of: red.name) }
                }
                #expect(try site.arrives(.udp, from: pods[0].namespace, to: pods[1].address, in: pods[1].namespace))
                #expect(try !node.command("ip xfrm policy").contains("192.0.2.9"))
                try node.run { try node.networks.setPeers([good], of: red.name) }
                let ends = "src 192.0.2.1 dst 192.0.2.77 proto esp"
                let rest =
                    "reqid 28020 mode transport aead 'rfc4106(gcm(aes))' 0x0102030405060708090a0b0c0d0e0f1011121314 128"
                try node.command("ip xfrm state add \(ends) spi 0x1001 \(rest)")
                try node.command(
                    "ip xfrm state add \(ends) spi 0x1002 mark 7 mask 0xff \(rest) sel src 192.0.2.1 dst 192.0.2.77 proto udp dport 4788"
                )
                try node.command(
                    "ip xfrm state add \(ends) spi 0x1003 \(rest) sel src 192.0.2.1 dst 192.0.2.77 proto udp dport 4788"
                )
                #expect(try node.run { node.networks.repair() } == ["1 security associations are too much"])
                let states = try node.command("ip xfrm state")
                #expect(states.contains("0x00001001") && states.contains("0x00001002"))
                #expect(!states.contains("0x00001003"))
            }
        }

        @Test(needs) func `an agent that cannot encrypt any more lets nothing pass, until it can`() async throws {
            try await PrivateMachine.run { machine in
                let site = try OverlaySite(machine)
                try self.watch(site)
                let red = try Self.secret(5, v6: false)
                let pods = try site.nodes.map { try $0.pod("pod-\($0.number)", on: red, last: 2) }
                try site.meet(red)
                let (node, there) = (site.nodes[0], site.nodes[1])
                let unable = try node.restarted(cryptography: nil)
                let words = try node.run { unable.repair() }
                #expect(words.contains { $0.hasPrefix("nothing of encrypted networks passes:") }, "\(words)")
                #expect(try !node.command("ip -br link").contains(red.device))
                #expect(
                    try node.run { unable.check() } == [
                        "nothing of encrypted networks passes: this agent encrypts nothing"
                    ])
                // Nothing comes or goes at the port with the network's number, whatever becomes of policies.
                try node.command("ip xfrm policy flush; ip xfrm state flush")
                try there.command("ip xfrm policy flush; ip xfrm state flush")
                let mac = OverlayNumbers.mac(of: [192, 0, 2, 1])
                let packet = try ForgedTunnel.packet(
                    vni: red.vni, mac: mac, from: pods[1].address, to: pods[0].address, port: 7008, Array("x".utf8))
                try there.command("nft flush ruleset")
                let before = try node.drops("VXLAN that came in the clear")
                try site.forge(packet, to: node, from: there.namespace, port: 4788)
                #expect(try node.drops("VXLAN that came in the clear") == before + 1)
                let sent = try self.seen("clear", site)
                try site.forge(packet, to: there, from: node.namespace, port: 4788)
                #expect(try self.seen("clear", site) == sent)
                let able = try node.restarted()
                _ = try node.run { able.repair() }
                #expect(try node.run { able.check() } == [])
                #expect(try node.command("ip -br link").contains(red.device))
            }
        }

        @Test(needs) func `a peer that comes back needs no other key, and the last network takes policies along`()
            async throws
        {
            try await PrivateMachine.run { machine in
                let site = try OverlaySite(machine, nodes: 3)
                let (red, blue, open) = (
                    try Self.secret(5, v6: false), try Self.secret(6, v6: false),
                    try OverlaySite.network(7, v6: false)
                )
                let node = site.nodes[0]
                for network in [red, blue, open] {
                    for node in site.nodes {
                        _ = try node.pod("\(network.name)-\(node.number)", on: network, last: 2)
                    }
                    try site.meet(network)
                }
                func policies() throws -> Int {
                    try node.command("ip xfrm policy").split(separator: "\n").filter { $0.contains("reqid 28020") }
                        .count
                }
                #expect(try policies() == 4)
                // Who is on another network, encrypted or not, says nothing of the keys of these.
                var liar = try site.nodes[1].peer(on: open)
                liar.publicKey = [UInt8](repeating: 9, count: 32)
                let lie = liar
                try node.run { try node.networks.update(lie, of: open.name) }
                #expect(try node.run { node.networks.check() } == [])
                let key = try node.run { try node.networks.publicKey() }
                try node.run { try node.networks.remove(peer: "node-2", of: red.name) }
                #expect(try policies() == 4, "it is on the other network too")
                try node.run { try node.networks.remove(peer: "node-2", of: blue.name) }
                #expect(try policies() == 2)
                #expect(try node.run { node.networks.check() } == [])
                try site.meet(red)
                #expect(try policies() == 4)
                #expect(try node.run { node.networks.check() } == [])
                #expect(try node.run { try node.networks.publicKey() } == key)
                let words = try node.command("ip xfrm state")
                #expect(words.contains("replay-window 0") == false || words.contains("esn"))
                try node.run { try node.networks.detach("\(red.name)-1", from: red.name) }
                #expect(try policies() == 2, "blue has one peer")
                try node.run { try node.networks.detach("\(blue.name)-1", from: blue.name) }
                #expect(try node.command("ip xfrm policy") == "")
                // What is not encrypted goes on, by its own port.
                #expect(try node.command("ip -d link show \(open.device)").contains("dstport 4789"))
                #expect(try node.run { node.networks.check() } == [])
            }
        }

        @Test(.enabled(if: lack != nil, "the kernel has IPsec"))
        func `a kernel without IPsec refuses it by name, and leaves nothing`() async throws {
            try await PrivateMachine.run { machine in
                let site = try OverlaySite(machine)
                let red = try Self.secret(5, v6: false)
                let error = #expect(throws: NetworkError.self) { try site.nodes[0].pod("one", on: red, last: 2) }
                #expect(error?.description.contains("is encrypted, which this node cannot:") == true)
                #expect(try site.nodes[0].run { try site.nodes[0].networks.publicKey() } == nil)
                try site.nodes[0].expectNothing()
            }
        }
    }
}
