import Cgroups
import Glibc
import Kernel
import OCISpec

extension StateStore {
    /// Removes what a stopped container leaves: processes that outlived the first one, cgroups, state; then the
    /// poststop hooks run. The caller holds the lock.
    func destroy(_ record: ContainerRecord, log: RuntimeLog) throws {
        failpoint("runtime.destroy")
        let cgroup = record.cgroup.manager
        if !record.ownsPids { try cgroup.kill() }
        try record.cgroup.remove()
        failpoint("runtime.after_cgroup_removal")
        try record.resourceControl?.remove()
        try remove(record.id)
        failpoint("runtime.after_removal")
        record.runPoststop(log)
    }

    /// Kills a container and waits until its first process has ended.
    func killAndWait(_ record: ContainerRecord) throws {
        if record.pid != 0, let process = try Proc.open(record.pid, startedAt: record.startTime) {
            // A frozen process dies only when it is thawed (cgroup v1).
            if try record.cgroup.manager.isFrozen() { try record.cgroup.manager.kill() }
            let child = ChildProcess(pid: record.pid, pidfd: process)
            try child.signal(SIGKILL)
            var waiting = pollfd(fd: child.pidfd.raw, events: Int16(POLLIN), revents: 0)
            let ready = try systemCall("poll") { poll(&waiting, 1, 10_000) }
            guard ready > 0 else {
                throw RuntimeError("process \(record.pid) did not end within 10 seconds of SIGKILL")
            }
        }
        if !record.ownsPids { try record.cgroup.manager.kill() }
    }
}

extension ContainerRecord {
    /// Runs the hooks for a container that is no more. A failure is worth a warning; the others still run.
    func runPoststop(_ log: RuntimeLog) {
        for hook in poststop {
            do {
                try Hooks.run([hook], .poststop, state: state(.stopped))
            } catch {
                log.write(.warning, "\(error)")
            }
        }
    }
}
