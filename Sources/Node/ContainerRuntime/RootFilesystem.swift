import CKernel
import Cgroups
import Glibc
import Kernel

/// The container's tree of mounts, being built in the container's mount namespace.
///
/// Everything is found from a descriptor of the root (`Root`) and mounted by descriptor, so that neither a symbolic
/// link in an image nor a container that shares a volume can lead a mount elsewhere.
struct RootFilesystem: ~Copyable {
    let plan: ContainerPlan
    let root: Root
    /// Mounts that are made writable first and become read-only at the end: tmpfs, which devices go into.
    private var lateReadOnly: [SharedFD] = []

    /// Cuts the namespace off from the host's and mounts the root on itself.
    init(_ plan: ContainerPlan) throws {
        self.plan = plan
        let wanted = plan.rootPropagation
        let shared = wanted?.kind == .shared
        if shared {
            // The whole tree stays connected to the host's, as `shared` asks, except where the root goes: what is
            // mounted there must not appear on the host.
            try Mounts.setPropagation(.shared, at: "/", recursive: true)
            try Self.makeParentPrivate(of: plan.rootfs)
        } else {
            try Mounts.setPropagation(.slave, at: "/", recursive: true)
            // From the beginning: what a mount asks for itself counts for that mount.
            if let wanted, wanted.kind == .private, wanted.recursive {
                try Mounts.setPropagation(.private, at: "/", recursive: true)
            }
        }
        let tree = try Mounts.clone(plan.rootfs, recursive: true)
        try Mounts.attach(tree, at: plan.rootfs)
        if shared {
            // pivot_root refuses a shared root; the final propagation is set after it.
            try Mounts.change(tree.raw, propagation: .private, subject: plan.rootfs)
        }
        root = Root(adopting: tree, name: plan.rootfs)
    }

    private static func makeParentPrivate(of path: String) throws {
        let parents = try MountInfo.read().filter { entry in
            entry.mountPoint == "/" || path == entry.mountPoint || path.isPath(inside: entry.mountPoint)
        }
        guard let parent = parents.max(by: { $0.mountPoint.utf8.count < $1.mountPoint.utf8.count }) else { return }
        try Mounts.setPropagation(.private, at: parent.mountPoint, recursive: false)
    }

    /// Makes mounts of the configuration, in order.
    mutating func mountAll(_ mounts: ArraySlice<MountPlan>) throws {
        for mount in mounts {
            try withContext("\(mount.path) (\(mount.destination))") {
                if mount.options.remount { return try remount(mount) }
                switch mount.kind {
                case .bind(let source): try bind(mount, source: source)
                case .filesystem(let type, let source): try mountFilesystem(mount, type: type, source: source)
                case .cgroup: try mountCgroups(mount)
                }
            }
        }
    }

    // MARK: Bind mounts

    private func bind(_ mount: MountPlan, source: String) throws {
        let tree = try bindSource(mount, path: source)
        let isProcfs = try Self.isProcfs(tree)
        try apply(mount.options, to: tree)
        var info = stat()
        try systemCall("fstat", source) { fstat(tree.raw, &info) }
        if info.st_mode & S_IFMT == S_IFDIR {
            let target = try root.makeDirectories(mount.destination)
            try checkTarget(mount, target, isProcfs: isProcfs)
            try Mounts.attach(tree, on: target.raw, subject: mount.destination)
        } else {
            let target = try root.makeFile(mount.destination)
            try checkTarget(mount, target, isProcfs: false)
            try Mounts.attach(tree, on: target.raw, subject: mount.destination)
        }
        try propagate(mount.options, tree)
    }

    /// A detached copy of what is to be bound.
    private func bindSource(_ mount: MountPlan, path: String) throws -> OwnedFD {
        if let opened = mount.source { return try opened.duplicate() }
        guard let inside = plan.placeInRoot(path) else { return try mount.clone(path) }
        // What earlier entries have mounted there counts, and a link of the image's leads nowhere else.
        return try mount.clone(of: try root.open(inside, Int32(CK_O_PATH)), path)
    }

    /// Attributes, set before anybody can see the mount.
    private func apply(_ options: MountOptions, to tree: borrowing OwnedFD) throws {
        if !options.set.isEmpty || !options.clear.isEmpty {
            try Mounts.change(tree.raw, set: options.set, clear: options.clear, subject: "mount attributes")
        }
        try applyRecursively(options, to: tree)
    }

