import Model

/// A service whose instances are to be spread evenly: all of them serve, and each could run elsewhere.
package struct SpreadService: Sendable {
    package struct Placed: Sendable {
        package var instance: InstanceID
        package var node: NodeID

        package init(instance: InstanceID, node: NodeID) {
            self.instance = instance
            self.node = node
        }
    }

    package var demand: PodDemand
    /// In the order of slots; the last go first.
    package var instances: [Placed]

    package init(demand: PodDemand, instances: [Placed]) {
        self.demand = demand
        self.instances = instances
    }
}

/// Finds what to move so that counts of instances differ by at most one: a pure function of a snapshot.
package enum Rebalancer {
    /// Moves in the whole cluster at a time.
    package static let mostMoves = 5

    package struct Move: Sendable, Hashable {
        package var instance: InstanceID
        package var from: NodeID
        package var to: NodeID

        package init(instance: InstanceID, from: NodeID, to: NodeID) {
            self.instance = instance
            self.from = from
            self.to = to
        }
    }

    /// At most one move for each service, from the node with the most of its instances to the one with the fewest that
    /// has room. Only nodes count on which the service could be placed now.
    package static func moves(_ services: [SpreadService], nodes: [NodeSnapshot], limit: Int) -> [Move] {
        var scheduler = Scheduler(nodes: nodes)
        var moves: [Move] = []
        for service in services {
            guard moves.count < limit else { break }
            if let move = move(service, &scheduler) { moves.append(move) }
        }
        return moves
    }

    private static func move(_ service: SpreadService, _ scheduler: inout Scheduler) -> Move? {
        let eligible = scheduler.eligible(for: service.demand)
        var counts: [NodeID: Int] = [:]
        for placed in service.instances { counts[placed.node, default: 0] += 1 }
        let ranked = eligible.map { (count: counts[$0] ?? 0, node: $0) }.sorted { $0 < $1 }
        guard let most = ranked.map(\.count).max(), let fullest = ranked.first(where: { $0.count == most }),
            let last = service.instances.last(where: { $0.node == fullest.node })
        else { return nil }
        for (count, node) in ranked where count + 1 < most {
            guard scheduler.take(service.demand, last.instance, on: node) else { continue }
            return Move(instance: last.instance, from: fullest.node, to: node)
        }
        return nil
    }
}
