import CKernel
import Glibc
import Kernel

/// How a process is scheduled: policy and parameters of sched_setattr(2).
package struct ProcessSchedule: Sendable, Equatable {
    /// The scheduling policies, by their names in sched(7).
    package enum Policy: String, Sendable, CaseIterable {
        case other = "SCHED_OTHER"
        case fifo = "SCHED_FIFO"
        case roundRobin = "SCHED_RR"
        case batch = "SCHED_BATCH"
        case iso = "SCHED_ISO"
        case idle = "SCHED_IDLE"
        case deadline = "SCHED_DEADLINE"

        /// The kernel's number; nil for one that the kernel has reserved and never made.
        var number: Int? {
            switch self {
            case .other: CK_SCHED_OTHER
            case .fifo: CK_SCHED_FIFO
            case .roundRobin: CK_SCHED_RR
            case .batch: CK_SCHED_BATCH
            case .iso: nil
            case .idle: CK_SCHED_IDLE
            case .deadline: CK_SCHED_DEADLINE
            }
        }
    }

    private static let flagTable = FlagTable(bits: [
        ("SCHED_FLAG_RESET_ON_FORK", CK_SCHED_FLAG_RESET_ON_FORK), ("SCHED_FLAG_RECLAIM", CK_SCHED_FLAG_RECLAIM),
        ("SCHED_FLAG_DL_OVERRUN", CK_SCHED_FLAG_DL_OVERRUN), ("SCHED_FLAG_KEEP_POLICY", CK_SCHED_FLAG_KEEP_POLICY),
        ("SCHED_FLAG_KEEP_PARAMS", CK_SCHED_FLAG_KEEP_PARAMS),
        ("SCHED_FLAG_UTIL_CLAMP_MIN", CK_SCHED_FLAG_UTIL_CLAMP_MIN),
        ("SCHED_FLAG_UTIL_CLAMP_MAX", CK_SCHED_FLAG_UTIL_CLAMP_MAX),
    ])

    private let policy: Policy
    private let number: Int
    private let flags: Int
    private let nice: Int32
    private let priority: Int32
    private let runtime: UInt64
    private let deadline: UInt64
    private let period: UInt64

    /// - Parameters:
    ///   - policy: one of `Policy`.
    ///   - flags: names with `SCHED_FLAG_`.
    ///   - nice: -20 (first) to 19.
    ///   - priority: 1 to 99 (first) for the real-time policies, 0 for the others.
    ///   - runtime, deadline, period: nanoseconds, for SCHED_DEADLINE only.
    /// - Throws: `ProcessAttributeError` for what no kernel takes.
    package init(
        policy: String, flags: [String] = [], nice: Int32 = 0, priority: Int32 = 0, runtime: UInt64 = 0,
        deadline: UInt64 = 0, period: UInt64 = 0
    ) throws(ProcessAttributeError) {
        guard let known = Policy(rawValue: policy) else {
            let names = Policy.allCases.map(\.rawValue).joined(separator: ", ")
            throw ProcessAttributeError("policy", "'\(policy)' is none of \(names)")
        }
        guard let number = known.number else {
            throw ProcessAttributeError("policy", "\(policy) is reserved; no kernel has it")
        }
        self.flags = try Self.flagTable.value(of: flags)
        guard (-20...19).contains(nice) else {
            throw ProcessAttributeError("nice", "\(nice) is not between -20 and 19")
        }
        let keepsParameters = self.flags & CK_SCHED_FLAG_KEEP_PARAMS != 0
        if known == .fifo || known == .roundRobin {
            guard (1...99).contains(priority) || keepsParameters && priority == 0 else {
                throw ProcessAttributeError("priority", "\(priority) is not between 1 and 99, as \(policy) needs it")
            }
        } else if priority != 0 {
            throw ProcessAttributeError("priority", "is for SCHED_FIFO and SCHED_RR only")
        }
        if known != .deadline {
            for (name, value) in [("runtime", runtime), ("deadline", deadline), ("period", period)] where value != 0 {
                throw ProcessAttributeError(name, "is for SCHED_DEADLINE only")
            }
        } else if runtime == 0, !keepsParameters {
            throw ProcessAttributeError("runtime", "is missing, and SCHED_DEADLINE needs it")
        }
        self.policy = known
        self.number = number
        self.nice = nice
        self.priority = priority
        self.runtime = runtime
        self.deadline = deadline
        self.period = period
    }

    /// Applies it to the calling thread, whose children and programs inherit it.
    ///
    /// - Throws: `KernelError`: EPERM without CAP_SYS_NICE, or where the cgroup leaves no time for the policy; EBUSY
    ///   when no processor has the time; EINVAL for parameters that the kernel finds contradictory.
    package func apply() throws(KernelError) {
        var attributes = ck_sched_attr()
        attributes.size = UInt32(MemoryLayout<ck_sched_attr>.size)
        attributes.policy = UInt32(number)
        attributes.flags = UInt64(flags)
        attributes.nice = nice
        attributes.priority = UInt32(priority)
        attributes.runtime = runtime
        attributes.deadline = deadline
        attributes.period = period
        do throws(KernelError) {
            try systemCall("sched_setattr", policy.rawValue) { ck_sched_setattr(0, &attributes) }
        } catch {
            throw KernelError(error.operation, error.subject, errno: error.errno, hint: hint(error.errno))
        }
    }

    private func hint(_ number: Int32) -> String {
        switch (number, policy) {
        case (EPERM, .fifo), (EPERM, .roundRobin):
            "it needs CAP_SYS_NICE, and with real-time group scheduling a cgroup whose cpu.realtimeRuntime is set"
        case (EPERM, .deadline): "it needs CAP_SYS_NICE, and a cgroup that may use all processors"
        case (EPERM, _): "CAP_SYS_NICE is needed"
        case (EBUSY, _): "the processors have no such time left; see sched_rt_runtime_us in sched(7)"
        case (EINVAL, .deadline): "runtime <= deadline <= period is needed, and a runtime of at least 1024"
        case (EOPNOTSUPP, _): "this kernel has no utilisation clamping"
        default: ""
        }
    }
}