    /// Attributes of a mount and of all below it.
    func applyRecursively(_ options: MountOptions, to tree: borrowing OwnedFD) throws {
        if !options.setRecursively.isEmpty || !options.clearRecursively.isEmpty {
            try Mounts.change(
                tree.raw, set: options.setRecursively, clear: options.clearRecursively, recursive: true,
                subject: "recursive mount attributes")
        }
    }

    func propagate(_ options: MountOptions, _ tree: borrowing OwnedFD) throws {
        for propagation in options.propagation {
            try Mounts.change(
                tree.raw, propagation: propagation.kind, recursive: propagation.recursive, subject: "mount propagation")
        }
    }

    // MARK: Filesystems

    private mutating func mountFilesystem(_ mount: MountPlan, type: String, source: String) throws {
        let target: OwnedFD
        var data = mount.options.data
        // What the image has there decides, unless the configuration does.
        let takesMode =
            type == "tmpfs" && !data.contains { $0.hasPrefix("mode=") } && root.exists(mount.destination)
        if type == "proc" || type == "sysfs" {
            target = try plainDirectory(mount.destination, type: type)
        } else {
            target = try root.makeDirectories(mount.destination)
        }
        try checkTarget(mount, target, isProcfs: type == "proc")
        if takesMode { data.append("mode=\(try Self.mode(of: target))") }
        let late: MountAttributes = type == "tmpfs" ? .readOnly : []
        // What options do not fit through fsconfig(2) goes the old way, in one string.
        if mount.options.countsVersions || data.contains(where: { $0.utf8.count > FilesystemContext.maximumValue }) {
            let made = try mountOldWay(mount, type: type, source: source, target: target, data: data, except: late)
            if mount.options.copiesUp { try TmpfsCopy.run(from: target, to: made, subject: mount.destination) }
            return try settle(made, mount, except: late)
        }
        let made = try make(mount, type: type, source: source, data: data, except: late)
        if mount.options.copiesUp { try TmpfsCopy.run(from: target, to: made, subject: mount.destination) }
        try Mounts.attach(made, on: target.raw, subject: mount.destination)
        try settle(made, mount, except: late)
    }

    /// What comes after a filesystem is in its place.
    private mutating func settle(
        _ made: consuming OwnedFD, _ mount: MountPlan, except late: MountAttributes
    ) throws {
        try applyRecursively(mount.options, to: made)
        try propagate(mount.options, made)
        if mount.options.isReadOnly && !late.isEmpty { addLateReadOnly(made) }
    }

    /// A filesystem by fsconfig(2), detached.
    private func make(
        _ mount: MountPlan, type: String, source: String, data: [String], except late: MountAttributes
    ) throws -> OwnedFD {
        let context = try FilesystemContext(type)
        try context.set("source", source)
        for option in data {
            if let equals = option.firstIndex(of: "=") {
                try context.set(String(option[..<equals]), String(option[option.index(after: equals)...]))
            } else {
                try context.set(option)
            }
        }
        for flag in mount.options.superblock { try context.set(flag) }
        // Filesystems of which a container has an instance of its own are made read-only by the mount alone.
        let virtual = ["proc", "sysfs", "tmpfs", "devpts", "mqueue", "cgroup2"].contains(type)
        if mount.options.isReadOnly && !virtual { try context.set("ro") }
        let made = try context.create(mount.options.set.subtracting(late))
        if type == "mqueue" { try plan.labelRoot(of: made) }
        return made
    }

    /// procfs and sysfs go on real directories only: behind a symbolic link, what is masked later would lie elsewhere
    /// than where programs look.
    private func plainDirectory(_ path: String, type: String) throws -> OwnedFD {
        do throws(KernelError) {
            return try root.open(path, Int32(CK_O_PATH) | O_DIRECTORY | O_NOFOLLOW, .withoutSymlinks)
        } catch {
            if error.errno == ELOOP || error.errno == ENOTDIR {
                throw RuntimeError(
                    "filesystem \(type) must be mounted on ordinary directory: \(path) is something else")
            }
            guard error.errno == ENOENT else { throw error }
        }
        // Made by us where nothing was; a link that appears meanwhile is caught by the second look.
        _ = try root.makeDirectories(path)
        return try root.open(path, Int32(CK_O_PATH) | O_DIRECTORY | O_NOFOLLOW, .withoutSymlinks)
    }

    private static func mode(of directory: borrowing OwnedFD) throws -> String {
        var info = stat()
        let raw = directory.raw
        try systemCall("fstat") { fstat(raw, &info) }
        return String(info.st_mode & 0o7777, radix: 8)
    }

    /// Remembers a mount that becomes read-only at the end.
    mutating func addLateReadOnly(_ mount: consuming OwnedFD) { lateReadOnly.append(SharedFD(mount)) }

