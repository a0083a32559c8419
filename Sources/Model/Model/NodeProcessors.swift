/// The processors of a node that containers may run on, and the memory beside them, as its agent found them when it started.
package struct NodeProcessors: Sendable, Hashable, Codable {
    /// One core: processors that share it are its hyperthreads.
    package struct Core: Sendable, Hashable, Codable {
        /// The socket that it is in.
        package var package: Int
        /// Its processors, without those that containers may not run on; never empty.
        package var cpus: ProcessorSet

        package init(package: Int = 0, cpus: ProcessorSet) {
            self.package = package
            self.cpus = cpus
        }
    }

    /// A NUMA node: cores and the memory that is nearest to them. Either may be missing.
    package struct MemoryNode: Sendable, Hashable, Codable {
        package var id: Int
        /// Bytes.
        package var memory: Int64
        /// Bytes in the pools of huge pages, by the pages' size as in `Limits.hugepages`.
        package var hugepages: [String: Int64]
        package var cores: [Core]

        package init(id: Int, memory: Int64 = 0, hugepages: [String: Int64] = [:], cores: [Core] = []) {
            self.id = id
            self.memory = memory
            self.hugepages = hugepages
            self.cores = cores
        }

        /// How many processors it has, where each is in one core.
        package var cpuCount: Int { cores.reduce(0) { $0 + $1.cpus.count } }

        private enum CodingKeys: String, CodingKey { case id, memory, hugepages, cores }

        package init(from decoder: any Decoder) throws {
            let values = try decoder.container(keyedBy: CodingKeys.self)
            id = try values.decode(Int.self, forKey: .id)
            memory = try values.decode(.memory, or: 0)
            hugepages = try values.decode(.hugepages, or: [:])
            cores = try values.decodeIfPresent(CoreList.self, forKey: .cores)?.cores ?? []
        }

        package func encode(to encoder: any Encoder) throws {
            var values = encoder.container(keyedBy: CodingKeys.self)
            try values.encode(id, forKey: .id)
            try values.encode(memory, forKey: .memory)
            if !hugepages.isEmpty { try values.encode(hugepages, forKey: .hugepages) }
            try values.encode(cores, forKey: .cores)
        }
    }

    /// In the order of their ids.
    package var nodes: [MemoryNode]

    package init(nodes: [MemoryNode]) { self.nodes = nodes }

    private enum CodingKeys: String, CodingKey { case nodes }

    /// - Throws: `DecodingError`, as soon as there are more NUMA nodes or processors than are dealt with: a few bytes of
    ///   a list are many numbers.
    package init(from decoder: any Decoder) throws {
        let values = try decoder.container(keyedBy: CodingKeys.self)
        nodes = try values.decode(MemoryNodeList.self, forKey: .nodes).nodes
    }

    private struct MemoryNodeList: Decodable {
        var nodes: [MemoryNode] = []

        init(from decoder: any Decoder) throws {
            var list = try decoder.unkeyedContainer()
            var count = 0
            while !list.isAtEnd {
                let node = try list.decode(MemoryNode.self)
                count += node.cpuCount
                guard nodes.count < NodeProcessors.mostNodes, count <= NodeProcessors.mostProcessors else {
                    throw DecodingError.dataCorruptedError(
                        in: list,
                        debugDescription: "there are more than \(NodeProcessors.mostNodes) NUMA nodes or "
                            + "\(NodeProcessors.mostProcessors) processors")
                }
                nodes.append(node)
            }
        }
    }

    private struct CoreList: Decodable {
        var cores: [Core] = []

        init(from decoder: any Decoder) throws {
            var list = try decoder.unkeyedContainer()
            var count = 0
            while !list.isAtEnd {
                let core = try list.decode(Core.self)
                count += core.cpus.count
                guard cores.count < NodeProcessors.mostProcessors, count <= NodeProcessors.mostProcessors else {
                    throw DecodingError.dataCorruptedError(
                        in: list,
                        debugDescription: "there are more than \(NodeProcessors.mostProcessors) cores or processors")
                }
                cores.append(core)
            }
        }
    }

    /// All processors.
    package var cpus: ProcessorSet { ProcessorSet(nodes.flatMap { $0.cores.flatMap(\.cpus.numbers) }) }

    /// How many there are, where each is in one core.
    package var cpuCount: Int { nodes.reduce(0) { $0 + $1.cpuCount } }

    /// What is asked of a node that has tasks with processors of their own, see `Node.features`.
    package static let pinningFeature = "cpu-pinning"
    /// The same of one that has huge pages counted and limited.
    package static let hugepagesFeature = "hugepages"

    /// Most NUMA nodes and processors of a node.
    package static let mostNodes = 256
    package static let mostProcessors = 4096
    /// Most bytes of memory of a NUMA node, and of a pool of huge pages: 1 PiB. Sums of all NUMA nodes are far from
    /// what a number holds.
    package static let mostMemory: Int64 = 1 << 50

    /// The same within bounds, each node and processor once; nil: there is no processor, or there are more than are dealt
    /// with.
    package var bounded: NodeProcessors? {
        guard nodes.count <= Self.mostNodes else { return nil }
        var seen: Set<Int> = []
        var ids: Set<Int> = []
        var kept: [MemoryNode] = []
        for node in nodes.sorted(by: { $0.id < $1.id }) {
            guard (0..<ProcessorSet.limit).contains(node.id), ids.insert(node.id).inserted else { continue }
            var node = node
            node.memory = min(max(0, node.memory), Self.mostMemory)
            node.hugepages = HugepageSize.bounded(node.hugepages)
            node.cores = node.cores.compactMap { core in
                let cpus = ProcessorSet(core.cpus.numbers.filter { seen.insert($0).inserted })
                return cpus.isEmpty ? nil : Core(package: core.package, cpus: cpus)
            }
            kept.append(node)
        }
        return (1...Self.mostProcessors).contains(seen.count) ? NodeProcessors(nodes: kept) : nil
    }
}

