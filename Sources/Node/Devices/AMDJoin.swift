import DeviceDiscovery

/// Joins KFD's topology, the graphics layer and PCI to AMD's devices.
struct AMDJoin {
    private let host: HostDevices

    init(_ host: HostDevices) { self.host = host }

    func devices() -> [Device] {
        let pci = host.pci.filter { DeviceVendor(pci: $0.vendor) == .amd }
        let known = Set(pci.map(\.address))
        let byAddress = Dictionary(grouping: host.kfd.map { Self.placed($0, known) }) { $0.address }
        let places = Set(pci.map(\.address)).union(byAddress.keys)
        var names: [Int: String] = [:]
        var result: [(Device, KFDNode?)] = []
        for address in places.sorted() {
            let nodes = (byAddress[address] ?? []).sorted { $0.partition < $1.partition }
            for (device, node) in devices(at: address, pci.first { $0.address == address }, nodes) {
                if let node { names[node.number] = device.id }
                result.append((device, node))
            }
        }
        return result.map { device, node in
            var device = device
            // The shortest way to each, where the topology has several.
            for link in (node?.links ?? []).sorted(by: { $0.weight < $1.weight }) {
                guard let to = names[link.to], to != device.id, !device.links.contains(where: { $0.to == to }) else {
                    continue
                }
                device.links.append(
                    DeviceLink(to: to, link.kind == .xgmi ? .xgmi(weight: link.weight) : .pci(.system)))
            }
            return device
        }
    }

    /// The node at its GPU's place. Some kernels tell a partition's number in the address, as if it were the function, some
    /// beside it: a function that PCI has no GPU at, while it has one at function 0, is such a number.
    private static func placed(_ node: KFDNode, _ known: Set<PCIAddress>) -> KFDNode {
        let address = node.address
        guard node.partition == 0, address.function > 0, !known.contains(address),
            let first = PCIAddress(domain: address.domain, bus: address.bus, device: address.device, function: 0),
            known.contains(first)
        else { return node }
        var node = node
        node.address = first
        node.partition = Int(address.function)
        return node
    }

    private func devices(at address: PCIAddress, _ pci: PCIDevice?, _ nodes: [KFDNode]) -> [(Device, KFDNode?)] {
        let unique = nodes.lazy.compactMap(\.uniqueID).first.map { Self.hexadecimal($0) }
        var whole = Device(id: "amd-\(unique ?? "\(address)")", vendor: .amd)
        whole.uuid = unique
        whole.pciAddress = address
        if let pci { whole.read(pci) }
        whole.requireDriver(["amdgpu"])
        whole.driverVersion = host.moduleVersions["amdgpu"]
        whole.model = pci?.productName
        whole.computeCapability = nodes.first?.architecture
        if nodes.isEmpty {
            whole.health.worsen(
                .unknown, "AMD's compute driver does not list it: it can draw, and not compute with ROCm")
            addGraphics(&whole, render: nil)
            return [(whole, nil)]
        }
        whole.sources.insert(.kfd)
        guard nodes.count > 1 else {
            read(&whole, nodes[0])
            return [(whole, nodes[0])]
        }
        whole.isDivided = true
        whole.memoryBytes = Self.sum(nodes.map(\.memoryBytes))
        return [(whole, nil)] + nodes.map { (partition($0, of: whole), $0) }
    }

    private func partition(_ node: KFDNode, of whole: Device) -> Device {
        var device = whole
        device.id = "\(whole.id).\(node.partition)"
        device.isDivided = false
        device.memoryBytes = nil
        device.partition = DevicePartition(
            parent: whole.id, profile: whole.pciAddress.flatMap { host.computePartitions[$0] },
            number: UInt32(node.partition))
        read(&device, node)
        return device
    }

    private func read(_ device: inout Device, _ node: KFDNode) {
        device.computeCapability = node.architecture
        device.memoryBytes = node.memoryBytes > 0 ? node.memoryBytes : nil
        device.minor = node.renderMinor
        addGraphics(&device, render: node.renderMinor)
        guard let kfd = host.majors.major(of: "kfd") else {
            return device.health.worsen(.unusable, "there is no /dev/kfd: load amdgpu's compute driver")
        }
        device.nodes.append(DeviceFile("/dev/kfd", kfd, 0, .control))
    }

    /// The render node, and the card that belongs to it.
    private func addGraphics(_ device: inout Device, render minor: UInt32?) {
        let render = host.drm.first { node in
            if let minor { return node.isRender && node.minor == minor }
            return node.isRender && node.parent == device.pciAddress.map { .pci($0) }
        }
        guard let render else {
            return device.health.worsen(.unusable, "it has no render node")
        }
        device.sources.insert(.drm)
        device.minor = render.minor
        device.nodes.append(DeviceFile("/dev/dri/\(render.name)", render.major, render.minor, .device))
        for card in host.drm where !card.isRender && card.parent == render.parent {
            device.nodes.append(DeviceFile("/dev/dri/\(card.name)", card.major, card.minor, .device))
        }
    }

    private static func sum(_ numbers: [UInt64]) -> UInt64? {
        let sum = numbers.reduce(UInt64(0)) { $0.addingReportingOverflow($1).overflow ? UInt64.max : $0 + $1 }
        return sum == 0 || sum == UInt64.max ? nil : sum
    }

    private static func hexadecimal(_ number: UInt64) -> String {
        let text = String(number, radix: 16)
        return String(repeating: "0", count: 16 - text.count) + text
    }
}
