import CNISpec
import Glibc
import Kernel
import Networking
import Synchronization
import Testing

extension KernelSuite {
    /// What becomes of overlay networks when somebody else meddles, or the agent ends.
    @Suite(.serialized) struct OverlayRepair {
        /// Waits until it is so.
        private func eventually(_ condition: () throws -> Bool) throws -> Bool {
            for _ in 0..<400 {
                if try condition() { return true }
                usleep(50_000)
            }
            return false
        }

        @Test func `whatever somebody takes away or adds is told in words, and mended`() async throws {
            try await PrivateMachine.run { machine in
                let site = try OverlaySite(machine)
                let red = try OverlaySite.network(5)
                let node = site.nodes[0]
                let one = try node.pod("one", on: red, last: 2)
                let far = try site.nodes[1].pod("far", on: red, last: 2)
                try site.meet(red)
                #expect(try node.run { node.networks.check() } == [])
                let device = red.device
                let damages: [(command: String, words: String)] = [
                    (
                        "ip route del 10.65.2.0/26 table 28020",
                        "the route to 10.65.2.0/26 by 192.0.2.2 is missing on \(device)"
                    ),
                    (
                        "ip -6 route del fd65::200/122 table 28020",
                        "the route to fd65::200/122 by 192.0.2.2 is missing on \(device)"
                    ),
                    (
                        "ip route flush table 28020",
                        "the route to 10.65.0.0/20 that refuses is missing in the table 28020"
                    ),
                    ("ip route add 10.65.3.0/26 dev lo table 28020", "the route to 10.65.3.0/26 is too much on lo"),
                    ("ip neigh del 192.0.2.2 dev \(device)", "the neighbour 192.0.2.2 is missing on \(device)"),
                    (
                        "bridge fdb del 02:6d:c0:00:02:02 dev \(device) dst 192.0.2.2",
                        "the forwarding entry to 192.0.2.2 is missing on \(device)"
                    ),
                    ("ip rule del table 28020", "the rule by which IPv4 looks into the table 28020 is missing"),
                    ("ip link set \(device) down", "the device \(device) is down"),
                    ("ip link set \(device) mtu 1300", "the device \(device) has the MTU 1300 instead of 1450"),
                    ("ip link del \(device)", "the device \(device) is missing"),
                    ("ip addr del 10.65.0.1/32 dev \(device)", "the address 10.65.0.1 is missing on \(device)"),
                    ("nft flush ruleset", "the nf_tables table inet martlet is missing"),
                    ("nft flush chain inet martlet forward", "the nf_tables table inet martlet is not as it was made"),
                    (
                        "nft flush set inet martlet peers4",
                        "1 elements of the set peers4 of the table inet martlet are missing"
                    ),
                    ("iptables -F", "the rule '-i mv+' of iptables' chain FORWARD is missing"),
                    ("sysctl -qw net.ipv4.ip_forward=0", "net.ipv4.ip_forward is off"),
                    ("ip link set eth0 mtu 1400", "the device \(device) has the MTU 1450 instead of 1350"),
                ]
                for (command, words) in damages {
                    try node.command(command)
                    let found = try node.run { node.networks.check() }
                    #expect(found.contains(words), "\(command): \(found)")
                    #expect(try node.run { node.networks.repair() }.contains(words))
                    #expect(try node.run { node.networks.check() } == [], "\(command)")
                }
                for packet in Packet.allCases {
                    #expect(try site.arrives(packet, from: one.namespace, to: far.address, in: far.namespace))
                    let six = try #require(one.address6)
                    #expect(try site.arrives(packet, from: far.namespace, to: six, in: one.namespace))
                }
            }
        }

