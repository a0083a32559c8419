import Kernel

extension CgroupManager {
    /// Reads what the group has used.
    ///
    /// - Throws: `CgroupError` when the group does not exist. A single file that cannot be read counts as absent.
    package func stats() throws(CgroupError) -> CgroupStats {
        guard exists() else { throw CgroupError(.refused, path, "the group does not exist") }
        var stats = CgroupStats()
        stats.cpu = cpuStats()
        stats.memory = memoryStats()
        if let group = group(.pids), let current = group.directory.number("pids.current") {
            stats.pids = CgroupStats.PIDs(current: current, limit: group.directory.number("pids.max"))
        }
        stats.devices = deviceStats()
        stats.hugepages = hugepageStats()
        if let directory = unifiedDirectory.map({ ControlDirectory($0) }) {
            stats.cpuPressure = Self.pressure(directory.readIfPresent("cpu.pressure"))
            stats.memoryPressure = Self.pressure(directory.readIfPresent("memory.pressure"))
            stats.ioPressure = Self.pressure(directory.readIfPresent("io.pressure"))
        }
        return stats
    }

    /// How many processes of the group and its sub-groups the kernel killed because the group was out of memory.
    ///
    /// - Returns: 0 too where the host has no memory controller.
    /// - Throws: `CgroupError` when the counter cannot be read.
    package func oomKillCount() throws(CgroupError) -> UInt64 {
        guard let group = group(.memory) else { return 0 }
        if group.isUnified { return group.directory.table("memory.events")["oom_kill"] ?? 0 }
        _ = try group.directory.read("memory.oom_control")
        return Self.oldOOMKills(group.directory)
    }

    /// v1 counts in each group for itself.
    private static func oldOOMKills(_ directory: ControlDirectory) -> UInt64 {
        var sum = directory.table("memory.oom_control")["oom_kill"] ?? 0
        try? GroupTree.forEach(below: directory.path) { name, parent throws(KernelError) in
            let text = try GroupTree.read("memory.oom_control", of: name, in: parent) ?? ""
            sum &+= ControlDirectory.table(text)["oom_kill"] ?? 0
        }
        return sum
    }

    private func cpuStats() -> CgroupStats.CPU? {
        var cpu = CgroupStats.CPU()
        var known = false
        if let group = group(.cpuacct), !group.isUnified, let usage = group.directory.number("cpuacct.usage") {
            known = true
            cpu.usage = usage
            cpu.user = group.directory.number("cpuacct.usage_user") ?? 0
            cpu.system = group.directory.number("cpuacct.usage_sys") ?? 0
            cpu.perProcessor = (group.directory.readIfPresent("cpuacct.usage_percpu") ?? "").split(separator: " ")
                .compactMap { UInt64($0) }
        }
        if let directory = unifiedDirectory, !known {
            let table = ControlDirectory(directory).table("cpu.stat")
            if let usage = table["usage_usec"] {
                known = true
                cpu.usage = usage &* 1000
                cpu.user = (table["user_usec"] ?? 0) &* 1000
                cpu.system = (table["system_usec"] ?? 0) &* 1000
            }
        }
        if let group = group(.cpu) {
            let table = group.directory.table("cpu.stat")
            cpu.periods = table["nr_periods"] ?? 0
            cpu.throttledPeriods = table["nr_throttled"] ?? 0
            cpu.throttledTime =
                group.isUnified ? (table["throttled_usec"] ?? 0) &* 1000 : table["throttled_time"] ?? 0
            known = known || !table.isEmpty
        }
        return known ? cpu : nil
    }

    private func memoryStats() -> CgroupStats.Memory? {
        guard let group = group(.memory) else { return nil }
        let directory = group.directory
        var memory = CgroupStats.Memory()
        memory.details = directory.table("memory.stat")
        let inactive: UInt64
        if group.isUnified {
            guard let usage = directory.number("memory.current") else { return nil }
            memory.usage = usage
            memory.limit = directory.number("memory.max")
            memory.maxUsage = directory.number("memory.peak")
            memory.swapUsage = directory.number("memory.swap.current")
            memory.swapLimit = directory.number("memory.swap.max")
            memory.kernelUsage = memory.details["kernel"]
            memory.cache = memory.details["file"] ?? 0
            inactive = memory.details["inactive_file"] ?? 0
            let events = directory.table("memory.events")
            memory.failures = events["max"] ?? 0
            memory.oomKills = events["oom_kill"] ?? 0
        } else {
            guard let usage = directory.number("memory.usage_in_bytes") else { return nil }
            memory.usage = usage
            memory.limit = Self.oldLimit(directory, "memory.limit_in_bytes")
            memory.maxUsage = directory.number("memory.max_usage_in_bytes")
            if let both = directory.number("memory.memsw.usage_in_bytes") {
                memory.swapUsage = both > usage ? both - usage : 0
                if let limit = memory.limit, let all = Self.oldLimit(directory, "memory.memsw.limit_in_bytes") {
                    memory.swapLimit = all > limit ? all - limit : 0
                }
            }
            memory.kernelUsage = directory.number("memory.kmem.usage_in_bytes")
            memory.cache = memory.details["total_cache"] ?? memory.details["cache"] ?? 0
            inactive = memory.details["total_inactive_file"] ?? memory.details["inactive_file"] ?? 0
            // Where memory and swap together have the same limit, that one is met first.
            memory.failures =
                (directory.number("memory.failcnt") ?? 0) &+ (directory.number("memory.memsw.failcnt") ?? 0)
            memory.oomKills = Self.oldOOMKills(directory)
        }
        memory.workingSet = memory.usage > inactive ? memory.usage - inactive : 0
        return memory
    }

