import JSON

/// `linux.resources`: what the container's cgroup allows. Sizes are bytes, times microseconds; -1 means unlimited.
package struct ResourcesSpec: OCIDocument {
    package var devices: [DeviceRuleSpec]
    package var memory: MemorySpec?
    package var cpu: CPUSpec?
    /// The largest number of tasks (`pids.limit`); negative: unlimited, 0 is a limit too.
    package var pidsLimit: Int64?
    package var blockIO: BlockIOSpec?
    package var hugepageLimits: [HugepageLimit]
    package var network: NetworkClassSpec?
    /// By the device's name.
    package var rdma: [String: RDMASpec]
    /// Files of the cgroup v2 directory and what to write to them.
    package var unified: [String: String]

    package init() {
        devices = []
        hugepageLimits = []
        rdma = [:]
        unified = [:]
    }

    package init(_ reader: JSONReader) throws(JSONError) {
        devices = try reader.documents("devices")
        memory = try reader.document("memory")
        cpu = try reader.document("cpu")
        pidsLimit = try reader.optionalObject("pids")?.optionalInt64("limit")
        blockIO = try reader.document("blockIO")
        hugepageLimits = try reader.documents("hugepageLimits")
        network = try reader.document("network")
        rdma = try reader.documentTable("rdma")
        unified = try reader.table("unified")
    }

    package var json: JSONValue {
        var writer = ObjectWriter()
        writer.put("devices", devices.map(\.json))
        writer.put("memory", memory?.json)
        writer.put("cpu", cpu?.json)
        if let pidsLimit { writer.put("pids", ["limit": .integer(pidsLimit)]) }
        writer.put("blockIO", blockIO?.json)
        writer.put("hugepageLimits", hugepageLimits.map(\.json))
        writer.put("network", network?.json)
        writer.put("rdma", rdma.mapValues(\.json))
        writer.put("unified", unified)
        return writer.value
    }
}

/// A rule of the device cgroup; the last one that matches decides.
package struct DeviceRuleSpec: OCIDocument {
    package var allow: Bool
    /// `a`, `b`, `c`; absent: all.
    package var type: String?
    /// nil: every one.
    package var major: Int64?
    package var minor: Int64?
    /// Letters of `rwm`.
    package var access: String?

    package init(allow: Bool, type: String? = nil, major: Int64? = nil, minor: Int64? = nil, access: String? = nil) {
        self.allow = allow
        self.type = type
        self.major = major
        self.minor = minor
        self.access = access
    }

    package init(_ reader: JSONReader) throws(JSONError) {
        allow = try reader.bool("allow")
        type = try reader.optionalString("type")
        major = try reader.optionalInt64("major")
        minor = try reader.optionalInt64("minor")
        access = try reader.optionalString("access")
    }

    package var json: JSONValue {
        var writer = ObjectWriter()
        writer.put("allow", allow)
        writer.put("type", type)
        writer.put("major", major)
        writer.put("minor", minor)
        writer.put("access", access)
        return writer.value
    }
}

/// `memory`: bytes; -1 is no limit.
package struct MemorySpec: OCIDocument {
    package var limit: Int64?
    package var reservation: Int64?
    /// Memory and swap together.
    package var swap: Int64?
    package var kernel: Int64?
    package var kernelTCP: Int64?
    package var swappiness: UInt64?
    package var disableOOMKiller: Bool?
    package var useHierarchy: Bool?
    package var checkBeforeUpdate: Bool?

    package init(limit: Int64? = nil, reservation: Int64? = nil, swap: Int64? = nil) {
        self.limit = limit
        self.reservation = reservation
        self.swap = swap
    }

    package init(_ reader: JSONReader) throws(JSONError) {
        limit = try reader.optionalInt64("limit")
        reservation = try reader.optionalInt64("reservation")
        swap = try reader.optionalInt64("swap")
        kernel = try reader.optionalInt64("kernel")
        kernelTCP = try reader.optionalInt64("kernelTCP")
        swappiness = try reader.optionalUInt64("swappiness")
        disableOOMKiller = try reader.optionalBool("disableOOMKiller")
        useHierarchy = try reader.optionalBool("useHierarchy")
        checkBeforeUpdate = try reader.optionalBool("checkBeforeUpdate")
    }

    package var json: JSONValue {
        var writer = ObjectWriter()
        writer.put("limit", limit)
        writer.put("reservation", reservation)
        writer.put("swap", swap)
        writer.put("kernel", kernel)
        writer.put("kernelTCP", kernelTCP)
        writer.put("swappiness", swappiness)
        writer.put("disableOOMKiller", disableOOMKiller)
        writer.put("useHierarchy", useHierarchy)
        writer.put("checkBeforeUpdate", checkBeforeUpdate)
        return writer.value
    }
}

/// `cpu`: microseconds, weights and lists of CPUs.
package struct CPUSpec: OCIDocument {
    package var shares: UInt64?
    package var quota: Int64?
    package var burst: UInt64?
    package var period: UInt64?
    package var realtimeRuntime: Int64?
    package var realtimePeriod: UInt64?
    /// Lists such as `0-2,5`.
    package var cpus: String?
    package var mems: String?
    package var idle: Int64?

    package init(shares: UInt64? = nil, quota: Int64? = nil, period: UInt64? = nil) {
        self.shares = shares
        self.quota = quota
        self.period = period
    }

    package init(_ reader: JSONReader) throws(JSONError) {
        shares = try reader.optionalUInt64("shares")
        quota = try reader.optionalInt64("quota")
        burst = try reader.optionalUInt64("burst")
        period = try reader.optionalUInt64("period")
        realtimeRuntime = try reader.optionalInt64("realtimeRuntime")
        realtimePeriod = try reader.optionalUInt64("realtimePeriod")
        cpus = try reader.optionalString("cpus")
        mems = try reader.optionalString("mems")
        idle = try reader.optionalInt64("idle")
    }

    package var json: JSONValue {
        var writer = ObjectWriter()
        writer.put("shares", shares)
        writer.put("quota", quota)
        writer.put("burst", burst)
        writer.put("period", period)
        writer.put("realtimeRuntime", realtimeRuntime)
        writer.put("realtimePeriod", realtimePeriod)
        writer.put("cpus", cpus)
        writer.put("mems", mems)
        writer.put("idle", idle)
        return writer.value
    }
}