/// The priority of a process's disk requests, see ioprio_set(2).
package struct IOPriority: Sendable, Equatable {
    private static let classes = [
        ("IOPRIO_CLASS_RT", CK_IOPRIO_CLASS_RT), ("IOPRIO_CLASS_BE", CK_IOPRIO_CLASS_BE),
        ("IOPRIO_CLASS_IDLE", CK_IOPRIO_CLASS_IDLE),
    ]

    private let name: String
    private let value: Int

    /// - Parameter priority: 0 (first) to 7.
    /// - Throws: `ProcessAttributeError` for another class or priority.
    package init(class name: String, priority: Int32) throws(ProcessAttributeError) {
        guard let number = Self.classes.first(where: { $0.0 == name })?.1 else {
            throw ProcessAttributeError(
                "class", "'\(name)' is none of \(Self.classes.map { $0.0 }.joined(separator: ", "))")
        }
        guard (0...7).contains(priority) else {
            throw ProcessAttributeError("priority", "\(priority) is not between 0 and 7")
        }
        self.name = name
        value = number << CK_IOPRIO_CLASS_SHIFT | Int(priority)
    }

    /// Applies it to the calling thread, whose children and programs inherit it.
    ///
    /// - Throws: `KernelError`: EPERM for the class RT without CAP_SYS_NICE (or CAP_SYS_ADMIN).
    package func apply() throws(KernelError) {
        do throws(KernelError) {
            try systemCall("ioprio_set", name) { ck_ioprio_set(Int32(CK_IOPRIO_WHO_PROCESS), 0, Int32(value)) }
        } catch {
            let hint = error.errno == EPERM ? "CAP_SYS_NICE is needed" : ""
            throw KernelError(error.operation, error.subject, errno: error.errno, hint: hint)
        }
    }
}

/// The processors that a process may run on, see sched_setaffinity(2).
package enum ProcessorAffinity {
    /// The first number that no kernel gives to a processor.
    package static let bound = 8192

    /// Sets it for the calling thread, whose children and programs inherit it.
    ///
    /// - Throws: `KernelError`: EINVAL when none of the processors is there and in the process's cpuset.
    package static func set(_ processors: NumberSet) throws(KernelError) {
        let words = processors.words
        do throws(KernelError) {
            try systemCall("sched_setaffinity") { ck_sched_setaffinity(0, words, words.count * 8) }
        } catch {
            let hint = error.errno == EINVAL ? "none of these processors is online and in the process's cpuset" : ""
            throw KernelError(error.operation, error.subject, errno: error.errno, hint: hint)
        }
    }
}
