import DeviceNodes
import Glibc
import Kernel

extension CgroupManager {
    /// Changes limits, all or none: after an error the group has those that it had before.
    ///
    /// - Parameters:
    ///   - resources: what is nil stays as it is.
    ///   - devices: the rules for devices that replace those of now; nil leaves them.
    ///   - confirm: a step after the limits and before the rules, given what holds only in part; when it fails the limits
    ///     are taken back too. It is done once more, with nothing in part, after limits were taken back.
    /// - Returns: what holds only in part.
    /// - Throws: `CgroupError` naming the first limit that cannot hold; its hint tells of files that could not be put
    ///   back, if there are any.
    package func update(
        _ resources: CgroupResources, devices: [DeviceRule]? = nil,
        confirm: ([CgroupNotice]) throws(CgroupError) -> Void = { _ in }
    ) throws(CgroupError) -> [CgroupNotice] {
        let former = FormerLimits(self, resources)
        let formerDevices = devices == nil ? nil : try oldDeviceRules()
        var changesDevices = false
        do throws(CgroupError) {
            let notices = try apply(resources)
            try confirm(notices)
            if let devices {
                changesDevices = true
                try setDevices(devices)
            }
            return notices
        } catch {
            var lost = former.restore()
            // Whoever was told of limits is told of those that hold again.
            try? confirm([])
            if changesDevices, let formerDevices {
                do throws(CgroupError) {
                    try setDevices(formerDevices)
                } catch {
                    lost.append(error.subject)
                }
            }
            guard !lost.isEmpty else { throw error }
            let warning = "not put back to what they were: \(lost.joined(separator: ", "))"
            throw CgroupError(
                error.kind, controller: error.controller, error.subject, error.reason, errno: error.errno,
                hint: error.hint.isEmpty ? warning : "\(error.hint); \(warning)")
        }
    }
}

/// What the limits of a group were before a change, as the text of their files.
///
/// Files depend on each other (quota and burst, memory and swap): they are written back round by round until nothing is
/// left to do.
private struct FormerLimits {
    private struct Entry {
        let directory: ControlDirectory
        let file: String
        let text: String
    }

    private var entries: [Entry] = []

    /// Reads the files that a change may touch.
    init(_ manager: CgroupManager, _ resources: CgroupResources) {
        var empty = CgroupResources.CPU()
        (empty.cpus, empty.mems) = (resources.cpu.cpus, resources.cpu.mems)
        if resources.cpu.cpus != nil || resources.cpu.mems != nil {
            add(manager.group(.cpuset), ["cpuset.cpus", "cpuset.mems"])
        }
        if resources.cpu != empty { add(manager.group(.cpu), Self.processorFiles) }
        if resources.memory != CgroupResources.Memory() { add(manager.group(.memory), Self.memoryFiles) }
        if resources.pidsLimit != nil { add(manager.group(.pids), ["pids.max"]) }
        if resources.blockIO != CgroupResources.BlockIO() { add(manager.group(.blkio), Self.diskFiles) }
        for limit in resources.hugepages where CgroupManager.isPageSize(limit.pageSize) {
            add(
                manager.group(.hugetlb),
                ["max", "rsvd.max", "limit_in_bytes", "rsvd.limit_in_bytes"].map { "hugetlb.\(limit.pageSize).\($0)" })
        }
        if !resources.rdma.isEmpty { add(manager.group(.rdma), ["rdma.max"]) }
        if resources.network.classID != nil { add(manager.group(.netClassifier), ["net_cls.classid"]) }
        if !resources.network.priorities.isEmpty { add(manager.group(.netPriority), ["net_prio.ifpriomap"]) }
        guard let unified = manager.unifiedDirectory else { return }
        let files = resources.unified.map(\.file).filter {
            CgroupManager.isWord($0) && !$0.utf8.contains(UInt8(ascii: "/"))
        }
        add(ControllerGroup(directory: ControlDirectory(unified), version: .v2), files)
    }

