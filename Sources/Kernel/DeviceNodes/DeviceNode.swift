import CKernel
import Glibc
import Kernel

/// Why a device node could not be found or made.
package struct DeviceError: Error, Sendable, Equatable, CustomStringConvertible {
    /// The path or name of the node.
    package let subject: String
    /// What failed, the system's reason included.
    package let reason: String
    /// The error number, or 0 where no system call failed.
    package let errno: Int32

    /// Puts an error together; see the properties.
    package init(_ subject: String, _ reason: String, errno: Int32 = 0) {
        self.subject = subject
        self.reason = reason
        self.errno = errno
    }

    package var description: String {
        "device \(subject): \(reason)" + (errno == 0 ? "" : ": \(String(errno: errno))")
    }
}

/// A device node: where it lies, what it is, who may use it.
package struct DeviceNode: Sendable, Equatable {
    /// The type of file.
    package enum Kind: String, Sendable, Equatable, CaseIterable {
        case char = "c"
        case block = "b"
        /// A named pipe; its numbers are ignored.
        case fifo = "p"

        /// From the letter in an OCI specification; `u` (unbuffered) means the same as `c`.
        package init?(_ text: String) {
            switch text {
            case "c", "u": self = .char
            case "b": self = .block
            case "p": self = .fifo
            default: return nil
            }
        }

        var fileType: mode_t {
            switch self {
            case .char: S_IFCHR
            case .block: S_IFBLK
            case .fifo: S_IFIFO
            }
        }
    }

    /// The path; `create` uses its last component only.
    package var path: String
    /// The type of file.
    package var kind: Kind
    /// The driver.
    package var major: UInt32
    /// The driver's device.
    package var minor: UInt32
    /// Permission bits, without the file type.
    package var mode: mode_t
    /// The owner.
    package var uid: uid_t
    /// The owner's group.
    package var gid: gid_t

    /// A node as described; nothing is made or looked up.
    package init(
        _ path: String, _ kind: Kind, major: UInt32 = 0, minor: UInt32 = 0, mode: mode_t = 0o666, uid: uid_t = 0,
        gid: gid_t = 0
    ) {
        self.path = path
        self.kind = kind
        self.major = major
        self.minor = minor
        self.mode = mode & 0o7777
        self.uid = uid
        self.gid = gid
    }

    /// The largest numbers that mknod(2) can carry: 12 and 20 bits.
    package static let maximumMajor: UInt32 = 0xfff
    /// See `maximumMajor`.
    package static let maximumMinor: UInt32 = 0xfffff

    /// The nodes that every container has in /dev.
    package static let containerDefaults: [DeviceNode] = [
        DeviceNode("/dev/null", .char, major: 1, minor: 3),
        DeviceNode("/dev/zero", .char, major: 1, minor: 5),
        DeviceNode("/dev/full", .char, major: 1, minor: 7),
        DeviceNode("/dev/random", .char, major: 1, minor: 8),
        DeviceNode("/dev/urandom", .char, major: 1, minor: 9),
        DeviceNode("/dev/tty", .char, major: 5, minor: 0),
    ]

    /// The symbolic links that every container has in /dev.
    package static let containerLinks: [(path: String, target: String)] = [
        ("/dev/fd", "/proc/self/fd"), ("/dev/stdin", "/proc/self/fd/0"), ("/dev/stdout", "/proc/self/fd/1"),
        ("/dev/stderr", "/proc/self/fd/2"), ("/dev/ptmx", "pts/ptmx"),
    ]

    /// Reads what a node of this host is.
    ///
    /// - Throws: `DeviceError` when nothing is there or when it is no device (a symbolic link is followed).
    package static func discover(_ path: String) throws(DeviceError) -> DeviceNode {
        var information = stat()
        guard stat(path, &information) == 0 else {
            throw DeviceError(path, "cannot be read on this host", errno: errno)
        }
        let kind: Kind
        switch information.st_mode & S_IFMT {
        case S_IFCHR: kind = .char
        case S_IFBLK: kind = .block
        default: throw DeviceError(path, "is no character or block device on this host: name a device node")
        }
        return DeviceNode(
            path, kind, major: ck_major(UInt64(information.st_rdev)),
            minor: ck_minor(UInt64(information.st_rdev)), mode: information.st_mode & 0o7777, uid: information.st_uid,
            gid: information.st_gid)
    }

    /// The rule that lets a container use this node; nil for a pipe, which needs none.
    package func rule(_ access: DeviceAccess = .all) -> DeviceRule? {
        switch kind {
        case .char: DeviceRule(allow: true, .char, major: major, minor: minor, access: access)
        case .block: DeviceRule(allow: true, .block, major: major, minor: minor, access: access)
        case .fifo: nil
        }
    }

    /// Makes the node in a directory, which the caller resolved; only the last component of `path` is used.
    ///
    /// What is made is opened without following links and checked before its owner is set, so that somebody who swaps
    /// it meanwhile gains nothing. A node that is there already is taken when it is the same device. The process's
    /// umask is zero during the call: other threads must not make files then.
    /// - Parameters:
    ///   - directory: a descriptor of the directory; O_PATH is enough.
    ///   - procfs: a descriptor of a procfs of ours, or -1. It is needed only where a node exists with another mode or
    ///     the directory has a default ACL: chmod of an O_PATH descriptor goes through its link there.
    /// - Throws: `DeviceError` with EEXIST when something else has the name, EPERM without CAP_MKNOD or where the
    ///   device cgroup denies it.
    package func create(in directory: Int32, procfs: Int32 = -1) throws(DeviceError) {
        // Of bytes, as the kernel reads it.
        let slash = path.utf8.lastIndex(of: UInt8(ascii: "/"))
        let name = String(path[(slash.map { path.utf8.index(after: $0) } ?? path.startIndex)...])
        guard !name.isEmpty, name != ".", name != "..", name.utf8.count <= 255, !name.utf8.contains(0) else {
            throw DeviceError(path, "has no usable last component: name a file in a directory")
        }
        guard kind == .fifo || (major <= Self.maximumMajor && minor <= Self.maximumMinor) else {
            throw DeviceError(
                path, "number \(major):\(minor) is out of range: at most \(Self.maximumMajor):\(Self.maximumMinor)",
                errno: EINVAL)
        }
        let device = kind == .fifo ? 0 : ck_makedev(major, minor)
        let mask = umask(0)
        let result = mknodat(directory, name, kind.fileType | mode, dev_t(device))
        let number = errno
        if mask != 0 { umask(mask) }
        guard result == 0 || number == EEXIST else {
            throw DeviceError(path, "mknod \(kind.rawValue) \(major):\(minor)", errno: number)
        }
        var seen = stat()
        if result == 0, fstatat(directory, name, &seen, AT_SYMLINK_NOFOLLOW) == 0, seen.st_rdev == device,
            seen.st_mode == kind.fileType | mode, seen.st_uid == uid, seen.st_gid == gid
        {
            return
        }
        let raw = ck_openat(directory, name, Int32(CK_O_PATH) | O_NOFOLLOW | O_CLOEXEC, 0)
        guard raw >= 0 else { throw DeviceError(path, "cannot be opened after it was made", errno: errno) }
        let node = OwnedFD(adopting: raw)
        let made = try verified(node)
        if made.st_uid != uid || made.st_gid != gid {
            guard fchownat(node.raw, "", uid, gid, Int32(CK_AT_EMPTY_PATH)) == 0 else {
                throw DeviceError(path, "chown to \(uid):\(gid)", errno: errno)
            }
        }
        guard made.st_mode & 0o7777 != mode else { return }
        guard procfs >= 0 else {
            throw DeviceError(path, "has mode 0\(String(made.st_mode & 0o7777, radix: 8)) and cannot be changed here")
        }
        guard fchmodat(procfs, "self/fd/\(node.raw)", mode, 0) == 0 else {
            throw DeviceError(path, "chmod to 0\(String(mode, radix: 8))", errno: errno)
        }
    }

    /// What `node` is, once it is sure to be the device that is wanted.
    private func verified(_ node: borrowing OwnedFD) throws(DeviceError) -> stat {
        var information = stat()
        guard fstat(node.raw, &information) == 0 else { throw DeviceError(path, "fstat", errno: errno) }
        let numbersMatch =
            kind == .fifo
            || (ck_major(UInt64(information.st_rdev)) == major
                && ck_minor(UInt64(information.st_rdev)) == minor)
        guard information.st_mode & S_IFMT == kind.fileType, numbersMatch else {
            throw DeviceError(
                path, "something else has this name: remove it from the image or give the device another path",
                errno: EEXIST)
        }
        return information
    }
}
