/// What NVML says of a machine's GPUs: the first line that martlet-nvml prints.
///
/// A member that is absent could not be read or does not exist on this GPU; what failed otherwise than by not being
/// supported is in `problems`.
package struct NVMLInventory: Codable, Sendable, Equatable {
    /// The driver, `550.54.15`.
    package var driverVersion: String?
    /// The library, `12.550.54.15`.
    package var libraryVersion: String?
    /// The newest CUDA that the driver serves, `12.4`.
    package var cudaVersion: String?
    /// Functions that the library has under none of the names looked for, by their newest name.
    package var missingFunctions: [String] = []
    /// In the order of the library's indexes, which change from boot to boot.
    package var gpus: [NVMLGPU] = []
    /// How near two GPUs are to each other on PCI; of each pair once.
    package var ancestors: [NVMLAncestor] = []
    /// What could not be read of the machine as a whole.
    package var problems: [String] = []

    package init() {}
}

/// One GPU.
package struct NVMLGPU: Codable, Sendable, Equatable {
    /// The library's number for it, valid for this line.
    package var index: Int
    /// `GPU-` and 36 characters; the same for as long as the hardware is.
    package var uuid: String?
    /// The model.
    package var name: String?
    /// The N of /dev/nvidiaN, which need not be the index.
    package var minor: UInt32?
    /// `0000:65:00.0`.
    package var pciAddress: String?
    /// Device and vendor as PCI has them, device in the upper half.
    package var pciDevice: UInt32?
    package var memoryBytes: UInt64?
    /// What the driver keeps of it for itself.
    package var reservedBytes: UInt64?
    /// `9.0`.
    package var computeCapability: String?
    package var numaNode: Int?
    /// nil: this model has no MIG.
    package var isDivided: Bool?
    /// Its MIG instances.
    package var instances: [NVMLInstance] = []
    /// Active NVLinks.
    package var links: [NVMLLink] = []
    package var condition = NVMLCondition()
    /// The driver cannot reach it any more, or wants it reset: what else is absent says nothing.
    package var isLost = false
    /// What failed, a sentence each.
    package var problems: [String] = []

    package init(index: Int) { self.index = index }
}

/// A MIG instance: a compute instance within a GPU instance.
package struct NVMLInstance: Codable, Sendable, Equatable {
    /// `MIG-` and 36 characters.
    package var uuid: String
    package var gpuInstance: UInt32
    package var computeInstance: UInt32
    /// `NVIDIA H200 MIG 1g.18gb`.
    package var name: String?
    package var memoryBytes: UInt64?
    package var multiprocessors: UInt32?
    package var gpuSlices: UInt32?
    package var computeSlices: UInt32?

    package init(uuid: String, gpuInstance: UInt32, computeInstance: UInt32) {
        self.uuid = uuid
        self.gpuInstance = gpuInstance
        self.computeInstance = computeInstance
    }
}

/// One active NVLink of a GPU.
package struct NVMLLink: Codable, Sendable, Equatable {
    package enum Remote: String, Codable, Sendable { case gpu, bridge, `switch`, unknown }

    package var number: Int
    /// What is at its other end.
    package var remote: Remote
    /// Where that is.
    package var pciAddress: String?

    package init(number: Int, remote: Remote, pciAddress: String?) {
        self.number = number
        self.remote = remote
        self.pciAddress = pciAddress
    }
}

/// Where the paths of two GPUs meet.
package struct NVMLAncestor: Codable, Sendable, Equatable {
    /// From nearest to farthest: one board, one PCI switch, several switches, one host bridge, one NUMA node, or only
    /// the machine.
    package enum Level: String, Codable, Sendable, CaseIterable {
        case board, singleSwitch, switches, hostBridge, node, system

        /// From nvmlGpuTopologyLevel_t.
        package init?(nvml number: UInt32) {
            switch number {
            case 0: self = .board
            case 10: self = .singleSwitch
            case 20: self = .switches
            case 30: self = .hostBridge
            case 40: self = .node
            case 50: self = .system
            default: return nil
            }
        }
    }

    /// Indexes, the lower first.
    package var first: Int
    package var second: Int
    package var level: Level

    package init(first: Int, second: Int, level: Level) {
        self.first = first
        self.second = second
        self.level = level
    }
}

/// What of a GPU's state bears on its health.
package struct NVMLCondition: Codable, Sendable, Equatable {
    /// Memory errors since the driver was loaded.
    package var correctedErrors: UInt64?
    package var uncorrectedErrors: UInt64?
    /// Rows are to be replaced at the next reset.
    package var remapPending: Bool?
    /// Rows could not be replaced: the hardware is defective.
    package var remapFailed: Bool?
    /// Pages are to be taken out of use at the next reset (models before row remapping).
    package var pagesPending: Bool?
    /// What holds the clocks down, of `NVMLSlowdown`; absent when it cannot be read.
    package var slowdowns: [NVMLSlowdown]?

    package init() {}
}

/// Reasons of lowered clocks that tell of more than a limit somebody set.
package enum NVMLSlowdown: String, Codable, Sendable, CaseIterable {
    case hardware, softwareThermal, hardwareThermal, powerBrake

    /// Its bit in nvmlDeviceGetCurrentClocksEventReasons.
    package var bit: UInt64 {
        switch self {
        case .hardware: 0x8
        case .softwareThermal: 0x20
        case .hardwareThermal: 0x40
        case .powerBrake: 0x80
        }
    }
}
