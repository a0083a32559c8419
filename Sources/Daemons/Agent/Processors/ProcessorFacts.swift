import Cgroups
import DeviceDiscovery
import Kernel
import Model

/// The machine's processors, NUMA nodes and huge pages as sysfs tells of them.
struct ProcessorFacts {
    /// nil: sysfs says nothing that could be dealt with.
    var processors: NodeProcessors?
    /// Bytes in all pools, by the pages' size; sizes without a page are left out.
    var hugepages: [String: Int64] = [:]

    /// Reads sysfs, whatever is in it: what is not there or is no number is left out, and all is bounded. Blocks.
    ///
    /// - Parameters:
    ///   - sys: where sysfs is mounted.
    ///   - allowed: the processors that containers may run on; nil: all that are online.
    init(sys: String, allowed: ProcessorSet? = nil) {
        var tree = DeviceTree(sys)
        hugepages = Self.pools("kernel/mm/hugepages", &tree)
        guard let text = tree.text("devices/system/cpu/online", limit: 1 << 16), let online = ProcessorSet(list: text)
        else { return }
        var usable = Set(online.numbers)
        if let allowed { usable.formIntersection(allowed.numbers) }
        guard usable.count <= NodeProcessors.mostProcessors else { return }
        var nodes: [NodeProcessors.MemoryNode] = []
        var left = usable
        for (id, folder) in Self.folders("devices/system/node", "node", &tree)
        where nodes.count < NodeProcessors.mostNodes {
            let cpus = tree.text("\(folder)/cpulist", limit: 1 << 16).flatMap { ProcessorSet(list: $0) }
            let own = left.intersection(cpus?.numbers ?? [])
            left.subtract(own)
            let pools = Self.pools("\(folder)/hugepages", &tree)
            // What is in a pool is no memory for anything else.
            let memory = max(0, Self.memory(folder, &tree) - pools.values.reduce(0, +))
            nodes.append(
                NodeProcessors.MemoryNode(id: id, memory: memory, hugepages: pools, cores: Self.cores(own, &tree)))
        }
        // A kernel without NUMA: one node, whose memory nothing is bound to.
        if nodes.isEmpty { nodes = [NodeProcessors.MemoryNode(id: 0, cores: Self.cores(left, &tree))] }
        processors = NodeProcessors(nodes: nodes).bounded
    }

    /// All sizes of huge pages that the kernel knows, in order, also those without a page: a pool may be filled later.
    /// Blocks.
    static func hugepageSizes(sys: String) -> [String] {
        var tree = DeviceTree(sys)
        return Array(sizes("kernel/mm/hugepages", &tree).map(\.name).sorted().prefix(HugepageSize.most))
    }

    /// `PREFIX<number>` in a folder, in the order of their numbers.
    private static func folders(_ path: String, _ prefix: String, _ tree: inout DeviceTree) -> [(Int, String)] {
        tree.list(path).compactMap { name in
            let digits = name.dropFirst(prefix.count)
            guard name.hasPrefix(prefix), (1...4).contains(digits.utf8.count),
                digits.utf8.allSatisfy({ (0x30...0x39).contains($0) }), let number = Int(digits)
            else { return nil }
            return (number, "\(path)/\(name)")
        }.sorted { $0.0 < $1.0 }
    }

    /// Processors that name the same hyperthreads are of one core; one that names none, or not itself, is its own.
    private static func cores(_ cpus: Set<Int>, _ tree: inout DeviceTree) -> [NodeProcessors.Core] {
        var members: [Int: [Int]] = [:]
        var packages: [Int: Int] = [:]
        for cpu in cpus.sorted() {
            let folder = "devices/system/cpu/cpu\(cpu)/topology"
            let threads = tree.text("\(folder)/thread_siblings_list").flatMap { ProcessorSet(list: $0) }
            let first = threads.flatMap { $0.numbers.contains(cpu) ? $0.numbers.first : nil } ?? cpu
            members[first, default: []].append(cpu)
            // Some machines say -1.
            if packages[first] == nil {
                packages[first] = tree.text("\(folder)/physical_package_id").flatMap { Int($0) }.map { max(0, $0) }
            }
        }
        return members.sorted { $0.key < $1.key }.map {
            NodeProcessors.Core(package: packages[$0.key] ?? 0, cpus: ProcessorSet($0.value))
        }
    }

    /// `Node 0 MemTotal:  1024 kB`.
    private static func memory(_ folder: String, _ tree: inout DeviceTree) -> Int64 {
        for line in tree.text("\(folder)/meminfo", limit: 1 << 16)?.split(separator: "\n") ?? [] {
            let words = line.split(separator: " ")
            guard let place = words.firstIndex(of: "MemTotal:"), place + 1 < words.count,
                let kilobytes = Int64(words[place + 1]), (0...1 << 50).contains(kilobytes)
            else { continue }
            return kilobytes << 10
        }
        return 0
    }

    /// `hugepages-2048kB/nr_hugepages`.
    private static func pools(_ path: String, _ tree: inout DeviceTree) -> [String: Int64] {
        var pools: [String: Int64] = [:]
        for size in sizes(path, &tree) {
            guard let number = tree.number("\(size.folder)/nr_hugepages"), number > 0 else { continue }
            pools[size.name] = min(Int64(clamping: number), NodeProcessors.mostMemory / size.bytes) * size.bytes
        }
        return HugepageSize.bounded(pools)
    }

    /// Folders such as `hugepages-2048kB`, each with the size that it is of.
    private static func sizes(
        _ path: String, _ tree: inout DeviceTree
    ) -> [(name: String, bytes: Int64, folder: String)] {
        var sizes: [(name: String, bytes: Int64, folder: String)] = []
        for entry in tree.list(path) where entry.hasPrefix("hugepages-") && entry.hasSuffix("kB") {
            guard let kilobytes = Int64(entry.dropFirst(10).dropLast(2)), (1...1 << 30).contains(kilobytes),
                let name = HugepageSize.name(kilobytes << 10), let bytes = HugepageSize.bytes(name)
            else { continue }
            sizes.append((name: name, bytes: bytes, folder: "\(path)/\(entry)"))
        }
        return sizes
    }
}

extension CgroupLayout {
    /// The processors that groups below a group may run on, or those at the top of the tree while there is no such group.
    ///
    /// - Parameter parent: a name of a group.
    /// - Returns: nil: the kernel has no such controller, or does not say.
    func allowedProcessors(parent: String) -> ProcessorSet? {
        guard let home = home(of: .cpuset) else { return nil }
        for directory in [home.directory("/\(parent)"), home.directory("")] {
            // A group that is not there, or has nothing in it, says as much as one that cannot be read.
            let list = (try? Cpuset.effective("cpus", in: directory)).flatMap { $0 }
            if let set = list.flatMap({ ProcessorSet(list: $0) }), !set.isEmpty { return set }
        }
        return nil
    }
}
