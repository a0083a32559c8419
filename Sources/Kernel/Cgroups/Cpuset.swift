import Kernel

/// Lists of processors and memory nodes of control groups, see cpuset(7) and the kernel's cgroup-v2.rst, "Cpuset".
package enum Cpuset {
    /// What is in force in a group; where the kernel does not tell that, what the group was set to.
    ///
    /// - Parameters:
    ///   - list: `cpus` or `mems`.
    ///   - directory: the group's, where the controller is.
    /// - Returns: such as `0-3,7`; nil: there is no such file.
    /// - Throws: `KernelError` when it cannot be read.
    package static func effective(_ list: String, in directory: String) throws(KernelError) -> String? {
        let names = ["cpuset.\(list).effective", "cpuset.effective_\(list)", "cpuset.\(list)"]
        guard let file = names.map({ "\(directory)/\($0)" }).first(where: { File.exists($0) }) else { return nil }
        return String(try File.text(file, limit: 1 << 16).prefix { $0 != "\n" })
    }
}