    // Of both interfaces: what a group does not have is passed over.
    private static let processorFiles = [
        "cpu.shares", "cpu.weight", "cpu.idle", "cpu.max", "cpu.max.burst", "cpu.cfs_quota_us", "cpu.cfs_period_us",
        "cpu.cfs_burst_us", "cpu.rt_period_us", "cpu.rt_runtime_us",
    ]
    private static let memoryFiles = [
        "memory.max", "memory.swap.max", "memory.low", "memory.limit_in_bytes", "memory.memsw.limit_in_bytes",
        "memory.soft_limit_in_bytes", "memory.kmem.tcp.limit_in_bytes", "memory.swappiness", "memory.oom_control",
    ]
    private static let diskFiles =
        [
            "io.max", "io.weight", "io.bfq.weight", "blkio.weight", "blkio.bfq.weight", "blkio.weight_device",
            "blkio.bfq.weight_device", "blkio.leaf_weight", "blkio.leaf_weight_device",
        ]
        + ["read_bps", "write_bps", "read_iops", "write_iops"].map { "blkio.throttle.\($0)_device" }

    private mutating func add(_ group: ControllerGroup?, _ files: [String]) {
        guard let directory = group?.directory else { return }
        for file in files {
            guard let text = Self.value(directory, file) else { continue }
            entries.append(Entry(directory: directory, file: file, text: text))
        }
    }

    /// The part of a file's text that can be written.
    private static func value(_ directory: ControlDirectory, _ file: String) -> String? {
        if file == "memory.oom_control" {
            return directory.table(file)["oom_kill_disable"].map { String($0) }
        }
        return directory.readIfPresent(file)
    }

    /// Writes back what has changed.
    ///
    /// - Returns: the files that kept another value.
    func restore() -> [String] {
        var left = entries
        for _ in 0..<4 where !left.isEmpty { left = left.filter { !Self.putBack($0) } }
        return left.map { "\($0.directory.path)/\($0.file)" }
    }

    private static func putBack(_ entry: Entry) -> Bool {
        guard let now = value(entry.directory, entry.file) else { return false }
        if now == entry.text { return true }
        let former = entry.text.split(separator: "\n")
        let known = Set(former.map(key))
        for line in now.split(separator: "\n") where !known.contains(key(line)) {
            // A device that had no line before: each kind of file has its own word for nothing.
            guard let reset = noLimit(entry.file, key(line)) else { continue }
            _ = entry.directory.attempt(entry.file, reset)
        }
        for line in former { _ = entry.directory.attempt(entry.file, String(line)) }
        if former.isEmpty && !now.isEmpty && noLimit(entry.file, "") == nil {
            if entry.directory.attempt(entry.file, "\n") == ENOSPC { return inherit(entry) }
        }
        return value(entry.directory, entry.file) == entry.text
    }

    /// Gives a set of processors or memory nodes all that the parent has, which is what an empty one means: the kernel lets
    /// nobody empty that of a group with processes.
    private static func inherit(_ entry: Entry) -> Bool {
        let parent = ControlDirectory(entry.directory.path + "/..")
        guard let all = parent.readIfPresent("\(entry.file).effective") else { return false }
        return entry.directory.attempt(entry.file, all) == 0
    }

    private static func key(_ line: Substring) -> Substring { line.prefix { $0 != " " } }

    private static func noLimit(_ file: String, _ device: Substring) -> String? {
        switch file {
        case "io.max": "\(device) rbps=max wbps=max riops=max wiops=max"
        case "io.weight", "io.bfq.weight", "blkio.bfq.weight_device": "\(device) default"
        case "blkio.weight_device", "blkio.leaf_weight_device": "\(device) 0"
        case _ where file.hasPrefix("blkio.throttle."): "\(device) 0"
        default: nil
        }
    }
}