/// `blockIO`: weights and rates of block devices.
package struct BlockIOSpec: OCIDocument {
    package var weight: UInt16?
    package var leafWeight: UInt16?
    package var weightDevice: [WeightDevice]
    package var throttleReadBpsDevice: [ThrottleDevice]
    package var throttleWriteBpsDevice: [ThrottleDevice]
    package var throttleReadIOPSDevice: [ThrottleDevice]
    package var throttleWriteIOPSDevice: [ThrottleDevice]

    package init() {
        weightDevice = []
        throttleReadBpsDevice = []
        throttleWriteBpsDevice = []
        throttleReadIOPSDevice = []
        throttleWriteIOPSDevice = []
    }

    package init(_ reader: JSONReader) throws(JSONError) {
        weight = try reader.optionalInteger("weight")
        leafWeight = try reader.optionalInteger("leafWeight")
        weightDevice = try reader.documents("weightDevice")
        throttleReadBpsDevice = try reader.documents("throttleReadBpsDevice")
        throttleWriteBpsDevice = try reader.documents("throttleWriteBpsDevice")
        throttleReadIOPSDevice = try reader.documents("throttleReadIOPSDevice")
        throttleWriteIOPSDevice = try reader.documents("throttleWriteIOPSDevice")
    }

    package var json: JSONValue {
        var writer = ObjectWriter()
        writer.put("weight", weight)
        writer.put("leafWeight", leafWeight)
        writer.put("weightDevice", weightDevice.map(\.json))
        writer.put("throttleReadBpsDevice", throttleReadBpsDevice.map(\.json))
        writer.put("throttleWriteBpsDevice", throttleWriteBpsDevice.map(\.json))
        writer.put("throttleReadIOPSDevice", throttleReadIOPSDevice.map(\.json))
        writer.put("throttleWriteIOPSDevice", throttleWriteIOPSDevice.map(\.json))
        return writer.value
    }
}

/// A weight for one block device, 10 to 1000.
package struct WeightDevice: OCIDocument {
    package var major: UInt32
    package var minor: UInt32
    package var weight: UInt16?
    package var leafWeight: UInt16?

    package init(_ reader: JSONReader) throws(JSONError) {
        major = try reader.uint32("major")
        minor = try reader.uint32("minor")
        weight = try reader.optionalInteger("weight")
        leafWeight = try reader.optionalInteger("leafWeight")
    }

    package var json: JSONValue {
        var writer = ObjectWriter()
        writer.put("major", major)
        writer.put("minor", minor)
        writer.put("weight", weight)
        writer.put("leafWeight", leafWeight)
        return writer.value
    }
}

/// A rate for one block device.
package struct ThrottleDevice: OCIDocument {
    package var major: UInt32
    package var minor: UInt32
    /// Bytes or operations a second.
    package var rate: UInt64

    package init(major: UInt32, minor: UInt32, rate: UInt64) {
        self.major = major
        self.minor = minor
        self.rate = rate
    }

    package init(_ reader: JSONReader) throws(JSONError) {
        major = try reader.uint32("major")
        minor = try reader.uint32("minor")
        rate = try reader.uint64("rate")
    }

    package var json: JSONValue {
        var writer = ObjectWriter()
        writer.put("major", major)
        writer.put("minor", minor)
        writer.put("rate", rate)
        return writer.value
    }
}

/// A limit of huge pages of one size, in bytes.
package struct HugepageLimit: OCIDocument {
    /// `2MB`, `1GB`, …
    package var pageSize: String
    package var limit: UInt64

    package init(pageSize: String, limit: UInt64) {
        self.pageSize = pageSize
        self.limit = limit
    }

    package init(_ reader: JSONReader) throws(JSONError) {
        pageSize = try reader.string("pageSize")
        limit = try reader.uint64("limit")
    }

    package var json: JSONValue {
        var writer = ObjectWriter()
        writer.put("pageSize", pageSize)
        writer.put("limit", limit)
        return writer.value
    }
}

/// `network`: what cgroup v1 marks packets with.
package struct NetworkClassSpec: OCIDocument {
    /// The priority of packets on one interface.
    package struct Priority: OCIDocument {
        package var name: String
        package var priority: UInt32

        package init(_ reader: JSONReader) throws(JSONError) {
            name = try reader.string("name")
            priority = try reader.uint32("priority")
        }

        package var json: JSONValue {
            var writer = ObjectWriter()
            writer.put("name", name)
            writer.put("priority", priority)
            return writer.value
        }
    }

    package var classID: UInt32?
    package var priorities: [Priority]

    package init(_ reader: JSONReader) throws(JSONError) {
        classID = try reader.optionalUInt32("classID")
        priorities = try reader.documents("priorities")
    }

    package var json: JSONValue {
        var writer = ObjectWriter()
        writer.put("classID", classID)
        writer.put("priorities", priorities.map(\.json))
        return writer.value
    }
}
