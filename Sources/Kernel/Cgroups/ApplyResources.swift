import Kernel

/// One controller's directory of the group and which interface it speaks.
struct ControllerGroup: Sendable {
    let directory: ControlDirectory
    let version: CgroupHierarchy.Version

    var isUnified: Bool { version == .v2 }

    func error(_ kind: CgroupError.Kind, _ field: String, _ reason: String, hint: String = "") -> CgroupError {
        CgroupError(kind, controller: directory.controller, field, reason, hint: hint)
    }

    /// The error for a field that this kind of hierarchy has nothing for.
    func unsupported(_ field: String) -> CgroupError {
        error(
            .unsupported, field, "cgroup \(isUnified ? "v2" : "v1") has no such limit",
            hint: "remove it from the configuration")
    }
}

extension CgroupManager {
    /// Sets limits. What is nil stays as it is; the group must exist.
    ///
    /// The fields are written in the order cpuset, cpu, memory, pids, blkio, hugetlb, rdma, network, unified; an error
    /// leaves those before it set. `update` does not.
    /// - Returns: what holds only in part.
    /// - Throws: `CgroupError` naming the controller and the file or field of the first limit that cannot hold.
    package func apply(_ resources: CgroupResources) throws(CgroupError) -> [CgroupNotice] {
        var notices: [CgroupNotice] = []
        try applyCpuset(resources.cpu)
        try applyCPU(resources.cpu)
        try applyMemory(resources.memory, &notices)
        try applyPIDs(resources.pidsLimit)
        try applyBlockIO(resources.blockIO)
        try applyHugepages(resources.hugepages, &notices)
        try applyRDMA(resources.rdma)
        try applyNetwork(resources.network)
        try applyUnified(resources.unified)
        return notices
    }

    /// Where a controller's limits go.
    ///
    /// - Throws: `CgroupError` of kind `controllerAbsent` naming the field that needs it.
    func group(_ controller: CgroupController, for field: String) throws(CgroupError) -> ControllerGroup {
        guard let group = group(controller) else {
            throw CgroupError(
                .controllerAbsent, controller: controller.rawValue, field, "this host has no such controller",
                hint: layout.absence(of: controller))
        }
        return group
    }

    func group(_ controller: CgroupController) -> ControllerGroup? {
        guard let home = layout.home(of: controller) else { return nil }
        let name = home.version == .v2 ? controller.unifiedName ?? controller.rawValue : controller.rawValue
        return ControllerGroup(directory: ControlDirectory(home.directory(path), name), version: home.version)
    }

    private func applyPIDs(_ limit: Int64?) throws(CgroupError) {
        guard let limit else { return }
        if limit < 0 {
            if let group = group(.pids), group.directory.has("pids.max") {
                try group.directory.write("pids.max", "max")
            }
            return
        }
        // With 0 nothing could be started in the group at all; every runtime takes it as 1.
        try group(.pids, for: "pids.limit").directory.write("pids.max", String(max(1, limit)))
    }

    private func applyHugepages(
        _ limits: [CgroupResources.Hugepages], _ notices: inout [CgroupNotice]
    ) throws(CgroupError) {
        for limit in limits {
            let group = try group(.hugetlb, for: "hugepageLimits.\(limit.pageSize)")
            guard Self.isPageSize(limit.pageSize) else {
                throw group.error(
                    .invalidValue, "hugepageLimits.pageSize", "'\(limit.pageSize)' is no page size",
                    hint: "write it as 2MB, 1GB or 64KB")
            }
            let suffix = group.isUnified ? "max" : "limit_in_bytes"
            let file = "hugetlb.\(limit.pageSize).\(suffix)"
            guard group.directory.has(file) else {
                // Who wants none can do without a limit; who wants some needs the controller.
                if limit.limit == 0, Self.isKnown(limit.pageSize) {
                    notices.append(
                        CgroupNotice(
                            kind: .limitAbsent, controller: "hugetlb", field: "hugepageLimits.\(limit.pageSize)",
                            reason: "not kept at 0: \(group.directory.path) has no \(file)"))
                    continue
                }
                throw group.error(
                    .unsupported, "\(group.directory.path)/\(file)", "this machine has no pages of \(limit.pageSize)",
                    hint: "see /sys/kernel/mm/hugepages")
            }
            try group.directory.write(file, String(limit.limit))
            // Reservations would let a group pass the limit on pages in use.
            let reserved = "hugetlb.\(limit.pageSize).rsvd.\(suffix)"
            if group.directory.has(reserved) { try group.directory.write(reserved, String(limit.limit)) }
        }
    }

    static func isPageSize(_ text: String) -> Bool {
        guard let unit = ["KB", "MB", "GB"].first(where: { text.hasSuffix($0) }) else { return false }
        let digits = text.utf8.dropLast(unit.utf8.count)
        return (1...6).contains(digits.count) && digits.allSatisfy { (48...57).contains($0) } && digits.first != 48
    }

