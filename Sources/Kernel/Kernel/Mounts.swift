import CKernel
import Glibc

/// Attributes of one mount, see mount_setattr(2); the superblock's own flags are options of `FilesystemContext`.
package struct MountAttributes: OptionSet, Sendable, Hashable {
    package let rawValue: UInt64
    package init(rawValue: UInt64) { self.rawValue = rawValue }
    /// The standard library's would make types at run time, in every start of a container.
    package init(arrayLiteral elements: MountAttributes...) {
        rawValue = elements.reduce(0) { $0 | $1.rawValue }
    }
    /// MOUNT_ATTR_RDONLY; the names below follow the kernel's in the same way.
    package static let readOnly = MountAttributes(rawValue: UInt64(CK_MOUNT_ATTR_RDONLY))
    package static let noSetuid = MountAttributes(rawValue: UInt64(CK_MOUNT_ATTR_NOSUID))
    package static let noDevices = MountAttributes(rawValue: UInt64(CK_MOUNT_ATTR_NODEV))
    package static let noExecution = MountAttributes(rawValue: UInt64(CK_MOUNT_ATTR_NOEXEC))
    package static let noAccessTime = MountAttributes(rawValue: UInt64(CK_MOUNT_ATTR_NOATIME))
    package static let strictAccessTime = MountAttributes(rawValue: UInt64(CK_MOUNT_ATTR_STRICTATIME))
    package static let noDirectoryAccessTime = MountAttributes(rawValue: UInt64(CK_MOUNT_ATTR_NODIRATIME))
    package static let noSymlinks = MountAttributes(rawValue: UInt64(CK_MOUNT_ATTR_NOSYMFOLLOW))
    /// The field of access time modes; clear it whenever one of them is set. Relative access time is all bits clear.
    package static let accessTimeMask = MountAttributes(rawValue: UInt64(CK_MOUNT_ATTR_ATIME))
}

/// How mounts and unmounts travel between namespaces, see mount_namespaces(7).
package enum MountPropagation: Sendable, Hashable {
    case `private`, slave, shared, unbindable

    /// The MS_* constant.
    package var flag: UInt {
        switch self {
        case .private: UInt(MS_PRIVATE)
        case .slave: UInt(MS_SLAVE)
        case .shared: UInt(MS_SHARED)
        case .unbindable: UInt(MS_UNBINDABLE)
        }
    }
}

