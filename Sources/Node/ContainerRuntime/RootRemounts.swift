import CKernel
import Glibc
import Kernel

extension RootFilesystem {
    // MARK: By mount(2)

    /// A new filesystem by mount(2), for options that fsconfig(2) has no room or no name for.
    ///
    /// - Returns: the mount.
    func mountOldWay(
        _ mount: MountPlan, type: String, source: String, target: borrowing OwnedFD, data: [String],
        except late: MountAttributes
    ) throws -> OwnedFD {
        try Mounts.mount(
            type: type, source: source, on: target.raw, flags: mount.options.flags(except: late),
            data: MountPlan.joined(data), subject: mount.destination)
        // The mount covers its target. Seen with the target as the root, `..` is what is on top of it now: its path may
        // lead elsewhere by now.
        return try Root(adopting: target.duplicate(), name: mount.destination)
            .open("..", Int32(CK_O_PATH) | O_DIRECTORY)
    }

    // MARK: Remounts

    /// Changes the options of what an earlier entry has put at the destination: `remount`.
    mutating func remount(_ mount: MountPlan) throws {
        let target = try root.open(mount.destination, Int32(CK_O_PATH))
        // What devices and copies go into becomes read-only at the end.
        var late: MountAttributes = plan.populatesDev && mount.destination == "/dev" ? .readOnly : []
        switch mount.kind {
        case .bind: try remountBind(mount, target, except: late)
        case .filesystem(let type, let source):
            if type == "tmpfs" { late = .readOnly }
            try remountFilesystem(mount, target, type: type, source: source, except: late)
        case .cgroup: return
        }
        try applyRecursively(mount.options, to: target)
        try propagate(mount.options, target)
        guard mount.options.isReadOnly else { return try keepWritable(target, subject: mount.destination) }
        if !late.isEmpty { addLateReadOnly(target) }
    }

    private func remountFilesystem(
        _ mount: MountPlan, _ target: borrowing OwnedFD, type: String, source: String, except late: MountAttributes
    ) throws {
        let raw = target.raw
        var filesystem = statfs()
        try systemCall("fstatfs", mount.destination) { fstatfs(raw, &filesystem) }
        // Those of sysfs, mqueue and the cgroups are one for all mounts in a namespace, which may be the host's.
        if [0x6265_6572, 0x1980_0202, 0x6367_7270, 0x27_e0eb].contains(filesystem.f_type) {
            if let option = (mount.options.data + mount.options.superblock).first {
                throw RuntimeError("cannot be remounted with '\(option)': its filesystem may be the host's as well")
            }
            return try remountBind(mount, target, except: late)
        }
        let flags = UInt(MS_REMOUNT) | mount.options.flags(except: late)
        try explainingNoMount { () throws(KernelError) in
            try Mounts.mount(
                type: type, source: source, on: raw, flags: flags, data: MountPlan.joined(mount.options.data),
                subject: mount.destination)
        }
    }

    /// The attributes that are asked for and no others, as mount(8) does it; access times stay when nothing is said
    /// about them.
    private func remountBind(_ mount: MountPlan, _ target: borrowing OwnedFD, except late: MountAttributes) throws {
        let set = mount.options.set.subtracting(late)
        let all: MountAttributes = [.readOnly, .noSetuid, .noDevices, .noExecution, .noSymlinks]
        let clear = mount.options.clear.union(all).subtracting(set.subtracting(.accessTimeMask))
        let raw = target.raw
        try explainingNoMount { () throws(KernelError) in
            do throws(KernelError) {
                try Mounts.change(raw, set: set, clear: clear, subject: mount.destination)
            } catch {
                // In a user namespace some attributes are locked: they stay, unless the configuration clears them.
                guard error.errno == EPERM else { throw error }
                try Mounts.change(raw, set: set, clear: mount.options.clear, subject: mount.destination)
            }
        }
    }

    private func explainingNoMount(_ body: () throws(KernelError) -> Void) throws(KernelError) {
        do throws(KernelError) {
            try body()
        } catch {
            guard error.errno == EINVAL else { throw error }
            throw KernelError(
                "remount", error.subject, errno: EINVAL,
                hint: "is something mounted there, and does its filesystem have these options?")
        }
    }
}
