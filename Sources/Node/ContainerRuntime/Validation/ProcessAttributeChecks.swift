import Confinement
import Kernel
import OCISpec

extension Validation {
    /// Checks how a process is scheduled: of config.json or of `exec --process`.
    static func checkAttributes(_ process: ProcessSpec, path: String) throws {
        _ = try ProcessAttributes(process, memoryPolicy: nil, path: path)
        if let affinity = process.execCPUAffinity {
            _ = try ProcessorAffinityPlan(affinity, path: "\(path).execCPUAffinity")
        }
    }

    /// Checks what of `linux` every process of the container gets.
    static func checkAttributes(_ linux: LinuxSpec) throws {
        if let flag = linux.personality?.flags.first {
            throw RefusedField("linux.personality.flags[0]", "'\(flag.prefix(64))': the specification has no flags yet")
        }
        if let policy = linux.memoryPolicy { _ = try MemoryPolicy(policy) }
    }
}
