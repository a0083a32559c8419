/// A node of the kernel's graphics layer: /dev/dri/cardN or renderDN.
package struct DRMNode: Sendable, Equatable {
    package enum Parent: Sendable, Hashable {
        case pci(PCIAddress)
        /// Partitions of AMD's are platform devices: `amdgpu_xcp_3`.
        case platform(String)
    }

    /// `card0` or `renderD128`.
    package let name: String
    package let major: UInt32
    package let minor: UInt32
    package let parent: Parent
    /// For computing only, without rights over displays.
    package var isRender: Bool { name.hasPrefix("renderD") }
    /// Bytes of memory of its own (Intel, where the driver tells it); of cards only.
    package var memoryBytes: UInt64?

    package init(name: String, major: UInt32, minor: UInt32, parent: Parent) {
        self.name = name
        self.major = major
        self.minor = minor
        self.parent = parent
    }

    /// Those of a sysfs.
    package static func list(_ sys: inout DeviceTree) -> [DRMNode] {
        sys.list("class/drm").compactMap { name in
            // `card0-DP-1` is a connector, `version` a file.
            guard isNumbered(name, "card") || isNumbered(name, "renderD") else { return nil }
            guard let (major, minor) = sys.text("class/drm/\(name)/dev", limit: 64).flatMap({ numbers($0) }) else {
                sys.note("class/drm/\(name) has no device number")
                return nil
            }
            guard let parent = sys.linkName("class/drm/\(name)/device") else { return nil }
            var node = DRMNode(
                name: name, major: major, minor: minor,
                parent: PCIAddress(parent).map { .pci($0) } ?? .platform(parent.cleaned))
            if !node.isRender {
                node.memoryBytes = memory(&sys, "class/drm/\(name)")
            }
            return node
        }
    }

    /// i915 tells it as a whole where it does (its backports), xe for each tile.
    private static func memory(_ sys: inout DeviceTree, _ card: String) -> UInt64? {
        if let bytes = sys.number("\(card)/lmem_total_bytes") { return bytes }
        let tiles = (0..<8).compactMap { sys.number("\(card)/device/tile\($0)/physical_vram_size_bytes") }
        let sum = tiles.reduce(UInt64(0)) { $0.addingReportingOverflow($1).partialValue }
        return sum > 0 ? sum : nil
    }

    private static func isNumbered(_ name: String, _ prefix: String) -> Bool {
        let digits = name.utf8.dropFirst(prefix.utf8.count)
        return name.hasPrefix(prefix) && (1...6).contains(digits.count) && digits.allSatisfy { (48...57).contains($0) }
    }

    /// `226:128`.
    private static func numbers(_ text: String) -> (UInt32, UInt32)? {
        let parts = text.split(separator: ":", omittingEmptySubsequences: false)
        guard parts.count == 2, let major = UInt32(parts[0]), let minor = UInt32(parts[1]), major < 4096,
            minor <= 0xfffff
        else { return nil }
        return (major, minor)
    }
}
