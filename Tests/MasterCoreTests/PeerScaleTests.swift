import Glibc
import Model
import Testing
import Wire

@testable import MasterCore

/// What telling thousands of nodes of each other costs the master, as counts. `MARTLET_PEER_NODES=100,1000,10000` prints
/// the time that it takes with so many nodes.
@Suite struct PeersOfManyNodes {
    private static var counts: [Int] {
        let text = getenv("MARTLET_PEER_NODES").map { String(cString: $0) } ?? ""
        let asked = text.split(separator: ",").compactMap { Int($0) }
        return asked.isEmpty ? [20, 120] : asked
    }

    /// Nodes that are all on one network with their first task: what they have of it came in one step.
    private func cluster(_ count: Int, _ clock: inout [String: Duration]) throws -> Cluster {
        var cluster = try Cluster()
        cluster.hearsPeers = count <= 200
        let start = ContinuousClock.now
        for number in 0..<count {
            try cluster.addNode("n\(number)", address: "192.0.\(number >> 8 & 255).\(number & 255)")
        }
        clock["nodes"] = .now - start
        try cluster.makeNetwork("net") { $0.subnet = "10.0.0.0/8" }
        let pod = cluster.wish("x", on: [NetworkAttachment(network: "net")]).pod
        let begin = ContinuousClock.now
        try cluster.perform(.createService(CreateService(name: "all", pod: pod, scale: .global)))
        clock["all nodes come in one step"] = .now - begin
        return cluster
    }

    @Test(arguments: counts) func noStepIsAProductOfNodes(count: Int) throws {
        var clock: [String: Duration] = [:]
        var cluster = try cluster(count, &clock)
        #expect(cluster.tasks.count == count)
        if cluster.hearsPeers {
            #expect(cluster.peers.values.allSatisfy { $0.count == count - 1 })
            cluster.checkAddresses()
        }
        // Each is named once, and there is one line for each, however many hear of it.
        #expect(cluster.peerWork == 2 * count)
        // A node whose address changes is one line for each of the others.
        var moved = try cluster.node("n3").node
        moved.address = "198.51.100.3"
        (cluster.peerWork, cluster.peerLines) = (0, 0)
        clock["one node's address changes"] = try time {
            try cluster.perform(.registerNode(NodeRegistration(node: moved)))
        }
        #expect(cluster.peerWork == 1 + count && cluster.peerLines == (cluster.hearsPeers ? count - 1 : 0))
        // A node that comes is one line for each of the others, and hears of all of them itself.
        (cluster.peerWork, cluster.peerLines) = (0, 0)
        clock["one node comes"] = try time { try cluster.addNode("late", address: "198.51.100.9") }
        #expect(cluster.peerWork == (1 + count) + (1 + count + 1))
        #expect(cluster.peerLines == (cluster.hearsPeers ? 2 * count : 0))
        // One that leaves the same.
        (cluster.peerWork, cluster.peerLines) = (0, 0)
        clock["one node leaves"] = try time { try cluster.leave("late") }
        #expect(cluster.peerWork == (1 + count) + (1 + count + 1))
        #expect(cluster.peerLines == (cluster.hearsPeers ? 2 * count : 0))
        report(count, clock)
    }

    /// Answers of one step share what they say: a copy for each node would be a product of nodes.
    @Test(arguments: counts) func firstAnswersShareWhatTheySay(count: Int) throws {
        var clock: [String: Duration] = [:]
        var cluster = try cluster(count, &clock)
        clock["a new master reads"] = try time { try cluster.restart() }
        var answers: [PeerList] = []
        clock["all nodes ask"] = try time {
            for number in 0..<count {
                guard case .peers(let list) = try cluster.query(.peers("n\(number)")) else {
                    throw Cluster.Unexpected()
                }
                answers.append(list)
            }
        }
        let stores = Set(
            answers.flatMap(\.networks).map { $0.withUnsafeBufferPointer { UInt(bitPattern: $0.baseAddress) } })
        #expect(stores.count == 1)
        clock["one answer is read"] = time { #expect(answers[0].reduce(0) { sum, _ in sum + 1 } == count - 1) }
        #expect(!answers[0].contains { $0.node == NodeID("n0") })
        report(count, clock)
    }

    private func time(_ body: () throws -> Void) rethrows -> Duration {
        let start = ContinuousClock.now
        try body()
        return .now - start
    }

    private func report(_ count: Int, _ clock: [String: Duration]) {
        guard getenv("MARTLET_PEER_NODES") != nil else { return }
        for (what, time) in clock.sorted(by: { $0.key < $1.key }) {
            print("\(count) nodes: \(what): \(time)")
        }
    }
}

extension Cluster {
    /// The node's task of the global service goes.
    fileprivate mutating func leave(_ node: String) throws {
        try perform(.updateNode(node, UpdateNode(availability: .cordoned)))
        guard let task = assigned[NodeID(node)]?.values.first else { throw Unexpected() }
        report(task, on: NodeID(node), TaskStatus(phase: .removed))
    }
}
