import Cgroups
import Glibc
import Kernel

/// The cgroup in which the shims of a machine live, apart from their agent's: what happens to the agent's group does
/// not happen to them.
enum ShimCgroup {
    /// Makes the group where it is missing and moves this process into it, in every hierarchy.
    ///
    /// - Parameter path: below each hierarchy's root, with or without a leading slash.
    static func enter(_ path: String) throws(CgroupError) {
        let group = try CgroupManager(
            layout: CgroupLayout.detect(), path: path.isAbsolutePath ? path : "/\(path)")
        try group.create()
        try group.enter()
    }
}