    /// v1 writes no limit as the largest number of whole pages.
    private static func oldLimit(_ directory: ControlDirectory, _ file: String) -> UInt64? {
        directory.number(file).flatMap { $0 >= UInt64(Int64.max) - 65535 ? nil : $0 }
    }

    private func deviceStats() -> [CgroupStats.Device]? {
        guard let group = group(.blkio) else { return nil }
        var table = DeviceTable()
        if group.isUnified {
            guard let text = group.directory.readIfPresent("io.stat") else { return nil }
            for line in text.split(separator: "\n") { table.addUnified(line) }
            return table.devices
        }
        // BFQ keeps books of its own for the disks it serves; the throttling layer sees the others.
        for prefix in ["blkio.bfq", "blkio.throttle"] {
            for (file, isBytes) in [("io_service_bytes", true), ("io_serviced", false)] {
                let text =
                    group.directory.readIfPresent("\(prefix).\(file)_recursive")
                    ?? group.directory.readIfPresent("\(prefix).\(file)") ?? ""
                for line in text.split(separator: "\n") { table.addOld(line, bytes: isBytes) }
            }
            if table.devices.contains(where: { $0.readOperations > 0 || $0.writeOperations > 0 }) { break }
            if prefix == "blkio.bfq" { table = DeviceTable() }
        }
        return table.devices
    }

    private func hugepageStats() -> [CgroupStats.Hugepages] {
        guard let group = group(.hugetlb), let names = try? File.list(group.directory.path) else { return [] }
        let suffix = group.isUnified ? ".current" : ".usage_in_bytes"
        return names.sorted().compactMap { name in
            guard name.hasPrefix("hugetlb."), name.hasSuffix(suffix), !name.contains(".rsvd."),
                let usage = group.directory.number(name)
            else { return nil }
            let size = String(name.dropFirst(8).dropLast(suffix.count))
            let failures =
                group.isUnified
                ? group.directory.table("hugetlb.\(size).events")["max"]
                : group.directory.number("hugetlb.\(size).failcnt")
            return CgroupStats.Hugepages(
                pageSize: size, usage: usage, maxUsage: group.directory.number("hugetlb.\(size).max_usage_in_bytes"),
                failures: failures ?? 0)
        }
    }

    /// Lines `some avg10=0.12 avg60=… avg300=… total=123`.
    static func pressure(_ text: String?) -> CgroupStats.Pressure? {
        guard let text else { return nil }
        var pressure = CgroupStats.Pressure()
        for line in text.split(separator: "\n") {
            let fields = line.split(separator: " ")
            func value(_ key: String) -> Substring? {
                fields.first { $0.hasPrefix(key + "=") }.map { $0.dropFirst(key.count + 1) }
            }
            guard let total = value("total").flatMap({ UInt64($0) }), let average = value("avg10") else { continue }
            // Two digits stand behind the point.
            let hundredths = UInt64(average.filter { $0 != "." }) ?? 0
            if fields[0] == "some" {
                pressure.some = total
                pressure.someTenSeconds = hundredths
            } else if fields[0] == "full" {
                pressure.full = total
                pressure.fullTenSeconds = hundredths
            }
        }
        return pressure
    }
}

/// Adds lines about devices up; sums wrap as the kernel's counters do.
private struct DeviceTable {
    private(set) var devices: [CgroupStats.Device] = []

    /// `8:0 Read 4096`; lines with totals have no device or another word and are left out.
    mutating func addOld(_ line: Substring, bytes: Bool) {
        let fields = line.split(separator: " ")
        guard fields.count == 3, let index = index(fields[0]), let value = UInt64(fields[2]) else { return }
        switch (fields[1], bytes) {
        case ("Read", true): devices[index].readBytes &+= value
        case ("Read", false): devices[index].readOperations &+= value
        case ("Write", true): devices[index].writeBytes &+= value
        case ("Write", false): devices[index].writeOperations &+= value
        case ("Discard", true): devices[index].discardBytes &+= value
        case ("Discard", false): devices[index].discardOperations &+= value
        default: break
        }
    }

    /// `8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6`.
    mutating func addUnified(_ line: Substring) {
        let fields = line.split(separator: " ")
        guard let first = fields.first, fields.count > 1, let index = index(first) else { return }
        for field in fields.dropFirst() {
            let parts = field.split(separator: "=")
            guard parts.count == 2, let value = UInt64(parts[1]) else { continue }
            switch parts[0] {
            case "rbytes": devices[index].readBytes &+= value
            case "wbytes": devices[index].writeBytes &+= value
            case "rios": devices[index].readOperations &+= value
            case "wios": devices[index].writeOperations &+= value
            case "dbytes": devices[index].discardBytes &+= value
            case "dios": devices[index].discardOperations &+= value
            default: break
            }
        }
    }

    private mutating func index(_ numbers: Substring) -> Int? {
        let parts = numbers.split(separator: ":")
        guard parts.count == 2, let major = UInt32(parts[0]), let minor = UInt32(parts[1]) else { return nil }
        if let known = devices.firstIndex(where: { $0.major == major && $0.minor == minor }) { return known }
        devices.append(CgroupStats.Device(major: major, minor: minor))
        return devices.count - 1
    }
}
