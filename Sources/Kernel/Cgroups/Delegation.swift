import Glibc
import Kernel

extension CgroupManager {
    /// Gives the group to a user, who may then make groups below it and move processes among them, but not change the
    /// group's own limits: the directory and the files of it that the kernel lists for this, see "Delegation" in
    /// cgroups(7).
    ///
    /// Only on a host that has cgroup v2 alone, because v1 cannot be delegated safely; elsewhere nothing is done.
    /// - Parameters:
    ///   - owner: the user's id on the host.
    ///   - listing: the kernel's list of the files; without it the three files of old kernels are taken.
    /// - Throws: `CgroupError` naming what could not be given. A listed file that the group does not have is no error.
    package func delegate(
        to owner: uid_t, listing: String = "/sys/kernel/cgroup/delegate"
    ) throws(CgroupError) {
        guard layout.isUnified, let directory = unifiedDirectory else { return }
        let standard = ["cgroup.procs", "cgroup.subtree_control", "cgroup.threads"]
        let listed = (try? File.text(listing))?.split(separator: "\n").map { String($0) } ?? standard
        try Self.give(directory, to: owner, mayBeAbsent: false)
        for name in listed where Self.isWord(name) && !name.utf8.contains(UInt8(ascii: "/")) {
            try Self.give("\(directory)/\(name)", to: owner, mayBeAbsent: true)
        }
    }

    private static func give(_ path: String, to owner: uid_t, mayBeAbsent: Bool) throws(CgroupError) {
        // The group stays as it is: (gid_t)-1.
        if lchown(path, owner, gid_t.max) == 0 || (mayBeAbsent && errno == ENOENT) { return }
        throw CgroupError(.refused, path, "cannot be given to user \(owner)", errno: errno)
    }
}
