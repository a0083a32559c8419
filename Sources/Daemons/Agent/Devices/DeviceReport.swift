import AgentCore
import CDISpec
import DeviceDiscovery
import Devices
import Model
import Wire

extension PodExecutor {
    /// The node's devices as its report says them; nil: nobody has looked yet.
    func deviceReport(_ records: [TaskRecord]) -> [NodeDevice]? {
        guard devices.hasLooked, let (inventory, table) = devices.known else { return nil }
        var holders: [String: [TaskID]] = [:]
        for record in records {
            for id in devices.held(by: record) { holders[id, default: []].append(record.assignment.task) }
        }
        let aliases = VendorSpecification.numbers(of: inventory.devices)
        // What a task has, and an agent that has just started cannot ask after, is not gone.
        let unknown = inventory.uncertain.contains(.nvidia) ? holders.keys.filter { table.entries[$0] == nil } : []
        let lost = unknown.map { id in
            NodeDevice(
                id: id, vendor: DeviceVendor.nvidia.rawValue,
                health: NodeDevice.Health(.unusable, reasons: [DeviceTable.unconfirmed]), isUnconfirmed: true,
                heldBy: (holders[id] ?? []).sorted { $0.text < $1.text })
        }
        let known = table.entries.values.map { entry in
            var device = NodeDevice(entry.device)
            device.isGone = !entry.isPresent
            device.isUnconfirmed = entry.isPresent && entry.device.health.isUnconfirmed
            device.aliases = aliases[device.id].map { [$0] } ?? []
            let names = [device.id] + device.aliases + ["all"]
            device.shares = names.compactMap { self.configuration.deviceShares[$0] }.first ?? 1
            device.heldBy = (holders[device.id] ?? []).sorted { $0.text < $1.text }
            return device
        }
        return (known + lost).sorted { $0.id < $1.id }
    }
}

extension NodeDevices {
    /// Devices that something of a task may use, granted or by their CDI names.
    func held(by record: TaskRecord) -> Set<String> { record.deviceUse.granted.union(named(by: record)) }

    /// Those that it may use by their CDI names.
    func named(by record: TaskRecord) -> Set<String> {
        let names = record.deviceUse.names
        return names.isEmpty ? [] : ids(of: names.compactMap { CDIName($0) }, for: record.assignment.task)
    }
}

extension TaskRecord {
    struct DeviceUse: Equatable {
        /// Ids.
        var granted: Set<String> = []
        /// CDI's.
        var names: Set<String> = []
    }

    /// Which devices something of the task may use; none once it has ended for good.
    var deviceUse: DeviceUse {
        var use = DeviceUse()
        if removed || hasEndedForGood { return use }
        for one in assignments {
            use.granted.formUnion(one.grantedDevices.flatMap(\.devices))
            use.names.formUnion(one.pod.containers.flatMap(\.devices).filter { CDIName($0) != nil })
        }
        return use
    }
}

extension TaskRecord {
    /// Whether nothing of it runs, nor will by itself.
    var hasEndedForGood: Bool {
        (container.state == .exited || failed && !isLive) && !startPending && restartAt == nil
    }
}

extension TaskAssignment {
    /// What one of its containers was granted, by ids.
    func devices(of container: String) -> [String] {
        grantedDevices.filter { $0.container == container }.flatMap(\.devices)
    }
}

extension NodeDevice {
    /// As discovery found it, without what else is known.
    fileprivate init(_ device: Device) {
        self.init(
            id: device.id, vendor: device.vendor.rawValue, model: device.model,
            memoryBytes: device.memoryBytes.map { Int64(clamping: $0) }, driverVersion: device.driverVersion,
            runtimeVersion: device.cudaVersion, computeCapability: device.computeCapability,
            numaNode: device.numaNode, pciAddress: device.pciAddress?.description, parent: device.partition?.parent,
            profile: device.partition?.profile, isDivided: device.isDivided, links: device.links.map(Link.init),
            health: Health(device))
    }
}

extension NodeDevice.Link {
    fileprivate init(_ link: DeviceLink) {
        switch link.kind {
        case .nvlink(let count): self.init(to: link.to, .nvlink, amount: count)
        case .nvswitch(let count): self.init(to: link.to, .nvswitch, amount: count)
        case .xgmi(let weight): self.init(to: link.to, .xgmi, amount: weight)
        case .pci(let distance):
            let kind: Kind =
                switch distance {
                case .board: .board
                case .singleSwitch: .singleSwitch
                case .switches: .switches
                case .hostBridge: .hostBridge
                case .node: .node
                case .system: .system
                }
            self.init(to: link.to, kind)
        }
    }
}

extension NodeDevice.Health {
    /// What cannot be granted for want of device nodes is told as unusable.
    init(_ device: Device) {
        let state: State =
            switch device.health.state {
            case .healthy: .healthy
            case .unknown: .unknown
            case .degraded: .degraded
            case .unusable: .unusable
            }
        if device.isGrantable || device.isDivided || state == .unusable {
            self.init(state, reasons: device.health.reasons)
        } else {
            self.init(.unusable, reasons: device.health.reasons + ["it has no device node that could be granted"])
        }
    }
}