    /// Forgets that a mount shall become read-only: a later entry has remounted it without saying so.
    mutating func keepWritable(_ mount: borrowing OwnedFD, subject: String) throws(KernelError) {
        if lateReadOnly.isEmpty { return }
        let kept = try Mounts.id(of: mount.raw, subject: subject)
        for index in lateReadOnly.indices.reversed()
        where try Mounts.id(of: lateReadOnly[index].raw, subject: subject) == kept {
            lateReadOnly.remove(at: index)
        }
    }

    // MARK: /proc

    /// Files below /proc that LXCFS and the like put their own version over.
    private static let allowedInProc: Set<String> = [
        "/proc/cpuinfo", "/proc/diskstats", "/proc/meminfo", "/proc/stat", "/proc/swaps", "/proc/uptime",
        "/proc/loadavg", "/proc/slabinfo", "/proc/net/dev", "/proc/sys/kernel/ns_last_pid",
        "/proc/sys/crypto/fips_enabled",
    ]

    /// Nothing but a procfs may stand for /proc, and nothing may hide parts of it: programs in the container, and ours
    /// when they enter it, trust what they read and write there. What counts is where the mount really goes, whatever
    /// its destination is called and whichever links lead there.
    private func checkTarget(_ mount: MountPlan, _ target: borrowing OwnedFD, isProcfs: Bool) throws {
        var filesystem = statfs()
        let raw = target.raw
        try systemCall("fstatfs", mount.destination) { fstatfs(raw, &filesystem) }
        if filesystem.f_type == CK_PROC_SUPER_MAGIC {
            if isProcfs && mount.destination == "/proc" { return }
            let plain = try? root.open(mount.destination, Int32(CK_O_PATH), .withoutSymlinks).raw
            if Self.allowedInProc.contains(mount.destination), plain != nil { return }
            throw RuntimeError("cannot be mounted because it is inside /proc; only some files there may be")
        }
        if isProcfs { return }
        var proc = stat()
        var place = stat()
        try systemCall("fstat", mount.destination) { fstat(raw, &place) }
        guard let directory = try? root.open("/proc", Int32(CK_O_PATH)), fstat(directory.raw, &proc) == 0 else {
            return
        }
        guard proc.st_dev != place.st_dev || proc.st_ino != place.st_ino else {
            throw RuntimeError("cannot be mounted because it is /proc; only a procfs may be mounted there")
        }
    }

    /// Whether a tree is a whole procfs.
    private static func isProcfs(_ tree: borrowing OwnedFD) throws -> Bool {
        var filesystem = statfs()
        var node = stat()
        let raw = tree.raw
        try systemCall("fstatfs") { fstatfs(raw, &filesystem) }
        try systemCall("fstat") { fstat(raw, &node) }
        // PROC_ROOT_INO
        return filesystem.f_type == CK_PROC_SUPER_MAGIC && node.st_ino == 1
    }

    // MARK: The end

    /// Makes the container's root the process's root and lets go of the host's tree.
    func pivot() throws {
        let old = try File.open("/", Int32(CK_O_PATH) | O_DIRECTORY)
        try systemCall("fchdir", plan.rootfs) { fchdir(root.directory.raw) }
        try systemCall("pivot_root", plan.rootfs) { Int32(ck_pivot_root(".", ".")) }
        try systemCall("fchdir", "the old root") { fchdir(old.raw) }
        // The unmount must not travel back to the host.
        try Mounts.setPropagation(.slave, at: ".", recursive: true)
        try Mounts.detach(".")
        try systemCall("chdir", "/") { chdir("/") }
    }

    /// What has to wait until everything is in place: read-only root and tmpfs.
    func finish() throws {
        for mount in lateReadOnly { try Mounts.change(mount.raw, set: .readOnly, subject: "a read-only tmpfs") }
        if plan.readonlyRoot {
            try Mounts.change(root.directory.raw, set: .readOnly, subject: "the root filesystem")
        }
    }

    /// The root's propagation, after the last mount: what is unbindable cannot be masked, and what is shared has peers.
    func propagateRoot() throws {
        guard let propagation = plan.rootPropagation else { return }
        switch propagation.kind {
        // The whole tree is, since the beginning.
        case .slave: return
        case .private:
            try Mounts.change(root.directory.raw, propagation: .private, subject: "the root filesystem")
        case .shared, .unbindable:
            try Mounts.change(
                root.directory.raw, propagation: propagation.kind, recursive: propagation.recursive,
                subject: "the root filesystem")
        }
    }
}
