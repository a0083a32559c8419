import DeviceDiscovery

/// Who makes a device.
package enum DeviceVendor: String, Sendable, Hashable, CaseIterable {
    case nvidia, amd, intel

    /// PCI's number; nil: no other vendor's devices are found by themselves (their CDI specifications name them).
    package init?(pci number: UInt16) {
        switch number {
        case 0x10de: self = .nvidia
        case 0x1002: self = .amd
        case 0x8086: self = .intel
        default: return nil
        }
    }
}

/// A GPU, or a part of one that is granted by itself.
package struct Device: Sendable, Equatable {
    /// The same from scan to scan, boot to boot and slot to slot as far as the hardware has a name of its own: NVIDIA's uuid,
    /// `amd-<unique id>`; else by its PCI address, `intel-0000:00:02.0`. It is a valid name of a CDI device.
    package var id: String
    package let vendor: DeviceVendor
    /// nil: a whole GPU.
    package var partition: DevicePartition?
    /// It is divided, and granted by its partitions only.
    package var isDivided = false
    /// NVIDIA's uuid, or AMD's unique id as 16 hexadecimal digits.
    package var uuid: String?
    /// The N of /dev/nvidiaN or renderDN; never an index.
    package var minor: UInt32?
    package var pciAddress: PCIAddress?
    package var numaNode: Int?
    package var memoryBytes: UInt64?
    package var model: String?
    /// The kernel's driver, and its version where it has one of its own.
    package var driver: String?
    package var driverVersion: String?
    /// The newest CUDA that the driver serves.
    package var cudaVersion: String?
    /// NVIDIA's compute capability, `9.0`, or AMD's architecture, `gfx942`.
    package var computeCapability: String?
    /// What a container needs, control nodes included; the device's own first.
    package var nodes: [DeviceFile] = []
    /// To other whole GPUs of this machine.
    package var links: [DeviceLink] = []
    package var health = DeviceHealth()
    package var sources: DeviceSources = []

    package init(id: String, vendor: DeviceVendor) {
        self.id = id
        self.vendor = vendor
    }

    /// Whether new work may be given to it, as far as discovery knows.
    package var isGrantable: Bool {
        !isDivided && [.healthy, .unknown, .degraded].contains(health.state) && nodes.contains { $0.role != .control }
    }
}

/// Which part of a GPU a device is.
package struct DevicePartition: Sendable, Equatable {
    /// The whole GPU's id.
    package let parent: String
    /// `1g.18gb`, or how AMD's is divided, `CPX`.
    package var profile: String?
    /// NVIDIA's GPU instance, or the number of AMD's partition.
    package var number: UInt32
    /// NVIDIA's compute instance.
    package var computeInstance: UInt32?

    package init(parent: String, profile: String?, number: UInt32, computeInstance: UInt32? = nil) {
        self.parent = parent
        self.profile = profile
        self.number = number
        self.computeInstance = computeInstance
    }
}

/// A character device that a container needs to use a GPU.
package struct DeviceFile: Sendable, Equatable {
    package enum Role: Sendable, Equatable {
        /// The device itself: who may open it may use it.
        case device
        /// A part of it: nvidia-caps.
        case capability
        /// Shared by all that use any device of the vendor: it grants nothing by itself.
        case control
    }

    /// On a host where all is as usual.
    package let path: String
    package let major: UInt32
    package let minor: UInt32
    package let role: Role
    /// What is there on this host; nil: nobody looked.
    package var state: NodeState?

    package init(_ path: String, _ major: UInt32, _ minor: UInt32, _ role: Role) {
        self.path = path
        self.major = major
        self.minor = minor
        self.role = role
    }
}

/// A way from one GPU to another that is better than through the machine at large.
package struct DeviceLink: Sendable, Equatable {
    package enum Kind: Sendable, Equatable {
        /// So many NVLinks straight to it.
        case nvlink(Int)
        /// Both are on NVSwitches, with so many NVLinks at least.
        case nvswitch(Int)
        /// AMD's fabric, with the topology's weight: less is nearer.
        case xgmi(weight: Int)
        /// By PCI; nearest first: one board, one switch, switches, host bridge, NUMA node, system.
        case pci(PCIDistance)
    }

    package let to: String
    package let kind: Kind

    package init(to: String, _ kind: Kind) {
        self.to = to
        self.kind = kind
    }
}

/// Where the ways of two devices meet.
package enum PCIDistance: Int, Sendable, Comparable {
    case board, singleSwitch, switches, hostBridge, node, system

    package static func < (left: PCIDistance, right: PCIDistance) -> Bool { left.rawValue < right.rawValue }
}

/// How a device is, with the reasons in words.
package struct DeviceHealth: Sendable, Equatable {
    /// From best to worst.
    package enum State: Int, Sendable, Comparable {
        case healthy
        /// Nobody can say: there is no library for it.
        case unknown
        /// It works, and an operator should look at it.
        case degraded
        /// No new work may be given to it.
        case unusable

        package static func < (left: State, right: State) -> Bool { left.rawValue < right.rawValue }
    }

    package private(set) var state = State.healthy
    package private(set) var reasons: [String] = []
    /// Something that is known makes it unusable.
    private var isKnown = false

    /// Healthy.
    package init() {}

    /// It is unusable only since nobody can say how it is: whoever has it may be well off.
    package var isUnconfirmed: Bool { state == .unusable && !isKnown }

    /// Becomes at least as bad, for this reason.
    ///
    /// - Parameter isKnown: false: this is a guess to be on the safe side, for want of knowledge.
    package mutating func worsen(_ state: State, _ reason: String, isKnown: Bool = true) {
        self.state = max(self.state, state)
        if state == .unusable, isKnown { self.isKnown = true }
        if !reasons.contains(reason) { reasons.append(reason) }
    }
}

/// How a device was found.
package struct DeviceSources: OptionSet, Sendable, Hashable {
    package let rawValue: UInt8
    package init(rawValue: UInt8) { self.rawValue = rawValue }
    /// NVIDIA's library.
    package static let nvml = DeviceSources(rawValue: 1)
    /// /proc/driver/nvidia.
    package static let procfs = DeviceSources(rawValue: 2)
    /// PCI's part of sysfs.
    package static let pci = DeviceSources(rawValue: 4)
    /// AMD's compute topology.
    package static let kfd = DeviceSources(rawValue: 8)
    /// The graphics layer's part of sysfs.
    package static let drm = DeviceSources(rawValue: 16)
}