        @Test func `nobody has to be asked for it: changes are noticed`() async throws {
            try await PrivateMachine.run { machine in
                let site = try OverlaySite(machine)
                let red = try OverlaySite.network(5)
                let node = site.nodes[0]
                let one = try node.pod("one", on: red, last: 2)
                let far = try site.nodes[1].pod("far", on: red, last: 2)
                try site.meet(red)
                let reports = Reports()
                try node.run { try node.networks.start { words in reports.add(words) } }
                defer { node.networks.stop() }
                for command in [
                    "ip route flush table 28020; ip -6 route flush table 28020", "ip link del \(red.device)",
                    "nft flush ruleset", "bridge fdb del 02:6d:c0:00:02:02 dev \(red.device) dst 192.0.2.2",
                    "ip rule del table 28020; ip -6 rule del table 28020",
                ] {
                    try node.command(command)
                    #expect(try self.eventually { try node.run { node.networks.check() } == [] }, "\(command)")
                }
                #expect(try site.arrives(.udp, from: one.namespace, to: far.address, in: far.namespace))
                #expect(reports.all.contains("the device \(red.device) is missing"))
                // What it does itself is no reason to look.
                usleep(300_000)
                let before = reports.all.count
                try site.meet(red)
                let two = try node.pod("two", on: red, last: 3)
                try node.run { try node.networks.detach("two") }
                usleep(300_000)
                #expect(reports.all.count == before, "\(reports.all.dropFirst(before))")
                #expect(two.address == "10.65.1.3")
                node.networks.stop()
                node.networks.stop()
            }
        }

        @Test func `after the agent's end all goes on, and the next one knows it`() async throws {
            try await PrivateMachine.run { machine in
                let site = try OverlaySite(machine)
                let red = try OverlaySite.network(5)
                let node = site.nodes[0]
                let one = try node.pod("one", on: red, last: 2)
                let far = try site.nodes[1].pod("far", on: red, last: 2)
                try site.meet(red)
                let peer = try site.nodes[1].peer(on: red, more: ["10.65.3.7/32"])
                try node.run { try node.networks.update(peer, of: red.name) }
                let next = try node.restarted()
                #expect(try node.run { next.check() } == [])
                try node.command("ip link del \(red.device); nft flush ruleset")
                _ = try node.run { next.repair() }
                #expect(try node.run { next.check() } == [])
                #expect(try node.command("ip route get 10.65.3.7").contains("via 192.0.2.2"))
                #expect(try site.arrives(.tcp, from: one.namespace, to: far.address, in: far.namespace))
                #expect(try node.run { try next.addresses(of: "one", on: red.name) } == one.found)
                // A network that is not named has no peers any more, and its pods none beside them.
                try node.run { try next.setPeers([:]) }
                #expect(try !node.command("ip route show table 28020").contains("192.0.2.2"))
                // The pod lives, or does not.
                #expect(try node.run { next.collectGarbage(living: ["one"]) } == [])
                #expect(try node.run { next.check() } == [])
                try NetworkNamespace.remove(at: one.namespace)
                let last = try node.restarted()
                #expect(try node.run { last.collectGarbage(living: []) } == [])
                try node.expectNothing()
                // The other one ends in order.
                let other = site.nodes[1]
                try other.run { try other.networks.detach("far", isEnd: true) }
                try other.expectNothing()
            }
        }

        @Test func `a start that was cut off leaves nothing for long`() async throws {
            try await PrivateMachine.run { machine in
                let site = try OverlaySite(machine, nodes: 1)
                let red = try OverlaySite.network(5)
                let node = site.nodes[0]
                let one = try node.pod("one", on: red, last: 2)
                // What is there between the making of the network and the wiring of its first pod.
                try NetworkNamespace.remove(at: one.namespace)
                try File.list("\(machine.directory)/node-1/data/cni/cache").forEach {
                    try File.removeFile("\(machine.directory)/node-1/data/cni/cache/\($0)")
                }
                let next = try node.restarted()
                #expect(try node.run { next.collectGarbage(living: []) } == [])
                try node.expectNothing()
                // A device of ours of which nothing else is known.
                let two = try node.restarted()
                _ = try node.pod("two", on: red, last: 2, networks: two)
                try Tree.remove("\(machine.directory)/node-1/run/cni/overlay/networks")
                let last = try node.restarted()
                let words = "the device \(red.device) is of no network that pods are on"
                #expect(try node.run { last.check() }.contains(words))
                #expect(try node.run { last.removeLeftovers() } == [])
                try node.expectNothing()
            }
        }