/// Mounts by descriptor (Linux 5.2, mount_setattr since 5.12): nothing is looked up twice.
package enum Mounts {
    /// A detached copy of the mount at `path` (and of those below it, if `recursive`). It goes away with its descriptor
    /// unless it is attached somewhere.
    package static func clone(
        _ path: String, recursive: Bool, followingSymlinks: Bool = true
    ) throws(KernelError) -> OwnedFD {
        var flags = UInt32(CK_OPEN_TREE_CLONE) | UInt32(CK_OPEN_TREE_CLOEXEC)
        if recursive { flags |= UInt32(CK_AT_RECURSIVE) }
        if !followingSymlinks { flags |= UInt32(CK_AT_SYMLINK_NOFOLLOW) }
        return OwnedFD(
            adopting: Int32(try systemCall("open_tree", path) { ck_open_tree(AT_FDCWD, path, flags) }))
    }

    /// A detached copy of what an open descriptor refers to; it must lie in the caller's mount namespace.
    package static func clone(
        of descriptor: Int32, recursive: Bool, subject: String
    ) throws(KernelError) -> OwnedFD {
        var flags =
            UInt32(CK_OPEN_TREE_CLONE) | UInt32(CK_OPEN_TREE_CLOEXEC) | UInt32(CK_AT_EMPTY_PATH)
        if recursive { flags |= UInt32(CK_AT_RECURSIVE) }
        return OwnedFD(
            adopting: Int32(try systemCall("open_tree", subject) { ck_open_tree(descriptor, "", flags) }))
    }

    /// A file on a read-only copy of its mount, which is nowhere else. Whoever executes the file through it, and whoever gets
    /// at the file by way of such a process (`/proc/<pid>/exe`), cannot write it (CVE-2019-5736).
    ///
    /// - Returns: an O_PATH descriptor. That of the copy itself is closed: as long as it is open, everybody with mount rights
    ///   in some namespace could make the copy writable again, mount_setattr(2).
    package static func cloneReadOnly(_ file: String) throws(KernelError) -> OwnedFD {
        let clone = try clone(file, recursive: false)
        try change(clone.raw, set: .readOnly, subject: file)
        return try File.open("/proc/self/fd/\(clone.raw)", Int32(CK_O_PATH))
    }

    /// Puts a detached (or moves an attached) mount on what `target` refers to.
    package static func attach(
        _ mount: borrowing OwnedFD, on target: Int32, subject: String
    ) throws(KernelError) {
        let raw = mount.raw
        let flags = UInt32(CK_MOVE_MOUNT_F_EMPTY_PATH) | UInt32(CK_MOVE_MOUNT_T_EMPTY_PATH)
        try systemCall("move_mount", subject) { ck_move_mount(raw, "", target, "", flags) }
    }

    /// Puts a mount on an entry of an open directory; a symbolic link is not followed.
    package static func attach(
        _ mount: borrowing OwnedFD, in directory: Int32, _ name: String, subject: String
    ) throws(KernelError) {
        let raw = mount.raw
        try systemCall("move_mount", subject) {
            ck_move_mount(raw, "", directory, name, UInt32(CK_MOVE_MOUNT_F_EMPTY_PATH))
        }
    }

    /// Puts a mount on a host path.
    package static func attach(_ mount: borrowing OwnedFD, at path: String) throws(KernelError) {
        let raw = mount.raw
        try systemCall("move_mount", path) {
            ck_move_mount(raw, "", AT_FDCWD, path, UInt32(CK_MOVE_MOUNT_F_EMPTY_PATH))
        }
    }

    /// Changes attributes and propagation of a mount, and of all below it if `recursive`.
    ///
    /// - Parameter mapping: a user namespace to map ids through (an id-mapped mount), or -1.
    package static func change(
        _ mount: Int32, set: MountAttributes = [], clear: MountAttributes = [],
        propagation: MountPropagation? = nil, recursive: Bool = false, mapping: Int32 = -1, subject: String
    ) throws(KernelError) {
        let flags = UInt32(CK_AT_EMPTY_PATH) | (recursive ? UInt32(CK_AT_RECURSIVE) : 0)
        let added = set.rawValue | (mapping >= 0 ? UInt64(CK_MOUNT_ATTR_IDMAP) : 0)
        try systemCall("mount_setattr", subject) {
            ck_mount_setattr(
                mount, "", flags, added, clear.rawValue, UInt64(propagation?.flag ?? 0), mapping)
        }
    }

    /// The number of the mount that an open file lies in, see STATX_MNT_ID in statx(2): the same for every descriptor
    /// of it, as long as the mount is there.
    package static func id(of descriptor: Int32, subject: String) throws(KernelError) -> UInt64 {
        var id: UInt64 = 0
        try systemCall("statx", subject) { ck_mount_id(descriptor, &id) }
        return id
    }

    /// mount(2) of a new filesystem on an open target, for options that the new interface cannot carry (a value over
    /// 255 bytes). Needs procfs at /proc.
    package static func mount(
        type: String, source: String, on target: Int32, flags: UInt, data: String, subject: String
    ) throws(KernelError) {
        try systemCall("mount(\(type))", subject) {
            Glibc.mount(source, "/proc/self/fd/\(target)", type, flags, data)
        }
    }

    /// Changes the propagation of the mount at a path of the caller's namespace, and of all below it if `recursive`.
    package static func setPropagation(
        _ propagation: MountPropagation, at path: String, recursive: Bool
    ) throws(KernelError) {
        let flags = propagation.flag | (recursive ? UInt(MS_REC) : 0)
        try systemCall("mount(propagation)", path) { Glibc.mount(nil, path, nil, flags, nil) }
    }

    /// Takes the mount at `path` away at once; it ends when nobody uses it any more. Never follows a symbolic link.
    package static func detach(_ path: String) throws(KernelError) {
        // MNT_DETACH | UMOUNT_NOFOLLOW; Swift's Glibc has them as an enum of another type.
        try systemCall("umount", path) { umount2(path, 2 | 8) }
    }

    /// Takes everything away that is mounted at or below these directories in this process's namespace, the newest first.
    /// What goes meanwhile by itself is fine.
    package static func detachAll(below directories: [String]) throws(KernelError) {
        let points = try MountInfo.read().map(\.mountPoint).filter { point in
            directories.contains { point == $0 || point.hasPrefix($0 + "/") }
        }
        for point in points.reversed() {
            do {
                try detach(point)
            } catch {
                guard error.errno == EINVAL || error.errno == ENOENT else { throw error }
            }
        }
    }
}

