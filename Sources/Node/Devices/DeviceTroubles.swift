import NVMLReport

/// What NVIDIA's driver has told of its GPUs' troubles: they make a device unusable until somebody has seen to it, however
/// well it looks meanwhile.
package struct DeviceTroubles: Sendable, Equatable {
    /// Reasons in words, by the ids of devices.
    package private(set) var reasons: [String: [String]]
    /// Why nothing is heard of NVIDIA's devices now; nil: something is, or nobody listens.
    private var silence: String?

    /// Most reasons that are kept of a device; the first ones tell most.
    private static let reasonLimit = 16

    /// XIDs that programs cause by their own mistakes, as NVIDIA's list of them says: the next one may have the device.
    private static let ofPrograms: Set<UInt64> = [13, 31, 43, 45, 68, 109]

    /// - Parameter reasons: what an earlier process has kept.
    package init(_ reasons: [String: [String]] = [:]) { self.reasons = reasons }

    /// Takes what a watch tells.
    ///
    /// - Parameter devices: those that there are.
    /// - Returns: whether it is time to look at the devices again.
    package mutating func take(_ report: NVMLWatchReport, _ devices: [Device]) -> Bool {
        let before = self
        switch report {
        case .began: silence = nil
        case .event(let event): return take(event, devices.filter { $0.vendor == .nvidia })
        case .broken(let trouble): silence = "NVML tells nothing of errors: \(trouble)"
        case .absent, .sample: break
        }
        return self != before
    }

    private mutating func take(_ event: NVMLEvent, _ devices: [Device]) -> Bool {
        let reason: String
        switch event.kind {
        case .xid:
            guard let xid = event.xid, !Self.ofPrograms.contains(xid) else { return false }
            reason = "its driver told of XID \(xid)\(event.message.map { " (\($0))" } ?? "")"
        case .doubleBitECC: reason = "its memory had an error that could not be corrected"
        // Corrected errors are counted by the inventory. Some GPUs have no events.
        case .singleBitECC, .unwatched: return false
        }
        // Which device it was is to be seen by a look: that is what one that fell off the bus cannot say.
        guard let uuid = event.uuid else { return true }
        for device in devices where event.isAbout(device, uuid) {
            var known = reasons[device.id] ?? []
            if known.count < Self.reasonLimit, !known.contains(reason) { known.append(reason) }
            reasons[device.id] = known
        }
        return true
    }

    /// Somebody has seen to a device: what was told of it before counts no more.
    ///
    /// - Returns: false when there was nothing.
    package mutating func clear(_ id: String) -> Bool { reasons.removeValue(forKey: id) != nil }

    /// Makes the devices that have troubles unusable. A device that is gone has been seen to when it returns.
    package mutating func apply(to inventory: inout DeviceInventory) {
        let present = Set(inventory.devices.map(\.id))
        if !inventory.uncertain.contains(.nvidia) { reasons = reasons.filter { present.contains($0.key) } }
        for device in inventory.devices where device.vendor == .nvidia {
            for reason in reasons[device.id] ?? [] { inventory.worsen(device.id, .unusable, reason) }
            // No news of errors are no errors: a device is not taken from who has it, nor withheld.
            if let silence { inventory.worsen(device.id, .unknown, silence) }
        }
    }
}

extension NVMLEvent {
    fileprivate func isAbout(_ device: Device, _ uuid: String) -> Bool {
        guard let part = device.partition else { return device.uuid == uuid }
        guard part.parent == uuid || device.uuid == uuid else { return false }
        // Of a whole GPU: all its parts. The instance that it names, where it names one.
        return (gpuInstance ?? part.number) == part.number
            && (computeInstance ?? part.computeInstance) == part.computeInstance
    }
}
