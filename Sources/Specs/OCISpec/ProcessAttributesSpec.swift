import JSON

/// `process.scheduler`, see sched_setattr(2).
package struct SchedulerSpec: OCIDocument {
    /// `SCHED_OTHER`, …
    package var policy: String
    /// -20 to 19.
    package var nice: Int32?
    /// For the real-time policies.
    package var priority: Int32?
    /// `SCHED_FLAG_RESET_ON_FORK`, …
    package var flags: [String]
    /// Nanoseconds, for SCHED_DEADLINE, as the two below.
    package var runtime: UInt64?
    package var deadline: UInt64?
    package var period: UInt64?

    package init(policy: String, nice: Int32? = nil, priority: Int32? = nil, flags: [String] = []) {
        self.policy = policy
        self.nice = nice
        self.priority = priority
        self.flags = flags
    }

    package init(_ reader: JSONReader) throws(JSONError) {
        policy = try reader.string("policy")
        nice = try reader.optionalInt32("nice")
        priority = try reader.optionalInt32("priority")
        flags = try reader.list("flags")
        runtime = try reader.optionalUInt64("runtime")
        deadline = try reader.optionalUInt64("deadline")
        period = try reader.optionalUInt64("period")
    }

    package var json: JSONValue {
        var writer = ObjectWriter()
        writer.put("policy", policy)
        writer.put("nice", nice)
        writer.put("priority", priority)
        writer.put("flags", flags)
        writer.put("runtime", runtime)
        writer.put("deadline", deadline)
        writer.put("period", period)
        return writer.value
    }
}

/// `process.ioPriority`, see ioprio_set(2).
package struct IOPrioritySpec: OCIDocument {
    /// `IOPRIO_CLASS_RT`, `IOPRIO_CLASS_BE`, `IOPRIO_CLASS_IDLE`.
    package var ioClass: String
    /// 0 (first) to 7.
    package var priority: Int32

    package init(class ioClass: String, priority: Int32) {
        self.ioClass = ioClass
        self.priority = priority
    }

    package init(_ reader: JSONReader) throws(JSONError) {
        ioClass = try reader.string("class")
        priority = try reader.int32("priority")
    }

    package var json: JSONValue {
        var writer = ObjectWriter()
        writer.put("class", ioClass)
        writer.put("priority", priority)
        return writer.value
    }
}

/// `process.execCPUAffinity`: where the processes of `exec` run.
package struct CPUAffinitySpec: OCIDocument {
    /// A list such as `0-3,7`: before the process is in the container's cgroup.
    package var initial: String?
    /// The same, from then on.
    package var final: String?

    package init(initial: String? = nil, final: String? = nil) {
        self.initial = initial
        self.final = final
    }

    package init(_ reader: JSONReader) throws(JSONError) {
        initial = try reader.optionalString("initial")
        final = try reader.optionalString("final")
    }

    package var json: JSONValue {
        var writer = ObjectWriter()
        writer.put("initial", initial)
        writer.put("final", final)
        return writer.value
    }
}

/// `linux.memoryPolicy`, see set_mempolicy(2).
package struct MemoryPolicySpec: OCIDocument {
    /// `MPOL_BIND`, …
    package var mode: String
    /// A list such as `0-3,7`.
    package var nodes: String?
    /// `MPOL_F_STATIC_NODES`, …
    package var flags: [String]

    package init(mode: String, nodes: String? = nil, flags: [String] = []) {
        self.mode = mode
        self.nodes = nodes
        self.flags = flags
    }

    package init(_ reader: JSONReader) throws(JSONError) {
        mode = try reader.string("mode")
        nodes = try reader.optionalString("nodes")
        flags = try reader.list("flags")
    }

    package var json: JSONValue {
        var writer = ObjectWriter()
        writer.put("mode", mode)
        writer.put("nodes", nodes)
        writer.put("flags", flags)
        return writer.value
    }
}
