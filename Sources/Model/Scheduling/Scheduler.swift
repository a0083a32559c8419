import Model

/// Chooses nodes for waiting instances: a pure function of a snapshot.
///
/// Instances with the same demand are placed together: the filters that do not change run once for each node, and a
/// heap gives the best node for each further instance, so that n nodes and m instances cost n + m·log n.
package struct Scheduler: Sendable {
    package private(set) var nodes: [NodeSnapshot]
    /// Where anchors are; the first placement of one that is nowhere decides for those that follow.
    package private(set) var homes: [Anchor: NodeID]
    /// Of networks and containers, for messages.
    private let names: [Anchor: String]
    /// What is where, for affinities.
    private var company: Company
    private let indexByID: [NodeID: Int]

    /// - Parameter company: what affinities of all requests ask for.
    package init(
        nodes: [NodeSnapshot], homes: [Anchor: NodeID] = [:], names: [Anchor: String] = [:],
        company: Company = Company()
    ) {
        self.company = company
        self.nodes = nodes
        self.homes = homes
        self.names = names
        indexByID = Dictionary(
            nodes.enumerated().map { ($1.node.id, $0) }, uniquingKeysWith: { first, _ in first })
    }

    /// Places what fits, and keeps account of it for the next call.
    ///
    /// - Returns: one result for each request, in the same order.
    package mutating func place(
        _ requests: [PlacementRequest], random: inout some RandomNumberGenerator
    ) -> [PlacementResult] {
        var results: [PlacementResult?] = Array(repeating: nil, count: requests.count)
        var groups: [PodDemand: [Int]] = [:]
        var order: [PodDemand] = []
        for (index, request) in requests.enumerated() {
            if let pinned = request.pinned {
                results[index] = place(request, pinned: pinned)
                continue
            }
            if groups[request.demand] == nil { order.append(request.demand) }
            groups[request.demand, default: []].append(index)
        }
        // What others may want to be with comes first.
        for demand in order.filter(\.affinities.isEmpty) + order.filter({ !$0.affinities.isEmpty }) {
            let indices = groups[demand] ?? []
            let group = place(demand, indices.map { requests[$0] }, random: &random)
            for (index, result) in zip(indices, group) { results[index] = result }
        }
        return results.map { $0 ?? .refused(Refusal(nodes: nodes.count, counts: [:])) }
    }

    private mutating func place(_ request: PlacementRequest, pinned: NodeID) -> PlacementResult {
        guard let index = indexByID[pinned] else {
            return .refused(Refusal(nodes: 1, counts: ["node \(pinned) gone": 1]))
        }
        // Where there is no choice, a wish changes nothing.
        let demand = request.demand.withoutWishes
        for filter in filters(for: demand) where !filter.check(nodes[index]) {
            return .refused(Refusal(nodes: 1, counts: [filter.explain(nodes[index]): 1]))
        }
        switch fit(demand, request, on: index, filters: demand.amountFilters) {
        case .room(let room):
            add(demand, room, request, on: index)
            return room.result(on: pinned)
        case .lacks(let explanation):
            return .refused(Refusal(nodes: 1, counts: [explanation: 1]))
        }
    }

    /// First with the demand's wishes; what finds no node then goes without them.
    private mutating func place(
        _ demand: PodDemand, _ requests: [PlacementRequest], random: inout some RandomNumberGenerator
    ) -> [PlacementResult] {
        var results = placeTogether(demand, requests, random: &random)
        guard demand.hasWishes else { return results }
        let left = results.indices.filter { if case .refused = results[$0] { true } else { false } }
        let again = placeTogether(demand.withoutWishes, left.map { requests[$0] }, random: &random)
        for (index, result) in zip(left, again) { results[index] = result }
        return results
    }

    private mutating func placeTogether(
        _ demand: PodDemand, _ requests: [PlacementRequest], random: inout some RandomNumberGenerator
    ) -> [PlacementResult] {
        guard demand.anchors.contains(where: { $0.isFree && homes[$0] == nil }), let first = requests.first else {
            return placeAtHome(demand, requests, random: &random)
        }
        // Where the first goes, the anchors are, and the others follow them.
        let result = placeAtHome(demand, [first], random: &random)
        let rest = Array(requests.dropFirst())
        guard case .placed? = result.first else {
            return result + rest.flatMap { placeAtHome(demand, [$0], random: &random) }
        }
        return result + placeAtHome(demand, rest, random: &random)
    }

    private mutating func placeAtHome(
        _ demand: PodDemand, _ requests: [PlacementRequest], random: inout some RandomNumberGenerator
    ) -> [PlacementResult] {
        guard !requests.isEmpty else { return [] }
        var lacking: [String: Int] = [:]
        var heap = Heap<Candidate>()
        let filters = filters(for: demand) + [ExclusiveFilter(hasClaims: !demand.devices.isEmpty)]
        for index in nodes.indices {
            if let failed = filters.first(where: { !$0.check(nodes[index]) }) {
                lacking[failed.explain(nodes[index]), default: 0] += 1
            } else {
                heap.push(candidate(index, demand, random: &random))
            }
        }
        let amounts = demand.amountFilters
        var results: [PlacementResult] = []
        for request in requests {
            var chosen: PlacementResult?
            while chosen == nil, let best = heap.pop() {
                switch fit(demand, request, on: best.index, filters: amounts) {
                case .room(let room):
                    add(demand, room, request, on: best.index)
                    heap.push(candidate(best.index, demand, random: &random))
                    chosen = room.result(on: nodes[best.index].node.id)
                case .lacks(let explanation):
                    // What is left there only shrinks, so the node is out for the whole group.
                    lacking[explanation, default: 0] += 1
                }
            }
            results.append(chosen ?? .refused(Refusal(nodes: nodes.count, counts: lacking)))
        }
        return results
    }

    private mutating func add(_ demand: PodDemand, _ room: Room, _ request: PlacementRequest, on index: Int) {
        nodes[index].add(
            demand, ports: room.ports, devices: room.devices, processors: room.processors, instance: request.instance)
        if !company.isIdle {
            company.note(
                names: request.names, images: Array(demand.images.values), labels: [demand.labels],
                on: nodes[index].node.id)
        }
        for anchor in demand.anchors where homes[anchor] == nil { homes[anchor] = nodes[index].node.id }
    }

    /// Filters whose answer does not change while instances of this demand are placed.
    private func filters(for demand: PodDemand) -> [any Filter] {
        var filters = demand.fixedFilters
        for anchor in demand.anchors {
            let home = homes[anchor]
            if home == nil, anchor.isFree { continue }
            let node = home.flatMap { indexByID[$0] }.map { nodes[$0] }
            filters.append(
                AnchorFilter(
                    anchor: anchor, name: names[anchor], home: home, homeName: node?.node.name ?? home?.text ?? "",
                    isReachable: node?.ready ?? false))
        }
        for (digest, name) in demand.images.sorted(by: { $0.key < $1.key }) {
            let isReachable = nodes.contains { $0.ready && $0.images.contains(digest) }
            filters.append(ImageFilter(name: name, isReachable: isReachable))
        }
        return filters + demand.affinities.map { AffinityFilter(affinity: $0, company: company) }
    }

    /// The nodes on which an instance could be placed if there were room; those that it is better kept off only when
    /// there are no others.
    func eligible(for demand: PodDemand) -> [NodeID] {
        let filters = filters(for: demand) + [ExclusiveFilter(hasClaims: !demand.devices.isEmpty)]
        let found = nodes.filter { node in filters.allSatisfy { $0.check(node) } }
        let better = found.filter { !$0.isRestricted(for: demand) }
        return (better.isEmpty ? found : better).map(\.node.id)
    }

    /// Places the instance on the node if there is room.
    mutating func take(_ demand: PodDemand, _ instance: InstanceID, on node: NodeID) -> Bool {
        let request = PlacementRequest(instance: instance, demand: demand)
        guard let index = indexByID[node],
            case .room(let room) = fit(demand, request, on: index, filters: demand.amountFilters)
        else { return false }
        add(demand, room, request, on: index)
        return true
    }

    /// What a node has for an instance.
    private struct Room {
        var ports: [PortMapping] = []
        var devices: [DeviceGrant] = []
        var processors: [ProcessorGrant] = []

        func result(on node: NodeID) -> PlacementResult {
            .placed(node, ports: ports, devices: devices, processors: processors)
        }
    }

    private enum Fit {
        case room(Room)
        case lacks(String)
    }

    private func fit(_ demand: PodDemand, _ request: PlacementRequest, on index: Int, filters: [any Filter]) -> Fit {
        for filter in filters where !filter.check(nodes[index]) { return .lacks(filter.explain(nodes[index])) }
        // What it does not want to be with may have come since.
        for affinity in demand.affinities where !company.meets(affinity, on: nodes[index].node.id) {
            return .lacks("affinity \(affinity)")
        }
        var room = Room()
        if !demand.ports.isEmpty {
            guard let ports = nodes[index].ports.choose(for: demand.ports, instance: request.instance) else {
                return .lacks(demand.portsExplanation)
            }
            room.ports = ports
        }
        if !demand.devices.isEmpty {
            let avoided = request.avoided[nodes[index].node.id] ?? []
            switch nodes[index].devices.choose(demand.devices, avoiding: avoided) {
            case .grants(let grants): room.devices = grants
            case .lacks(let words): return .lacks(words)
            }
        }
        if !demand.processors.isEmpty {
            switch nodes[index].processors.choose(
                demand.processors, near: nodes[index].devices.places(of: room.devices))
            {
            case .grants(let grants): room.processors = grants
            case .lacks(let words): return .lacks(words)
            }
        }
        return .room(room)
    }

    /// A node's rank for a demand: smaller is better; equal ranks are parted by the order of nodes.
    private func candidate(
        _ index: Int, _ demand: PodDemand, random: inout some RandomNumberGenerator
    ) -> Candidate {
        let node = nodes[index]
        let fullness = Self.fullness(node)
        // Where the image's content is already, nothing has to be fetched.
        let lacking = Int64(demand.images.keys.count { !node.images.contains($0) })
        let (first, second): (Int64, Int64) =
            switch demand.strategy {
            case .binpack: (-fullness, -Int64(node.tasks))
            case .spread:
                (Int64(node.tasksByWorkload[demand.workload] ?? 0), fullness &* 1_000_000 &+ Int64(node.tasks))
            case .random: (Int64.random(in: 0...Int64.max, using: &random), 0)
            }
        return Candidate(
            isRestricted: node.isRestricted(for: demand) ? 1 : 0, first: first, second: second, third: lacking,
            index: index)
    }

    /// Thousandths of the scarcer of cpu and memory that are promised already.
    private static func fullness(_ node: NodeSnapshot) -> Int64 {
        func share(_ used: Int64, _ whole: Int64) -> Int64 {
            guard whole > 0 else { return used > 0 ? 1000 : 0 }
            return min(1000, used / max(1, whole / 1000))
        }
        return max(
            share(node.allocated.cpu, node.node.capacity.cpu), share(node.allocated.memory, node.node.capacity.memory))
    }

    private struct Candidate: Comparable {
        /// 1: only when nothing else will do.
        let isRestricted: Int
        let first: Int64
        let second: Int64
        let third: Int64
        let index: Int

        static func < (left: Self, right: Self) -> Bool {
            (left.isRestricted, left.first, left.second, left.third, left.index)
                < (right.isRestricted, right.first, right.second, right.third, right.index)
        }
    }
}

/// A binary heap with the smallest element on top.
struct Heap<Element: Comparable> {
    private var elements: [Element] = []

    mutating func push(_ element: Element) {
        elements.append(element)
        var child = elements.count - 1
        while child > 0 {
            let parent = (child - 1) / 2
            guard elements[child] < elements[parent] else { return }
            elements.swapAt(child, parent)
            child = parent
        }
    }

    mutating func pop() -> Element? {
        guard let top = elements.first, let last = elements.popLast() else { return nil }
        guard !elements.isEmpty else { return top }
        elements[0] = last
        var parent = 0
        while true {
            let left = 2 * parent + 1
            guard left < elements.count else { return top }
            let right = left + 1
            let child = right < elements.count && elements[right] < elements[left] ? right : left
            guard elements[child] < elements[parent] else { return top }
            elements.swapAt(child, parent)
            parent = child
        }
    }
}
