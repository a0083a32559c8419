import Model
import Testing
import Wire

@testable import MasterCore

/// Addresses that somebody may still answer for are nobody else's.
@Suite struct AddressesThatAreLeft {
    /// Three addresses: 10.9.0.2 to 10.9.0.4 of a network, and a container `a` on two of its networks.
    private func cluster() throws -> Cluster {
        var cluster = try Cluster()
        for node in ["n1", "n2"] { try cluster.addNode(node) }
        try cluster.makeNetwork("net") { ($0.subnet, $0.range) = ("10.9.0.0/24", "10.9.0.8/31") }
        try cluster.makeNetwork("wide")
        try cluster.run("a", on: [NetworkAttachment(network: "net"), NetworkAttachment(network: "wide")], node: "n1")
        return cluster
    }

    private func taken(_ cluster: Cluster) -> Int? {
        cluster.core.state.indexes.networkByName["net"].flatMap { cluster.core.state.indexes.overlays[$0]?.taken }
    }

    @Test func aDisconnectedAddressIsFreeWhenItsNodeHasLetGoOfIt() throws {
        var cluster = try cluster()
        let address = try cluster.address("a")
        cluster.away = ["n1"]
        try cluster.perform(.disconnect("net", DisconnectNetwork(container: "a")))
        #expect(taken(cluster) == 1)
        try cluster.run("b", on: "net", node: "n2")
        #expect(try cluster.address("b") != address)
        let fixed = NetworkAttachment(network: "net", address: address)
        let problem = cluster.problem(.createContainer(cluster.wish("c", on: [fixed], node: "n2")))
        #expect(problem?.message.contains("Address already in use: \(address)") == true)
        cluster.checkAddresses()
        // Its node is not told of it any more, and a new master knows all of it.
        try cluster.restart()
        try cluster.connect("n2")
        #expect(taken(cluster) == 2)
        try cluster.connect("n1")
        let told = try #require(cluster.assigned[NodeID("n1")]?.values.first)
        #expect(told.addresses.map(\.network) == told.networks.map(\.id) && told.networks.map(\.name) == ["wide"])
        #expect(taken(cluster) == 2)
        // What is in force there yet is what was before.
        cluster.report(
            told, on: NodeID("n1"),
            TaskStatus(phase: .running, generation: 1, serving: true, revision: told.revision - 1))
        #expect(taken(cluster) == 2)
        cluster.obey()
        #expect(taken(cluster) == 1)
        try cluster.run("c", on: [fixed], node: "n2")
        #expect(try cluster.address("c") == address)
        cluster.checkAddresses()
    }

    @Test func whoComesBackHasTheSameAddress() throws {
        var cluster = try cluster()
        let before = try cluster.given("a")
        cluster.away = ["n1"]
        for _ in 0..<40 {
            try cluster.perform(.disconnect("net", DisconnectNetwork(container: "a")))
            try cluster.perform(.connect("net", ConnectNetwork(container: "a")))
        }
        #expect(try Set(cluster.given("a")) == Set(before) && cluster.tasks.first?.addresses.count == 2)
        // Another one that it asks for it has beside it until then.
        try cluster.perform(.disconnect("net", DisconnectNetwork(container: "a")))
        try cluster.perform(.connect("net", ConnectNetwork(container: "a", address: "10.9.0.77")))
        #expect(cluster.tasks.first?.addresses.count == 3)
        // Also as a fixed one.
        try cluster.perform(.disconnect("net", DisconnectNetwork(container: "a")))
        let first = before[0].address
        try cluster.perform(.connect("net", ConnectNetwork(container: "a", address: first)))
        #expect(try cluster.given("a").contains { $0.address == first })
        try cluster.connect("n1")
        cluster.obey()
        #expect(cluster.tasks.first?.addresses.count == 2)
        cluster.checkAddresses()
    }

    @Test func whatATaskHasLeftGoesWithItAndWithTheNetwork() throws {
        for isRemoved in [true, false] {
            var cluster = try cluster()
            cluster.away = ["n1"]
            try cluster.perform(.disconnect("net", DisconnectNetwork(container: "a")))
            if isRemoved {
                try cluster.perform(.removeContainer("a", force: true))
                cluster.pass(seconds: 60, heard: ["n2"])
                #expect(taken(cluster) == 1)
                try cluster.perform(.removeNode("n1", force: true))
                #expect(taken(cluster) == 0)
            } else {
                try cluster.perform(.removeNetwork("net"))
                #expect(cluster.tasks.first?.addresses.count == 1)
            }
            cluster.checkAddresses()
        }
    }

    /// The one that goes has its grace: its address is the other's only then.
    @Test func aTaskThatCountsAgainWaitsForWhatAnotherStillHas() throws {
        for fixed in ["10.9.0.9", nil] {
            var cluster = try Cluster()
            try cluster.addNode("n1")
            try cluster.makeNetwork("net") { ($0.subnet, $0.range) = ("10.9.0.0/24", "10.9.0.8/31") }
            var wish = cluster.wish("a", on: [NetworkAttachment(network: "net", address: fixed)])
            wish.pod.loss = LossPolicy(replaceAfter: 30, onReturn: .keepOriginal)
            try cluster.perform(.createContainer(wish))
            cluster.obey()
            try cluster.addNode("n2")
            cluster.away = ["n1"]
            cluster.pass(seconds: 90, heard: ["n2"])
            cluster.obey()
            let given = try cluster.given("a")
            let replacement = try #require(try cluster.container("a").task)
            #expect(try cluster.container("a").nodeName == "n2")
            if fixed == nil {
                // Meanwhile it has come to the network anew, with a wish for its replacement's address.
                try cluster.perform(.disconnect("net", DisconnectNetwork(container: "a")))
                try cluster.perform(
                    .connect("net", ConnectNetwork(container: "a", address: given[0].address)))
                cluster.obey()
            }
            try cluster.connect("n1")
            let original = try #require(try cluster.container("a").task)
            #expect(original != replacement)
            let (mine, theirs) = (task(original, cluster), task(replacement, cluster))
            #expect(theirs?.desired == .removed && theirs?.addresses == given)
            #expect(mine?.addresses.allSatisfy { $0.address != given[0].address } == true)
            cluster.checkAddresses()
            // A new master goes on with it.
            if fixed == nil {
                try cluster.restart()
                for node in ["n2", "n1"] { try cluster.connect(node) }
            }
            cluster.obey()
            #expect(task(replacement, cluster) == nil)
            #expect(try cluster.given("a").map(\.address) == given.map(\.address))
            let told = cluster.assigned[NodeID("n1")]?[original]
            #expect(told?.addresses.map(\.address) == given.map(\.address))
            cluster.checkAddresses()
        }
    }

    private func task(_ id: TaskID, _ cluster: Cluster) -> NodeTask? { cluster.tasks.first { $0.id == id } }
}
