import Cgroups
import Kernel
import Model

/// New limits of a container that runs: what is set, and what is lifted.
struct LimitChange {
    let old: Limits
    let new: Limits

    init(from old: Limits, to new: Limits) {
        self.old = old
        self.new = new
    }

    /// In the form of the control groups. Blocks.
    ///
    /// - Parameter group: the container's, whose parents say what it has without a limit of its own.
    /// - Throws: `KernelError` when a parent's processors cannot be read.
    func resources(for group: CgroupManager) throws -> CgroupResources {
        var resources = CgroupResources()
        let bandwidth = Bandwidth(new)
        if bandwidth != Bandwidth(old) {
            resources.cpu.quota = bandwidth.quota ?? -1
            resources.cpu.period = UInt64(bandwidth.period ?? Bandwidth.standardPeriod)
        }
        if new.cpuShares != old.cpuShares { resources.cpu.shares = UInt64(new.cpuShares ?? 1024) }
        if new.cpus != old.cpus { resources.cpu.cpus = try new.cpus ?? Self.parents("cpus", of: group) }
        if new.memoryNodes != old.memoryNodes {
            resources.cpu.mems = try new.memoryNodes ?? Self.parents("mems", of: group)
        }
        if new.memory != old.memory || new.memorySwap != old.memorySwap {
            resources.memory.limit = new.memory ?? -1
            resources.memory.swap = new.memory == nil ? -1 : new.memorySwap ?? new.memory
        }
        if new.memoryReservation != old.memoryReservation {
            if let reservation = new.memoryReservation {
                resources.memory.reservation = reservation
            } else if group.layout.home(of: .memory)?.version == .v2 {
                // There it is what is protected, so that nothing is what none has.
                resources.unified.append(CgroupResources.Unified(file: "memory.low", value: "0"))
            } else {
                resources.memory.reservation = -1
            }
        }
        if new.pids != old.pids { resources.pidsLimit = new.pids ?? -1 }
        if new.blockWeight != old.blockWeight {
            resources.blockIO.weight = new.blockWeight.map { UInt16(clamping: $0) }
            resources.blockIO.isWeightLifted = new.blockWeight == nil
        }
        return resources
    }

    /// The list of the group above.
    private static func parents(_ list: String, of group: CgroupManager) throws -> String? {
        guard let directory = group.directory(of: .cpuset), let slash = directory.lastSlash else { return nil }
        return try Cpuset.effective(list, in: String(directory[..<slash]))
    }
}

/// Quota and period of the processor's time, in microseconds.
struct Bandwidth: Equatable {
    /// nil: no limit.
    var quota: Int64?
    /// nil: the kernel's own.
    var period: Int64?

    /// An explicit quota is in force in place of `cpu`.
    init(_ limits: Limits) {
        period = limits.cpuPeriod
        quota = limits.cpuQuota
        guard quota == nil, limits.cpu > 0 else { return }
        period = period ?? Self.standardPeriod
        // The kernel takes no quota below a millisecond.
        quota = max(1000, limits.cpu / 1000 * (period ?? Self.standardPeriod) / 1_000_000)
    }

    static let standardPeriod: Int64 = 100_000
}
