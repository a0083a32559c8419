import CKernel
import CStage
import Glibc
import Kernel
import OCISpec

/// Ranges of user and group ids as the kernel takes them, see "User and group ID mappings" in user_namespaces(7).
struct IDMap: Hashable {
    /// What is written to `uid_map` and `gid_map`: a line `inside outside length` for each range.
    let uids: String
    let gids: String

    init(uids: [IDMapping], gids: [IDMapping]) {
        self.uids = Self.text(uids)
        self.gids = Self.text(gids)
    }

    /// The lines of one kind.
    static func text(_ mappings: [IDMapping]) -> String {
        mappings.reduce(into: "") { $0 += "\($1.containerID) \($1.hostID) \($1.size)\n" }
    }

    /// Gives the maps to the new user namespace of a process.
    func write(to pid: pid_t) throws {
        let isRoot = geteuid() == 0
        try withContext("config.json: linux.uidMappings") {
            if !isRoot { try Rootless.checkOwn(uids, id: geteuid()) }
            try File.writeControl("/proc/\(pid)/uid_map", uids)
        }
        try withContext("config.json: linux.gidMappings") {
            if !isRoot {
                try Rootless.checkOwn(gids, id: getegid())
                // Else a user could leave a group whose members a file excludes.
                try File.writeControl("/proc/\(pid)/setgroups", "deny")
            }
            try File.writeControl("/proc/\(pid)/gid_map", gids)
        }
    }
}

/// User namespaces that stand for an id map and have no process: what mount_setattr(2) wants for an id-mapped mount.
///
/// Each map costs a short-lived process once, however many mounts have it.
struct IDMapNamespaces {
    private var made: [IDMap: SharedFD] = [:]

    /// The namespace of a map; it lives as long as the descriptor, or a mount that has it.
    mutating func namespace(of map: IDMap) throws -> SharedFD {
        if let known = made[map] { return known }
        let namespace = try Self.make(map)
        made[map] = namespace
        return namespace
    }

    private static func make(_ map: IDMap) throws -> SharedFD {
        var descriptor: Int32 = -1
        let pid = try systemCall("clone3", "a user namespace for an id map") { cs_hold_user_namespace(&descriptor) }
        let holder = ChildProcess(pid: pid, pidfd: OwnedFD(adopting: descriptor))
        let opened: Result<SharedFD, any Error>
        do {
            try File.writeControl("/proc/\(pid)/uid_map", map.uids)
            try File.writeControl("/proc/\(pid)/gid_map", map.gids)
            opened = .success(SharedFD(try File.open("/proc/\(pid)/ns/user", O_RDONLY)))
        } catch {
            opened = .failure(error)
        }
        try holder.signal(SIGKILL)
        _ = try holder.wait()
        return try opened.get()
    }
}

extension ContainerPlan {
    /// Makes or finds the user namespaces of id-mapped mounts: of the mount's own map, else that of the container.
    mutating func prepareIDMaps() throws {
        var namespaces = IDMapNamespaces()
        for index in mounts.indices where mounts[index].mapsIDs {
            let mount = mounts[index]
            mounts[index].mapping = try withContext("\(mount.path) (\(mount.destination))") {
                if let map = mount.idMap { return try namespaces.namespace(of: map) }
                return try self.namespaces.user ?? namespaces.namespace(of: self.namespaces.idMap)
            }
        }
    }
}

extension MountPlan {
    /// Its ids are mapped.
    var mapsIDs: Bool { idMap != nil || options.idMapping != nil }

    /// A detached copy of a bind mount's source, its ids mapped before anybody sees it.
    func clone(_ source: String) throws -> OwnedFD {
        try mapped(try Mounts.clone(source, recursive: options.recursive), source)
    }

    /// The same of a place that is open.
    func clone(of place: borrowing OwnedFD, _ source: String) throws -> OwnedFD {
        try mapped(try Mounts.clone(of: place.raw, recursive: options.recursive, subject: source), source)
    }

    private func mapped(_ tree: consuming OwnedFD, _ source: String) throws -> OwnedFD {
        guard let mapping else { return tree }
        let recursive = options.idMapping == .recursive
        do throws(KernelError) {
            try Mounts.change(tree.raw, recursive: recursive, mapping: mapping.raw, subject: source)
        } catch {
            let place = recursive ? "\(source), or one mounted below it," : source
            switch error.errno {
            case EINVAL:
                throw RuntimeError("the filesystem of \(place) takes no id map on this kernel; leave idmap out")
            case EPERM:
                throw RuntimeError(
                    "\(place) cannot be id-mapped: it is id-mapped already, or its filesystem belongs to another user "
                        + "namespace")
            default: throw error
            }
        }
        return tree
    }
}
