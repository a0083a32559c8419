import JSON
import Model
import Testing
import Wire

@testable import MasterCore

@Suite struct OverlayCreation {
    @Test func anOverlayHasASubnetAndANumberThatNoOtherHas() throws {
        var cluster = try Cluster()
        let first = try cluster.makeNetwork("a").network
        let second = try cluster.makeNetwork("b") { $0.isIPv6 = true }.network
        #expect(first.driver == "overlay" && first.subnet == "10.64.0.0/20" && first.gateway == "10.64.0.1")
        #expect(first.vni == 4096 && first.subnet6.isEmpty && first.gateway6.isEmpty)
        #expect(second.subnet == "10.64.16.0/20" && second.vni == 4097)
        #expect(second.subnet6.hasPrefix("fd") && second.subnet6.hasSuffix("::/64"))
        #expect(second.gateway6 == second.subnet6.replacing("::/64", with: "::1"))
        try cluster.restart()
        #expect(try cluster.networkView("b").network == second)
        // What was given back is the next, and the rest is not touched.
        try cluster.perform(.removeNetwork("a"))
        let third = try cluster.makeNetwork("c").network
        #expect(third.subnet == "10.64.0.0/20" && third.vni == 4096)
        #expect(try cluster.makeNetwork("d").network.vni == 4098)
    }

    @Test func whatIsNamedCounts() throws {
        var cluster = try Cluster()
        let network = try cluster.makeNetwork("a") {
            ($0.subnet, $0.gateway, $0.range) = ("10.9.0.0/16", "10.9.0.254", "10.9.8.0/24")
            ($0.subnet6, $0.gateway6, $0.vni) = ("fd00:9::/64", "fd00:9::fe", 77)
            $0.options = ["com.docker.network.driver.mtu": "1400"]
            $0.isInternal = true
        }.network
        #expect(network.subnet6 == "fd00:9::/64" && network.gateway6 == "fd00:9::fe" && network.vni == 77)
        #expect(network.gateway == "10.9.0.254" && network.range == "10.9.8.0/24" && network.isInternal)
        let option = "com.docker.network.driver.overlay.vxlanid_list"
        #expect(try cluster.makeNetwork("b") { $0.options = [option: "16777215"] }.network.vni == 16_777_215)
        // One that is named in between is passed over.
        _ = try cluster.makeNetwork("c") { $0.vni = 4096 }
        #expect(try cluster.makeNetwork("d").network.vni == 4097)
    }

