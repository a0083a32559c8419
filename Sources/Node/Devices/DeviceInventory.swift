import DeviceDiscovery
import NVMLReport

/// The GPUs of a node, as all that tells of them says together.
///
/// What two sources say differently of one device makes it unusable: granting the wrong node would give away somebody
/// else's device.
package struct DeviceInventory: Sendable, Equatable {
    /// By vendor, address and partition.
    package private(set) var devices: [Device] = []
    /// What an operator should know that belongs to no device.
    package private(set) var notes: [String] = []
    /// Vendors of which devices may exist that this inventory lacks: what is absent is not known to be gone.
    package private(set) var uncertain: Set<DeviceVendor> = []

    /// Most devices of a node, partitions included.
    package static let limit = 4096

    /// Nothing.
    package init() {}

    /// Joins what was read; nothing is looked up.
    package init(_ host: HostDevices, nvml: NVMLOutcome) {
        notes = host.problems
        var nvidia = NVIDIAJoin(host, nvml)
        nvidia.run()
        let amd = AMDJoin(host).devices()
        let intel = IntelJoin(host).devices()
        notes += nvidia.notes
        if nvidia.isUncertain { uncertain.insert(.nvidia) }
        var all = nvidia.devices + amd + intel
        if all.count > Self.limit {
            notes.append("\(all.count) devices were found; those after \(Self.limit) are left out")
            all.removeSubrange(Self.limit...)
        }
        devices = Self.unambiguous(all).sorted { Self.precedes($0, $1) }
    }

    /// The same with each device's nodes looked at: what is at a node's path and is not the device makes it suspect.
    package func lookingAtNodes(in roots: DeviceRoots) -> DeviceInventory {
        var result = self
        var seen: [String: NodeState] = [:]
        for index in devices.indices {
            for node in devices[index].nodes.indices {
                let file = devices[index].nodes[node]
                let state =
                    seen[file.path]
                    ?? NodeState.look(at: file.path, major: file.major, minor: file.minor, in: roots)
                seen[file.path] = state
                result.devices[index].nodes[node].state = state
                if case .wrong(let words) = state { result.devices[index].health.worsen(.degraded, words) }
            }
        }
        return result
    }

    /// A device becomes at least as bad, for a reason that was not read.
    mutating func worsen(_ id: String, _ state: DeviceHealth.State, _ reason: String) {
        for index in devices.indices where devices[index].id == id { devices[index].health.worsen(state, reason) }
    }

    /// Two devices of one name or one node: neither can be granted, since it is not known which it is.
    private static func unambiguous(_ devices: [Device]) -> [Device] {
        var names: [String: Int] = [:]
        var nodes: [String: Int] = [:]
        for device in devices {
            names[device.id, default: 0] += 1
            if device.partition == nil, let own = ownNode(of: device) { nodes[own, default: 0] += 1 }
        }
        var told: [String: Int] = [:]
        return devices.map { device in
            var device = device
            if let own = ownNode(of: device), nodes[own] ?? 0 > 1 {
                device.health.worsen(.unusable, "another device claims \(own) too")
            }
            if names[device.id] ?? 0 > 1 {
                device.health.worsen(.unusable, "another device has the name \(device.id) too")
                // Names are unique in an inventory all the same.
                let number = told[device.id, default: 0] + 1
                told[device.id] = number
                if number > 1 { device.id += ".\(number)" }
            }
            return device
        }
    }

    private static func ownNode(of device: Device) -> String? { device.nodes.first { $0.role == .device }?.path }

    private static func precedes(_ left: Device, _ right: Device) -> Bool {
        if left.vendor != right.vendor { return left.vendor.rawValue < right.vendor.rawValue }
        if left.pciAddress != right.pciAddress {
            guard let first = left.pciAddress else { return false }
            guard let second = right.pciAddress else { return true }
            return first < second
        }
        let parts = { (device: Device) in
            (device.partition == nil ? -1 : Int(device.partition?.number ?? 0), device.partition?.computeInstance ?? 0)
        }
        return parts(left) == parts(right) ? left.id < right.id : parts(left) < parts(right)
    }
}

extension Device {
    /// What PCI says of it: whose it is, where, and how well it is connected.
    mutating func read(_ pci: PCIDevice) {
        sources.insert(.pci)
        numaNode = pci.numaNode ?? numaNode
        driver = pci.driver
        if let width = pci.linkWidth, let most = pci.maximumLinkWidth, width < most {
            health.worsen(.degraded, "its PCI Express link has \(width) of \(most) lanes")
        }
    }

    /// Whether its driver is one that containers can use it by; else it says why not.
    mutating func requireDriver(_ names: [String]) {
        guard let driver else {
            return health.worsen(.unusable, "it has no driver: load \(names.joined(separator: " or "))")
        }
        if !names.contains(driver) {
            health.worsen(
                .unusable, "its driver is \(driver), and containers need \(names.joined(separator: " or "))")
        }
    }
}
