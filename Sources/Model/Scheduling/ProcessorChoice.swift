import Model

/// Which of a node's free processors a container gets: from as few NUMA nodes as can be, whole cores, and near its devices.
struct ProcessorChoice {
    /// What is left of a NUMA node.
    private struct Place {
        let id: Int
        let packages: Set<Int>
        /// Cores of which nobody has anything, and of the others what is left; in the order of their first processors.
        let whole: [[Int]]
        let broken: [[Int]]
        let free: Int
        let memory: Int64
        let hugepages: [String: Int64]
        let isNear: Bool
    }

    /// Smaller is better, the first difference decides.
    private struct Cost: Comparable {
        /// 1: no device is there, or it has none.
        var isFar: Int
        /// 1: the memory that nobody was promised is not enough.
        var lacksMemory: Int
        /// Cores of which it gets a part only, and those of them that were whole.
        var parts: Int
        var split: Int
        /// Processors that are left beside them: a large room is kept for who needs one.
        var left: Int
        var id: Int

        static func < (left: Self, right: Self) -> Bool {
            if left.isFar != right.isFar { return left.isFar < right.isFar }
            if left.lacksMemory != right.lacksMemory { return left.lacksMemory < right.lacksMemory }
            return (left.parts, left.split, left.left, left.id) < (right.parts, right.split, right.left, right.id)
        }
    }

    private let places: [Place]

    init(_ processors: NodeProcessors, taken: Set<Int>, holdings: [ProcessorHolding], near: Set<Int>) {
        var bound: [Int: Resources] = [:]
        for holding in holdings {
            let nodes = Set(holding.grants.flatMap(\.memoryNodes.numbers))
            guard !nodes.isEmpty else { continue }
            // How much it takes from which of them nobody knows.
            let share = Int64(nodes.count)
            let part = Resources(
                memory: holding.promised.memory / share, hugepages: holding.promised.hugepages.mapValues { $0 / share })
            for node in nodes { bound[node, default: Resources()] = bound[node, default: Resources()] + part }
        }
        places = processors.nodes.map { node in
            let used = bound[node.id] ?? Resources()
            // Of a size that it has none of nothing is left, whatever others were promised.
            var hugepages = node.hugepages
            for (size, bytes) in node.hugepages { hugepages[size] = max(0, bytes - (used.hugepages[size] ?? 0)) }
            var whole: [[Int]] = []
            var broken: [[Int]] = []
            for core in node.cores {
                let free = core.cpus.numbers.filter { !taken.contains($0) }
                if free.isEmpty { continue }
                if free.count == core.cpus.count { whole.append(free) } else { broken.append(free) }
            }
            return Place(
                id: node.id, packages: Set(node.cores.map(\.package)),
                whole: whole.sorted { $0[0] < $1[0] }, broken: broken.sorted { $0[0] < $1[0] },
                free: (whole + broken).reduce(0) { $0 + $1.count }, memory: max(0, node.memory - used.memory),
                hugepages: hugepages, isNear: near.contains(node.id))
        }
    }

    /// - Precondition: as many are free.
    func best(_ demand: DemandedProcessors) -> ProcessorGrant {
        var cpus: [Int] = []
        var chosen: [Place] = []
        for place in nodes(for: demand) {
            let some = Self.pick(min(place.free, demand.count - cpus.count), from: place)
            if some.cpus.isEmpty { continue }
            cpus += some.cpus
            chosen.append(place)
        }
        return ProcessorGrant(
            container: demand.container, cpus: ProcessorSet(cpus), memoryNodes: memory(for: demand, beside: chosen))
    }

