import Confinement
import Kernel
import OCISpec

/// A system call filter, ready to load.
struct Filter {
    var bytes: [UInt8] = []
    var flags: UInt32 = 0

    init() {}

    init(bytes: [UInt8], flags: UInt32) {
        self.bytes = bytes
        self.flags = flags
    }

    /// Compiles `linux.seccomp`, or finds it compiled.
    init(_ spec: SeccompSpec, cache: SeccompCache, log: RuntimeLog) throws {
        let program = try withContext("config.json: linux.seccomp") {
            let action = try SeccompAction(name: spec.defaultAction, errnoRet: spec.defaultErrnoRet)
            var rules: [SeccompRule] = []
            for (index, rule) in spec.syscalls.enumerated() {
                rules.append(try withContext("syscalls[\(index)]") { try SeccompRule(rule) })
            }
            var architectures: [SeccompArchitecture] = []
            for name in spec.architectures { architectures.append(try SeccompArchitecture(name: name)) }
            return try cache.program(
                of: SeccompProfile(
                    defaultAction: action, architectures: architectures, flags: SeccompFlags(names: spec.flags),
                    rules: rules))
        }
        if !program.skipped.isEmpty {
            log.write(.debug, "seccomp: unknown system calls: \(program.skipped.joined(separator: ", "))")
        }
        bytes = program.bytes
        flags = program.flags
    }
}

extension SeccompRule {
    fileprivate init(_ spec: SyscallRule) throws {
        var comparisons: [SeccompComparison] = []
        for argument in spec.args {
            comparisons.append(
                try SeccompComparison(
                    index: argument.index, SeccompComparison.Operation(name: argument.op), argument.value,
                    argument.valueTwo))
        }
        self.init(spec.names, try SeccompAction(name: spec.action, errnoRet: spec.errnoRet), when: comparisons)
    }
}

extension ProcessPlan {
    /// - Parameters:
    ///   - inUserNamespace: the process is in a user namespace that is not the runtime's: root of it has everything,
    ///     and setgroups(2) may be denied.
    init(
        _ spec: ProcessSpec, filter: Filter, personality: PersonalitySpec?, memoryPolicy: MemoryPolicySpec?,
        inUserNamespace: Bool, log: RuntimeLog
    ) throws {
        args = spec.args
        env = spec.env
        cwd = spec.cwd
        uid = spec.user.uid
        gid = spec.user.gid
        let keepsGroups = spec.user.additionalGids.isEmpty && (inUserNamespace || Rootless.groupsAreFixed())
        groups = keepsGroups ? nil : spec.user.additionalGids
        mask = spec.user.umask
        limits = []
        for limit in spec.rlimits {
            limits.append(try ResourceLimit(name: limit.type, soft: limit.soft, hard: limit.hard))
        }
        let wanted = spec.capabilities ?? CapabilitiesSpec()
        let plan = CapabilityPlan(
            bounding: wanted.bounding, effective: wanted.effective, inheritable: wanted.inheritable,
            permitted: wanted.permitted, ambient: wanted.ambient,
            available: inUserNamespace ? .known() : try CapabilityPlan.grantable(of: wanted.names))
        if !plan.unknown.isEmpty {
            log.write(.warning, "ignoring unknown capabilities: \(plan.unknown.joined(separator: ", "))")
        }
        if !plan.unavailable.isEmpty {
            // An ambient capability that is permitted but not inheritable is the configuration's contradiction, and a
            // common one; what is missing altogether is worth a warning.
            let missing = plan.unavailable.contains { !plan.sets.permitted.contains($0) }
            log.write(
                missing ? .warning : .debug,
                "capabilities that cannot be granted: \(plan.unavailable.map(\.name).joined(separator: ", "))")
        }
        capabilities = plan.sets
        noNewPrivileges = spec.noNewPrivileges
        self.filter = filter.bytes
        filterFlags = filter.flags
        // PER_LINUX and PER_LINUX32, see personality(2).
        self.personality = personality.map { $0.domain == .linux ? 0 : 8 }
        attributes = try ProcessAttributes(spec, memoryPolicy: memoryPolicy)
        try attributes.openFiles()
    }
}

extension CapabilitiesSpec {
    /// Every capability that is named; sets that are the same, as they mostly are, count once.
    fileprivate var names: [String] {
        [effective, inheritable, permitted, ambient].reduce(into: bounding) { if $1 != bounding { $0 += $1 } }
    }
}
