import OCISpec

extension Validation {
    /// The kernel's bounds of an id map: ranges (UID_GID_MAP_MAX_EXTENTS), and bytes of the text that describes them,
    /// which must be less than a page.
    private static let maximumRanges = 340
    private static let maximumMapBytes = 4095

    /// Checks the id maps of the user namespace and of mounts, see user_namespaces(7): what the kernel would refuse with
    /// a bare EINVAL is named here.
    func checkIDMappings(_ linux: LinuxSpec) throws {
        try Self.check(linux.uidMappings, path: "linux.uidMappings")
        try Self.check(linux.gidMappings, path: "linux.gidMappings")
        for (index, mount) in spec.mounts.enumerated() {
            let path = "mounts[\(index)]"
            if mount.uidMappings.isEmpty && mount.gidMappings.isEmpty { continue }
            guard !mount.uidMappings.isEmpty else {
                throw RefusedField("\(path).uidMappings", "is missing, and gidMappings is there")
            }
            guard !mount.gidMappings.isEmpty else {
                throw RefusedField("\(path).gidMappings", "is missing, and uidMappings is there")
            }
            try Self.check(mount.uidMappings, path: "\(path).uidMappings")
            try Self.check(mount.gidMappings, path: "\(path).gidMappings")
        }
    }

    /// Checks one list of ranges.
    static func check(_ mappings: [IDMapping], path: String) throws {
        if mappings.isEmpty { return }
        guard mappings.count <= maximumRanges else {
            throw RefusedField(path, "has \(mappings.count) ranges; the kernel takes \(maximumRanges)")
        }
        for (index, mapping) in mappings.enumerated() {
            guard mapping.size > 0 else { throw RefusedField("\(path)[\(index)].size", "is 0") }
            for (name, first) in [("containerID", mapping.containerID), ("hostID", mapping.hostID)]
            where UInt64(first) + UInt64(mapping.size) > UInt64(UInt32.max) {
                throw RefusedField(
                    "\(path)[\(index)].\(name)", "\(first) with \(mapping.size) ids goes beyond \(UInt32.max - 1)")
            }
        }
        try checkOverlap(mappings, path: path, "containerID") { $0.containerID }
        try checkOverlap(mappings, path: path, "hostID") { $0.hostID }
        let bytes = IDMap.text(mappings).utf8.count
        guard bytes <= maximumMapBytes else {
            throw RefusedField(
                path, "takes \(bytes) bytes as the kernel reads it, which allows \(maximumMapBytes); use fewer ranges")
        }
    }

    private static func checkOverlap(
        _ mappings: [IDMapping], path: String, _ name: String, _ first: (IDMapping) -> UInt32
    ) throws {
        let order = mappings.indices.sorted { first(mappings[$0]) < first(mappings[$1]) }
        for (lower, upper) in zip(order, order.dropFirst()) {
            let end = UInt64(first(mappings[lower])) + UInt64(mappings[lower].size)
            guard UInt64(first(mappings[upper])) >= end else {
                throw RefusedField(
                    "\(path)[\(max(lower, upper))].\(name)", "overlaps with \(path)[\(min(lower, upper))]")
            }
        }
    }
}