    /// NUMA nodes with enough free processors: the fewest, and of those the best.
    private func nodes(for demand: DemandedProcessors) -> [Place] {
        let usable = places.filter { $0.free > 0 }
        var bySize = usable.sorted { ($1.free, $0.id) < ($0.free, $1.id) }
        var number = 0
        var sum = 0
        while sum < demand.count, number < bySize.count {
            sum += bySize[number].free
            number += 1
        }
        var chosen: [Place] = []
        var wanted = demand.count
        for step in 0..<number {
            let left = number - step - 1
            // With one that is too small, more than the fewest would be needed.
            let possible = bySize.filter { place in
                place.free + bySize.filter { $0.id != place.id }.prefix(left).reduce(0) { $0 + $1.free } >= wanted
            }
            let next = possible.min { first, second in
                if chosen.isEmpty || Self.isBeside(first, chosen) == Self.isBeside(second, chosen) {
                    return left == 0
                        ? cost(first, wanted, demand) < cost(second, wanted, demand)
                        : (first.isNear ? 0 : 1, -first.free, first.id) < (
                            second.isNear ? 0 : 1, -second.free, second.id
                        )
                }
                return Self.isBeside(first, chosen)
            }
            guard let next else { break }
            chosen.append(next)
            wanted -= min(next.free, wanted)
            bySize.removeAll { $0.id == next.id }
        }
        return chosen
    }

    /// Whether it is in the same socket.
    private static func isBeside(_ place: Place, _ chosen: [Place]) -> Bool {
        chosen.contains { !$0.packages.isDisjoint(with: place.packages) }
    }

    private func cost(_ place: Place, _ wanted: Int, _ demand: DemandedProcessors) -> Cost {
        let hasMemory =
            place.memory >= demand.memory
            && demand.hugepages.allSatisfy { (place.hugepages[$0.key] ?? 0) >= $0.value }
        let picked = Self.pick(min(wanted, place.free), from: place)
        return Cost(
            isFar: place.isNear ? 0 : 1, lacksMemory: hasMemory ? 0 : 1, parts: picked.parts, split: picked.split,
            left: place.free - wanted, id: place.id)
    }

    /// Whole cores first; what is less than a core comes from one that is broken already, where there is such a one.
    private static func pick(_ number: Int, from place: Place) -> (cpus: [Int], parts: Int, split: Int) {
        var cpus: [Int] = []
        var spare: [[Int]] = []
        for core in place.whole {
            if core.count <= number - cpus.count { cpus += core } else { spare.append(core) }
        }
        // The smallest piece that is enough, else the largest.
        var pieces = place.broken
        while cpus.count < number, !pieces.isEmpty {
            let left = number - cpus.count
            let enough = pieces.indices.filter { pieces[$0].count >= left }.min { pieces[$0].count < pieces[$1].count }
            let index = enough ?? pieces.indices.max { pieces[$0].count < pieces[$1].count } ?? 0
            cpus += pieces.remove(at: index).prefix(left)
        }
        let parts = place.broken.count - pieces.count
        var split = 0
        for core in spare where cpus.count < number {
            cpus += core.prefix(number - cpus.count)
            split += 1
        }
        return (cpus, parts + split, split)
    }

    /// The NUMA nodes of the processors, and as many others as the memory needs: nearest first, then those with most.
    private func memory(for demand: DemandedProcessors, beside chosen: [Place]) -> ProcessorSet {
        var nodes = chosen.filter { $0.memory > 0 }
        func isEnough() -> Bool {
            !nodes.isEmpty && nodes.reduce(0) { $0 + $1.memory } >= demand.memory
                && demand.hugepages.allSatisfy { size, bytes in
                    nodes.reduce(0) { $0 + ($1.hugepages[size] ?? 0) } >= bytes
                }
        }
        let others = places.filter { place in place.memory > 0 && !nodes.contains { $0.id == place.id } }
            .sorted { first, second in
                let (isFirst, isSecond) = (Self.isBeside(first, chosen), Self.isBeside(second, chosen))
                return isFirst == isSecond ? (second.memory, first.id) < (first.memory, second.id) : isFirst
            }
        for other in others where !isEnough() { nodes.append(other) }
        return ProcessorSet(nodes.map(\.id))
    }
}
