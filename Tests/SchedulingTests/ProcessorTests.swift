import Model
import Scheduling
import Testing

/// Nodes with processors, and what is wanted of them.
enum Sockets {
    /// NUMA nodes of so many cores with so many hyperthreads each, numbered as Linux does: first one of each core, then
    /// the others.
    static func processors(
        nodes: Int, cores: Int, threads: Int = 2, memory: Int64 = 64 << 30, packages: Int? = nil
    ) -> NodeProcessors {
        let all = nodes * cores
        return NodeProcessors(
            nodes: (0..<nodes).map { node in
                NodeProcessors.MemoryNode(
                    id: node, memory: memory,
                    cores: (0..<cores).map { core in
                        let first = node * cores + core
                        return NodeProcessors.Core(
                            package: node / max(1, nodes / (packages ?? nodes)),
                            cpus: ProcessorSet((0..<threads).map { first + $0 * all }))
                    })
            })
    }

    static func wanted(_ count: Int, memory: Int64 = 0) -> [DemandedProcessors] {
        [DemandedProcessors(container: "main", count: count, memory: memory)]
    }

    static func grant(_ cpus: String, memory: String = "0") -> ProcessorGrant {
        ProcessorGrant(
            container: "main", cpus: ProcessorSet(list: cpus) ?? ProcessorSet(),
            memoryNodes: ProcessorSet(list: memory) ?? ProcessorSet())
    }

    static func node(_ name: String, _ processors: NodeProcessors?, taken: String = "") -> NodeSnapshot {
        var node = Placement.node(name, cpu: 1000_000_000_000)
        node.node.processors = processors
        node.node.features = [NodeProcessors.pinningFeature, NodeProcessors.hugepagesFeature]
        node.processors = ProcessorPool(processors)
        if !taken.isEmpty { node.processors.take([grant(taken)]) }
        return node
    }
}

extension ProcessorPool {
    /// `processors memory-nodes` of what one container gets; else why not.
    fileprivate func text(_ count: Int, memory: Int64 = 0, near: Set<Int> = []) -> String {
        switch choose(Sockets.wanted(count, memory: memory), near: near) {
        case .grants(let grants): grants.map { "\($0.cpus) \($0.memoryNodes)" }.joined(separator: "; ")
        case .lacks(let words): words
        }
    }
}

@Suite struct ProcessorChoices {
    @Test func wholeCoresOfOneNUMANodeAreGiven() {
        // Processors 0 to 3 and 8 to 11 are node 0, 4 to 7 and 12 to 15 are node 1.
        let pool = ProcessorPool(Sockets.processors(nodes: 2, cores: 4))
        #expect(pool.text(2) == "0,8 0")
        #expect(pool.text(8) == "0-3,8-11 0")
        #expect(pool.text(3) == "0-1,8 0")
    }

    @Test func aNodeWithWholeCoresGoesBeforeOneWithPieces() {
        var pool = ProcessorPool(Sockets.processors(nodes: 2, cores: 2))
        // Of both cores of node 0 one hyperthread is taken.
        pool.take([Sockets.grant("0-1")])
        #expect(pool.text(2) == "2,6 1")
        // What is less than a core comes from a core that is broken already.
        #expect(pool.text(1) == "4 0")
    }

    @Test func theNodeThatItFitsTightestIsTaken() {
        var pool = ProcessorPool(Sockets.processors(nodes: 2, cores: 4))
        pool.take([Sockets.grant("4-5,12-13", memory: "1")])
        #expect(pool.text(4) == "6-7,14-15 1")
    }

    @Test func theNodeOfItsDevicesGoesBeforeTheTightest() {
        var pool = ProcessorPool(Sockets.processors(nodes: 2, cores: 4))
        pool.take([Sockets.grant("4-5,12-13", memory: "1")])
        #expect(pool.text(4, near: [0]) == "0-1,8-9 0")
        // One node goes before that.
        #expect(pool.text(6, near: [1]) == "0-2,8-10 0")
    }

    @Test func asFewNodesAsCanBeOfOneSocketWhereItCan() {
        let pool = ProcessorPool(Sockets.processors(nodes: 4, cores: 2, threads: 1, packages: 2))
        #expect(pool.text(3) == "0-2 0-1")
        #expect(pool.text(3, near: [3]) == "4,6-7 2-3")
        #expect(pool.text(7) == "0-6 0-3")
    }

    @Test func memoryComesFromTheSameNodesAndFromOthersWhenItIsMore() {
        let pool = ProcessorPool(Sockets.processors(nodes: 2, cores: 2, memory: 10 << 30))
        #expect(pool.text(2, memory: 10 << 30) == "0,4 0")
        #expect(pool.text(2, memory: 11 << 30) == "0,4 0-1")
        var taken = pool
        taken.take([Sockets.grant("0,4")], promised: Resources(memory: 8 << 30))
        #expect(taken.text(2, memory: 4 << 30) == "2,6 1", "node 0 has 2 GiB left")
    }

