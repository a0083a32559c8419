import Model

/// Which of a node's free devices a claim gets: the best connected, and of equal ones those without which the rest is worth
/// most.
struct DeviceChoice {
    /// Devices of which all sets are tried: 12,870 at most. Of more, sets are grown from the first few devices.
    static let mostTried = 16
    private static let mostSeeds = 16

    /// Smaller is better, the first difference decides.
    private struct Cost: Comparable {
        /// Devices that were to be avoided.
        var avoided = 0
        /// Devices that an operator should look at.
        var degraded = 0
        /// Of all pairs in the set.
        var links = 0
        /// Untouched devices of which a share is given, or shared ones that are given whole.
        var broken = 0
        /// MiB: what would do with less does not get more.
        var memory = 0
        /// Links of the set's devices to all that are free, those within the set counted twice.
        var degree = 0

        static func < (left: Cost, right: Cost) -> Bool {
            if left.avoided != right.avoided { return left.avoided < right.avoided }
            if left.degraded != right.degraded { return left.degraded < right.degraded }
            if left.links != right.links { return left.links > right.links }
            if left.broken != right.broken { return left.broken < right.broken }
            if left.memory != right.memory { return left.memory < right.memory }
            return left.degree < right.degree
        }
    }

    private let candidates: [Int]
    /// Of single devices, by their place among the candidates.
    private let costs: [Cost]
    private let links: DeviceLinks

    /// - Parameters:
    ///   - candidates: places of devices that will do.
    ///   - others: places of all devices that nobody has.
    init(
        pool: DevicePool, candidates: [Int], beside others: Set<Int>, sharing: DeviceClaim.Sharing, avoided: Set<String>
    ) {
        self.candidates = candidates
        let links = DeviceLinks(pool.devices)
        let others = others.sorted()
        costs = candidates.map { place in
            let device = pool.devices[place]
            var cost = Cost()
            cost.avoided = avoided.contains(device.id) ? 1 : 0
            cost.degraded = device.health.state == .degraded ? 1 : 0
            cost.broken =
                sharing == .share ? (pool.use(of: place) == 0 ? 1 : 0) : (device.shares > 1 ? 1 : 0)
            cost.memory = Int((device.memoryBytes ?? 0) >> 20)
            cost.degree = others.reduce(0) { $1 == place ? $0 : $0 + links.worth(place, $1) }
            return cost
        }
        self.links = links
    }

    /// Places of the best set of so many.
    func best(_ number: Int) -> [Int] {
        guard number < candidates.count else { return candidates }
        let found = candidates.count <= Self.mostTried ? tryAll(number) : grow(number)
        return found.map { candidates[$0] }
    }

    /// Without the links within the set.
    private func adding(_ index: Int, to cost: Cost) -> Cost {
        var cost = cost
        let own = costs[index]
        cost.avoided += own.avoided
        cost.degraded += own.degraded
        cost.broken += own.broken
        cost.memory += own.memory
        cost.degree += own.degree
        return cost
    }

    private func tryAll(_ number: Int) -> [Int] {
        let worths = candidates.map { first in candidates.map { first == $0 ? 0 : links.worth(first, $0) } }
        var best: (cost: Cost, set: [Int])?
        var set: [Int] = []
        func extend(from start: Int, _ cost: Cost) {
            if set.count == number {
                if best.map({ cost < $0.cost }) ?? true { best = (cost, set) }
                return
            }
            for index in start...(candidates.count - (number - set.count)) {
                var next = adding(index, to: cost)
                for other in set { next.links += worths[other][index] }
                if let best, (next.avoided, next.degraded) > (best.cost.avoided, best.cost.degraded) { continue }
                set.append(index)
                extend(from: index + 1, next)
                set.removeLast()
            }
        }
        extend(from: 0, Cost())
        return best?.set ?? []
    }

    /// Adds the device that makes the set best, again and again; from several beginnings.
    private func grow(_ number: Int) -> [Int] {
        let seeds = costs.indices.sorted { (costs[$0], $0) < (costs[$1], $1) }.prefix(Self.mostSeeds)
        var best: (cost: Cost, set: [Int])?
        for seed in seeds {
            var set = [seed]
            var cost = costs[seed]
            var left = Set(costs.indices)
            left.remove(seed)
            // Of each that is left, its links to the set.
            var gains = costs.indices.map { $0 == seed ? 0 : links.worth(candidates[seed], candidates[$0]) }
            while set.count < number {
                var next: (cost: Cost, index: Int)?
                for index in left.sorted() {
                    var sum = adding(index, to: cost)
                    sum.links += gains[index]
                    if next.map({ sum < $0.cost }) ?? true { next = (sum, index) }
                }
                guard let next else { break }
                set.append(next.index)
                cost = next.cost
                left.remove(next.index)
                for index in left { gains[index] += links.worth(candidates[next.index], candidates[index]) }
            }
            if best.map({ cost < $0.cost }) ?? true { best = (cost, set) }
        }
        return (best?.set ?? []).sorted()
    }
}

/// What the ways between a node's devices are worth.
struct DeviceLinks {
    /// By the two places.
    private var known: [Int: Int] = [:]
    private let numaNodes: [Int?]

    init(_ devices: [NodeDevice]) {
        numaNodes = devices.map(\.numaNode)
        let places = Dictionary(devices.enumerated().map { ($1.id, $0) }, uniquingKeysWith: { first, _ in first })
        for (place, device) in devices.enumerated() {
            for link in device.links {
                guard let other = places[link.to], other != place else { continue }
                let key = Self.key(place, other)
                known[key] = max(known[key] ?? 0, Self.worth(of: link))
            }
        }
    }

    /// The best way between two different devices: one NVLink is worth more than all ways by PCI of a node together.
    func worth(_ first: Int, _ second: Int) -> Int {
        let way = known[Self.key(first, second)] ?? 1
        let isSameNUMA = numaNodes[first] != nil && numaNodes[first] == numaNodes[second]
        return isSameNUMA ? max(way, 2) : way
    }

    private static func key(_ first: Int, _ second: Int) -> Int { min(first, second) << 32 | max(first, second) }

    private static func worth(of link: NodeDevice.Link) -> Int {
        switch link.kind {
        case .nvlink, .nvswitch: 100_000 * max(1, min(link.amount, 1000))
        // The topology's weight of one hop is 15.
        case .xgmi: 1_500_000 / max(1, min(link.amount, 1000))
        case .board: 6
        case .singleSwitch: 5
        case .switches: 4
        case .hostBridge: 3
        case .node: 2
        case .system: 1
        }
    }
}
