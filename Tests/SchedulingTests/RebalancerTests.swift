import Model
import Scheduling
import Testing

@Suite struct Rebalancing {
    let demand = PodDemand(workload: WorkloadID("w"))

    func service(_ counts: [String: Int], _ demand: PodDemand? = nil) -> SpreadService {
        let placed = counts.sorted { $0.key < $1.key }.flatMap { node, count in
            (0..<count).map { SpreadService.Placed(instance: InstanceID("\(node)\($0)"), node: NodeID("id-" + node)) }
        }
        return SpreadService(demand: demand ?? self.demand, instances: placed)
    }

    func moves(
        _ services: [SpreadService], _ nodes: [NodeSnapshot], limit: Int = Rebalancer.mostMoves
    ) -> [String] {
        Rebalancer.moves(services, nodes: nodes, limit: limit)
            .map { "\($0.instance) \($0.from.text.dropFirst(3))-\($0.to.text.dropFirst(3))" }
    }

    let nodes = ["a", "b", "c"].map { Placement.node($0) }

    @Test func oneMovesFromTheFullestToTheEmptiest() {
        #expect(moves([service(["a": 3, "b": 1])], nodes) == ["a2 a-c"])
        #expect(moves([service(["a": 2, "b": 2, "c": 1])], nodes) == [])
        #expect(moves([service(["a": 2, "b": 2])], nodes) == ["a1 a-c"])
    }

    @Test func whatCannotTakeOrGiveDoesNotCount() {
        var nodes = nodes
        nodes[2].node.availability = .cordoned
        #expect(moves([service(["a": 2, "b": 1])], nodes) == [])
        nodes[2].node.availability = .active
        nodes[2].ready = false
        #expect(moves([service(["a": 2, "b": 1])], nodes) == [])
        var zone = demand
        zone.constraints = [Constraint(label: "node.name", relation: .notEqual, value: "c")]
        #expect(moves([service(["a": 2, "b": 1], zone)], self.nodes) == [])
    }

    @Test func theNextEmptiestIsTakenWhenThereIsNoRoom() {
        var big = demand
        big.resources.memory = 3 << 30
        var nodes = nodes
        nodes[2].allocated.memory = 2 << 30
        #expect(moves([service(["a": 3], big)], nodes) == ["a2 a-b"])
        nodes[1].allocated.memory = 2 << 30
        #expect(moves([service(["a": 3], big)], nodes) == [])
    }

    @Test func aServiceMovesOneAndTheClusterAFew() {
        let services = (0..<9).map { number in
            service(["a": 6], PodDemand(workload: WorkloadID("w\(number)")))
        }
        #expect(moves(services, nodes).count == 5)
        #expect(moves(services, nodes, limit: 2).count == 2)
    }

    @Test func movesOfOneLookDoNotShareRoom() {
        var big = demand
        big.resources.memory = 3 << 30
        var other = big
        other.workload = WorkloadID("v")
        let nodes = Array(nodes.prefix(2))
        #expect(moves([service(["a": 2], big), service(["a": 2], other)], nodes).count == 1)
    }
}
