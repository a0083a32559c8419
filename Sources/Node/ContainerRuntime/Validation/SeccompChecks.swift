import Kernel
import OCISpec

extension Validation {
    /// The parts of `linux.seccomp` that its compiler does not see, see "Seccomp" of the specification's config-linux.md.
    ///
    /// - Throws: `RefusedField`.
    func checkSeccomp(_ seccomp: SeccompSpec) throws {
        let path = seccomp.listenerPath ?? ""
        if let metadata = seccomp.listenerMetadata, !metadata.isEmpty, path.isEmpty {
            throw RefusedField("linux.seccomp.listenerMetadata", "needs linux.seccomp.listenerPath")
        }
        for (index, rule) in seccomp.syscalls.enumerated() where rule.names.isEmpty {
            throw RefusedField("linux.seccomp.syscalls[\(index)].names", "is empty")
        }
        guard seccomp.notifies else { return }
        guard !path.isEmpty else {
            throw RefusedField(
                "linux.seccomp.listenerPath", "is missing: SCMP_ACT_NOTIFY needs a socket of who is to be asked")
        }
        guard path.isAbsolutePath else {
            throw RefusedField("linux.seccomp.listenerPath", "'\(path)' is not an absolute path")
        }
        guard spec.hooks?.startContainer.isEmpty ?? true else {
            throw RefusedField(
                "hooks.startContainer",
                "cannot be had beside SCMP_ACT_NOTIFY: each hook would need a listener of its own; use createContainer")
        }
    }
}

extension SeccompSpec {
    /// Whether some call is to be answered by the agent at `listenerPath`.
    var notifies: Bool {
        defaultAction == "SCMP_ACT_NOTIFY" || syscalls.contains { $0.action == "SCMP_ACT_NOTIFY" }
    }
}
