import Glibc
import Kernel

extension CgroupManager {
    func applyMemory(
        _ memory: CgroupResources.Memory, _ notices: inout [CgroupNotice]
    ) throws(CgroupError) {
        var memory = memory
        if memory.limit == 0 { memory.limit = nil }
        if memory.swap == 0 { memory.swap = nil }
        if memory.reservation == 0 { memory.reservation = nil }
        if memory.swappiness == .max { memory.swappiness = nil }
        if let kernel = memory.kernel, kernel > 0 {
            notices.append(
                CgroupNotice(
                    kind: .ignored, controller: "memory", field: "memory.kernel",
                    reason: "ignored: the kernel has no limit on its own memory apart from memory.limit"))
        }
        memory.kernel = nil
        let check = memory.checkBeforeUpdate ?? false
        memory.checkBeforeUpdate = nil
        if memory == CgroupResources.Memory() { return }
        // Without the controller nothing is limited, so lifting a limit needs none.
        if group(.memory) == nil, Self.onlyLifts(memory) { return }
        let group = try group(.memory, for: "memory")
        if memory.useHierarchy == false { throw group.error(.unsupported, "memory.useHierarchy", "cannot be false") }
        if let limit = memory.limit, limit > 0, let swap = memory.swap, swap > 0, swap < limit {
            throw group.error(
                .invalidValue, "memory.swap", "\(swap) is below memory.limit \(limit)",
                hint: "it limits memory and swap together; -1 is no limit")
        }
        if check, let limit = memory.limit, limit > 0 { try checkUsage(group, below: limit) }
        if group.isUnified {
            try applyUnifiedMemory(memory, group, &notices)
        } else {
            try applyOldMemory(memory, group, &notices)
        }
    }

    private static func onlyLifts(_ memory: CgroupResources.Memory) -> Bool {
        var rest = memory
        if let limit = rest.limit, limit < 0 { rest.limit = nil }
        if let swap = rest.swap, swap < 0 { rest.swap = nil }
        if let reservation = rest.reservation, reservation < 0 { rest.reservation = nil }
        if rest.disableOOMKiller == false { rest.disableOOMKiller = nil }
        if rest.useHierarchy == true { rest.useHierarchy = nil }
        if let kernelTCP = rest.kernelTCP, kernelTCP < 0 { rest.kernelTCP = nil }
        return rest == CgroupResources.Memory()
    }

    private func checkUsage(_ group: ControllerGroup, below limit: Int64) throws(CgroupError) {
        let file = group.isUnified ? "memory.current" : "memory.usage_in_bytes"
        guard let usage = group.directory.number(file), usage > UInt64(limit) else { return }
        throw group.error(
            .invalidValue, "memory.limit", "\(limit) is below the \(usage) bytes in use",
            hint: "free memory first, or ask without checkBeforeUpdate")
    }

    private static func swapNotice() -> CgroupNotice {
        CgroupNotice(
            kind: .swapAccountingAbsent, controller: "memory", field: "memory.swap",
            reason: "not limited: the kernel does not account swap (swapaccount=1 on its command line)")
    }