    @Test func hugePagesThatANUMANodeLacksAreNotMadeByPromises() {
        // Node 1 has the pages; on node 0 somebody was promised some that were there once.
        var processors = Sockets.processors(nodes: 2, cores: 2)
        processors.nodes[1].hugepages = ["2m": 8 << 20]
        var pool = ProcessorPool(processors)
        pool.take([Sockets.grant("0", memory: "0")], promised: Resources(hugepages: ["2m": 8 << 20]))
        let wanted = DemandedProcessors(container: "main", count: 2, hugepages: ["2m": 4 << 20])
        #expect(pool.choose([wanted]) == .grants([Sockets.grant("2,6", memory: "1")]))
    }

    @Test func memoryOfManyNUMANodesIsSummedWithoutOverflow() throws {
        let processors = NodeProcessors(
            nodes: (0..<256).map {
                NodeProcessors.MemoryNode(
                    id: $0, memory: .max, hugepages: ["2m": .max], cores: [.init(cpus: ProcessorSet([$0]))])
            })
        let pool = ProcessorPool(processors.bounded)
        let wanted = DemandedProcessors(container: "main", count: 2, memory: .max, hugepages: ["2m": .max])
        guard case .grants(let grants) = pool.choose([wanted]) else {
            Issue.record("nothing was chosen")
            return
        }
        #expect(grants.map(\.memoryNodes.count) == [256])
    }

    @Test func oneProcessorIsLeftForAllOthers() {
        var pool = ProcessorPool(Sockets.processors(nodes: 1, cores: 2))
        #expect(pool.text(4) == "fewer than 5 processors (4 to be pinned)")
        #expect(pool.text(3) == "0-2 0")
        pool.take([Sockets.grant("0,2")])
        #expect(pool.text(2) == "too few free processors (2 to be pinned)")
        #expect(pool.text(1) == "1 0")
        pool.take([Sockets.grant("1")])
        #expect(pool.text(1) == "processors taken")
    }

    @Test func aNodeWithoutProcessorsGivesNone() {
        #expect(ProcessorPool().text(1) == "fewer than 2 processors (1 to be pinned)")
        #expect(!ProcessorPool().isFree([Sockets.grant("0")]))
    }
}

@Suite struct ProcessorPlacement {
    private func pod(_ change: (inout Limits) -> Void) -> PodDemand {
        var container = ContainerSpec(image: "web")
        container.imageDigest = "sha256:1"
        change(&container.limits)
        return PodDemand(workload: WorkloadID("w"), pod: PodSpec(containers: [container]))
    }

    private func place(_ demand: PodDemand, _ count: Int, on nodes: [NodeSnapshot]) -> [String] {
        var scheduler = Scheduler(nodes: nodes)
        var random = SeededNumbers(1)
        return scheduler.place(Placement.requests(count, demand), random: &random).map {
            switch $0 {
            case .placed(let node, _, _, let processors):
                "\(node.text.dropFirst(3)) \(processors.map(\.cpus.description).joined())"
            case .refused(let refusal): "\(refusal)"
            }
        }
    }

    @Test func severalOfOneStepGetDifferentOnesAndTheRestWaitsWithTheReason() {
        let demand = pod {
            $0.cpu = 2_000_000_000
            $0.pinning = .cores
        }
        let nodes = [
            Sockets.node("a", Sockets.processors(nodes: 1, cores: 3)),
            Sockets.node("b", Sockets.processors(nodes: 1, cores: 1)),
        ]
        #expect(
            place(demand, 3, on: nodes) == [
                "a 0,3", "a 1,4",
                "0 of 2 nodes: fewer than 3 processors (2 to be pinned) on 1, too few free processors (2 to be pinned) on 1",
            ])
    }

    @Test func anAgentThatKnowsNothingOfItGetsNone() {
        let demand = pod {
            $0.cpu = 1_000_000_000
            $0.pinning = .cores
            $0.hugepages = ["2m": 2 << 20]
        }
        var old = Sockets.node("a", nil)
        old.node.features = []
        #expect(place(demand, 1, on: [old]) == ["0 of 1 node: feature cpu-pinning missing on 1"])
    }

    @Test func hugePagesAreCounted() {
        let demand = pod { $0.hugepages = ["2m": 512 << 20] }
        var rich = Sockets.node("rich", nil)
        rich.node.capacity.hugepages = ["2m": 1 << 30]
        var poor = Sockets.node("poor", nil)
        poor.node.capacity.hugepages = ["2m": 256 << 20, "1g": 4 << 30]
        #expect(
            place(demand, 3, on: [rich, poor, Sockets.node("none", nil)]) == [
                "rich ", "rich ",
                "0 of 3 nodes: hugepages of 2m taken on 1, no hugepages of 2m on 1, too few hugepages of 2m on 1",
            ])
    }

    @Test func processorsAreWhereTheDevicesAre() {
        var pool = DevicePool([Machines.gpu("g0") { $0.numaNode = 1 }])
        var node = Sockets.node("a", Sockets.processors(nodes: 2, cores: 4))
        node.devices = pool
        var container = ContainerSpec(image: "web")
        container.imageDigest = "sha256:1"
        container.limits.cpu = 2_000_000_000
        container.limits.pinning = .cores
        container.deviceClaims = [DeviceClaim()]
        let demand = PodDemand(workload: WorkloadID("w"), pod: PodSpec(containers: [container]))
        #expect(place(demand, 1, on: [node]) == ["a 4,12"])
        pool.take("g0", [.whole])
        #expect(pool.places(of: [DeviceGrant(container: "main", claim: 0, devices: ["g0", "gone"])]) == [1])
    }
}

