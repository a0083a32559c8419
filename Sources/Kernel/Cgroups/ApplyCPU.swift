import Glibc
import Kernel

extension CgroupManager {
    func applyCpuset(_ cpu: CgroupResources.CPU) throws(CgroupError) {
        for (field, file, list) in [("cpus", "cpuset.cpus", cpu.cpus), ("mems", "cpuset.mems", cpu.mems)] {
            guard let list, !list.isEmpty else { continue }
            let group = try group(.cpuset, for: "cpu.\(field)")
            // The kernel checks the numbers; this keeps other text out of its file.
            let allowed = list.utf8.allSatisfy { (48...57).contains($0) || $0 == 44 || $0 == 45 }
            guard allowed, list.utf8.count <= 4096 else {
                throw group.error(
                    .invalidValue, "cpu.\(field)", "'\(list)' is no list of numbers", hint: "write it as 0-3,5")
            }
            try group.directory.write(file, list, hint: "the list must lie within the parent group's")
        }
    }

    func applyCPU(_ cpu: CgroupResources.CPU) throws(CgroupError) {
        let shares = cpu.shares == 0 ? nil : cpu.shares
        let quota = cpu.quota == 0 ? nil : cpu.quota
        let period = cpu.period == 0 ? nil : cpu.period
        let runtime = cpu.realtimeRuntime == 0 ? nil : cpu.realtimeRuntime
        let realtimePeriod = cpu.realtimePeriod == 0 ? nil : cpu.realtimePeriod
        let nothing =
            shares == nil && quota == nil && period == nil && runtime == nil && realtimePeriod == nil
            && cpu.burst == nil && cpu.idle == nil
        if nothing { return }
        let group = try group(.cpu, for: "cpu")
        if let idle = cpu.idle, idle != 0, idle != 1 {
            throw group.error(.invalidValue, "cpu.idle", "\(idle) is neither 0 nor 1")
        }
        if let burst = cpu.burst, let quota, quota > 0, burst > UInt64(quota) {
            throw group.error(.invalidValue, "cpu.burst", "\(burst) is above cpu.quota \(quota)")
        }
        // An idle group has no weight that could be set: out of idleness first, into it last.
        if cpu.idle == 0 { try group.directory.write("cpu.idle", "0") }
        if let shares {
            if group.isUnified {
                try group.directory.write("cpu.weight", String(Self.weight(fromShares: shares)))
            } else {
                // The kernel would take another number for one out of range.
                guard (2...262_144).contains(shares) else {
                    throw group.error(.invalidValue, "cpu.shares", "\(shares) is not from 2 to 262144")
                }
                try group.directory.write("cpu.shares", String(shares))
            }
        }
        if let idle = cpu.idle, idle != 0 { try group.directory.write("cpu.idle", String(idle)) }
        if group.isUnified {
            if runtime != nil { throw group.unsupported("cpu.realtimeRuntime") }
            if realtimePeriod != nil { throw group.unsupported("cpu.realtimePeriod") }
        } else {
            try applyRealtime(group.directory, runtime: runtime, period: realtimePeriod)
        }
        try applyBandwidth(group, quota: quota, period: period, burst: cpu.burst)
    }

    /// The kernel checks runtime against period, and both against the parent's, at each write: a period that is refused
    /// is tried again after the runtime.
    private func applyRealtime(_ directory: ControlDirectory, runtime: Int64?, period: UInt64?) throws(CgroupError) {
        let hint = "the parent group must have real-time budget first: cpu.rt_runtime_us there"
        var late: UInt64?
        if let period {
            let number = directory.attempt("cpu.rt_period_us", String(period))
            if number == EINVAL && runtime != nil {
                late = period
            } else if number != 0 {
                throw directory.refusal("cpu.rt_period_us", String(period), errno: number, hint: hint)
            }
        }
        if let runtime { try directory.write("cpu.rt_runtime_us", String(runtime), hint: hint) }
        if let late { try directory.write("cpu.rt_period_us", String(late), hint: hint) }
    }

    /// Quota, period and burst. A burst may be at most the quota, so it goes first when it shrinks and last when it
    /// grows: tried first, and again after the quota.
    private func applyBandwidth(
        _ group: ControllerGroup, quota: Int64?, period: UInt64?, burst: UInt64?
    ) throws(CgroupError) {
        let burstFile = group.isUnified ? "cpu.max.burst" : "cpu.cfs_burst_us"
        var burstLeft = burst
        if let burst, group.directory.attempt(burstFile, String(burst)) == 0 { burstLeft = nil }
        if quota != nil || period != nil {
            if group.isUnified {
                let present = group.directory.readIfPresent("cpu.max")?.split(separator: " ").map { String($0) } ?? []
                let wanted = quota.map { $0 < 0 ? "max" : String($0) } ?? present.first ?? "max"
                let length = period.map { String($0) } ?? (present.count > 1 ? present[1] : "100000")
                try group.directory.write("cpu.max", "\(wanted) \(length)")
            } else {
                try applyOldBandwidth(group.directory, quota: quota, period: period)
            }
        }
        if let burst = burstLeft {
            try group.directory.write(burstFile, String(burst), hint: "a burst is at most the quota")
        }
    }

    /// v1 has quota and period in two files, and checks their ratio against the parent's at each write.
    private func applyOldBandwidth(_ directory: ControlDirectory, quota: Int64?, period: UInt64?) throws(CgroupError) {
        let quotaText = quota.map { $0 < 0 ? "-1" : String($0) }
        let hint = "the share of quota in period must not pass the parent group's; a period lasts 1000 to 1000000 µs"
        guard let period else {
            if let quotaText { try directory.write("cpu.cfs_quota_us", quotaText, hint: hint) }
            return
        }
        let early = directory.attempt("cpu.cfs_period_us", String(period))
        if early != 0 && (early != EINVAL || quota == nil) {
            throw directory.refusal("cpu.cfs_period_us", String(period), errno: early, hint: hint)
        }
        if let quotaText { try directory.write("cpu.cfs_quota_us", quotaText, hint: hint) }
        if early != 0 { try directory.write("cpu.cfs_period_us", String(period), hint: hint) }
    }

    /// v1's shares (2 to 262144, usually 1024) as v2's weight (1 to 10000, usually 100).
    ///
    /// A parabola through the logarithms of the three pairs (2, 1), (1024, 100), (262144, 10000), so that an ordinary
    /// group stays ordinary: weight = 10^(l²/612 + 125·l/612 − 7/34) with l = log2(shares).
    package static func weight(fromShares shares: UInt64) -> UInt64 {
        if shares <= 2 { return 1 }
        if shares >= 262_144 { return 10_000 }
        let logarithm = log2(Double(shares))
        let exponent = logarithm * (logarithm + 125) / 612 - 7.0 / 34
        return min(max(UInt64(pow(10, exponent).rounded(.up)), 1), 10_000)
    }
}
