/// A GPU, or a partition of one, in the topology of AMD's compute driver.
package struct KFDNode: Sendable, Equatable {
    /// Its number in the topology, valid until the topology changes.
    package let number: Int
    /// The driver's number for it, not 0.
    package let gpuID: UInt64
    package var address: PCIAddress
    /// Which partition of the GPU at this address; 0 also when it is not divided.
    package var partition: Int = 0
    /// The same for as long as the hardware is, and the same of all partitions; nil: this model tells none.
    package var uniqueID: UInt64?
    /// The N of /dev/dri/renderDN.
    package var renderMinor: UInt32?
    /// `gfx942`.
    package var architecture: String?
    package var memoryBytes: UInt64 = 0
    package var links: [KFDLink] = []

    /// What identifies it; the rest is not known.
    package init(number: Int, gpuID: UInt64, address: PCIAddress) {
        self.number = number
        self.gpuID = gpuID
        self.address = address
    }

    /// Most nodes: processors count too.
    package static let limit = 1024

    /// Those of a sysfs that are GPUs.
    package static func list(_ sys: inout DeviceTree) -> [KFDNode] {
        let base = "class/kfd/kfd/topology/nodes"
        return sys.list(base).prefix(limit).compactMap { name -> KFDNode? in
            guard let number = Int(name), (0..<65536).contains(number) else { return nil }
            // 0: processors.
            guard let gpuID = sys.number("\(base)/\(name)/gpu_id"), gpuID != 0 else { return nil }
            let properties = properties(&sys, "\(base)/\(name)/properties")
            guard let location = properties["location_id"],
                let domain = UInt32(exactly: properties["domain"] ?? 0),
                let address = PCIAddress(
                    domain: domain, bus: UInt8(truncatingIfNeeded: location >> 8),
                    device: UInt8(location >> 3 & 0x1f), function: UInt8(location & 7))
            else {
                sys.note("\(base)/\(name)/properties does not say where GPU \(gpuID) is")
                return nil
            }
            var node = KFDNode(number: number, gpuID: gpuID, address: address)
            // Some kernels put the partition's number into the four highest of 32 bits, others into the function's place.
            node.partition = Int(location >> 28 & 0xf)
            node.uniqueID = properties["unique_id"].flatMap { $0 == 0 ? nil : $0 }
            node.renderMinor = properties["drm_render_minor"].flatMap {
                (128..<0x100000).contains($0) ? UInt32($0) : nil
            }
            node.architecture = properties["gfx_target_version"].flatMap { architecture($0) }
            node.memoryBytes = memory(&sys, "\(base)/\(name)/mem_banks")
            for folder in ["io_links", "p2p_links"] {
                node.links += links(&sys, "\(base)/\(name)/\(folder)")
            }
            return node
        }.sorted { $0.number < $1.number }
    }

    /// Lines of `key value`, numbers only; at most 256 of them.
    package static func properties(_ text: some StringProtocol) -> [String: UInt64] {
        var result: [String: UInt64] = [:]
        for line in text.split(separator: "\n").prefix(256) {
            let words = line.split(separator: " ")
            guard words.count == 2, let number = UInt64(words[1]) else { continue }
            result[String(words[0])] = number
        }
        return result
    }

    private static func properties(_ sys: inout DeviceTree, _ path: String) -> [String: UInt64] {
        sys.text(path, limit: 16384).map { properties($0) } ?? [:]
    }

    /// 90402 is major 9, minor 4, stepping 2, which is written as gfx942; the stepping is hexadecimal.
    package static func architecture(_ number: UInt64) -> String? {
        guard number > 0, number < 1_000_000 else { return nil }
        let (major, minor, stepping) = (number / 10000, number / 100 % 100, number % 100)
        return "gfx\(major)\(minor)\(String(stepping, radix: 16))"
    }

    /// Memory of the GPU's own: heap types 1 (seen by processors) and 2 (not seen).
    private static func memory(_ sys: inout DeviceTree, _ path: String) -> UInt64 {
        sys.list(path).prefix(64).reduce(0) { sum, bank in
            let bank = properties(&sys, "\(path)/\(bank)/properties")
            guard let type = bank["heap_type"], type == 1 || type == 2, let size = bank["size_in_bytes"] else {
                return sum
            }
            return sum.addingReportingOverflow(size).overflow ? sum : sum + size
        }
    }

    private static func links(_ sys: inout DeviceTree, _ path: String) -> [KFDLink] {
        sys.list(path).prefix(256).compactMap { name in
            let link = properties(&sys, "\(path)/\(name)/properties")
            guard let to = link["node_to"], let to = Int(exactly: to), let type = link["type"],
                let kind = KFDLink.Kind(type)
            else { return nil }
            return KFDLink(to: to, kind: kind, weight: Int(exactly: link["weight"] ?? 0) ?? 0)
        }
    }
}

/// A connection in the topology.
package struct KFDLink: Sendable, Equatable {
    package enum Kind: Sendable, Equatable {
        case pci
        /// AMD's Infinity Fabric between GPUs.
        case xgmi

        /// nil for links of other kinds, such as those between processors.
        init?(_ type: UInt64) {
            switch type {
            case 2: self = .pci
            case 11: self = .xgmi
            default: return nil
            }
        }
    }

    /// The number of the node at the other end.
    package let to: Int
    package let kind: Kind
    /// How far it is: less is nearer.
    package let weight: Int

    package init(to: Int, kind: Kind, weight: Int) {
        self.to = to
        self.kind = kind
        self.weight = weight
    }
}
