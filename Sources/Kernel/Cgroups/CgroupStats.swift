/// What a group has used. A part whose controller the host lacks is nil.
package struct CgroupStats: Sendable, Equatable {
    package struct CPU: Sendable, Equatable {
        /// Nanoseconds since the group was made, all processors together.
        package var usage: UInt64 = 0
        package var user: UInt64 = 0
        package var system: UInt64 = 0
        /// Per processor, in nanoseconds; v1 only.
        package var perProcessor: [UInt64] = []
        /// Periods of the quota that went by, and in how many the group had to wait.
        package var periods: UInt64 = 0
        package var throttledPeriods: UInt64 = 0
        /// Nanoseconds.
        package var throttledTime: UInt64 = 0
    }

    package struct Memory: Sendable, Equatable {
        /// Bytes.
        package var usage: UInt64 = 0
        /// nil: no limit.
        package var limit: UInt64?
        package var maxUsage: UInt64?
        /// The part of `usage` that is page cache.
        package var cache: UInt64 = 0
        /// `usage` without cache that has not been used lately.
        package var workingSet: UInt64 = 0
        /// Bytes of swap alone; nil when it is not accounted.
        package var swapUsage: UInt64?
        package var swapLimit: UInt64?
        package var kernelUsage: UInt64?
        /// How often the limit was met.
        package var failures: UInt64 = 0
        package var oomKills: UInt64 = 0
        /// The lines of `memory.stat`, which differ between v1 and v2.
        package var details: [String: UInt64] = [:]
    }

    package struct PIDs: Sendable, Equatable {
        package var current: UInt64 = 0
        /// nil: no limit.
        package var limit: UInt64?
    }

    package struct Device: Sendable, Equatable {
        package var major: UInt32
        package var minor: UInt32
        package var readBytes: UInt64 = 0
        package var writeBytes: UInt64 = 0
        package var readOperations: UInt64 = 0
        package var writeOperations: UInt64 = 0
        package var discardBytes: UInt64 = 0
        package var discardOperations: UInt64 = 0
    }

    package struct Hugepages: Sendable, Equatable {
        package var pageSize: String
        /// Bytes.
        package var usage: UInt64
        package var maxUsage: UInt64?
        package var failures: UInt64
    }

    /// Pressure stall information; v2 only.
    package struct Pressure: Sendable, Equatable {
        /// Microseconds in which some process waited, and in which all did.
        package var some: UInt64 = 0
        package var full: UInt64?
        /// The share of the last ten seconds, in hundredths of a percent.
        package var someTenSeconds: UInt64 = 0
        package var fullTenSeconds: UInt64?
    }

    package var cpu: CPU?
    package var memory: Memory?
    package var pids: PIDs?
    /// By major and minor number; nil without the blkio controller.
    package var devices: [Device]?
    package var hugepages: [Hugepages] = []
    package var cpuPressure: Pressure?
    package var memoryPressure: Pressure?
    package var ioPressure: Pressure?
}
