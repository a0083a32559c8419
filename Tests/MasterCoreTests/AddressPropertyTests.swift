import Model
import Testing
import Wire

@testable import MasterCore

/// Users, nodes and the store do what they please; addresses stay in order.
@Suite struct AddressesUnderRandomCommands {
    private static let networks = ["tiny", "small", "six", "other"]

    @Test(arguments: 1...8) func noAddressIsGivenTwice(seed: Int) throws {
        var random = Cluster.Generator(state: UInt64(seed))
        var cluster = try Cluster()
        for number in 1...4 { try cluster.addNode("n\(number)", address: "192.0.2.\(number)") }
        try cluster.makeNetwork("tiny") { $0.subnet = "10.9.0.0/29" }
        try cluster.makeNetwork("small") { ($0.subnet, $0.range) = ("10.9.1.0/27", "10.9.1.8/29") }
        try cluster.makeNetwork("six") { ($0.subnet, $0.subnet6) = ("10.9.2.0/28", "fd00:9::/64") }
        try cluster.makeNetwork("other")
        for step in 0..<80 {
            try act(&cluster, step, &random)
            if Int.random(in: 0..<3, using: &random) > 0 { cluster.obey() }
            cluster.checkAddresses()
            if step.isMultiple(of: 4) { try checkIndex(cluster) }
        }
        cluster.holdsCommits = false
        for number in 1...4 { try cluster.connect("n\(number)") }
        for _ in 0..<4 {
            cluster.obey()
            cluster.pass(seconds: 10, heard: (1...4).map { "n\($0)" })
        }
        cluster.checkAddresses()
        try checkIndex(cluster)
        try checkWaiting(&cluster)
    }

    private func act(_ cluster: inout Cluster, _ step: Int, _ random: inout Cluster.Generator) throws {
        let names = try cluster.containers().filter { $0.kind == .container }.map(\.name)
        let network = Self.networks.randomElement(using: &random) ?? "tiny"
        switch Int.random(in: 0..<16, using: &random) {
        case 0..<5: cluster.send(.createContainer(container(cluster, "c\(step)", &random)))
        case 5, 6:
            if let name = names.randomElement(using: &random) {
                cluster.send(.removeContainer(name, force: true))
            }
        case 7, 8:
            if let name = names.randomElement(using: &random) {
                cluster.send(.connect(network, ConnectNetwork(container: name)))
            }
        case 9:
            if let name = names.randomElement(using: &random) {
                cluster.send(.disconnect(network, DisconnectNetwork(container: name)))
            }
        case 10:
            let pod = cluster.wish("x", on: [NetworkAttachment(network: network)]).pod
            let scale = Workload.Scale.replicated(Int.random(in: 0...4, using: &random))
            if cluster.problem(.updateService("s-\(network)", UpdateService(scale: scale))) != nil {
                cluster.send(.createService(CreateService(name: "s-\(network)", pod: pod, scale: scale)))
            }
        case 11:
            let node = "n\(Int.random(in: 1...4, using: &random))"
            if cluster.away.contains(node) { try cluster.connect(node) } else { cluster.away.insert(node) }
        case 12:
            let heard = (1...4).map { "n\($0)" }.filter { !cluster.away.contains($0) }
            cluster.pass(seconds: 40, heard: heard)
        case 13:
            try cluster.restart()
            for number in 1...4 where !cluster.away.contains("n\(number)") { try cluster.connect("n\(number)") }
        default:
            // What is asked for now does not come to be.
            cluster.holdsCommits = true
            cluster.send(.createContainer(container(cluster, "f\(step)", &random)))
            if let name = names.randomElement(using: &random) {
                cluster.send(.disconnect(network, DisconnectNetwork(container: name)))
            }
            for _ in 0..<3 { cluster.failCommits(.unavailable("gone")) }
            cluster.holdsCommits = false
            cluster.pass(seconds: 2, heard: (1...4).map { "n\($0)" }.filter { !cluster.away.contains($0) })
        }
    }

    private func container(_ cluster: Cluster, _ name: String, _ random: inout Cluster.Generator) -> CreateContainer {
        var attachments: [NetworkAttachment] = []
        for network in Self.networks.shuffled(using: &random).prefix(Int.random(in: 1...2, using: &random)) {
            var attachment = NetworkAttachment(network: network)
            let number = Int.random(in: 2...14, using: &random)
            switch (network, Int.random(in: 0..<4, using: &random)) {
            case ("tiny", 0): attachment.address = "10.9.0.\(min(number, 6))"
            case ("small", 0): attachment.address = "10.9.1.\(number)"
            case ("six", 0): attachment.address = "10.9.2.\(number)"
            case ("six", 1): attachment.address6 = "fd00:9::\(String(number, radix: 16))"
            case ("six", 2): attachment.address6 = "fd00:9::1:\(number)"
            default: break
            }
            attachments.append(attachment)
        }
        let node = Bool.random(using: &random) ? "n\(Int.random(in: 1...4, using: &random))" : nil
        var wish = cluster.wish(name, on: attachments, node: node)
        let policy = Bool.random(using: &random) ? LossPolicy.OnReturn.keepOriginal : .keepReplacement
        if node == nil { wish.pod.loss = LossPolicy(replaceAfter: 30, giveUpAfter: 300, onReturn: policy) }
        return wish
    }

    /// What has been kept up with every change is what a new master reads off the store.
    private func checkIndex(_ cluster: Cluster) throws {
        var fresh = cluster
        try fresh.restart()
        for network in cluster.core.state.networks.keys {
            let kept = cluster.core.state.indexes.overlays[network]
            let read = fresh.core.state.indexes.overlays[network]
            #expect(kept?.taken == read?.taken)
            for node in cluster.core.state.nodes.keys {
                #expect(kept?.part(of: node)?.blocks == read?.part(of: node)?.blocks)
                #expect(kept?.part(of: node)?.exceptions == read?.part(of: node)?.exceptions)
                #expect(kept?.tasks(on: node) == read?.tasks(on: node))
            }
        }
    }

    /// Nobody waits for an address while there is one.
    private func checkWaiting(_ cluster: inout Cluster) throws {
        for view in try cluster.containers() where view.task == nil {
            let message = view.unschedulable?.message ?? ""
            for network in cluster.core.state.networks.values
            where message.contains("the network \(network.name) has no free address") {
                let blocks = cluster.core.state.indexes.overlays[network.id]
                #expect(blocks?.taken == blocks?.capacity, "\(view.name): \(message)")
            }
        }
    }
}
