import Kernel

extension CgroupManager {
    func applyBlockIO(_ blockIO: CgroupResources.BlockIO) throws(CgroupError) {
        var blockIO = blockIO
        if blockIO.weight == 0 { blockIO.weight = nil }
        if blockIO.leafWeight == 0 { blockIO.leafWeight = nil }
        if blockIO == CgroupResources.BlockIO() { return }
        let group = try group(.blkio, for: "blockIO")
        if blockIO.isWeightLifted { try liftWeight(group) }
        if let weight = blockIO.weight { try writeWeight(group, "blockIO.weight", UInt64(weight), device: nil) }
        for device in blockIO.deviceWeights where device.value != 0 {
            try writeWeight(group, "blockIO.weightDevice", device.value, device: device)
        }
        if let weight = blockIO.leafWeight {
            try writeLeafWeight(group, "blkio.leaf_weight", String(try checked(weight: UInt64(weight), group)))
        }
        for device in blockIO.deviceLeafWeights where device.value != 0 {
            let weight = try checked(weight: device.value, group)
            try writeLeafWeight(group, "blkio.leaf_weight_device", "\(device.major):\(device.minor) \(weight)")
        }
        let throttles: [(old: String, key: String, devices: [CgroupResources.BlockIO.Device])] = [
            ("read_bps", "rbps", blockIO.readBytesPerSecond), ("write_bps", "wbps", blockIO.writeBytesPerSecond),
            ("read_iops", "riops", blockIO.readOperationsPerSecond),
            ("write_iops", "wiops", blockIO.writeOperationsPerSecond),
        ]
        for throttle in throttles {
            for device in throttle.devices {
                let numbers = "\(device.major):\(device.minor)"
                let hint = "\(numbers) must be a whole disk of this host"
                if group.isUnified {
                    let rate = device.value == 0 ? "max" : String(device.value)
                    try group.directory.write("io.max", "\(numbers) \(throttle.key)=\(rate)", hint: hint)
                } else {
                    try group.directory.write(
                        "blkio.throttle.\(throttle.old)_device", "\(numbers) \(device.value)", hint: hint)
                }
            }
        }
    }

    private func checked(weight: UInt64, _ group: ControllerGroup) throws(CgroupError) -> UInt64 {
        guard (10...1000).contains(weight) else {
            throw group.error(.invalidValue, "blockIO weight", "\(weight) is not from 10 to 1000")
        }
        return weight
    }

    /// Weights work with the BFQ scheduler only (and with io.cost in v2), so the file may be missing.
    private func writeWeight(
        _ group: ControllerGroup, _ field: String, _ weight: UInt64, device: CgroupResources.BlockIO.Device?
    ) throws(CgroupError) {
        let weight = try checked(weight: weight, group)
        let prefix = device.map { "\($0.major):\($0.minor) " } ?? ""
        let candidates = Self.weightFiles(group, device == nil ? "" : "_device")
        guard let file = candidates.first(where: { group.directory.has($0) }) else {
            throw group.error(
                .unsupported, field, "\(group.directory.path) has none of \(candidates.joined(separator: ", "))",
                hint: "the kernel needs the BFQ scheduler or io.cost for weights")
        }
        let value = file == "io.weight" ? Self.unifiedWeight(weight) : weight
        try group.directory.write(file, prefix + String(value))
    }

    private static func weightFiles(_ group: ControllerGroup, _ suffix: String) -> [String] {
        group.isUnified ? ["io.bfq.weight", "io.weight"] : ["blkio.weight\(suffix)", "blkio.bfq.weight\(suffix)"]
    }

    /// Where there is no weight none was ever set.
    private func liftWeight(_ group: ControllerGroup) throws(CgroupError) {
        guard let file = Self.weightFiles(group, "").first(where: { group.directory.has($0) }) else { return }
        // That of the scheduler before BFQ, which old kernels have; else BFQ's and io.cost's.
        try group.directory.write(file, file == "blkio.weight" ? "500" : "100")
    }

    private func writeLeafWeight(_ group: ControllerGroup, _ file: String, _ text: String) throws(CgroupError) {
        guard !group.isUnified, group.directory.has(file) else { throw group.unsupported("blockIO leaf weight") }
        try group.directory.write(file, text)
    }

    /// v1's 10 to 1000 as v2's 1 to 10000, linearly.
    package static func unifiedWeight(_ weight: UInt64) -> UInt64 { 1 + (max(weight, 10) - 10) * 9999 / 990 }
}
