import CKernel
import CStage
import Cgroups
import Glibc
import Kernel

/// Cgroups that systemd makes.
extension CgroupRecord {
    /// The group of a scope.
    static func managed(_ path: String?, _ id: ContainerID) throws -> (CgroupManager, SystemdScope) {
        let scope = try withContext("config.json") { try SystemdScope(path: path, container: id.description) }
        guard SystemdConnection.isRunning else {
            throw RuntimeError("--systemd-cgroup: this host was not started by systemd: leave it out")
        }
        let layout = try CgroupLayout.detect()
        guard layout.isUnified else {
            throw RuntimeError(
                "--systemd-cgroup is supported on hosts with cgroup v2 alone; this one has v1 too: leave it out")
        }
        return (try CgroupManager(layout: layout, path: scope.path), scope)
    }

    /// Lets systemd know of limits that the group's files have by now; nothing without it.
    func tellSystemd(of change: CgroupResources) throws(CgroupError) {
        guard let scope else { return }
        let properties = manager.unitProperties(of: change)
        if !properties.isEmpty { try scope.set(try SystemdConnection.open(), properties) }
    }

    /// Removes the group, and the unit with it. Its processes have ended.
    func remove() throws(CgroupError) {
        if let scope { try scope.stop(try SystemdConnection.open()) }
        try manager.delete()
    }
}

/// A process that does nothing: systemd makes a scope only around one, and the container's own is made when the group
/// is there with its limits.
final class ScopeHolder {
    private var child: ChildProcess?

    /// Has systemd make the scope.
    ///
    /// - Parameters:
    ///   - oomPolicy: what becomes of the whole group when one process of it is killed for lack of memory; nil: what
    ///     systemd does for a group that is not its own.
    ///   - lock: the lock of the container's state, which the holder must not share.
    init(
        _ scope: SystemdScope, id: ContainerID, annotations: [String: String],
        oomPolicy: SystemdScope.OOMPolicy?, lock: Int32
    ) throws {
        let properties = try Self.properties(annotations)
        let systemd = try SystemdConnection.open()
        let runtime = getpid()
        var pidfd: Int32 = -1
        let pid = cs_fork(&pidfd)
        if pid == 0 {
            // It ends with the runtime, whatever becomes of that. Nothing that the container's first process might hold
            // on to says so, and the runtime may have ended before the request was made.
            ck_prctl(1 /* PR_SET_PDEATHSIG */, UInt(SIGKILL), 0, 0, 0)
            close(lock)
            while getppid() == runtime { pause() }
            _exit(0)
        }
        guard pid > 0 else { throw KernelError("clone3", errno: errno) }
        child = ChildProcess(pid: pid, pidfd: OwnedFD(adopting: pidfd))
        do throws(CgroupError) {
            try scope.start(
                systemd, pid: UInt32(pid), description: "martlet container \(id)", oomPolicy: oomPolicy,
                properties: properties)
        } catch {
            end()
            throw error
        }
    }

    /// Ends the process: the container's own is in the group, or never will be.
    func end() {
        guard let child = child.take() else { return }
        try? child.signal(SIGKILL)
        _ = try? child.wait()
    }

    deinit { end() }

    private static func properties(_ annotations: [String: String]) throws -> [SystemdProperty] {
        let prefix = "org.systemd.property."
        var properties: [SystemdProperty] = []
        for name in annotations.keys.sorted() where name.hasPrefix(prefix) {
            properties.append(
                try SystemdProperty(annotation: String(name.dropFirst(prefix.count)), annotations[name] ?? ""))
        }
        return properties
    }
}