        @Test func `the route of a pod that is being wired is not too much`() async throws {
            try await PrivateMachine.run { machine in
                let site = try OverlaySite(machine, nodes: 1)
                let red = try OverlaySite.network(5)
                let node = site.nodes[0]
                // Somebody gives a reason to look, and time to do so, while the plugin has wired and nobody knows it.
                let script = """
                    "$plugin" >$0.out; code=$?
                    [ $CNI_COMMAND = ADD ] && ip rule del table 28020 && sleep 1
                    cat $0.out; exit $code
                    """
                let networks = try node.restarted(script: script)
                let reports = Reports()
                try node.run { try networks.start { words in reports.add(words) } }
                defer { networks.stop() }
                _ = try node.pod("one", on: red, last: 2, networks: networks)
                let rule = "the rule by which IPv4 looks into the table 28020 is missing"
                #expect(try self.eventually { reports.all.contains(rule) })
                #expect(!reports.all.contains { $0.contains("too much") }, "\(reports.all)")
                #expect(try node.run { networks.check() } == [])
            }
        }

        @Test func `an attachment that failed and could not be undone is detached later`() async throws {
            try await PrivateMachine.run { machine in
                let site = try OverlaySite(machine, nodes: 1)
                let red = try OverlaySite.network(5)
                let node = site.nodes[0]
                let broken = "\(machine.directory)/broken"
                try File.replace(broken, with: [])
                let networks = try node.restarted(
                    script: "\"$plugin\" >$0.out; code=$?; [ -e \(broken) ] && exit 1; cat $0.out; exit $code")
                #expect(throws: NetworkError.self) { try node.pod("one", on: red, last: 2, networks: networks) }
                #expect(throws: NetworkError.self) { try node.run { try networks.detach("one") } }
                try File.removeFile(broken)
                try node.run { try networks.detach("one") }
                #expect(try node.run { networks.check() } == [])
                try node.expectNothing()
            }
        }

        @Test func `a node that has got another address makes its devices anew, but not for loopback`() async throws {
            try await PrivateMachine.run { machine in
                let site = try OverlaySite(machine)
                let red = try OverlaySite.network(5)
                let node = site.nodes[0]
                let one = try node.pod("one", on: red, last: 2)
                let far = try site.nodes[1].pod("far", on: red, last: 2)
                try site.meet(red)
                func made(_ networks: OverlayNetworks) throws -> String {
                    #expect(try node.run { networks.check() } == [])
                    return try node.command("ip -d link show \(red.device)")
                }
                func tell(_ networks: OverlayNetworks, _ address: String) throws {
                    let address = try #require(IPAddress(address))
                    try node.run { networks.setUnderlay(address) }
                }
                let before = try made(node.networks)
                try tell(node.networks, "127.0.0.1")
                #expect(try made(node.networks) == before)
                // The next process does not know the address yet.
                let next = try node.restarted(underlay: "127.0.0.1")
                _ = try node.run { next.repair() }
                #expect(try made(next) == before)
                try node.command("ip addr add 192.0.2.101/24 dev eth0")
                try tell(next, "192.0.2.101")
                #expect(try made(next).contains("local 192.0.2.101 "))
                // The others hear of it from the master.
                var peer = try node.peer(on: red)
                peer.underlay = try #require(IPAddress("192.0.2.101"))
                let moved = peer
                try site.nodes[1].run { try site.nodes[1].networks.update(moved, of: red.name) }
                #expect(try site.arrives(.tcp, from: one.namespace, to: far.address, in: far.namespace))
            }
        }

