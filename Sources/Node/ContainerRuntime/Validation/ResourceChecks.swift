import OCISpec

/// What can be said about `linux.resources` before there is a group; ranges and controllers are the control group's
/// business, which knows the interface that it writes to.
extension Validation {
    /// - Parameter path: where the resources are: `linux.resources`, or `resources` of `update`.
    /// - Throws: `RefusedField`.
    static func check(_ resources: ResourcesSpec, path: String) throws {
        if let memory = resources.memory { try check(memory, path: "\(path).memory") }
        for (index, device) in (resources.blockIO?.weightDevice ?? []).enumerated() {
            guard device.weight != nil || device.leafWeight != nil else {
                throw RefusedField("\(path).blockIO.weightDevice[\(index)]", "has neither weight nor leafWeight")
            }
        }
        for (file, value) in resources.unified {
            guard !file.utf8.contains(UInt8(ascii: "/")), let point = file.firstIndex(of: "."), point != file.startIndex
            else {
                throw RefusedField("\(path).unified.\(file)", "is no name of a file, as memory.high is one")
            }
            guard !value.utf8.contains(0) else { throw RefusedField("\(path).unified.\(file)", "contains a NUL") }
        }
        for (device, limit) in resources.rdma where limit.hcaHandles == nil && limit.hcaObjects == nil {
            throw RefusedField("\(path).rdma.\(device.prefix(64))", "needs hcaHandles or hcaObjects")
        }
    }

    /// Limits on memory are -1, which is none, or not negative: all else that is negative would lift the limit that
    /// somebody got wrong.
    private static func check(_ memory: MemorySpec, path: String) throws {
        let limits = [
            ("limit", memory.limit), ("reservation", memory.reservation), ("swap", memory.swap),
            ("kernel", memory.kernel), ("kernelTCP", memory.kernelTCP),
        ]
        for case (let name, let limit?) in limits where limit < -1 {
            throw RefusedField(
                "\(path).\(name)", "\(limit) is neither a number of bytes nor -1, which is no limit")
        }
    }
}
