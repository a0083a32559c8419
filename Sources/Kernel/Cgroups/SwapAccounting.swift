import Kernel

extension CgroupManager {
    /// Whether the kernel counts the swap of groups, so that it can be limited (`swapaccount=` of its command line).
    ///
    /// Seen by the files of this group or of the nearest above it that have the memory controller, of v2's root by any group
    /// below it; true where none of them tells.
    package func accountsSwap() -> Bool {
        guard let home = layout.home(of: .memory) else { return true }
        guard home.version == .v2 else { return File.exists("\(home.mountPoint)/memory.memsw.limit_in_bytes") }
        var components = (home.base + path).pathComponents
        while !components.isEmpty {
            let directory = ControlDirectory("\(home.mountPoint)/\(components.joined(separator: "/"))")
            if directory.has("memory.max") { return directory.has("memory.swap.max") }
            components.removeLast()
        }
        let root = ControlDirectory(home.mountPoint)
        let counting = root.children().map { root.child($0) }.first { $0.has("memory.max") }
        return counting?.has("memory.swap.max") ?? true
    }
}
