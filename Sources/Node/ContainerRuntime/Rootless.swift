import CKernel
import Cgroups
import Glibc
import Kernel
import OCISpec

/// How the runtime goes about its work when it is not the host's root: `--rootless`.
///
/// A user without privileges makes containers in a user namespace that maps the user alone. What the kernel does not
/// leave to users is done without where nothing asks for it (cgroups), and refused by name where something does.
struct Rootless {
    private enum Choice: String { case auto, on = "true", off = "false" }
    private let choice: Choice

    /// - Parameter value: that of `--rootless`, nil for `auto`.
    init(_ value: String?) throws {
        guard let choice = Choice(rawValue: value ?? "auto") else {
            throw RuntimeError("--rootless: '\(value ?? "")' is none of auto, true and false")
        }
        self.choice = choice
    }

    /// Where containers are remembered: a directory of the user's own, if there is one.
    ///
    /// Root of a user namespace is a user too (podman without root calls runtimes so), unless it is somebody who is
    /// called root.
    static var stateRoot: String {
        guard let given = getenv("XDG_RUNTIME_DIR").map({ String(cString: $0) }), given.isAbsolutePath else {
            return RuntimeProgram.defaultRoot
        }
        if geteuid() == 0 {
            let name = getenv("USER").map { String(cString: $0) }
            guard name != "root", isInUserNamespace else { return RuntimeProgram.defaultRoot }
        }
        return "\(given)/martlet-runtime"
    }

    /// Checks what a user without privileges cannot have.
    func check(_ spec: ContainerSpec) throws {
        guard geteuid() != 0, let linux = spec.linux else { return }
        guard linux.namespace(.user) != nil else {
            throw RefusedField("linux.namespaces", "without root, a user namespace is needed")
        }
        if let time = linux.namespace(.time), time.path == nil {
            throw RefusedField("linux.namespaces", "a new time namespace needs root")
        }
        if let seccomp = linux.seccomp,
            ([seccomp.defaultAction] + seccomp.syscalls.map(\.action)).contains("SCMP_ACT_NOTIFY")
        {
            throw RefusedField("linux.seccomp", "SCMP_ACT_NOTIFY needs root: the listener could not be taken")
        }
        for (index, mount) in spec.mounts.enumerated()
        where !mount.uidMappings.isEmpty || mount.options.contains("idmap") || mount.options.contains("ridmap") {
            throw RefusedField("mounts[\(index)]", "id-mapped mounts need root")
        }
    }

    /// One range of one id: the user itself. More takes root, or programs that have its rights.
    static func checkOwn(_ map: String, id: UInt32) throws {
        let fields = map.split { $0 == " " || $0 == "\n" }
        guard fields.count == 3, fields[1] == "\(id)", fields[2] == "1" else {
            throw RuntimeError("without root, only the one id \(id) can be mapped")
        }
    }

    /// Where the container's cgroups are; nowhere when none is asked for by name and this user may not make any.
    func cgroup(_ spec: ContainerSpec, id: ContainerID, systemd: Bool) throws -> CgroupRecord {
        let path = spec.linux?.cgroupsPath
        let record = try CgroupRecord(path: path, id: id, systemd: systemd)
        guard !systemd, path?.isEmpty ?? true, mayDoWithout() else { return record }
        if record.manager.layout.hierarchies.allSatisfy({ access($0.mountPoint, W_OK) == 0 }) { return record }
        guard let pid = spec.linux?.namespace(.pid), pid.path == nil else {
            throw RefusedField(
                "linux.namespaces", "without cgroups, a new pid namespace is needed: else processes could be left over")
        }
        return CgroupRecord(manager: try CgroupManager(layout: CgroupLayout([]), path: record.manager.path))
    }

    private func mayDoWithout() -> Bool {
        switch choice {
        case .on: true
        case .off: false
        case .auto: geteuid() != 0 || Self.isInUserNamespace
        }
    }

    /// Whether the runtime is in another user namespace than the host's first one: that has a number of its own in
    /// every kernel (PROC_USER_INIT_INO, see namespaces(7) for the file). One call, made once.
    static let isInUserNamespace: Bool = {
        var info = stat()
        return stat("/proc/self/ns/user", &info) == 0 && info.st_ino != 0xefff_fffd
    }()

    /// Whether setgroups(2) is denied in the user namespace that the runtime itself is in; nobody in it can give up a
    /// group then. It never is in the host's first.
    static func groupsAreFixed() -> Bool {
        guard isInUserNamespace else { return false }
        var groups = [gid_t](repeating: 0, count: Int(max(0, getgroups(0, nil))))
        let count = getgroups(Int32(groups.count), &groups)
        guard count == groups.count, setgroups(groups.count, groups) != 0, errno == EPERM else { return false }
        return (try? File.text("/proc/self/setgroups")) == "deny"
    }

    /// Whether the user's id maps can be written: the files in /proc of a process that may not be dumped, and of those it
    /// makes, belong to root. Nothing of the container runs meanwhile, and the child puts itself right.
    static func letMapsBeWritten(_ writable: Bool) throws(KernelError) {
        if geteuid() == 0 { return }
        try systemCall("prctl(PR_SET_DUMPABLE)") { ck_prctl(4 /* PR_SET_DUMPABLE */, writable ? 1 : 0, 0, 0, 0) }
    }
}

extension CgroupRecord {
    /// The container has none.
    var isAbsent: Bool { manager.layout.hierarchies.isEmpty }

    /// Refuses limits that cannot be applied; device rules are no matter, because a user can make no device nodes.
    func refuseLimits(_ resources: ResourcesSpec) throws {
        do {
            _ = try manager.apply(CgroupResources(resources))
        } catch {
            throw RefusedField(
                "linux.resources", "cannot be applied, because this user may not make cgroups (\(error))")
        }
    }

    /// - Throws: for a container that has no cgroups.
    func require(_ purpose: String) throws {
        if isAbsent { throw RuntimeError("the container has no cgroups (it is rootless): nothing can \(purpose)") }
    }
}