/// What a container has of its node's processors: these alone, and nobody else.
package struct ProcessorGrant: Sendable, Hashable, Codable {
    /// The container's name in its pod.
    package var container: String
    package var cpus: ProcessorSet
    /// The NUMA nodes that its memory comes from.
    package var memoryNodes: ProcessorSet

    package init(container: String, cpus: ProcessorSet, memoryNodes: ProcessorSet) {
        self.container = container
        self.cpus = cpus
        self.memoryNodes = memoryNodes
    }
}

/// A size of huge pages: `2m`, `1g`, `64k`.
package enum HugepageSize {
    /// Most sizes of a node or a container.
    package static let most = 8

    /// - Returns: the bytes of one page; nil: it is no size of pages, or not written in its largest unit.
    package static func bytes(_ text: String) -> Int64? {
        guard (2...5).contains(text.utf8.count), let unit = units.first(where: { text.hasSuffix($0.name) }),
            text.dropLast().utf8.allSatisfy({ (0x30...0x39).contains($0) }), let number = Int64(text.dropLast())
        else { return nil }
        let bytes = number << unit.shift
        guard (64 << 10...64 << 30).contains(bytes), bytes & (bytes - 1) == 0, name(bytes) == text else { return nil }
        return bytes
    }

    /// What pages of so many bytes are called; nil: they are none.
    package static func name(_ bytes: Int64) -> String? {
        guard bytes >= 1 << 10, bytes & (bytes - 1) == 0,
            let unit = units.first(where: { bytes >> $0.shift > 0 })
        else { return nil }
        return "\(bytes >> unit.shift)\(unit.name)"
    }

    private static let units: [(name: String, shift: Int64)] = [("g", 30), ("m", 20), ("k", 10)]

    /// What is known of a node's pools, within bounds: sizes that are none are left out.
    package static func bounded(_ pools: [String: Int64]) -> [String: Int64] {
        let known = pools.filter { bytes($0.key) != nil && $0.value > 0 }.sorted { $0.key < $1.key }
        return Dictionary(
            known.prefix(most).map { ($0.key, min($0.value, NodeProcessors.mostMemory)) },
            uniquingKeysWith: { first, _ in first })
    }
}
