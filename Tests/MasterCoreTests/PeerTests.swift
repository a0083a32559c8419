import Model
import Testing
import Wire

@testable import MasterCore

@Suite struct PeersOfNodes {
    @Test func nodesOnANetworkHearOfEachOtherAndNobodyElseDoes() throws {
        var cluster = try Cluster()
        for number in 1...3 { try cluster.addNode("n\(number)", address: "192.0.2.\(number)") }
        let net = try cluster.makeNetwork("net") { ($0.subnet, $0.subnet6) = ("10.9.0.0/24", "fd00:9::/64") }.network
        try cluster.run("a", on: "net", node: "n1")
        #expect(cluster.peers[NodeID("n1")] == [:] && cluster.peerLines == 0)
        try cluster.run("b", on: "net", node: "n2")
        let second = NetworkPeer(
            network: net.id, node: NodeID("n2"), underlay: "192.0.2.2", blocks: ["10.9.0.16/28", "fd00:9::10/124"])
        #expect(cluster.peers[NodeID("n1")] == ["\(net.id)/n2": second])
        #expect(cluster.peers[NodeID("n2")]?.keys.sorted() == ["\(net.id)/n1"])
        #expect(cluster.peers[NodeID("n3")] == [:])
        // Another task in the same block is nobody's news.
        let lines = cluster.peerLines
        try cluster.run("c", on: "net", node: "n2")
        #expect(cluster.peerLines == lines)
        try cluster.run("d", on: [NetworkAttachment(network: "net", address: "10.9.0.5")], node: "n3")
        #expect(cluster.peers[NodeID("n1")]?["\(net.id)/n3"]?.addresses == ["10.9.0.5", "fd00:9::5"])
        #expect(cluster.peers[NodeID("n1")]?["\(net.id)/n3"]?.blocks == [])
        #expect(cluster.peers[NodeID("n3")]?.count == 2)
        cluster.checkAddresses()
        // A node that has nothing there any more hears of nobody, and nobody of it.
        try cluster.remove("d")
        #expect(cluster.peers[NodeID("n3")] == [:] && cluster.peers[NodeID("n1")]?.count == 1)
        cluster.checkAddresses()
    }

    @Test func networksAreApart() throws {
        var cluster = try Cluster()
        for node in ["n1", "n2", "n3"] { try cluster.addNode(node) }
        let (one, two) = (try cluster.makeNetwork("one").network, try cluster.makeNetwork("two").network)
        try cluster.run("a", on: [NetworkAttachment(network: "one"), NetworkAttachment(network: "two")], node: "n1")
        try cluster.run("b", on: "one", node: "n2")
        try cluster.run("c", on: "two", node: "n3")
        #expect(cluster.peers[NodeID("n1")]?.keys.sorted() == ["\(one.id)/n2", "\(two.id)/n3"].sorted())
        #expect(cluster.peers[NodeID("n2")]?.keys.sorted() == ["\(one.id)/n1"])
        #expect(cluster.peers[NodeID("n3")]?.keys.sorted() == ["\(two.id)/n1"])
        try cluster.perform(.disconnect("one", DisconnectNetwork(container: "a")))
        // As long as the node has something there, packets for it go there.
        #expect(cluster.peers[NodeID("n2")]?.keys.sorted() == ["\(one.id)/n1"])
        cluster.checkAddresses()
        cluster.obey()
        #expect(cluster.peers[NodeID("n1")]?.keys.sorted() == ["\(two.id)/n3"])
        #expect(cluster.peers[NodeID("n2")] == [:])
        cluster.checkAddresses()
    }

    @Test func aNodeThatConnectsAnewIsToldAllFirst() throws {
        var cluster = try Cluster()
        for node in ["n1", "n2"] { try cluster.addNode(node) }
        let net = try cluster.makeNetwork("net").network
        try cluster.run("a", on: "net", node: "n1")
        cluster.away = ["n1"]
        try cluster.run("b", on: "net", node: "n2")
        #expect(cluster.peers[NodeID("n1")] == [:])
        try cluster.connect("n1")
        #expect(cluster.peers[NodeID("n1")]?.keys.sorted() == ["\(net.id)/n2"])
        // A master that has just begun knows the same.
        try cluster.restart()
        guard case .peers(let list) = try cluster.query(.peers("n2")) else { throw Cluster.Unexpected() }
        #expect(list.node == NodeID("n2") && list.map(\.id) == ["\(net.id)/n1"])
        let lines = cluster.peerLines
        for node in ["n1", "n2"] { try cluster.connect(node) }
        #expect(cluster.peerLines == lines)
        cluster.checkAddresses()
    }