/// What holds on every node, however its processors are arranged and whoever has them.
@Suite struct ProcessorProperties {
    /// Up to 4 NUMA nodes with cores of one, two or four hyperthreads, some of which containers may not use.
    private static func processors(_ random: inout SeededNumbers) -> NodeProcessors {
        var next = 0
        let nodes = (0..<Int.random(in: 1...4, using: &random)).map { id in
            let cores = (0..<Int.random(in: 0...6, using: &random)).map { _ in
                let cpus = ProcessorSet((0..<([1, 2, 2, 4].randomElement(using: &random) ?? 1)).map { next + $0 })
                next += cpus.count
                return NodeProcessors.Core(package: id / 2, cpus: cpus)
            }
            return NodeProcessors.MemoryNode(
                id: id, memory: Int64.random(in: 0...4, using: &random) << 30, cores: cores)
        }
        return NodeProcessors(nodes: nodes)
    }

    @Test(arguments: 0..<40)
    func nobodyGetsWhatIsTakenAndOneIsLeft(seed: UInt64) {
        var random = SeededNumbers(seed)
        for _ in 0..<25 {
            let processors = Self.processors(&random)
            var pool = ProcessorPool(processors)
            var free = Set(processors.cpus.numbers)
            for _ in 0..<8 {
                let count = Int.random(in: 1...6, using: &random)
                let near = Set([Int.random(in: 0...3, using: &random)])
                let memory = Int64.random(in: 0...6, using: &random) << 30
                switch pool.choose(Sockets.wanted(count, memory: memory), near: near) {
                case .lacks(let words): #expect(free.count <= count, "seed \(seed): '\(words)' for \(count)")
                case .grants(let grants):
                    let own = grants.flatMap(\.cpus.numbers)
                    #expect(own.count == count && free.isSuperset(of: own), "seed \(seed): \(own)")
                    #expect(pool.isFree(grants))
                    Self.expectNear(own, processors, free: free, near: near, seed: seed)
                    Self.expectWholeCores(own, processors, free: free, seed: seed)
                    pool.take(grants, promised: Resources(memory: memory))
                    free.subtract(own)
                    #expect(!free.isEmpty, "seed \(seed): nothing is left for all others")
                    #expect(!pool.isFree(grants))
                }
            }
        }
    }

    /// As few NUMA nodes as can be; and where one is enough and a device is at one, that one.
    private static func expectNear(
        _ own: [Int], _ processors: NodeProcessors, free: Set<Int>, near: Set<Int>, seed: UInt64
    ) {
        let rooms = processors.nodes.map { node in
            (id: node.id, free: free.intersection(node.cores.flatMap(\.cpus.numbers)).count)
        }
        var fewest = 0
        var sum = 0
        for room in rooms.map(\.free).sorted(by: >) where sum < own.count {
            sum += room
            fewest += 1
        }
        let used = processors.nodes.filter { node in
            node.cores.contains { !Set($0.cpus.numbers).isDisjoint(with: own) }
        }
        #expect(used.count == fewest, "seed \(seed): \(own) of \(used.map(\.id))")
        guard fewest == 1, rooms.contains(where: { near.contains($0.id) && $0.free >= own.count }) else { return }
        #expect(near.isSuperset(of: used.map(\.id)), "seed \(seed): \(own) is at \(used.map(\.id)), not at \(near)")
    }

    /// At most one core of which nobody had anything is broken into on each NUMA node.
    private static func expectWholeCores(_ own: [Int], _ processors: NodeProcessors, free: Set<Int>, seed: UInt64) {
        for node in processors.nodes {
            let broken = node.cores.filter { core in
                let all = Set(core.cpus.numbers)
                return free.isSuperset(of: all) && !all.isDisjoint(with: own) && !all.isSubset(of: own)
            }
            #expect(broken.count <= 1, "seed \(seed): \(broken) of \(own)")
        }
    }
}
