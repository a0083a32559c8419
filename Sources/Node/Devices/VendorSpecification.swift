import CDISpec
import DeviceDiscovery
import OCISpec

/// What a container needs to use devices of one vendor on this machine, made of what was discovered: a CDI specification
/// without any toolkit of the vendor's.
package struct VendorSpecification: Sendable, Equatable {
    package let vendor: DeviceVendor
    /// `nvidia.com/gpu`.
    package let kind: CDIKind
    /// Of all that can be granted: by their ids, by number in the order of their addresses (`0`, and `0:1` for a part of
    /// it), and all of them together as `all`.
    package private(set) var devices: [CDIDevice] = []
    /// For whoever gets one or more of them: control nodes, the driver's libraries and programs.
    package private(set) var edits = CDIEdits()
    /// Why programs will not find the driver's libraries in containers; nil: they will.
    package private(set) var lack: String?
    private var nodes: [String: [DeviceFile]] = [:]
    /// Ids, by the names of devices.
    private var members: [String: [String]] = [:]

    /// Nodes may be used, and none made: `m` would be the right to make others.
    private static let permissions = "rw"

    /// `nvidia.com/gpu`.
    package static func kind(of vendor: DeviceVendor) -> CDIKind {
        guard let kind = CDIKind("\(vendor.rawValue).com/gpu") else { preconditionFailure("all vendors are labels") }
        return kind
    }

    /// Of each vendor of which the inventory has something to grant.
    package static func all(_ inventory: DeviceInventory, roots: DeviceRoots) -> [VendorSpecification] {
        DeviceVendor.allCases.compactMap { vendor in
            let devices = inventory.devices.filter { $0.vendor == vendor }
            guard devices.contains(where: \.isGrantable) else { return nil }
            let version = devices.lazy.compactMap(\.driverVersion).first
            let files = vendor == .nvidia ? version.map { DriverFile.nvidia(version: $0, in: roots) } ?? [] : []
            var specification = VendorSpecification(vendor, devices, files)
            if vendor == .nvidia, files.isEmpty {
                specification.lack =
                    "NVIDIA's libraries of the version \(version ?? "of the driver, which is not known,") are in none of "
                    + "\(roots.libraryFolders.joined(separator: ", ")): containers get the devices without them"
            }
            return specification
        }
    }

    /// - Parameters:
    ///   - devices: the vendor's, in the order of their addresses.
    ///   - files: its driver's.
    package init(_ vendor: DeviceVendor, _ devices: [Device], _ files: [DriverFile]) {
        self.vendor = vendor
        kind = Self.kind(of: vendor)
        let granted = devices.filter(\.isGrantable)
        for device in granted { nodes[device.id] = device.nodes.filter { $0.role != .control } }
        let numbers = Self.numbers(of: devices)
        for device in granted {
            guard let nodes = nodes[device.id] else { continue }
            let edits = CDIEdits(deviceNodes: nodes.map(Self.node))
            for name in [device.id, numbers[device.id]] {
                guard let name, CDINames.isDevice(name), !self.devices.contains(where: { $0.name == name }) else {
                    continue
                }
                self.devices.append(CDIDevice(name, edits: edits))
                members[name] = [device.id]
            }
        }
        members["all"] = granted.map(\.id)
        let whole = Self.unique(granted.flatMap { nodes[$0.id] ?? [] })
        self.devices.append(CDIDevice("all", edits: CDIEdits(deviceNodes: whole.map(Self.node))))
        edits.deviceNodes = Self.unique(granted.flatMap(\.nodes).filter { $0.role == .control }).map(Self.node)
        edits.mounts = files.flatMap(Self.mounts)
        // A hook of NVIDIA's own, where a node has it, leaves such a container alone.
        if vendor == .nvidia { edits.env = ["NVIDIA_VISIBLE_DEVICES=void"] }
    }

    /// What a container that was granted these gets, each by its id.
    ///
    /// - Throws: `CDIError` naming one that is not there or cannot be granted.
    package func edits(of ids: [String]) throws(CDIError) -> CDIEdits {
        var files: [DeviceFile] = []
        for id in ids {
            guard let nodes = nodes[id] else {
                throw CDIError("the device \(id) is not on this node, or cannot be used now")
            }
            files += nodes
        }
        var result = edits
        result.deviceNodes += Self.unique(files).map(Self.node)
        return result
    }

    /// The nodes of one device, whatever is wrong with it.
    package static func edits(of device: Device) -> CDIEdits { CDIEdits(deviceNodes: device.nodes.map(node)) }

    /// Which devices one of its names is for, by their ids.
    package func ids(named name: String) -> [String] { members[name] ?? [] }

    /// Those that it can grant, by their ids.
    package var ids: Set<String> { Set(nodes.keys) }

    /// How devices are counted by their vendors' tools: in the order of their addresses, `0`, and parts of one `0:1`. By id.
    ///
    /// - Parameter devices: in the order of an inventory.
    package static func numbers(of devices: [Device]) -> [String: String] {
        var numbers: [String: String] = [:]
        for vendor in DeviceVendor.allCases {
            let whole = devices.filter { $0.vendor == vendor && $0.partition == nil && $0.isCounted }
            for (number, device) in whole.enumerated() {
                numbers[device.id] = "\(number)"
                for (part, partition) in devices.filter({ $0.partition?.parent == device.id }).enumerated() {
                    numbers[partition.id] = "\(number):\(part)"
                }
            }
        }
        return numbers
    }

    /// Where a linker in a container looks first: images of NVIDIA's have it in LD_LIBRARY_PATH.
    private static let vendorFolder = "/usr/local/nvidia/lib64"

    private static func unique(_ files: [DeviceFile]) -> [DeviceFile] {
        var paths: Set<String> = []
        return files.filter { paths.insert($0.path).inserted }
    }

    /// Whole, so that nobody has to look at the machine's own node, which may not have been made yet.
    private static func node(_ file: DeviceFile) -> CDIDeviceNode {
        CDIDeviceNode(
            path: file.path, type: .character, major: file.major, minor: file.minor, permissions: permissions)
    }

    /// By each of its names, in each of the places where a linker looks without a cache: nothing of the container's is run to
    /// tell its linker of them.
    private static func mounts(_ file: DriverFile) -> [CDIMount] {
        let options = ["ro", "nosuid", "nodev", "bind"]
        var folders = file.kind == .library ? DeviceRoots.linkerFolders : ["/usr/bin"]
        // One of the image's own, of another driver's version, is not to be found before ours.
        if file.names.contains(where: { $0.hasPrefix("libcuda.so") }) { folders.append(vendorFolder) }
        return folders.flatMap { folder in
            file.names.map { CDIMount(hostPath: file.path, containerPath: "\(folder)/\($0)", options: options) }
        }
    }
}

extension Device {
    /// Whether its vendor's tools count it: those that its driver serves.
    fileprivate var isCounted: Bool {
        vendor == .nvidia ? sources.contains(.nvml) || driver == "nvidia" && uuid != nil : !nodes.isEmpty
    }
}
