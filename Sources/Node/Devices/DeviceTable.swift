import DeviceDiscovery

/// What became of a device from one inventory to the next.
package enum DeviceChange: Sendable, Equatable {
    case appeared(Device)
    /// Something about it is different, its health among it.
    case changed(from: Device, to: Device)
    /// It is gone: it was pulled out, has fallen off the bus, or its partition was taken apart. As it was last.
    case gone(Device)
    /// It is back, under its old id.
    case returned(Device)
}

/// The devices of a node over time. One that is gone is remembered: claims on it name it, and it may return.
package struct DeviceTable: Sendable, Equatable {
    /// A device that is there or was.
    package struct Entry: Sendable, Equatable {
        package var device: Device
        package var isPresent: Bool
        /// Counts up with each update: when it was last seen.
        fileprivate var seen: UInt64
    }

    /// By id.
    package private(set) var entries: [String: Entry] = [:]
    private var updates: UInt64 = 0

    /// Most devices that are gone and still remembered; those longest gone are forgotten first.
    package static let goneLimit = 256

    /// An empty table.
    package init() {}

    /// The devices that are there, in no order.
    package var present: [Device] { entries.values.filter(\.isPresent).map(\.device) }

    /// Takes a new inventory over and says what is different, devices by id.
    package mutating func update(_ inventory: DeviceInventory) -> [DeviceChange] {
        updates += 1
        var changes: [DeviceChange] = []
        var unseen = entries.filter(\.value.isPresent)
        for device in inventory.devices.sorted(by: { $0.id < $1.id }) {
            let device = renamed(device, inventory)
            unseen[device.id] = nil
            switch entries[device.id] {
            case nil: changes.append(.appeared(device))
            case let entry? where !entry.isPresent: changes.append(.returned(device))
            case let entry? where entry.device != device:
                changes.append(.changed(from: entry.device, to: device))
            default: break
            }
            entries[device.id] = Entry(device: device, isPresent: true, seen: updates)
        }
        for (id, entry) in unseen.sorted(by: { $0.key < $1.key }) {
            if inventory.uncertain.contains(entry.device.vendor) {
                // Nobody can say whether it is there. It is kept, and not to be used.
                var device = entry.device
                device.health.worsen(.unusable, Self.unconfirmed, isKnown: false)
                guard device != entry.device else { continue }
                entries[id]?.device = device
                changes.append(.changed(from: entry.device, to: device))
            } else {
                entries[id]?.isPresent = false
                changes.append(.gone(entry.device))
            }
        }
        forgetOldest()
        return changes
    }

    /// Forgets a device that is gone; one that is there stays.
    package mutating func forget(_ id: String) {
        if entries[id]?.isPresent == false { entries[id] = nil }
    }

    /// The reason of what nobody can say anything of.
    package static let unconfirmed = "nothing can be learned of it at present"

    /// A device whose uuid cannot be read goes by its address. Where the same place had one with a uuid, and NVML is what
    /// fails, it is that one: a claim on it must not see it go and another come.
    private func renamed(_ device: Device, _ inventory: DeviceInventory) -> Device {
        guard device.uuid == nil, inventory.uncertain.contains(device.vendor), let address = device.pciAddress else {
            return device
        }
        let known = entries.values.first {
            $0.isPresent && $0.device.pciAddress == address && $0.device.partition == nil && $0.device.uuid != nil
        }
        guard let known else { return device }
        var result = device
        result.id = known.device.id
        result.health.worsen(.unusable, Self.unconfirmed, isKnown: false)
        return result
    }

    private mutating func forgetOldest() {
        let gone = entries.filter { !$0.value.isPresent }
        guard gone.count > Self.goneLimit else { return }
        for (id, _) in gone.sorted(by: { $0.value.seen < $1.value.seen }).prefix(gone.count - Self.goneLimit) {
            entries[id] = nil
        }
    }
}