    /// Whether the kernel has pages of a size that is written well.
    private static func isKnown(_ pageSize: String) -> Bool {
        guard let number = Int(pageSize.dropLast(2)) else { return false }
        let kilobytes = number << (pageSize.hasSuffix("GB") ? 20 : pageSize.hasSuffix("MB") ? 10 : 0)
        return File.exists("/sys/kernel/mm/hugepages/hugepages-\(kilobytes)kB")
    }

    private func applyRDMA(_ limits: [CgroupResources.RDMA]) throws(CgroupError) {
        for limit in limits {
            let group = try group(.rdma, for: "rdma.\(limit.device)")
            guard Self.isWord(limit.device) else {
                throw group.error(.invalidValue, "rdma", "'\(limit.device)' is no device name")
            }
            let parts =
                [limit.device]
                + [limit.handles.map { "hca_handle=\($0)" }, limit.objects.map { "hca_object=\($0)" }]
                .compactMap { $0 }
            guard parts.count > 1 else { continue }
            try group.directory.write("rdma.max", parts.joined(separator: " "))
        }
    }

    private func applyNetwork(_ network: CgroupResources.Network) throws(CgroupError) {
        // 0 is no mark, which is what everybody has where no controller is.
        if let classID = network.classID, classID != 0 || group(.netClassifier) != nil {
            try group(.netClassifier, for: "network.classID").directory.write("net_cls.classid", String(classID))
        }
        for entry in network.priorities {
            let group = try group(.netPriority, for: "network.priorities")
            guard Self.isWord(entry.interface), entry.interface.utf8.count < 16 else {
                throw group.error(.invalidValue, "network.priorities", "'\(entry.interface)' is no interface name")
            }
            try group.directory.write("net_prio.ifpriomap", "\(entry.interface) \(entry.priority)")
        }
    }

    /// Printable, not empty, at most 255 bytes, no blanks: what may stand as one word in a control file.
    static func isWord(_ text: String) -> Bool {
        (1...255).contains(text.utf8.count) && text.utf8.allSatisfy { $0 > 32 && $0 != 127 }
    }

    /// Files of the group itself that steer its processes, which is the runtime's business.
    private static let ownFiles: Set<String> = [
        "cgroup.procs", "cgroup.threads", "cgroup.type", "cgroup.subtree_control", "cgroup.freeze", "cgroup.kill",
    ]

    private func applyUnified(_ entries: [CgroupResources.Unified]) throws(CgroupError) {
        for entry in entries {
            let field = "unified.\(entry.file)"
            let prefix = String(entry.file.prefix { $0 != "." })
            guard Self.isWord(entry.file), !entry.file.utf8.contains(UInt8(ascii: "/")), prefix != entry.file,
                !prefix.isEmpty,
                entry.value.utf8.count <= 65536
            else {
                throw CgroupError(.invalidValue, field, "is no file of a control group", hint: "name it as memory.high")
            }
            let directory = try unifiedDirectory(of: prefix, file: entry.file, field: field)
            let lines = entry.value.split(separator: "\n")
            for line in lines { try directory.write(entry.file, String(line)) }
            // Nothing is a value too: `cpuset.cpus` goes back to the parent's.
            if lines.isEmpty { try directory.write(entry.file, "\n") }
        }
    }

    private func unifiedDirectory(of prefix: String, file: String, field: String) throws(CgroupError)
        -> ControlDirectory
    {
        guard let root = layout.unified else {
            throw CgroupError(
                .unsupported, controller: prefix, field, "cgroup2 is not mounted on this host",
                hint: "use the limits of cgroup v1")
        }
        let directory = ControlDirectory(root.directory(path), prefix)
        if prefix == "cgroup" {
            guard !Self.ownFiles.contains(file) else {
                throw CgroupError(.unsupported, field, "is the runtime's own", hint: "remove it from the configuration")
            }
            return directory
        }
        if let controller = CgroupController(unifiedName: prefix), !root.controllers.contains(controller) {
            guard layout.home(of: controller) != nil else {
                throw CgroupError(
                    .controllerAbsent, controller: prefix, field, "this host has no such controller",
                    hint: layout.absence(of: controller))
            }
            throw CgroupError(
                .unsupported, controller: prefix, field, "the controller is bound to cgroup v1 on this host",
                hint: "use the limits of cgroup v1")
        }
        // A controller that we know nothing of was not passed on when the group was made.
        if !directory.has(file), CgroupController(unifiedName: prefix) == nil { enable([prefix], in: root) }
        guard directory.has(file) else {
            throw CgroupError(
                .unsupported, controller: prefix, "\(directory.path)/\(file)", "the group has no such file",
                hint: "the kernel lacks it, or the parent group does not pass the controller on")
        }
        return directory
    }
}