    @Test func aNodesNewAddressIsToldToItsPeers() throws {
        var cluster = try Cluster()
        for number in 1...3 { try cluster.addNode("n\(number)", address: "192.0.2.\(number)") }
        let net = try cluster.makeNetwork("net").network
        for node in ["n1", "n2"] { try cluster.run("on-\(node)", on: "net", node: node) }
        var node = try cluster.node("n1").node
        node.address = "192.0.2.77"
        try cluster.perform(.registerNode(NodeRegistration(node: node)))
        #expect(cluster.peers[NodeID("n2")]?["\(net.id)/n1"]?.underlay == "192.0.2.77")
        #expect(cluster.peers[NodeID("n3")] == [:])
        // The old one is free for subnets, the new one is not.
        #expect(cluster.refusal("x") { $0.subnet = "192.0.2.64/26" }.contains("192.0.2.77"))
        cluster.checkAddresses()
    }

    @Test func whatIsNotWrittenIsNotTold() throws {
        var cluster = try Cluster()
        for node in ["n1", "n2"] { try cluster.addNode(node) }
        try cluster.makeNetwork("net")
        try cluster.run("a", on: "net", node: "n1")
        cluster.holdsCommits = true
        cluster.send(.createContainer(cluster.wish("b", on: [NetworkAttachment(network: "net")], node: "n2")))
        #expect(cluster.peerLines == 0)
        cluster.failCommits(.unavailable("gone"))
        cluster.holdsCommits = false
        cluster.pass(seconds: 2, heard: ["n1", "n2"])
        #expect(cluster.peerLines == 0 && cluster.peers[NodeID("n1")] == [:])
        try cluster.run("b", on: "net", node: "n2")
        #expect(cluster.peerLines == 2)
        cluster.checkAddresses()
    }

    @Test func listsAreWithoutMembersAndAnAnswerHasThousandAtMost() throws {
        var cluster = try Cluster()
        try cluster.addNode("n1", memory: 1 << 50)
        try cluster.makeNetwork("net")
        try cluster.makeNetwork("empty", "bridge")
        let pod = cluster.wish("x", on: [NetworkAttachment(network: "net")]).pod
        try cluster.perform(.createService(CreateService(name: "s", pod: pod, scale: .replicated(1010))))
        try cluster.perform(.createContainer(cluster.wish("first", on: [NetworkAttachment(network: "net")])))
        guard case .networks(let views) = try cluster.query(.networks) else { throw Cluster.Unexpected() }
        #expect(views.map(\.containers) == [0, 1011] && views.allSatisfy { $0.members.isEmpty && $0.nodes.isEmpty })
        let page = try cluster.networkView("net")
        #expect(page.members.count == NetworkView.mostMembers && page.containers == 1011 && page.nodes.count == 1)
        #expect(page.members.first?.name == "first" && page.next == page.members.last?.name)
        let query = MasterQuery.network("net", after: try #require(page.next))
        guard case .network(let rest) = try cluster.query(query) else { throw Cluster.Unexpected() }
        #expect(rest.members.count == 11 && rest.next == nil && rest.nodes.isEmpty)
        #expect(Set((page.members + rest.members).map(\.container)).count == 1011)
    }

    @Test func peopleSeeWhereANetworkIs() throws {
        var cluster = try Cluster()
        for number in 1...2 { try cluster.addNode("n\(number)", address: "192.0.2.\(number)") }
        try cluster.makeNetwork("net") { $0.subnet = "10.9.0.0/24" }
        try cluster.run("a", on: "net", node: "n1")
        try cluster.run("b", on: "net", node: "n1")
        try cluster.run("c", on: [NetworkAttachment(network: "net", address: "10.9.0.9")], node: "n2")
        let view = try cluster.networkView("net")
        #expect(view.members.map(\.name) == ["a", "b", "c"] && view.nodeName == "")
        let first = NetworkView.Part(
            node: NodeID("n1"), nodeName: "n1", underlay: "192.0.2.1", blocks: ["10.9.0.0/28"], addresses: [], tasks: 2)
        let second = NetworkView.Part(
            node: NodeID("n2"), nodeName: "n2", underlay: "192.0.2.2", blocks: [], addresses: ["10.9.0.9"], tasks: 1)
        #expect(view.nodes == [first, second])
    }
}
