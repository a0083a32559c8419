import Kernel
import OCISpec

/// Who owns a container's group in cgroup v2, see "Cgroup ownership" in config-linux.md of the specification: the
/// container's own user, where the container can reach its group for writing through a cgroup namespace of its own.
enum CgroupOwnership {
    /// - Returns: the user's id on the host; nil where the group stays root's.
    static func owner(_ spec: ContainerSpec) -> UInt32? {
        guard let linux = spec.linux, let namespace = linux.namespace(.cgroup), namespace.path == nil,
            spec.mounts.contains(where: isWritableGroup), let user = spec.process?.user.uid
        else { return nil }
        guard let users = linux.namespace(.user) else { return user == 0 ? nil : user }
        // The maps of a namespace that is joined are somebody else's.
        guard users.path == nil else { return nil }
        for map in linux.uidMappings where user >= map.containerID && user - map.containerID < map.size {
            let (owner, overflow) = map.hostID.addingReportingOverflow(user - map.containerID)
            return overflow || owner == 0 ? nil : owner
        }
        return nil
    }

    private static func isWritableGroup(_ mount: MountSpec) -> Bool {
        let place = mount.destination.pathComponents.filter { $0 != "." }
        return mount.source == "cgroup" && place == ["sys", "fs", "cgroup"] && !mount.options.contains("ro")
    }
}
