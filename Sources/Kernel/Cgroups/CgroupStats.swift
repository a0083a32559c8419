/// What a group has used. A part whose controller the host lacks is nil.
package struct CgroupStats: Sendable, Equatable {
    /// Processor time.
    package struct CPU: Sendable, Equatable {
        /// Nanoseconds since the group was made, all processors together.
        package var usage: UInt64 = 0
        /// The part of `usage` in user mode.
        package var user: UInt64 = 0
        /// The part of `usage` in the kernel.
        package var system: UInt64 = 0
        /// Per processor, in nanoseconds; v1 only.
        package var perProcessor: [UInt64] = []
        /// Periods of the quota that went by, and in how many the group had to wait.
        package var periods: UInt64 = 0
        /// The periods in which the quota ran out.
        package var throttledPeriods: UInt64 = 0
        /// Nanoseconds.
        package var throttledTime: UInt64 = 0
    }

    /// Memory and swap.
    package struct Memory: Sendable, Equatable {
        /// Bytes.
        package var usage: UInt64 = 0
        /// nil: no limit.
        package var limit: UInt64?
        /// The most bytes there ever were; nil where the kernel does not say.
        package var maxUsage: UInt64?
        /// The part of `usage` that is page cache.
        package var cache: UInt64 = 0
        /// `usage` without cache that has not been used lately.
        package var workingSet: UInt64 = 0
        /// Bytes of swap alone; nil when it is not accounted.
        package var swapUsage: UInt64?
        /// Bytes of swap alone; nil: no limit, or not accounted.
        package var swapLimit: UInt64?
        /// The part of `usage` that the kernel uses for the group; nil where it does not say.
        package var kernelUsage: UInt64?
        /// How often the limit was met.
        package var failures: UInt64 = 0
        /// Processes killed because the group was out of memory.
        package var oomKills: UInt64 = 0
        /// The lines of `memory.stat`, which differ between v1 and v2.
        package var details: [String: UInt64] = [:]
    }

    /// Processes and threads.
    package struct PIDs: Sendable, Equatable {
        /// How many there are now.
        package var current: UInt64 = 0
        /// nil: no limit.
        package var limit: UInt64?
    }

    /// Traffic of one block device.
    package struct Device: Sendable, Equatable {
        /// The number of the device.
        package var major: UInt32
        /// See `major`.
        package var minor: UInt32
        /// Bytes read.
        package var readBytes: UInt64 = 0
        /// Bytes written.
        package var writeBytes: UInt64 = 0
        /// Reads.
        package var readOperations: UInt64 = 0
        /// Writes.
        package var writeOperations: UInt64 = 0
        /// Bytes discarded (TRIM).
        package var discardBytes: UInt64 = 0
        /// Discards.
        package var discardOperations: UInt64 = 0
    }

    /// Huge pages of one size.
    package struct Hugepages: Sendable, Equatable {
        /// `2MB`, `1GB`.
        package var pageSize: String
        /// Bytes.
        package var usage: UInt64
        /// The most bytes there ever were; v1 only.
        package var maxUsage: UInt64?
        /// How often the limit was met.
        package var failures: UInt64
    }

    /// Pressure stall information; v2 only.
    package struct Pressure: Sendable, Equatable {
        /// Microseconds in which some process waited, and in which all did.
        package var some: UInt64 = 0
        /// See `some`; nil where the kernel does not say.
        package var full: UInt64?
        /// The share of the last ten seconds, in hundredths of a percent.
        package var someTenSeconds: UInt64 = 0
        /// See `someTenSeconds`.
        package var fullTenSeconds: UInt64?
    }

    /// Processor time; nil without an accounting hierarchy.
    package var cpu: CPU?
    /// nil without the memory controller.
    package var memory: Memory?
    /// nil without the pids controller.
    package var pids: PIDs?
    /// By major and minor number; nil without the blkio controller.
    package var devices: [Device]?
    /// By size; none without the hugetlb controller.
    package var hugepages: [Hugepages] = []
    /// Waiting for a processor.
    package var cpuPressure: Pressure?
    /// Waiting for memory.
    package var memoryPressure: Pressure?
    /// Waiting for disks.
    package var ioPressure: Pressure?
}
