/// The limits of a group. What is nil is left as it is; names and meanings are those of the OCI runtime specification.
package struct CgroupResources: Sendable, Equatable {
    /// `linux.resources.cpu`.
    package struct CPU: Sendable, Equatable {
        /// Relative weight: 2 to 262144, 1024 for an ordinary group. 0 is nil. v1 refuses a value outside; v2, where
        /// it becomes another scale, takes it as the nearer end.
        package var shares: UInt64?
        /// Microseconds per period; negative for no limit. 0 is nil.
        package var quota: Int64?
        /// Microseconds that may be saved up from earlier periods.
        package var burst: UInt64?
        /// Microseconds. 0 is nil.
        package var period: UInt64?
        /// Microseconds of real-time scheduling per `realtimePeriod`; v1 only. 0 is nil.
        package var realtimeRuntime: Int64?
        /// Microseconds. 0 is nil.
        package var realtimePeriod: UInt64?
        /// List of CPUs, `0-3,5`. Empty is nil.
        package var cpus: String?
        /// List of memory nodes. Empty is nil.
        package var mems: String?
        /// 1 makes the group SCHED_IDLE, 0 an ordinary one.
        package var idle: Int64?

        /// No limits.
        package init() {}
    }

    /// `linux.resources.memory`.
    package struct Memory: Sendable, Equatable {
        /// Bytes; negative for no limit. 0 is nil, here and in the next two.
        package var limit: Int64?
        /// Bytes that are reclaimed last.
        package var reservation: Int64?
        /// Bytes of memory and swap together.
        package var swap: Int64?
        /// Ignored with a notice: the kernel has no such limit any more.
        package var kernel: Int64?
        /// Bytes of TCP buffers; v1 only, negative for no limit.
        package var kernelTCP: Int64?
        /// 0 to 100; v1 only. The largest number, -1 to some engines, is nil.
        package var swappiness: UInt64?
        /// v1 only.
        package var disableOOMKiller: Bool?
        /// Only true can be had: kernels always account hierarchically.
        package var useHierarchy: Bool?
        /// Refuses a limit below what is in use.
        package var checkBeforeUpdate: Bool?

        /// No limits.
        package init() {}
    }

    /// `linux.resources.blockIO`.
    package struct BlockIO: Sendable, Equatable {
        /// A number for one device.
        package struct Device: Sendable, Equatable {
            /// The numbers of a whole disk of the host.
            package var major: UInt32
            /// See `major`.
            package var minor: UInt32
            /// Bytes or operations per second (0 for no limit), or a weight.
            package var value: UInt64

            /// A number for the disk major:minor.
            package init(major: UInt32, minor: UInt32, value: UInt64) {
                self.major = major
                self.minor = minor
                self.value = value
            }
        }

        /// 10 to 1000. 0 is nil.
        package var weight: UInt16?
        /// Has the weight be what the kernel gives a group; before `weight`.
        package var isWeightLifted = false
        /// Old v1 kernels only.
        package var leafWeight: UInt16?
        /// 10 to 1000 for single disks; 0 is left out.
        package var deviceWeights: [Device] = []
        /// As `leafWeight`, for single disks.
        package var deviceLeafWeights: [Device] = []
        /// Bytes read per second.
        package var readBytesPerSecond: [Device] = []
        /// Bytes written per second.
        package var writeBytesPerSecond: [Device] = []
        /// Reads per second.
        package var readOperationsPerSecond: [Device] = []
        /// Writes per second.
        package var writeOperationsPerSecond: [Device] = []

        /// No limits.
        package init() {}
    }

    /// One entry of `linux.resources.hugepageLimits`.
    package struct Hugepages: Sendable, Equatable {
        /// As the kernel names it: `2MB`, `1GB`, `64KB`.
        package var pageSize: String
        /// Bytes.
        package var limit: UInt64

        /// A limit for one page size.
        package init(pageSize: String, limit: UInt64) {
            self.pageSize = pageSize
            self.limit = limit
        }
    }

    /// v1 only.
    package struct Network: Sendable, Equatable {
        /// The priority of the group's traffic on one interface.
        package struct Priority: Sendable, Equatable {
            /// A name of at most 15 bytes.
            package var interface: String
            /// Higher goes first.
            package var priority: UInt32

            /// A priority for one interface.
            package init(interface: String, priority: UInt32) {
                self.interface = interface
                self.priority = priority
            }
        }

        /// The mark of the group's packets for tc(8): major << 16 | minor.
        package var classID: UInt32?
        /// Per interface.
        package var priorities: [Priority] = []

        /// No limits.
        package init() {}
    }

    /// One entry of `linux.resources.rdma`.
    package struct RDMA: Sendable, Equatable {
        /// The name of the device, such as `mlx5_0`.
        package var device: String
        /// The most handles (contexts) at a time.
        package var handles: UInt32?
        /// The most objects at a time.
        package var objects: UInt32?

        /// Limits for one device; without any the entry does nothing.
        package init(device: String, handles: UInt32? = nil, objects: UInt32? = nil) {
            self.device = device
            self.handles = handles
            self.objects = objects
        }
    }

    /// One file of cgroup v2.
    package struct Unified: Sendable, Equatable {
        /// The name: the controller, a point, the rest.
        package var file: String
        /// Each line is written for itself.
        package var value: String

        /// A value for one file.
        package init(file: String, value: String) {
            self.file = file
            self.value = value
        }
    }

    /// Processor time and placement.
    package var cpu = CPU()
    /// Memory and swap.
    package var memory = Memory()
    /// Processes and threads; negative for no limit, 0 is taken as 1.
    package var pidsLimit: Int64?
    /// Disks.
    package var blockIO = BlockIO()
    /// Huge pages, by size.
    package var hugepages: [Hugepages] = []
    /// Marks and priorities of packets.
    package var network = Network()
    /// RDMA devices.
    package var rdma: [RDMA] = []
    /// Files of cgroup v2, written last and in order.
    package var unified: [Unified] = []

    /// No limits.
    package init() {}
}