/// A filesystem being configured, see fsopen(2); `create` mounts it detached.
package struct FilesystemContext: ~Copyable, Sendable {
    private let context: OwnedFD
    /// The filesystem's type, for errors.
    package let type: String
    /// The longest value fsconfig(2) takes, in bytes.
    package static let maximumValue = 255

    /// - Throws: `KernelError`; ENODEV when the kernel has no such filesystem.
    package init(_ type: String) throws(KernelError) {
        self.type = type
        do throws(KernelError) {
            context = OwnedFD(
                adopting: Int32(try systemCall("fsopen", type) { ck_fsopen(type, UInt32(CK_FSOPEN_CLOEXEC)) }))
        } catch {
            guard error.errno == ENODEV else { throw error }
            throw KernelError("fsopen", type, errno: ENODEV, hint: "this kernel has no filesystem '\(type)'")
        }
    }

    /// Sets an option that has no value.
    package borrowing func set(_ key: String) throws(KernelError) {
        let raw = context.raw
        try explained("option \(key)") { () throws(KernelError) in
            try systemCall("fsconfig", key) { ck_fsconfig(raw, UInt32(CK_FSCONFIG_SET_FLAG), key, nil, 0) }
        }
    }

    /// Sets `key=value`; the value has at most 255 bytes.
    package borrowing func set(_ key: String, _ value: String) throws(KernelError) {
        let raw = context.raw
        try explained("option \(key)=\(value)") { () throws(KernelError) in
            try systemCall("fsconfig", key) {
                value.withCString { ck_fsconfig(raw, UInt32(CK_FSCONFIG_SET_STRING), key, $0, 0) }
            }
        }
    }

    /// Makes the superblock and mounts it, detached.
    package borrowing func create(_ attributes: MountAttributes = []) throws(KernelError) -> OwnedFD {
        let raw = context.raw
        try explained("") { () throws(KernelError) in
            try systemCall("fsconfig(create)") {
                ck_fsconfig(raw, UInt32(CK_FSCONFIG_CMD_CREATE), nil, nil, 0)
            }
        }
        return OwnedFD(
            adopting: Int32(
                try systemCall("fsmount", type) {
                    ck_fsmount(raw, UInt32(CK_FSMOUNT_CLOEXEC), UInt32(attributes.rawValue))
                }))
    }

    /// Adds what the filesystem itself said to an error.
    private borrowing func explained(
        _ subject: String, _ body: () throws(KernelError) -> Void
    ) throws(KernelError) {
        do throws(KernelError) {
            try body()
        } catch {
            throw KernelError(
                "mount of \(type)", subject, errno: error.errno, hint: messages().joined(separator: "; "))
        }
    }

    /// The messages in the context's log, without their severity letter.
    private borrowing func messages() -> [String] {
        var result: [String] = []
        var buffer = [UInt8](repeating: 0, count: 1024)
        while result.count < 8 {
            let count = buffer.withUnsafeMutableBytes { read(context.raw, $0.baseAddress, $0.count) }
            if count <= 2 { break }
            result.append(String(decoding: buffer[2..<count], as: UTF8.self).filter { $0 != "\n" })
        }
        return result
    }
}
