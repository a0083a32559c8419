import Confinement
import Kernel
import OCISpec

extension Validation {
    /// Checks how a process is scheduled and labelled: of config.json or of `exec --process`.
    static func checkAttributes(_ process: ProcessSpec, path: String) throws {
        _ = try ProcessAttributes(process, memoryPolicy: nil, path: path)
        if let affinity = process.execCPUAffinity {
            _ = try ProcessorAffinityPlan(affinity, path: "\(path).execCPUAffinity")
        }
        // What is unconfined has nothing to ask of a kernel without AppArmor.
        if let profile = process.apparmorProfile, profile != "unconfined" {
            try checkLabel(profile, .appArmor, "\(path).apparmorProfile")
        }
        if let label = process.selinuxLabel { try checkLabel(label, .seLinux, "\(path).selinuxLabel") }
    }

    /// Checks what of `linux` every process of the container gets.
    static func checkAttributes(_ linux: LinuxSpec) throws {
        if let flag = linux.personality?.flags.first {
            throw RefusedField("linux.personality.flags[0]", "'\(flag.prefix(64))': the specification has no flags yet")
        }
        if let policy = linux.memoryPolicy { _ = try MemoryPolicy(policy) }
        if let label = linux.mountLabel {
            try checkLabel(label, .seLinux, "linux.mountLabel")
            // It goes between quotes where it goes through mount(2).
            if label.contains("\"") { throw RefusedField("linux.mountLabel", "has quotes") }
        }
    }

    private static func checkLabel(_ label: String, _ module: SecurityModule, _ path: String) throws {
        if label.isEmpty { return }
        if let objection = SecurityLabels.objection(to: label) { throw RefusedField(path, objection) }
        guard module.isEnabled() else {
            throw RefusedField(path, "this kernel has no \(module.rawValue), or it is off: leave the field out")
        }
    }
}
