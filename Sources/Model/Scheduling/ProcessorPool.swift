import Model

/// Processors of its own that one container of a pod wants.
package struct DemandedProcessors: Sendable, Hashable {
    /// The container's name.
    package var container: String
    /// At least 1.
    package var count: Int
    /// Bytes that are reserved for it, and of huge pages by their size.
    package var memory: Int64
    package var hugepages: [String: Int64]

    package init(container: String, count: Int, memory: Int64 = 0, hugepages: [String: Int64] = [:]) {
        self.container = container
        self.count = count
        self.memory = memory
        self.hugepages = hugepages
    }

    /// Those of all containers of the pod, in order.
    package static func all(of pod: PodSpec) -> [DemandedProcessors] {
        pod.containers.filter { $0.limits.pinning != nil }.map {
            DemandedProcessors(
                container: $0.name, count: Int($0.limits.cpu / 1_000_000_000),
                memory: $0.limits.reservedMemory, hugepages: $0.limits.hugepages)
        }
    }
}

/// What one task has of its node's processors, and what it was promised of the memory beside them.
package struct ProcessorHolding: Sendable, Hashable {
    package var grants: [ProcessorGrant]
    /// `memory` and `hugepages` count.
    package var promised: Resources

    package init(grants: [ProcessorGrant], promised: Resources = Resources()) {
        self.grants = grants
        self.promised = promised
    }
}

/// The processors of one node, and which of them somebody has alone. What nobody has alone is shared by all others.
package struct ProcessorPool: Sendable {
    private let processors: NodeProcessors?
    private var holdings: [ProcessorHolding]
    /// Processors that somebody has.
    private var taken: Set<Int>

    /// - Parameter processors: as the node reports them; nil: it has none to give away.
    package init(_ processors: NodeProcessors? = nil, holdings: [ProcessorHolding] = []) {
        self.processors = processors
        self.holdings = holdings
        taken = Set(holdings.flatMap { $0.grants.flatMap(\.cpus.numbers) })
    }

    /// Notes that somebody has these now.
    package mutating func take(_ grants: [ProcessorGrant], promised: Resources = Resources()) {
        guard !grants.isEmpty else { return }
        holdings.append(ProcessorHolding(grants: grants, promised: promised))
        for grant in grants { taken.formUnion(grant.cpus.numbers) }
    }

    /// Processors that are always left for all who have none of their own.
    package static let leastShared = 1

    /// Whether the processors of the grants can be given as they are.
    package func isFree(_ grants: [ProcessorGrant]) -> Bool {
        guard let processors else { return false }
        let wanted = grants.flatMap(\.cpus.numbers)
        guard processors.cpuCount >= wanted.count + Self.leastShared, taken.isDisjoint(with: wanted) else {
            return false
        }
        let left = Set(processors.cpus.numbers).subtracting(taken)
        let nodes = Set(processors.nodes.map(\.id))
        return left.isSuperset(of: wanted) && Set(wanted).count == wanted.count
            && left.count - wanted.count >= Self.leastShared
            && grants.allSatisfy { nodes.isSuperset(of: $0.memoryNodes.numbers) }
    }

    /// How many processors nobody has.
    private func free(of processors: NodeProcessors) -> Int {
        if taken.isEmpty { return processors.cpuCount }
        var count = 0
        for node in processors.nodes {
            for core in node.cores {
                for cpu in core.cpus.numbers where !taken.contains(cpu) { count += 1 }
            }
        }
        return count
    }

    // MARK: Choosing

    package enum Fit: Sendable, Hashable {
        /// One for each container that wants some, in their order.
        case grants([ProcessorGrant])
        /// What is wanting, in a few words.
        case lacks(String)
    }

    /// Why so many processors could not be given here even if nobody had any; nil: they could.
    package func shortage(for demanded: [DemandedProcessors]) -> String? {
        let wanted = demanded.reduce(0) { $0 + $1.count }
        guard wanted > 0, (processors?.cpuCount ?? 0) < wanted + Self.leastShared else { return nil }
        return "fewer than \(wanted + Self.leastShared) processors (\(wanted) to be pinned)"
    }

    /// Chooses the processors for each container: none for two of them, none that is taken, and one is left for all
    /// others.
    ///
    /// - Parameter near: NUMA nodes of the devices that the pod has got: its processors are there where that costs nothing.
    package func choose(_ demanded: [DemandedProcessors], near: Set<Int> = []) -> Fit {
        if let words = shortage(for: demanded) { return .lacks(words) }
        guard let processors, !demanded.isEmpty else { return .grants([]) }
        let wanted = demanded.reduce(0) { $0 + $1.count }
        let left = free(of: processors)
        guard left >= wanted + Self.leastShared else {
            return .lacks(
                left <= Self.leastShared ? "processors taken" : "too few free processors (\(wanted) to be pinned)")
        }
        var pool = self
        var grants: [ProcessorGrant] = []
        for demand in demanded {
            let choice = ProcessorChoice(processors, taken: pool.taken, holdings: pool.holdings, near: near)
            let grant = choice.best(demand)
            grants.append(grant)
            pool.take([grant], promised: Resources(memory: demand.memory, hugepages: demand.hugepages))
        }
        return .grants(grants)
    }
}
