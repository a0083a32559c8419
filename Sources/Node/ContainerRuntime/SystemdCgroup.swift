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
    /// Open as long as the runtime lives; the holder ends with it.
    private let leash: SharedFD

    /// Has systemd make the scope.
    ///
    /// - Parameter lock: the lock of the container's state, which the holder must not share.
    init(_ scope: SystemdScope, id: ContainerID, annotations: [String: String], lock: Int32) throws {
        let properties = try Self.properties(annotations)
        let systemd = try SystemdConnection.open()
        var ends: [Int32] = [-1, -1]
        try systemCall("pipe2") { pipe2(&ends, O_CLOEXEC) }
        let near = OwnedFD(adopting: ends[0])
        leash = SharedFD(OwnedFD(adopting: ends[1]))
        var pidfd: Int32 = -1
        let pid = cs_fork(&pidfd)
        if pid == 0 {
            close(lock)
            close(ends[1])
            var byte: UInt8 = 0
            _ = Glibc.read(near.raw, &byte, 1)
            _exit(0)
        }
        guard pid > 0 else { throw KernelError("clone3", errno: errno) }
        child = ChildProcess(pid: pid, pidfd: OwnedFD(adopting: pidfd))
        do throws(CgroupError) {
            try scope.start(
                systemd, pid: UInt32(pid), description: "martlet container \(id)", properties: properties)
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
