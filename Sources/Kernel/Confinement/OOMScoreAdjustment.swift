import CKernel
import Glibc
import Kernel

/// A process's inclination to be killed when memory runs out, see proc_pid_oom_score_adj(5).
package enum OOMScoreAdjustment {
    /// What the kernel takes.
    package static let range = -1000...1000

    /// Sets it through a procfs that the caller trusts.
    ///
    /// - Parameters:
    ///   - value: -1000 (never) to 1000 (first).
    ///   - process: the process's name in that procfs: `self` or a number.
    ///   - procfs: a descriptor of the root of a procfs.
    /// - Throws: `KernelError`: EINVAL out of range; EACCES when lowering it without CAP_SYS_RESOURCE, as the hint says.
    package static func set(_ value: Int, of process: String = "self", procfs: Int32) throws(KernelError) {
        let name = "\(process)/oom_score_adj"
        guard range.contains(value) else {
            throw KernelError(
                "set oom_score_adj \(value) of", process, errno: EINVAL, hint: "it goes from -1000 to 1000")
        }
        let file = OwnedFD(
            adopting: try systemCall("open", "/proc/\(name)") {
                ck_openat(procfs, name, O_WRONLY | O_CLOEXEC | O_NOFOLLOW, 0)
            })
        let text = Array(String(value).utf8)
        do throws(KernelError) {
            try file.writeAll(text, subject: "/proc/\(name)")
        } catch {
            let hint = error.errno == EACCES ? "lowering it needs CAP_SYS_RESOURCE, which this process lacks" : ""
            throw KernelError("write '\(value)' to", "/proc/\(name)", errno: error.errno, hint: hint)
        }
    }
}
