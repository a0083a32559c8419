import Cgroups
import JSON

/// What a container uses, in runc's shape: `data` of a line of `events`. Times are nanoseconds, sizes bytes; most members
/// that are zero are left out.
enum StatsDocument {
    /// - Parameter cpuset: the member `cpuset`, which is no statistic.
    static func of(_ stats: CgroupStats, _ cpuset: JSONValue) -> JSONValue {
        var object: JSONObject = ["cpu": cpu(stats), "cpuset": cpuset, "memory": memory(stats)]
        var pids = JSONObject()
        pids.put("current", stats.pids?.current)
        pids.put("limit", stats.pids?.limit)
        object["pids"] = .object(pids)
        object["blkio"] = blockIO(stats)
        var hugepages = JSONObject()
        for size in stats.hugepages {
            var entry = JSONObject()
            entry.put("usage", size.usage)
            entry.put("max", size.maxUsage)
            entry["failcnt"] = JSONValue(size.failures)
            hugepages[size.pageSize] = .object(entry)
        }
        object["hugetlb"] = .object(hugepages)
        object["intel_rdt"] = [:]
        object["network_interfaces"] = JSONValue.null
        return .object(object)
    }

    private static func cpu(_ stats: CgroupStats) -> JSONValue {
        guard let cpu = stats.cpu else { return [:] }
        var usage = JSONObject()
        usage.put("total", cpu.usage)
        if !cpu.perProcessor.isEmpty { usage["percpu"] = .array(cpu.perProcessor.map { JSONValue($0) }) }
        usage["kernel"] = JSONValue(cpu.system)
        usage["user"] = JSONValue(cpu.user)
        var throttling = JSONObject()
        throttling.put("periods", cpu.periods)
        throttling.put("throttledPeriods", cpu.throttledPeriods)
        throttling.put("throttledTime", cpu.throttledTime)
        var object: JSONObject = ["usage": .object(usage), "throttling": .object(throttling)]
        object["psi"] = pressure(stats.cpuPressure)
        return .object(object)
    }

    private static func memory(_ stats: CgroupStats) -> JSONValue {
        var object = JSONObject()
        guard let memory = stats.memory else { return .object(object) }
        object.put("cache", memory.cache)
        object["usage"] = entry(memory.usage, limit: memory.limit, max: memory.maxUsage, failures: memory.failures)
        if let swap = memory.swapUsage {
            // Memory and swap together, as cgroup v1 counts.
            var limit: UInt64?
            if let first = memory.limit, let second = memory.swapLimit { limit = first &+ second }
            object["swap"] = entry(memory.usage &+ swap, limit: limit)
        }
        if let kernel = memory.kernelUsage { object["kernel"] = entry(kernel, limit: nil) }
        object["kernelTCP"] = entry(0, limit: nil)
        var raw = JSONObject()
        for key in memory.details.keys.sorted() { raw[key] = memory.details[key].map { JSONValue($0) } }
        object["raw"] = .object(raw)
        object["psi"] = pressure(stats.memoryPressure)
        return .object(object)
    }

    private static func entry(_ usage: UInt64, limit: UInt64?, max: UInt64? = nil, failures: UInt64 = 0) -> JSONValue {
        // runc writes no limit as the largest number.
        var object: JSONObject = ["limit": JSONValue(limit ?? .max)]
        object.put("usage", usage)
        object.put("max", max)
        object["failcnt"] = JSONValue(failures)
        return .object(object)
    }

    private static func blockIO(_ stats: CgroupStats) -> JSONValue {
        var bytes: [JSONValue] = []
        var operations: [JSONValue] = []
        for device in stats.devices ?? [] {
            func add(_ value: UInt64, _ operation: String, to list: inout [JSONValue]) {
                var object = JSONObject()
                object.put("major", UInt64(device.major))
                object.put("minor", UInt64(device.minor))
                object["op"] = .string(operation)
                object.put("value", value)
                list.append(.object(object))
            }
            add(device.readBytes, "Read", to: &bytes)
            add(device.writeBytes, "Write", to: &bytes)
            add(device.discardBytes, "Discard", to: &bytes)
            add(device.readOperations, "Read", to: &operations)
            add(device.writeOperations, "Write", to: &operations)
            add(device.discardOperations, "Discard", to: &operations)
        }
        var object = JSONObject()
        if !bytes.isEmpty { object["ioServiceBytesRecursive"] = .array(bytes) }
        if !operations.isEmpty { object["ioServicedRecursive"] = .array(operations) }
        object["psi"] = pressure(stats.ioPressure)
        return .object(object)
    }

    /// Totals in microseconds, averages of ten seconds in percent.
    private static func pressure(_ pressure: CgroupStats.Pressure?) -> JSONValue? {
        guard let pressure else { return nil }
        func part(_ total: UInt64, _ hundredths: UInt64) -> JSONValue {
            ["avg10": .double(Double(hundredths) / 100), "total": JSONValue(total)]
        }
        return [
            "some": part(pressure.some, pressure.someTenSeconds),
            "full": part(pressure.full ?? 0, pressure.fullTenSeconds ?? 0),
        ]
    }
}

extension JSONObject {
    /// Leaves zero out.
    fileprivate mutating func put(_ key: String, _ number: UInt64?) {
        if let number, number != 0 { self[key] = JSONValue(number) }
    }
}
