import Glibc
import Kernel

/// Open files of a group in the v1 hierarchies, with which a new process moves itself there.
///
/// A thread that writes 0 to `tasks` moves itself without the lock that every other move takes: the writer of that lock
/// waits until all processors have passed through an RCU grace period, ten milliseconds and more for each container
/// (`cgroup_procs_write_start` in the kernel's cgroup.c). The files are opened by who makes the process: its credentials
/// count, and the process may see other paths.
package struct CgroupEntry: Sendable {
    /// `tasks` of one group.
    package struct File: Sendable {
        /// Open for writing.
        package let descriptor: SharedFD
        private let directory: ControlDirectory

        /// A file that another process has opened.
        init(_ directory: ControlDirectory, opened descriptor: SharedFD) {
            self.directory = directory
            self.descriptor = descriptor
        }

        init(_ directory: ControlDirectory) throws(CgroupError) {
            self.directory = directory
            do {
                descriptor = SharedFD(try Kernel.File.open("\(directory.path)/tasks", O_WRONLY))
            } catch {
                throw directory.refusal("tasks", "0", errno: error.errno)
            }
        }

        func enter() throws(CgroupError) {
            do {
                try Descriptor.writeAll(descriptor.raw, [UInt8(ascii: "0")])
            } catch {
                let empty = "the group has no CPUs or memory nodes: set cpuset.cpus and cpuset.mems"
                throw directory.refusal("tasks", "0", errno: error.errno, hint: error.errno == ENOSPC ? empty : "")
            }
        }
    }

    /// One for each v1 hierarchy, in the layout's order.
    package let files: [File]

    /// Moves the calling thread, which must be its process's only one.
    ///
    /// - Throws: `CgroupError` naming the controller and the file.
    package func enter() throws(CgroupError) {
        for file in files { try file.enter() }
    }
}