        @Test func `what somebody else has is refused by name`() async throws {
            try await PrivateMachine.run { machine in
                let site = try OverlaySite(machine, nodes: 1)
                let red = try OverlaySite.network(5)
                let node = site.nodes[0]
                func refusal() throws -> String {
                    do {
                        _ = try node.pod("one", on: red, last: 2)
                        Issue.record("it was attached")
                        return ""
                    } catch {
                        try NetworkNamespace.remove(at: "\(machine.run)/netns/one")
                        return "\(error)"
                    }
                }
                try node.command("ip link add vx0 type vxlan id 5 dstport 4789 local 192.0.2.1")
                #expect(try refusal().contains("the device vx0 has the VNI 5 on port 4789 already"))
                try node.command("ip link del vx0; ip link add \(red.device) type bridge")
                #expect(try refusal().contains("the device \(red.device) is there already and not ours"))
                try node.command("ip link del \(red.device); ip addr add 10.65.7.1/24 dev eth0")
                #expect(try refusal().contains("the subnet 10.65.0.0/20 overlaps 10.65.7.1/24 on eth0"))
                try node.command("ip addr del 10.65.7.1/24 dev eth0; nft add table inet martlet")
                #expect(try refusal().contains("there is one of somebody else's of this name"))
                try node.command("nft delete table inet martlet")
                try node.expectNothing()
                // Whose start was cut off before the mark.
                try node.command("ip link add \(red.device) type vxlan id 5 dstport 4789 local 192.0.2.1 nolearning")
                _ = try node.pod("one", on: red, last: 2)
                #expect(try node.run { node.networks.check() } == [])
                #expect(try node.run { node.networks.removeLeftovers() } == [])
                try node.expectNothing()
            }
        }

        @Test func `a policy of FORWARD that drops does not stop pods`() async throws {
            try await PrivateMachine.run { machine in
                let site = try OverlaySite(machine)
                let red = try OverlaySite.network(5)
                for node in site.nodes { try node.command("iptables -P FORWARD DROP; ip6tables -P FORWARD DROP") }
                let one = try site.nodes[0].pod("one", on: red, last: 2)
                let near = try site.nodes[0].pod("near", on: red, last: 3)
                let far = try site.nodes[1].pod("far", on: red, last: 2)
                try site.meet(red)
                for pod in [near, far] {
                    #expect(try site.arrives(.tcp, from: one.namespace, to: pod.address, in: pod.namespace))
                    let six = try #require(pod.address6)
                    #expect(try site.arrives(.tcp, from: one.namespace, to: six, in: pod.namespace))
                }
                let world = try machine.listen(80)
                #expect(
                    try machine.talk(to: OverlaySite.world, 80, from: one.namespace, listener: world) == "192.0.2.1")
            }
        }

        @Test func `a thousand peers are as many entries as they should be, and one costs one`() async throws {
            try await PrivateMachine.run { machine in
                let site = try OverlaySite(machine, nodes: 1)
                let red = try OverlaySite.network(5) {
                    $0.subnet = CIDR("10.65.0.0/16") ?? $0.subnet
                }
                let node = site.nodes[0]
                _ = try node.pod("one", on: red, last: 2)
                let peers = try OverlayCrowd.peers(1000, of: red)
                try node.run { try node.networks.setPeers(peers, of: red.name) }
                func count(_ command: String) throws -> Int {
                    try #require(Int(try node.command("\(command) | wc -l").split(separator: "\n")[0]))
                }
                func expect(_ peers: Int) throws {
                    // The pod's own, and what refuses the rest of the subnet.
                    #expect(try count("ip route show table 28020") == peers + 2)
                    #expect(try count("ip -6 route show table 28020") == peers + 2)
                    #expect(try count("bridge fdb show dev \(red.device)") == peers)
                    #expect(try count("ip -4 neigh show dev \(red.device) nud permanent") == peers)
                    #expect(try count("ip -6 neigh show dev \(red.device) nud permanent") == peers)
                    #expect(try node.run { node.networks.check() } == [])
                }
                try expect(1000)
                let generation = try node.command("nft -j list ruleset | wc -c")
                try node.run { try node.networks.setPeers(peers, of: red.name) }
                #expect(try node.command("nft -j list ruleset | wc -c") == generation)
                try node.run { try node.networks.remove(peer: peers[500].key, of: red.name) }
                try expect(999)
                let next = try node.restarted()
                #expect(try node.run { next.check() } == [])
                try node.run { try next.detach("one") }
                try node.expectNothing()
            }
        }

        /// What overlay networks cost: printed, not asserted.
        @Test(.enabled(if: getenv("MARTLET_SOAK") != nil, "a measurement"))
        func `the price of many peers and networks`() async throws {
            try await PrivateMachine.run { machine in
                let site = try OverlaySite(machine, nodes: 1)
                let node = site.nodes[0]
                try OverlayCrowd.measure(node)
            }
        }
    }
}