    @Test func whatCannotBeIsRefusedByName() throws {
        var cluster = try Cluster()
        try cluster.addNode("n1", address: "192.0.2.7")
        try cluster.makeNetwork("web") {
            ($0.subnet, $0.subnet6, $0.vni) = ("10.5.0.0/16", "fd00:5::/64", 500)
        }
        try cluster.makeNetwork("local", "bridge") { $0.subnet = "10.7.0.0/16" }
        func says(_ words: String, _ change: (inout CreateNetwork) -> Void) {
            let message = cluster.refusal("a") { change(&$0) }
            #expect(message.contains(words), "\(message)")
        }
        says("Pool overlaps with other one on this address space: 10.5.128.0/24") { $0.subnet = "10.5.128.0/24" }
        says("of the network web") { $0.subnet = "10.0.0.0/8" }
        says("of the network local") { $0.subnet = "10.7.3.0/24" }
        says("fd00:5::/64 of the network web") { $0.subnet6 = "fd00:5::/56" }
        says("192.0.2.7, the address of the node n1") { $0.subnet = "192.0.2.0/24" }
        says("500 is that of the network web") { $0.vni = 500 }
        for vni in [0, -1, 16_777_216] { says("$.vni: \(vni) is not between 1 and 16777215") { $0.vni = vni } }
        for subnet in ["10.0.0.0/7", "10.8.0.0/30", "10.8.0.1/16", "x"] { says("$.subnet") { $0.subnet = subnet } }
        for subnet in ["fd00:8::/47", "fd00:8::/113", "fd00:8::1/64", "10.8.0.0/16", "x"] {
            says("$.subnet6") { $0.subnet6 = subnet }
        }
        says("name it as subnet6") { $0.subnet = "fd00:8::/64" }
        for subnet in ["fe80::/64", "ff05::/64", "::/64"] { says("cannot be routed") { $0.subnet6 = subnet } }
        says("at most /104") { ($0.subnet, $0.subnet6) = ("11.0.0.0/8", "fd00:8::/112") }
        says("$.gateway6") { ($0.subnet6, $0.gateway6) = ("fd00:8::/64", "fd00:9::1") }
        says("$.gateway6") { ($0.subnet6, $0.gateway6) = ("fd00:8::/64", "fd00:8::") }
        says("a gateway is of a subnet") { $0.gateway6 = "fd00:8::1" }
        says("a gateway, a range or reserved addresses are of a subnet") { $0.range = "10.64.0.0/24" }
        says("leave none to containers") { ($0.subnet, $0.range) = ("10.8.0.0/16", "10.8.0.1/32") }
        says("is true, false or empty") { $0.options = ["encrypted": "perhaps"] }
        says("'color' is no option of the driver overlay") { $0.options = ["color": "red"] }
        for option in ["bridge.name", "bridge.enable_icc", "bridge.enable_ip_masquerade", "bridge.host_binding_ipv4"] {
            says("is an option of the driver bridge") { $0.options = ["com.docker.network.\(option)": "true"] }
        }
        let mtu = "com.docker.network.driver.mtu"
        for value in ["575", "65466", "x"] { says("between 576 and 65465") { $0.options = [mtu: value] } }
        says("between 1280 and 65465 with IPv6") { ($0.isIPv6, $0.options) = (true, [mtu: "1279"]) }
        let list = "com.docker.network.driver.overlay.vxlanid_list"
        for value in ["4,5", "0", ""] { says("is one number") { $0.options = [list: value] } }
        says("$.vni: 5 is not 6") { ($0.vni, $0.options) = (5, [list: "6"]) }
        #expect(cluster.refusal("a", "macvlan") { _ in }.contains("'macvlan' is not supported: choose bridge"))
        #expect(cluster.refusal("a", "bridge") { $0.subnet = "192.0.2.0/24" }.contains("the address of the node n1"))
        #expect(cluster.refusal("a", "bridge") { $0.vni = 5 }.contains("$.vni"))
        #expect(cluster.refusal("a", "bridge") { $0.options = [list: "5"] }.contains("an option of the driver overlay"))
        #expect(
            cluster.refusal("a", "bridge") { $0.options = ["encrypted": ""] }.contains(
                "an option of the driver overlay"))
        #expect(try cluster.makeNetwork("a") { $0.options = ["encrypted": "false", mtu: "576"] }.network.vni == 4096)
    }

    @Test func anEncryptedNetworkComesOnlyToNodesThatCanEncrypt() throws {
        var cluster = try Cluster()
        try cluster.addNode("plain", address: "192.0.2.1")
        for value in ["", "true", "1"] {
            let network = try cluster.makeNetwork("secret\(value)") { $0.options = ["encrypted": value] }.network
            #expect(network.isEncrypted && network.features == ["overlay", "overlay-encryption"], "\(value)")
            // As it was asked for, for people and for Docker.
            #expect(network.options == ["encrypted": value])
        }
        let open = try cluster.makeNetwork("open") { $0.options = ["encrypted": "false"] }.network
        #expect(!open.isEncrypted && open.features == ["overlay"])
        try cluster.run("one", on: "secret")
        #expect(try cluster.container("one").node == nil)
        try cluster.run("two", on: "open")
        let problem = cluster.problem(.connect("secret", ConnectNetwork(container: "two")))
        #expect(
            problem?.message.contains("the node plain has no networks with the driver overlay that are encrypted")
                == true)
        try cluster.addNode("able", address: "192.0.2.2", features: ["overlay", "overlay-encryption"])
        cluster.obey()
        #expect(try cluster.container("one").nodeName == "able")
    }

    @Test func nodesHearOfEachOthersPublicKeysAndOfNewOnes() throws {
        var cluster = try Cluster()
        let keys = ["a", "b", "c"].map { String(repeating: $0, count: 64) }
        func register(_ name: String, _ key: String?) throws -> APIProblem? {
            var node = try cluster.node(name).node
            node.overlayKey = key
            return cluster.problem(.registerNode(NodeRegistration(node: node)))
        }
        for number in 1...2 {
            try cluster.addNode(
                "n\(number)", address: "192.0.2.\(number)", features: ["overlay", "overlay-encryption"])
            #expect(try register("n\(number)", keys[number - 1]) == nil)
        }
        let net = try cluster.makeNetwork("net") { $0.options = ["encrypted": ""] }.network
        try cluster.run("a", on: "net", node: "n1")
        try cluster.run("b", on: "net", node: "n2")
        #expect(cluster.peers[NodeID("n1")]?["\(net.id)/n2"]?.overlayKey == keys[1])
        #expect(cluster.peers[NodeID("n2")]?["\(net.id)/n1"]?.overlayKey == keys[0])
        #expect(try register("n2", keys[2]) == nil)
        #expect(cluster.peers[NodeID("n1")]?["\(net.id)/n2"]?.overlayKey == keys[2])
        for bad in ["", "ab", String(repeating: "g", count: 64)] {
            #expect(try register("n2", bad)?.message.contains("$.node.overlayKey") == true)
        }
        #expect(cluster.peers[NodeID("n1")]?["\(net.id)/n2"]?.overlayKey == keys[2])
    }

    @Test func noNodeHasItsPublicKeyToldInThePlaceOfAnothers() throws {
        var cluster = try Cluster()
        let features = ["overlay", "overlay-encryption"]
        func register(_ name: String, _ address: String, _ key: String) throws {
            var node = try cluster.node(name).node
            (node.address, node.features) = (address, features)
            node.overlayKey = String(repeating: key, count: 64)
            #expect(cluster.problem(.registerNode(NodeRegistration(node: node))) == nil)
        }
        func key(_ name: String) throws -> String? { try cluster.node(name).node.overlayKey?.first.map(String.init) }
        for (name, address) in [("a", "192.0.2.1"), ("b", "192.0.2.2"), ("c", "2001:db8::1"), ("d", "127.0.0.1")] {
            try cluster.addNode(name, address: address, features: features)
            try register(name, address, name)
            #expect(try key(name) == name)
        }
        // Not of one that is there, whatever it was before; the same address in other words is the same.
        try register("b", "192.0.2.1", "e")
        #expect(try key("b") == nil && cluster.node("b").node.features == ["overlay"])
        try register("b", "192.0.2.1", "e")
        #expect(try key("b") == nil && key("a") == "a")
        try register("b", "2001:DB8:0::1", "e")
        #expect(try key("b") == nil)
        try register("b", "192.0.2.2", "e")
        #expect(try key("b") == "e" && cluster.node("b").node.features == features)
        // Who is there has its new keys, and what nothing can be sent to is nobody's place.
        try register("a", "192.0.2.1", "f")
        #expect(try key("a") == "f")
        try register("b", "127.0.0.1", "e")
        #expect(try key("b") == "e")
    }

    @Test func aNodeHasNoAddressOfAnOverlay() throws {
        var cluster = try Cluster()
        try cluster.addNode("n1", address: "192.0.2.7")
        try cluster.makeNetwork("net") { ($0.subnet, $0.subnet6) = ("10.9.0.0/24", "fd00:9::/64") }
        try cluster.makeNetwork("local", "bridge") { $0.subnet = "10.7.0.0/16" }
        for (name, address) in [("n1", "10.9.0.77"), ("n2", "10.9.0.9"), ("n3", "fd00:9::9")] {
            var node = try cluster.node("n1").node
            (node.id, node.name, node.address) = (NodeID(name), name, address)
            let problem = cluster.problem(.registerNode(NodeRegistration(node: node)))
            #expect(problem?.code == .conflict)
            #expect(problem?.message.contains("the address \(address) of the node \(name) is in ") == true)
            #expect(problem?.message.contains("the subnet of the overlay net") == true)
            #expect(problem?.message.contains("--node-address") == true)
        }
        #expect(try cluster.node("n1").node.address == "192.0.2.7")
        for (name, address) in [("n1", "10.9.1.1"), ("n2", "10.7.0.9"), ("n3", "fd00:a::9"), ("n4", "host.example")] {
            try cluster.addNode(name, address: address)
        }
        // What has been so all along is nobody's fault.
        try cluster.addNode("n1", address: "10.9.1.1")
    }

    @Test func aThousandOverlaysHaveEachTheirOwn() throws {
        var cluster = try Cluster()
        // Both lie in the pool that is chosen from.
        try cluster.addNode("n1", address: "10.64.16.9")
        try cluster.makeNetwork("local", "bridge") { $0.subnet = "10.64.32.0/19" }
        var subnets: Set<String> = []
        var numbers: Set<Int> = []
        for number in 0..<1021 {
            let network = try cluster.makeNetwork("n\(number)").network
            subnets.insert(network.subnet)
            numbers.insert(network.vni ?? 0)
        }
        #expect(subnets.count == 1021 && numbers.count == 1021 && subnets.contains("10.127.240.0/20"))
        #expect(subnets.isDisjoint(with: ["10.64.16.0/20", "10.64.32.0/20", "10.64.48.0/20"]))
        #expect(cluster.refusal("more") { _ in }.contains("the 1024 subnets of 10.64.0.0/10 that networks"))
        #expect(cluster.refusal("more") { _ in }.contains("name a free one as subnet (`--subnet"))
        _ = try cluster.makeNetwork("named") { $0.subnet = "10.128.0.0/24" }
        try cluster.perform(.removeNetwork("local"))
        #expect(try cluster.makeNetwork("more").network.subnet == "10.64.32.0/20")
        try cluster.perform(.removeNetwork("n500"))
        try cluster.restart()
        let again = try cluster.makeNetwork("again").network
        #expect(again.subnet == "10.64.48.0/20" && numbers.contains(again.vni ?? 0))
        let last = try cluster.makeNetwork("last").network
        #expect(subnets.contains(last.subnet) && !numbers.contains(last.vni ?? 0))
    }

    @Test func aDraftThatIsNotWrittenTakesNoSubnet() throws {
        var cluster = try Cluster()
        try cluster.makeNetwork("kept") { $0.subnet = "10.5.0.0/16" }
        cluster.holdsCommits = true
        // Two transactions: the second begins when the first has ended.
        cluster.send(.createNetwork(CreateNetwork(name: "a", driver: "overlay")))
        cluster.send(.removeNetwork("kept"))
        cluster.send(.createNetwork(CreateNetwork(name: "b", driver: "overlay", subnet: "10.5.0.0/24")))
        cluster.failCommits(.unavailable("gone"))
        cluster.failCommits(.unavailable("gone"))
        cluster.holdsCommits = false
        #expect(try cluster.makeNetwork("c").network.subnet == "10.64.0.0/20")
        #expect(cluster.refusal("d") { $0.subnet = "10.5.0.0/24" }.contains("of the network kept"))
    }

    @Test func aNetworkOfCNIIsWhatItsConfigurationSays() throws {
        var cluster = try Cluster()
        let list = #"{"cniVersion": "1.1.0", "name": "lan", "plugins": [{"type": "macvlan", "master": "eth1"}]}"#
        let network = try cluster.makeNetwork("lan", "cni") { $0.options = ["martlet.cni.config": list] }.network
        #expect(network.driver == "cni" && network.subnet.isEmpty && network.gateway.isEmpty && network.vni == nil)
        #expect(network.options == ["martlet.cni.config": list])
        #expect(try cluster.makeNetwork("other", "cni").network.options.isEmpty)
        func says(_ words: String, _ change: (inout CreateNetwork) -> Void) {
            let message = cluster.refusal("a", "cni") { change(&$0) }
            #expect(message.contains(words), "\(message)")
        }
        let config = "martlet.cni.config"
        says("is no CNI configuration list") { $0.options = [config: "{}"] }
        says("is no CNI configuration list") { $0.options = [config: "no JSON"] }
        says("has at most 65536") { $0.options = [config: String(repeating: " ", count: 65_537)] }
        says("$.subnet: the CNI configuration says this") { $0.subnet = "10.8.0.0/16" }
        says("$.vni") { $0.vni = 5 }
        says("$.gateway") { $0.gateway = "10.8.0.1" }
        says("$.range") { $0.range = "10.8.0.0/24" }
        says("$.subnet6") { $0.isIPv6 = true }
        says("$.isInternal") { $0.isInternal = true }
        says("is an option of the driver bridge or overlay") { $0.options = ["com.docker.network.driver.mtu": "1400"] }
        #expect(cluster.refusal("a") { $0.options = [config: list] }.contains("an option of the driver cni"))
        // It may hold secrets: lists are read by many.
        guard case .networks(let views) = try cluster.query(.networks) else { throw Cluster.Unexpected() }
        #expect(views.map(\.network.name) == ["lan", "other"] && views.allSatisfy { $0.network.options.isEmpty })
        #expect(try cluster.networkView("lan").network.options == ["martlet.cni.config": list])
        try cluster.addNode("n1")
        try cluster.run("on-lan", on: "lan")
        #expect(cluster.assigned[NodeID("n1")]?.values.first?.networks.first?.options == ["martlet.cni.config": list])
        let developer = Subject.user(TokenID("w"), name: "web", role: .developer, group: "/web")
        let body = CreateNetwork(name: "a", driver: "cni")
        #expect(cluster.problem(.createNetwork(body), by: developer)?.code == .forbidden)
    }

    @Test func limitsOnTrafficAreOfNetworksOfCNIAndOfNodesThatKnowThem() throws {
        var cluster = try Cluster()
        try cluster.addNode("n1", features: ["overlay", "cni"])
        for driver in ["cni", "overlay", "bridge"] { try cluster.makeNetwork("on-\(driver)", driver) }
        func limited(_ name: String, on network: String, _ limits: TrafficLimits) -> CreateContainer {
            cluster.wish(name, on: [NetworkAttachment(network: network, bandwidth: limits)])
        }
        let limits = TrafficLimits(ingressRate: 8_000_000)
        for driver in ["overlay", "bridge"] {
            let message = cluster.problem(.createContainer(limited("a", on: "on-\(driver)", limits)))?.message ?? ""
            #expect(
                message.contains("$.pod.attachments[0].bandwidth: limits on traffic are kept by plugins"), "\(message)")
            #expect(message.contains("on-\(driver) has the driver \(driver)"), "\(message)")
        }
        let none = cluster.problem(.createContainer(limited("a", on: "on-cni", TrafficLimits())))?.message ?? ""
        #expect(none.contains("$.pod.attachments[0].bandwidth.ingressRate and egressRate: neither"), "\(none)")
        try cluster.perform(.createContainer(limited("a", on: "on-cni", limits)))
        cluster.obey()
        #expect(try cluster.container("a").nodeName.isEmpty)
        try cluster.run("plain", on: "on-cni")
        let connect = ConnectNetwork(container: "plain", bandwidth: limits)
        try cluster.makeNetwork("second", "cni")
        #expect(cluster.problem(.connect("second", connect))?.code == .conflict)
        #expect(cluster.problem(.connect("on-overlay", connect))?.code == .badRequest)
        try cluster.addNode("n2", features: ["overlay", "cni", Network.trafficLimits])
        cluster.obey()
        #expect(try cluster.container("a").nodeName == "n2")
        let given = cluster.assigned[NodeID("n2")]?.values.first?.pod.attachments.first?.bandwidth
        #expect(given == TrafficLimits(ingressRate: 8_000_000, ingressBurst: 1_048_576))
    }

    @Test func podsOfOverlaysAndOfCNIRunOnAnyNode() throws {
        var cluster = try Cluster()
        for node in ["n1", "n2", "n3"] { try cluster.addNode(node) }
        for driver in ["overlay", "cni"] {
            try cluster.makeNetwork(driver, driver)
            let pod = cluster.wish("x", on: [NetworkAttachment(network: driver)]).pod
            try cluster.perform(.createService(CreateService(name: "all-\(driver)", pod: pod, scale: .global)))
            try cluster.perform(.createService(CreateService(name: "some-\(driver)", pod: pod, scale: .replicated(3))))
            cluster.obey()
            let containers = try cluster.containers()
            for name in ["all", "some"] {
                let nodes = containers.filter { $0.workloadName == "\(name)-\(driver)" }.map(\.nodeName)
                #expect(Set(nodes) == ["n1", "n2", "n3"], "\(name) \(driver)")
            }
            #expect(try cluster.networkView(driver).nodeName == "")
        }
        // They leave a node that is drained.
        try cluster.perform(.updateNode("n1", UpdateNode(availability: .drained)))
        for _ in 0..<8 {
            cluster.obey()
            cluster.pass(seconds: 5, heard: ["n1", "n2", "n3"])
        }
        #expect(try !cluster.containers().contains { $0.nodeName == "n1" && $0.workloadName.hasPrefix("some") })
        cluster.checkAddresses()
    }

    @Test func whoIsConfinedTakesPrivateSubnetsOnly() throws {
        var cluster = try Cluster()
        let developer = Subject.user(TokenID("w"), name: "web", role: .developer, group: "/web")
        var body = CreateNetwork(name: "net", driver: "overlay", subnet: "8.8.0.0/16")
        let problem = cluster.problem(.createNetwork(body), by: developer)
        #expect(problem?.code == .forbidden && problem?.message.contains("8.8.0.0/16 is no private network") == true)
        body.subnet = "10.8.0.0/16"
        body.subnet6 = "2001:db8::/64"
        #expect(cluster.problem(.createNetwork(body), by: developer)?.code == .forbidden)
        body.subnet6 = "fd00:8::/64"
        #expect(cluster.problem(.createNetwork(body), by: developer) == nil)
    }

    /// Who may not see a network does not read its name, nor those of what is on it.
    @Test func refusalsNameNothingOfOtherGroups() throws {
        var cluster = try Cluster()
        try cluster.addNode("n1")
        let web = Subject.user(TokenID("w"), name: "web", role: .developer, group: "/web")
        try cluster.makeNetwork("hidden") { ($0.subnet, $0.vni, $0.group) = ("10.9.0.0/24", 77, "/db") }
        try cluster.makeNetwork("shared") { ($0.subnet, $0.group) = ("10.8.0.0/24", "/web") }
        func says(_ words: String, _ command: MasterCommand) {
            let message = cluster.problem(command, by: web)?.message ?? "it was done"
            #expect(message.contains(words) && !message.contains("hidden") && !message.contains("secret"), "\(message)")
        }
        let overlapping = CreateNetwork(name: "a", driver: "overlay", subnet: "10.9.0.0/16")
        says("shares addresses with 10.9.0.0/24 of a network of another group", .createNetwork(overlapping))
        says(
            "77 is that of a network of another group",
            .createNetwork(CreateNetwork(name: "a", driver: "overlay", vni: 77)))
        var secret = cluster.wish("secret", on: [NetworkAttachment(network: "shared", address: "10.8.0.9")])
        secret.group = "/db"
        try cluster.perform(.createContainer(secret))
        for name in ["mine", "secret2"] {
            var wish = cluster.wish(name, on: [NetworkAttachment(network: "shared")])
            wish.group = name == "mine" ? "/web" : "/db"
            try cluster.perform(.createContainer(wish))
        }
        cluster.obey()
        for address in ["10.8.0.9", try cluster.address("secret2")] {
            #expect(!address.isEmpty)
            let theft = cluster.wish("x", on: [NetworkAttachment(network: "shared", address: address)])
            says(
                "Address already in use: \(address) on the network shared is a container of another group's",
                .createContainer(theft))
        }
        says("active endpoints: mine, and 2 of other groups are attached", .removeNetwork("shared"))
        // Who sees them reads them.
        #expect(cluster.problem(.removeNetwork("shared"))?.message.contains("mine, secret, secret2 are") == true)
        #expect(cluster.refusal("a") { $0.subnet = "10.9.0.0/16" }.contains("of the network hidden"))
    }

    @Test func anAgentWithoutOverlaysGetsNoneOfTheirPods() throws {
        var cluster = try Cluster()
        try cluster.addNode("old", features: [])
        try cluster.makeNetwork("net") { $0.subnet = "10.9.0.0/24" }
        try cluster.run("a", on: "net")
        #expect(try cluster.container("a").task == nil)
        try cluster.addNode("new")
        #expect(try cluster.container("a").node == NodeID("new"))
        cluster.checkAddresses()
    }

    /// An undone draft brings what it deleted and takes what it made in any order.
    @Test(arguments: [true, false]) func aNumberIsWhoseItWasWhenADraftIsUndone(newGoesFirst: Bool) {
        func network(_ name: String) -> Network {
            Network(
                id: NetworkID(name), name: name, driver: "overlay", vni: 4096, subnet: "", gateway: "",
                createdAt: Timestamp(nanoseconds: 0))
        }
        let (old, new) = (network("old"), network("new"))
        var pools = AddressPools()
        pools.insert(old)
        pools.remove(old)
        pools.insert(new)
        if newGoesFirst { pools.remove(new) }
        pools.insert(old)
        if !newGoesFirst { pools.remove(new) }
        #expect(pools.network(withVNI: 4096) == old.id)
        #expect(pools.freeVNI() == 4097)
    }

    @Test func anEarlierVersionIsNotToReadWhatWouldLoseItsAddresses() throws {
        func text(_ driver: String) throws -> String {
            let network = Network(
                id: NetworkID("n"), name: "n", driver: driver, subnet: "", gateway: "",
                createdAt: Timestamp(nanoseconds: 0))
            return String(decoding: try StoredObject.network(network).encoded(), as: UTF8.self)
        }
        #expect(try text("overlay").contains(#""schema":2"#))
        #expect(try text("bridge").contains(#""schema":1"#))
    }
}
