import Confinement
import Kernel
import OCISpec

/// What a process is given beside its identity and rights before it becomes its program: scheduling, priorities, memory
/// policy, labels. All of it is inherited, and needs rights that the program may not have.
struct ProcessAttributes {
    private var scheduling: ProcessSchedule?
    private var ioPriority: IOPriority?
    private var memoryPolicy: MemoryPolicy?
    private var labels = SecurityLabels()
    /// Nobody else's; nil without labels.
    private var procfs: SharedFD?

    /// - Parameter memoryPolicy: that of the container.
    init(_ process: ProcessSpec, memoryPolicy: MemoryPolicySpec?, path: String = "process") throws {
        if let scheduler = process.scheduler {
            scheduling = try refusing("\(path).scheduler") { () throws(ProcessAttributeError) in
                try ProcessSchedule(
                    policy: scheduler.policy, flags: scheduler.flags, nice: scheduler.nice ?? 0,
                    priority: scheduler.priority ?? 0, runtime: scheduler.runtime ?? 0,
                    deadline: scheduler.deadline ?? 0, period: scheduler.period ?? 0)
            }
        }
        if let priority = process.ioPriority {
            ioPriority = try refusing("\(path).ioPriority") { () throws(ProcessAttributeError) in
                try IOPriority(class: priority.ioClass, priority: priority.priority)
            }
        }
        if let memoryPolicy { self.memoryPolicy = try MemoryPolicy(memoryPolicy) }
        labels = SecurityLabels(appArmorProfile: process.apparmorProfile, seLinuxContext: process.selinuxLabel)
        if labels.appArmorProfile == "unconfined", !SecurityModule.appArmor.isEnabled() { labels.appArmorProfile = nil }
    }

    /// Opens what labels are written through: before a container is entered, where no procfs of one's own can be had.
    mutating func openFiles() throws {
        if !labels.isEmpty { procfs = SharedFD(try ProcessAttributeFiles.makePrivate()) }
    }

    /// Gives all of it to the calling process, which has the runtime's rights and is in the container's cgroup.
    func apply() throws {
        if let memoryPolicy { try withContext("linux.memoryPolicy") { try memoryPolicy.apply() } }
        if let ioPriority { try withContext("process.ioPriority") { try ioPriority.apply() } }
        if let scheduling { try withContext("process.scheduler") { try scheduling.apply() } }
        if let procfs {
            let files = ProcessAttributeFiles(try procfs.duplicate())
            let field = labels.seLinuxContext == nil ? "process.apparmorProfile" : "process.selinuxLabel"
            try withContext(field) { try labels.applyOnExecute(files) }
        }
    }

    /// Makes a keyring that belongs to the process's label, if there is one.
    func withKeyLabel(_ body: () throws -> Void) throws {
        guard let procfs, labels.seLinuxContext != nil else { return try body() }
        try labels.withKeyLabel(ProcessAttributeFiles(try procfs.duplicate()), body)
    }
}

/// The processors of a process of `exec`.
struct ProcessorAffinityPlan {
    private let initial: NumberSet?
    private let final: NumberSet?

    init(_ spec: CPUAffinitySpec, path: String = "process.execCPUAffinity") throws {
        initial = try Self.set(spec.initial, "\(path).initial")
        final = try Self.set(spec.final, "\(path).final")
    }

    private static func set(_ list: String?, _ path: String) throws -> NumberSet? {
        guard let list, !list.isEmpty else { return nil }
        do throws(NumberSetError) {
            return try NumberSet(list: list, below: ProcessorAffinity.bound)
        } catch {
            throw RefusedField(path, error.description)
        }
    }

    /// For the runtime itself, whose child inherits it and so begins there.
    func applyInitial() throws {
        guard let initial else { return }
        try withContext("process.execCPUAffinity.initial") { try ProcessorAffinity.set(initial) }
    }

    /// For the process in the container's cgroup.
    func applyFinal() throws {
        guard let final else { return }
        try withContext("process.execCPUAffinity.final") { try ProcessorAffinity.set(final) }
    }
}

extension MemoryPolicy {
    init(_ spec: MemoryPolicySpec) throws {
        self = try refusing("linux.memoryPolicy") { () throws(ProcessAttributeError) in
            try MemoryPolicy(mode: spec.mode, nodes: spec.nodes ?? "", flags: spec.flags)
        }
    }
}

/// Runs `body`; what it objects to is refused by its place below `path`.
func refusing<Result>(_ path: String, _ body: () throws(ProcessAttributeError) -> Result) throws -> Result {
    do throws(ProcessAttributeError) {
        return try body()
    } catch {
        throw RefusedField("\(path).\(error.field)", error.reason)
    }
}