/// What a watch tells.
private final class Reports: Sendable {
    private let words = Mutex<[String]>([])
    func add(_ more: [String]) { words.withLock { $0 += more } }
    var all: [String] { words.withLock { $0 } }
}

/// Many peers, and many networks.
enum OverlayCrowd {
    /// Each has a block of 32 addresses of each family, and an address in 198.18.0.0/15 (RFC 2544).
    static func peers(_ count: Int, of network: OverlayNetworkConfiguration) throws -> [OverlayPeer] {
        try (1...count).map { number in
            let underlay = try #require(IPAddress("198.18.0.0")?.advanced(by: Int64(number)))
            let four = network.subnet.first.advanced(by: Int64(number) * 32).flatMap { CIDR($0, prefixLength: 27) }
            let six = network.subnet6?.first.advanced(by: Int64(number) * 32).flatMap { CIDR($0, prefixLength: 123) }
            return OverlayPeer(key: "peer-\(number)", underlay: underlay, blocks: [four, six].compactMap { $0 })
        }
    }

    private static func milliseconds(_ body: () throws -> Void) rethrows -> Double {
        let clock = ContinuousClock()
        let start = clock.now
        try body()
        let spent = (clock.now - start).components
        return Double(spent.seconds) * 1000 + Double(spent.attoseconds) / 1e15
    }

    /// Of this process, in KiB.
    private static func memory() -> Int {
        let text = (try? File.text("/proc/self/status", limit: 1 << 16)) ?? ""
        let line = text.split(separator: "\n").first { $0.hasPrefix("VmRSS:") }
        return line.flatMap { Int($0.split(separator: " ").dropLast().last ?? "") } ?? 0
    }

    static func measure(_ node: OverlayNode) throws {
        var network = try OverlaySite.network(5)
        network.subnet = try #require(CIDR("10.64.0.0/12"))
        network.gateway = try #require(IPAddress("10.64.0.1"))
        let wide = network
        let pod = try node.pod("one", on: wide, last: 2)
        for count in [100, 1_000, 10_000] {
            let peers = try self.peers(count, of: wide)
            let before = memory()
            let all = try milliseconds { try node.run { try node.networks.setPeers(peers, of: wide.name) } }
            let used = memory() - before
            var other = peers[count / 2]
            other.blocks.removeLast()
            let changed = other
            let one = try milliseconds { try node.run { try node.networks.update(changed, of: wide.name) } }
            let look = try milliseconds { _ = try node.run { node.networks.check() } }
            let routes = try node.command("(ip route show table 28020; ip -6 route show table 28020) | wc -l")
            let gone = try milliseconds { try node.run { try node.networks.setPeers([], of: wide.name) } }
            print(
                "\(count) peers: \(all) ms to make, \(one) ms for one change, \(look) ms to look, \(gone) ms to remove;",
                "\(used) KiB, \(routes.dropLast()) routes, \(count) forwarding entries, \(2 * count) neighbours")
        }
        try node.run { try node.networks.detach(pod.id) }
        let before = memory()
        var pods: [String] = []
        let all = try milliseconds {
            for number in 0..<1_000 {
                let name = String(repeating: "0", count: 12 - String(number).count) + String(number)
                let base = try #require(IPAddress("10.64.0.0")?.advanced(by: Int64(number) * 64))
                let configuration = OverlayNetworkConfiguration(
                    name: "mt-\(name)", device: "mx-\(name)", vni: UInt32(number + 1),
                    subnet: try #require(CIDR(base, prefixLength: 26)), gateway: try #require(base.advanced(by: 1)))
                let address = try #require(base.advanced(by: 2)).description
                pods.append(try node.pod("pod-\(number)", on: configuration, last: 0, address: address).id)
            }
        }
        let look = try milliseconds { _ = try node.run { node.networks.check() } }
        let used = max(0, memory() - before)
        let gone = try milliseconds {
            for pod in pods { try node.run { try node.networks.detach(pod, isEnd: true) } }
        }
        print("1000 networks with a pod each: \(all) ms to make, \(look) ms to look, \(gone) ms to remove; \(used) KiB")
    }
}