    private func applyUnifiedMemory(
        _ memory: CgroupResources.Memory, _ group: ControllerGroup, _ notices: inout [CgroupNotice]
    ) throws(CgroupError) {
        if let limit = memory.kernelTCP, limit >= 0 { throw group.unsupported("memory.kernelTCP") }
        if memory.swappiness != nil { throw group.unsupported("memory.swappiness") }
        if memory.disableOOMKiller == true { throw group.unsupported("memory.disableOOMKiller") }
        func text(_ value: Int64) -> String { value < 0 ? "max" : String(value) }
        // v2 limits swap for itself: it is what memory.swap leaves beside memory.limit.
        var swap: String?
        if let both = memory.swap {
            if both < 0 {
                swap = "max"
            } else if let limit = memory.limit, limit < 0 {
                // Nothing can be taken away from no limit: runtimes agree on the number itself.
                swap = String(both)
            } else {
                let present = group.directory.number("memory.max").flatMap { Int64(exactly: $0) }
                guard let limit = memory.limit ?? present else {
                    throw group.error(
                        .invalidValue, "memory.swap", "\(both) has no meaning without a memory.limit",
                        hint: "set memory.limit too")
                }
                guard both >= limit else {
                    throw group.error(.invalidValue, "memory.swap", "\(both) is below memory.limit \(limit)")
                }
                swap = String(both - limit)
            }
        } else if let limit = memory.limit, limit < 0 {
            swap = "max"
        }
        if let swap {
            if group.directory.has("memory.swap.max") {
                try group.directory.write("memory.swap.max", swap)
            } else if swap != "max" {
                notices.append(Self.swapNotice())
            }
        }
        if let limit = memory.limit { try group.directory.write("memory.max", text(limit)) }
        if let reservation = memory.reservation { try group.directory.write("memory.low", text(reservation)) }
    }

    private func applyOldMemory(
        _ memory: CgroupResources.Memory, _ group: ControllerGroup, _ notices: inout [CgroupNotice]
    ) throws(CgroupError) {
        let directory = group.directory
        func text(_ value: Int64) -> String { value < 0 ? "-1" : String(value) }
        if memory.useHierarchy == true, directory.readIfPresent("memory.use_hierarchy") == "0" {
            try directory.write("memory.use_hierarchy", "1")
        }
        try applyOldLimits(limit: memory.limit, swap: memory.swap, directory, &notices)
        if let reservation = memory.reservation {
            try directory.write("memory.soft_limit_in_bytes", text(reservation))
        }
        if let limit = memory.kernelTCP {
            try directory.write("memory.kmem.tcp.limit_in_bytes", text(limit))
        }
        if let swappiness = memory.swappiness {
            guard swappiness <= 100 else {
                throw group.error(.invalidValue, "memory.swappiness", "\(swappiness) is above 100")
            }
            try directory.write("memory.swappiness", String(swappiness))
        }
        if let disable = memory.disableOOMKiller { try directory.write("memory.oom_control", disable ? "1" : "0") }
    }

    /// v1 demands at every moment that the limit on memory is at most the one on memory and swap: when they rise the
    /// latter goes first, when they fall the former.
    private func applyOldLimits(
        limit: Int64?, swap: Int64?, _ directory: ControlDirectory, _ notices: inout [CgroupNotice]
    ) throws(CgroupError) {
        let swapFile = "memory.memsw.limit_in_bytes"
        // Lifting the limit on memory alone would keep the other one in its way.
        var swap = swap ?? (limit.map { $0 < 0 } == true ? -1 : nil)
        if swap != nil, !directory.has(swapFile) {
            if let wanted = swap, wanted >= 0 { notices.append(Self.swapNotice()) }
            swap = nil
        }
        let rises = swap.map { $0 < 0 || UInt64($0) > directory.number(swapFile) ?? .max } ?? false
        if let swap, rises { try writeOldLimit(swapFile, swap, directory) }
        if let limit { try writeOldLimit("memory.limit_in_bytes", limit, directory) }
        if let swap, !rises { try writeOldLimit(swapFile, swap, directory) }
    }

    private func writeOldLimit(_ file: String, _ value: Int64, _ directory: ControlDirectory) throws(CgroupError) {
        let text = value < 0 ? "-1" : String(value)
        let number = directory.attempt(file, text)
        guard number != 0 else { return }
        let hint =
            switch number {
            case EBUSY:
                "\(directory.number("memory.usage_in_bytes").map { String($0) } ?? "more") bytes are in use and cannot "
                    + "be reclaimed"
            case EINVAL: "memory.limit must be at most memory.swap: set both"
            default: ""
            }
        throw directory.refusal(file, text, errno: number, hint: hint)
    }
}
