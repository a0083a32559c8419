import CKernel
import Cgroups
import Glibc
import Kernel

extension RootFilesystem {
    /// The container's part of the cgroup hierarchies.
    ///
    /// Where v1 hierarchies exist: a tmpfs with a directory for each, and cgroup2 as `unified` if the host has it
    /// beside them. On a pure v2 host: cgroup2 itself. With a cgroup namespace the filesystems are mounted anew and
    /// show as their root the container's group, or that of the namespace it joins; without one, the container's group's
    /// directory is bound there.
    mutating func mountCgroups(_ mount: MountPlan) throws {
        let manager = plan.cgroup.manager
        let hierarchies = manager.layout.hierarchies
        if hierarchies.isEmpty { return try hideCgroups(mount) }
        guard hierarchies.contains(where: { $0.version == .v1 }) else {
            guard let unified = manager.layout.unified else { return }
            let target = try root.makeDirectories(mount.destination)
            let tree = try cgroupTree(of: unified, manager.path, mount.options.set)
            try Mounts.attach(tree, on: target.raw, subject: mount.destination)
            try propagate(mount.options, tree)
            return
        }
        let target = try root.makeDirectories(mount.destination)
        let top = try emptyPlace(mount.options.set.subtracting(.readOnly))
        try Mounts.attach(top, on: target.raw, subject: mount.destination)
        for hierarchy in hierarchies {
            let name = directoryName(of: hierarchy)
            try systemCall("mkdir", "\(mount.destination)/\(name)") { mkdirat(top.raw, name, 0o755) }
            let tree = try cgroupTree(of: hierarchy, manager.path, mount.options.set)
            try Mounts.attach(tree, in: top.raw, name, subject: "\(mount.destination)/\(name)")
            // `cpu,cpuacct` is found by each of its names.
            if hierarchy.version == .v1, hierarchy.controllers.count > 1 {
                for controller in hierarchy.controllers where controller.rawValue != name {
                    symlinkat(name, top.raw, controller.rawValue)
                }
            }
        }
        try propagate(mount.options, top)
        if mount.options.isReadOnly { addLateReadOnly(top) }
    }

    /// An empty place where the container has no cgroups: those of the host, which a bind of /sys brings along, are
    /// nothing to it (CVE-2023-25809).
    private func hideCgroups(_ mount: MountPlan) throws {
        let target = try root.makeDirectories(mount.destination)
        let empty = try emptyPlace(mount.options.set.union(.readOnly))
        try Mounts.attach(empty, on: target.raw, subject: mount.destination)
    }

    private func emptyPlace(_ attributes: MountAttributes) throws -> OwnedFD {
        let context = try FilesystemContext("tmpfs")
        try context.set("source", "tmpfs")
        try context.set("mode", "755")
        try plan.setLabel(of: context)
        return try context.create(attributes)
    }

    private func directoryName(of hierarchy: CgroupHierarchy) -> String {
        if hierarchy.version == .v2 { return "unified" }
        if let name = hierarchy.name { return name }
        return hierarchy.controllers.map(\.rawValue).joined(separator: ",")
    }

    private func cgroupTree(
        of hierarchy: CgroupHierarchy, _ path: String, _ attributes: MountAttributes
    ) throws -> OwnedFD {
        if plan.namespaces.ownsCgroup {
            do throws(KernelError) {
                return try newTree(of: hierarchy, attributes)
            } catch {
                // A joined cgroup namespace need not belong to the container's user namespace.
                guard error.errno == EPERM, plan.namespaces.changesUser else { throw error }
            }
        }
        let tree = try Mounts.clone(hierarchy.directory(path), recursive: false)
        try Mounts.change(tree.raw, set: attributes, subject: hierarchy.mountPoint)
        return tree
    }

    /// The hierarchy from the root of the process's cgroup namespace.
    private func newTree(
        of hierarchy: CgroupHierarchy, _ attributes: MountAttributes
    ) throws(KernelError) -> OwnedFD {
        if hierarchy.version == .v2 { return try FilesystemContext("cgroup2").create(attributes) }
        let context = try FilesystemContext("cgroup")
        if let name = hierarchy.name {
            try context.set("none")
            try context.set("name", name)
        }
        for controller in hierarchy.controllers { try context.set(controller.rawValue) }
        return try context.create(attributes)
    }
}
