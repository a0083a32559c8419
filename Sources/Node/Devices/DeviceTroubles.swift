import NVMLReport

/// What NVIDIA's driver has told of its GPUs' troubles: they make a device unusable until somebody has seen to it, however
/// well it looks meanwhile.
package struct DeviceTroubles: Sendable, Equatable {
    /// Reasons in words, by the ids of devices.
    package private(set) var reasons: [String: [String]]
    /// Why nothing is heard of single ones, by uuid.
    private var unwatched: [String: String] = [:]
    /// Why nothing is heard of NVIDIA's devices now; nil: something is, or nobody listens.
    private var silence: String?

    /// Most reasons that are kept of a device; the first ones tell most.
    private static let reasonLimit = 16

    /// XIDs that programs cause by their own mistakes, as NVIDIA's list of them says: the next one may have the device.
    private static let ofPrograms: Set<UInt64> = [13, 31, 43, 45, 68, 109]
    /// XIDs that tell of what was dealt with, or what the inventory shows by itself: rows that are remapped, many corrected
    /// errors, an error that was contained, another way of recovering.
    private static let notices: Set<UInt64> = [63, 92, 94, 154]

    /// - Parameter reasons: what an earlier process has kept.
    package init(_ reasons: [String: [String]] = [:]) { self.reasons = reasons }

    /// Takes what a watch tells.
    ///
    /// - Parameter devices: those that there are.
    /// - Returns: whether it is time to look at the devices again.
    package mutating func take(_ report: NVMLWatchReport, _ devices: [Device]) -> Bool {
        let before = self
        switch report {
        case .began:
            silence = nil
            unwatched = [:]
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
            guard let xid = event.xid, !Self.ofPrograms.contains(xid), !Self.notices.contains(xid) else { return false }
            reason = "its driver told of XID \(xid)\(event.message.map { " (\($0))" } ?? "")"
        case .doubleBitECC: reason = "its memory had an error that could not be corrected"
        case .unwatched:
            guard let uuid = event.uuid else { return false }
            unwatched[uuid] = "its driver does not tell of errors: \(event.message ?? "no reason given")"
            return true
        // Corrected errors are counted by the inventory.
        case .singleBitECC: return false
        }
        // Which device it was is to be seen by a look: that is what one that fell off the bus cannot say.
        guard let uuid = event.uuid else { return true }
        var concerned = devices.filter { event.isAbout($0, uuid) }
        // An instance that is not there any more: nobody knows what became of its part.
        if concerned.isEmpty { concerned = devices.filter { $0.uuid == uuid } }
        for device in concerned {
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
        let own = inventory.devices.filter { $0.vendor == .nvidia }
        // One that is not named now may be any of those that are not there.
        let areNamed = own.allSatisfy { $0.driver != "nvidia" || $0.uuid != nil && $0.sources.contains(.nvml) }
        if !inventory.uncertain.contains(.nvidia), areNamed {
            let present = Set(own.map(\.id))
            reasons = reasons.filter { present.contains($0.key) }
        }
        for device in own {
            // What the whole of a device has, its parts have, whichever they are by now.
            let parent = device.partition?.parent
            for reason in (reasons[device.id] ?? []) + (parent.flatMap { reasons[$0] } ?? []) {
                inventory.worsen(device.id, .unusable, reason)
            }
            // No news of errors are no errors: a device is not taken from who has it, nor withheld.
            let unheard = device.uuid.flatMap { unwatched[$0] } ?? parent.flatMap { unwatched[$0] }
            for reason in [silence, unheard].compactMap({ $0 }) { inventory.worsen(device.id, .unknown, reason) }
        }
    }
}

extension NVMLEvent {
    fileprivate func isAbout(_ device: Device, _ uuid: String) -> Bool {
        if device.uuid == uuid { return device.partition != nil || gpuInstance == nil || !device.isDivided }
        guard let part = device.partition, part.parent == uuid, let gpuInstance else { return false }
        return gpuInstance == part.number && (computeInstance ?? part.computeInstance) == part.computeInstance
    }
}
