import CNISpec
import JSON
import Model
import Testing
import Wire

@testable import MasterCore

@Suite struct AddressesOfTasks {
    @Test func tasksHaveAddressesOfTheirOwnThatStay() throws {
        var cluster = try Cluster()
        for node in ["n1", "n2"] { try cluster.addNode(node) }
        let net = try cluster.makeNetwork("net") { ($0.subnet, $0.subnet6) = ("10.9.0.0/24", "fd00:9::/64") }.network
        try cluster.run("a", on: "net", node: "n1")
        try cluster.run("b", on: "net", node: "n2")
        try cluster.run("c", on: "net", node: "n1")
        #expect(
            try cluster.given("a") == [
                AssignedAddress(network: net.id, address: "10.9.0.2", address6: "fd00:9::2", isLeased: true)
            ])
        #expect(try cluster.address("b") == "10.9.0.16" && cluster.address("c") == "10.9.0.3")
        let task = try #require(try cluster.container("a").task)
        #expect(cluster.assigned[NodeID("n1")]?[task]?.addresses == (try cluster.given("a")))
        cluster.checkAddresses()
        // Neither a stop nor a new start nor another master changes them.
        let before = cluster.tasks.map(\.addresses)
        try cluster.perform(.act("a", .stop, ContainerAction()))
        cluster.obey()
        try cluster.perform(.act("a", .start, ContainerAction()))
        cluster.obey()
        try cluster.restart()
        for node in ["n1", "n2"] { try cluster.connect(node) }
        #expect(cluster.tasks.map(\.addresses) == before)
        #expect(cluster.core.state.indexes.overlays[net.id]?.taken == 3)
        // The master goes on where it was.
        try cluster.run("d", on: "net", node: "n2")
        #expect(try cluster.address("d") == "10.9.0.17")
        cluster.checkAddresses()
    }

    @Test func anAddressIsFreeWhenItsTaskIsGone() throws {
        var cluster = try Cluster()
        try cluster.addNode("n1")
        let net = try cluster.makeNetwork("net") { $0.subnet = "10.9.0.0/29" }.network
        for name in ["a", "b", "c"] { try cluster.run(name, on: "net") }
        let address = try cluster.address("b")
        #expect(cluster.core.state.indexes.overlays[net.id]?.taken == 3)
        // While its node has something of it, it is not.
        cluster.away = ["n1"]
        try cluster.perform(.removeContainer("b", force: true))
        #expect(cluster.core.state.indexes.overlays[net.id]?.taken == 3)
        cluster.away = []
        try cluster.connect("n1")
        cluster.obey()
        #expect(cluster.core.state.indexes.overlays[net.id]?.taken == 2)
        for name in ["d", "e", "f"] { try cluster.run(name, on: "net") }
        #expect(try ["d", "e", "f"].contains { try cluster.address($0) == address })
        cluster.checkAddresses()
    }

    @Test func whoFindsNoAddressWaitsUntilOneIsFree() throws {
        var cluster = try Cluster()
        for node in ["n1", "n2"] { try cluster.addNode(node) }
        try cluster.makeNetwork("net") { $0.subnet = "10.9.0.0/29" }
        let pod = cluster.wish("x", on: [NetworkAttachment(network: "net")]).pod
        try cluster.perform(.createService(CreateService(name: "s", pod: pod, scale: .replicated(7))))
        cluster.obey()
        let waiting = try cluster.containers().filter { $0.task == nil }
        #expect(waiting.count == 2 && cluster.tasks.count == 5)
        #expect(
            waiting.allSatisfy { $0.unschedulable?.message == "the network net has no free address: 5 of 5 in use" })
        #expect(try cluster.service("s").waiting.contains("no free address"))
        cluster.checkAddresses()
        // What needs none of it is placed all the same.
        try cluster.perform(.createContainer(CreateContainer(name: "free", pod: cluster.pod())))
        #expect(try cluster.container("free").task != nil)
        try cluster.perform(.updateService("s", UpdateService(scale: .replicated(5))))
        cluster.obey()
        #expect(try cluster.containers().filter { $0.workloadName == "s" && $0.task == nil }.isEmpty)
        try cluster.perform(.createContainer(cluster.wish("late", on: [NetworkAttachment(network: "net")])))
        #expect(try cluster.container("late").task == nil)
        try cluster.perform(.updateService("s", UpdateService(scale: .replicated(4))))
        cluster.obey()
        #expect(try cluster.container("late").task != nil)
        cluster.checkAddresses()
    }

    @Test func whoWaitsReadsWhoHasTheAddressesAndUntilWhen() throws {
        var cluster = try Cluster()
        for node in ["n1", "n2"] { try cluster.addNode(node) }
        try cluster.makeNetwork("net") { $0.subnet = "10.9.0.0/29" }
        let pod = cluster.wish("x", on: [NetworkAttachment(network: "net")], node: "n1").pod
        try cluster.perform(.createService(CreateService(name: "s", pod: pod, scale: .replicated(2))))
        try cluster.run("keep", on: [NetworkAttachment(network: "net", address: "10.9.0.6")], node: "n9")
        try cluster.run("left", on: "net", node: "n2")
        try cluster.run("b", on: "net", node: "n2")
        cluster.away = ["n1", "n2"]
        let since = cluster.now
        cluster.pass(seconds: 20, heard: ["n2"])
        try cluster.perform(.disconnect("net", DisconnectNetwork(container: "left")))
        try cluster.perform(.createContainer(cluster.wish("late", on: [NetworkAttachment(network: "net")])))
        let message = try cluster.container("late").unschedulable?.message
        #expect(
            message
                == "the network net has no free address: 5 of 5 in use; 2 of them by tasks on nodes that are not heard "
                + "of (n1), until their nodes are back or removed (`martlet node rm --force`) or they are given up, the "
                + "first at \(since.adding(seconds: 86_400)); 1 by containers that have left it, until their nodes have let "
                + "go of them; 1 kept for containers that ask for them by their fixed addresses")
        // Nothing of it is told anew while nothing else is so.
        let commits = cluster.commits
        cluster.pass(seconds: 20, heard: ["n2"])
        #expect(cluster.commits == commits)
    }

    /// What must not run twice has ended for certain when its time without contact is over.
    @Test func whatEndsByItselfLeavesItsAddressToWhoWaits() throws {
        var cluster = try Cluster()
        for node in ["n1", "n2"] { try cluster.addNode(node) }
        try cluster.makeNetwork("net") { $0.subnet = "10.9.0.0/29" }
        var pod = cluster.wish("x", on: [NetworkAttachment(network: "net")], node: "n1").pod
        pod.loss = LossPolicy(onDisconnect: .stopAfter(20))
        try cluster.perform(.createService(CreateService(name: "s", pod: pod, scale: .replicated(5))))
        cluster.obey()
        cluster.away = ["n1"]
        cluster.pass(seconds: 20, heard: ["n2"])
        try cluster.perform(.createContainer(cluster.wish("late", on: [NetworkAttachment(network: "net")])))
        #expect(try cluster.container("late").task == nil)
        // Nobody has to ask for it anew.
        cluster.pass(seconds: 60, heard: ["n2"])
        #expect(try cluster.container("late").task != nil)
        try cluster.perform(.createContainer(cluster.wish("later", on: [NetworkAttachment(network: "net")])))
        cluster.obey()
        #expect(try ["late", "later"].allSatisfy { try cluster.container($0).task != nil })
        cluster.checkAddresses()
        // What comes back has what is left, and the rest when that is free.
        try cluster.connect("n1")
        for _ in 0..<3 {
            cluster.obey()
            cluster.pass(seconds: 5, heard: ["n1", "n2"])
        }
        func lacking() -> Int { cluster.tasks.count { $0.addresses.isEmpty } }
        #expect(lacking() == 2)
        cluster.checkAddresses()
        for name in ["late", "later"] { try cluster.remove(name) }
        #expect(lacking() == 0)
        cluster.checkAddresses()
    }

    @Test func whoHasFixedAnAddressHasItOnAFullNetwork() throws {
        var cluster = try Cluster()
        try cluster.addNode("n1")
        try cluster.makeNetwork("net") { ($0.subnet, $0.subnet6) = ("10.9.0.0/29", "fd00:9::/64") }
        let later = cluster.wish("later", on: [NetworkAttachment(network: "net", address6: "fd00:9::4")], node: "n2")
        try cluster.perform(.createContainer(later))
        for name in ["a", "b", "c", "d"] { try cluster.run(name, on: "net") }
        try cluster.perform(.createContainer(cluster.wish("e", on: [NetworkAttachment(network: "net")])))
        #expect(try cluster.container("e").task == nil)
        try cluster.addNode("n2")
        cluster.obey()
        #expect(try cluster.given("later").map(\.address) == ["10.9.0.4"])
        cluster.checkAddresses()
    }

    @Test func whoFindsNoAddressLeavesItsRoomToOthers() throws {
        var cluster = try Cluster()
        try cluster.addNode("n1", memory: 3 << 30)
        try cluster.makeNetwork("net") { ($0.subnet, $0.range) = ("10.9.0.0/24", "10.9.0.2/32") }
        cluster.away = ["n1"]
        cluster.pass(seconds: 30)
        // All of these are placed in one step, when the node comes back.
        for name in ["a", "b", "c"] {
            var wish = cluster.wish(name, on: name == "c" ? [] : [NetworkAttachment(network: "net")])
            if name == "c" { wish.pod.network = .bridge }
            wish.pod.containers[0].limits.memory = 1 << 30
            try cluster.perform(.createContainer(wish))
        }
        var large = cluster.wish("d", on: [])
        large.pod.network = .bridge
        large.pod.containers[0].limits.memory = 1 << 30
        try cluster.perform(.createContainer(large))
        try cluster.connect("n1")
        cluster.obey()
        let placed = try cluster.containers().filter { $0.task != nil }.map(\.name).sorted()
        #expect(placed.count == 3 && placed.contains("c") && placed.contains("d"), "\(placed)")
    }

    @Test func aFixedAddressIsTheContainersAlone() throws {
        var cluster = try Cluster()
        for node in ["n1", "n2"] { try cluster.addNode(node) }
        try cluster.makeNetwork("net") { ($0.subnet, $0.subnet6) = ("10.9.0.0/24", "fd00:9::/64") }
        try cluster.run("auto", on: "net", node: "n1")
        func says(_ words: String, _ attachment: NetworkAttachment) {
            let problem = cluster.problem(.createContainer(cluster.wish("x", on: [attachment])))
            #expect(problem?.message.contains(words) == true, "\(problem?.message ?? "it was made")")
        }
        try cluster.run("own", on: [NetworkAttachment(network: "net", address: "10.9.0.5")], node: "n1")
        try cluster.run("other", on: [NetworkAttachment(network: "net", address: "10.9.0.6")], node: "n2")
        try cluster.run("six", on: [NetworkAttachment(network: "net", address6: "fd00:9:0:0::a0")], node: "n2")
        try cluster.run("far", on: [NetworkAttachment(network: "net", address6: "fd00:9::1:0:1")], node: "n1")
        // In a block of its own node it is leased, else it is an exception.
        #expect(try cluster.given("own").map(\.isLeased) == [true])
        #expect(try cluster.given("other").map(\.isLeased) == [false])
        #expect(try cluster.given("other").map(\.address6) == ["fd00:9::6"])
        #expect(try cluster.given("six").map(\.address) == ["10.9.0.160"])
        #expect(try cluster.given("far").map(\.address6) == ["fd00:9::1:0:1"])
        cluster.checkAddresses()
        func at(_ address: String) -> NetworkAttachment { NetworkAttachment(network: "net", address: address) }
        func at6(_ address: String) -> NetworkAttachment { NetworkAttachment(network: "net", address6: address) }
        says("Address already in use: 10.9.0.5 on the network net is own's", at("10.9.0.5"))
        says("Address already in use: fd00:9::5 on the network net is own's", at6("fd00:9::5"))
        says("Address already in use: 10.9.0.2 on the network net is auto's", at("10.9.0.2"))
        says("Address already in use: fd00:9::1:0:1 on the network net is far's", at6("fd00:9::1:0:1"))
        says("is six's", at("10.9.0.160"))
        says("is the gateway's or reserved", at("10.9.0.1"))
        says("is the gateway's or reserved", at6("fd00:9::1"))
        says("no address of a host in 10.9.0.0/24", at("10.8.0.1"))
        says("no address of a host in fd00:9::/64", at6("fd00:8::9"))
        says("no address of a host in fd00:9::/64", at6("10.9.0.9"))
        try cluster.makeNetwork("four")
        says("the network four has no IPv6", NetworkAttachment(network: "four", address6: "fd00:9::9"))
        try cluster.makeNetwork("lan", "cni")
        says("are given by its CNI plugins", NetworkAttachment(network: "lan", address: "10.1.0.9"))
        let pod = cluster.wish("x", on: [at6("fd00:9::33")]).pod
        let problem = cluster.problem(.createService(CreateService(name: "s", pod: pod, scale: .replicated(1))))
        #expect(problem?.message.contains("fixed address") == true)
        // It is kept for who asks for it also while they have no node.
        let request = cluster.wish("later", on: [at("10.9.0.3")], node: "n9")
        try cluster.perform(.createContainer(request))
        for name in ["p", "q"] { try cluster.run(name, on: "net", node: "n1") }
        #expect(try cluster.address("p") != "10.9.0.3" && cluster.address("q") != "10.9.0.3")
        says("is later's", at("10.9.0.3"))
        try cluster.remove("later")
        try cluster.remove("own")
        try cluster.run("own2", on: [at("10.9.0.5")], node: "n2")
        #expect(try cluster.address("own2") == "10.9.0.5")
        cluster.checkAddresses()
    }

    @Test func aContainerComesToOverlaysAndLeavesThemWhileItRuns() throws {
        var cluster = try Cluster()
        for node in ["n1", "n2"] { try cluster.addNode(node) }
        let net = try cluster.makeNetwork("net") { $0.subnet = "10.9.0.0/29" }.network
        try cluster.makeNetwork("wide") { $0.isIPv6 = true }
        try cluster.run("a", on: "wide", node: "n1")
        let before = try cluster.given("a")
        let task = try cluster.container("a").task
        try cluster.perform(.connect("net", ConnectNetwork(container: "a", address: "10.9.0.4")))
        cluster.obey()
        #expect(try cluster.given("a").map(\.address) == [before[0].address, "10.9.0.4"])
        #expect(try cluster.container("a").task == task)
        #expect(cluster.assigned[NodeID("n1")]?[try #require(task)]?.addresses == (try cluster.given("a")))
        cluster.checkAddresses()
        var limits = UpdateContainer()
        limits.memory = 64 << 20
        try cluster.perform(.updateContainer("a", limits))
        #expect(try cluster.given("a").map(\.address) == [before[0].address, "10.9.0.4"])
        try cluster.perform(.disconnect("wide", DisconnectNetwork(container: "a")))
        #expect(try cluster.given("a").map(\.address) == ["10.9.0.4"])
        cluster.checkAddresses()
        // Where nothing is free, nothing changes.
        for name in ["b", "c", "d", "e"] { try cluster.run(name, on: "net") }
        try cluster.run("f", on: "wide")
        let revision = try cluster.container("f").revision
        let problem = cluster.problem(.connect("net", ConnectNetwork(container: "f")))
        #expect(problem?.code == .conflict)
        #expect(problem?.message == "the network net has no free address: 5 of 5 in use")
        #expect(try cluster.container("f").revision == revision && cluster.given("f").count == 1)
        try cluster.perform(.disconnect("net", DisconnectNetwork(container: "a")))
        cluster.obey()
        try cluster.perform(.connect("net", ConnectNetwork(container: "f")))
        #expect(try cluster.given("f").map(\.network).contains(net.id))
        #expect(cluster.problem(.removeNetwork("net"))?.message.contains("has active endpoints: b, c, d, e, f") == true)
        cluster.checkAddresses()
    }

    /// A task whose node is lost keeps its address, for it may still run there; only what its user fixed follows the
    /// container.
    @Test func aReplacementHasAnotherAddressUnlessItIsFixed() throws {
        for policy in [LossPolicy.OnReturn.keepReplacement, .keepOriginal] {
            var cluster = try Cluster()
            try cluster.addNode("n1")
            try cluster.makeNetwork("net") { $0.subnet = "10.9.0.0/24" }
            for name in ["any", "fixed"] {
                let address = name == "fixed" ? "10.9.0.9" : nil
                var wish = cluster.wish(name, on: [NetworkAttachment(network: "net", address: address)])
                wish.pod.loss = LossPolicy(replaceAfter: 30, onReturn: policy)
                try cluster.perform(.createContainer(wish))
            }
            cluster.obey()
            let before = try cluster.address("any")
            try cluster.addNode("n2")
            cluster.away = ["n1"]
            cluster.pass(seconds: 90, heard: ["n2"])
            cluster.obey()
            #expect(try cluster.containers().map(\.nodeName) == ["n2", "n2"])
            #expect(cluster.tasks.count == 4)
            let after = try cluster.address("any")
            #expect(after != before && cluster.tasks.contains { $0.addresses.map(\.address) == [before] })
            #expect(try cluster.address("fixed") == "10.9.0.9")
            #expect(cluster.tasks.filter { $0.addresses.contains { $0.address == "10.9.0.9" } }.count == 1)
            cluster.checkAddresses()
            try cluster.connect("n1")
            for _ in 0..<5 {
                cluster.obey()
                cluster.pass(seconds: 5, heard: ["n1", "n2"])
            }
            #expect(cluster.tasks.count == 2)
            #expect(try cluster.address("any") == (policy == .keepOriginal ? before : after))
            #expect(try cluster.address("fixed") == "10.9.0.9")
            #expect(try cluster.container("fixed").nodeName == (policy == .keepOriginal ? "n1" : "n2"))
            cluster.checkAddresses()
        }
    }

    @Test func aDraftThatIsNotWrittenGivesNothingAway() throws {
        var cluster = try Cluster()
        try cluster.addNode("n1")
        let net = try cluster.makeNetwork("net") { $0.subnet = "10.9.0.0/29" }.network
        try cluster.run("a", on: "net")
        cluster.holdsCommits = true
        // The second transaction begins when the first has failed.
        cluster.send(.createContainer(cluster.wish("b", on: [NetworkAttachment(network: "net", address: "10.9.0.5")])))
        for name in ["c", "d", "e"] {
            cluster.send(.createContainer(cluster.wish(name, on: [NetworkAttachment(network: "net")])))
        }
        cluster.send(.disconnect("net", DisconnectNetwork(container: "a")))
        for _ in 0..<4 { cluster.failCommits(.unavailable("gone")) }
        cluster.holdsCommits = false
        let blocks = try #require(cluster.core.state.indexes.overlays[net.id])
        #expect(blocks.taken == 1)
        #expect(!blocks.isUsed(try #require(IPAddress("10.9.0.5"))))
        #expect(blocks.tasks(on: NodeID("n1")) == 1)
        for name in ["b", "c", "d", "e"] { try cluster.run(name, on: "net") }
        #expect(try cluster.containers().allSatisfy { $0.task != nil })
        cluster.checkAddresses()
    }

    @Test func nodesMayTellLongAddressesOfBothFamilies() throws {
        var cluster = try Cluster()
        try cluster.addNode("n1")
        let net = try cluster.makeNetwork("net") { $0.isIPv6 = true }.network
        try cluster.run("a", on: "net")
        let task = try #require(cluster.assigned[NodeID("n1")]?.values.first)
        let endpoint = NetworkEndpoint(
            network: net.id.text, address: "10.64.0.2/20", gateway: "10.64.0.1",
            address6: String(repeating: "f", count: 5000), gateway6: net.gateway6, mac: "02:00:00:00:00:01")
        var status = TaskStatus(phase: .running, generation: task.generation, endpoints: [endpoint])
        status.serving = true
        cluster.report(task, on: NodeID("n1"), status)
        let told = try #require(try cluster.networkView("net").members.first?.endpoint)
        #expect(told.gateway6 == net.gateway6 && told.address6.utf8.count < 200 && told.address == "10.64.0.2/20")
    }
}
