/// The limits of a group. What is nil is left as it is; names and meanings are those of the OCI runtime specification.
package struct CgroupResources: Sendable, Equatable {
    package struct CPU: Sendable, Equatable {
        /// Relative weight: 2 to 262144, 1024 for an ordinary group; values outside are brought inside. 0 is nil.
        package var shares: UInt64?
        /// Microseconds per period; negative for no limit. 0 is nil.
        package var quota: Int64?
        /// Microseconds that may be saved up from earlier periods.
        package var burst: UInt64?
        /// Microseconds. 0 is nil.
        package var period: UInt64?
        /// Microseconds of real-time scheduling per `realtimePeriod`; v1 only. 0 is nil.
        package var realtimeRuntime: Int64?
        package var realtimePeriod: UInt64?
        /// List of CPUs, `0-3,5`. Empty is nil.
        package var cpus: String?
        /// List of memory nodes. Empty is nil.
        package var mems: String?
        /// 1 makes the group SCHED_IDLE, 0 an ordinary one.
        package var idle: Int64?

        package init() {}
    }

    package struct Memory: Sendable, Equatable {
        /// Bytes; negative for no limit. 0 is nil, here and in the next two.
        package var limit: Int64?
        /// Bytes that are reclaimed last.
        package var reservation: Int64?
        /// Bytes of memory and swap together.
        package var swap: Int64?
        /// Ignored with a notice: the kernel has no such limit any more.
        package var kernel: Int64?
        /// Bytes of TCP buffers; v1 only.
        package var kernelTCP: Int64?
        /// 0 to 100; v1 only.
        package var swappiness: UInt64?
        /// v1 only.
        package var disableOOMKiller: Bool?
        /// Only true can be had: kernels always account hierarchically.
        package var useHierarchy: Bool?
        /// Refuses a limit below what is in use.
        package var checkBeforeUpdate: Bool?

        package init() {}
    }

    package struct BlockIO: Sendable, Equatable {
        /// A number for one device.
        package struct Device: Sendable, Equatable {
            package var major: UInt32
            package var minor: UInt32
            /// Bytes or operations per second (0 for no limit), or a weight.
            package var value: UInt64

            package init(major: UInt32, minor: UInt32, value: UInt64) {
                self.major = major
                self.minor = minor
                self.value = value
            }
        }

        /// 10 to 1000. 0 is nil.
        package var weight: UInt16?
        /// Old v1 kernels only.
        package var leafWeight: UInt16?
        package var deviceWeights: [Device] = []
        package var deviceLeafWeights: [Device] = []
        package var readBytesPerSecond: [Device] = []
        package var writeBytesPerSecond: [Device] = []
        package var readOperationsPerSecond: [Device] = []
        package var writeOperationsPerSecond: [Device] = []

        package init() {}
    }

    package struct Hugepages: Sendable, Equatable {
        /// As the kernel names it: `2MB`, `1GB`, `64KB`.
        package var pageSize: String
        /// Bytes.
        package var limit: UInt64

        package init(pageSize: String, limit: UInt64) {
            self.pageSize = pageSize
            self.limit = limit
        }
    }

    /// v1 only.
    package struct Network: Sendable, Equatable {
        package struct Priority: Sendable, Equatable {
            package var interface: String
            package var priority: UInt32

            package init(interface: String, priority: UInt32) {
                self.interface = interface
                self.priority = priority
            }
        }

        package var classID: UInt32?
        package var priorities: [Priority] = []

        package init() {}
    }

    package struct RDMA: Sendable, Equatable {
        package var device: String
        package var handles: UInt32?
        package var objects: UInt32?

        package init(device: String, handles: UInt32? = nil, objects: UInt32? = nil) {
            self.device = device
            self.handles = handles
            self.objects = objects
        }
    }

    /// One file of cgroup v2.
    package struct Unified: Sendable, Equatable {
        package var file: String
        /// Each line is written for itself.
        package var value: String

        package init(file: String, value: String) {
            self.file = file
            self.value = value
        }
    }

    package var cpu = CPU()
    package var memory = Memory()
    /// Processes and threads; negative for no limit, 0 is taken as 1.
    package var pidsLimit: Int64?
    package var blockIO = BlockIO()
    package var hugepages: [Hugepages] = []
    package var network = Network()
    package var rdma: [RDMA] = []
    package var unified: [Unified] = []

    package init() {}
}
