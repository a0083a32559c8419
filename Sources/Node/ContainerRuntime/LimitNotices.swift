import Cgroups
import Kernel

/// What becomes of limits that hold only in part.
enum LimitNotices {
    /// A limit on swap that the kernel does not account is an error where swap can be used: memory would be moved there
    /// without end.
    static func check(_ notices: [CgroupNotice]) throws(CgroupError) {
        for notice in notices where notice.kind == .swapAccountingAbsent && hasSwap {
            throw CgroupError(.unsupported, controller: notice.controller, notice.field, notice.reason)
        }
    }

    static func report(_ notices: [CgroupNotice], log: RuntimeLog) {
        for notice in notices { log.write(.warning, "\(notice)") }
    }

    /// Whether the machine has swap now: a line after the heading of /proc/swaps, see proc_swaps(5).
    private static var hasSwap: Bool {
        ((try? File.text("/proc/swaps")) ?? "").split(separator: "\n").count > 1
    }
}
