import Glibc

/// One line of /proc/<pid>/mountinfo, see proc_pid_mountinfo(5).
package struct MountEntry: Sendable, Equatable {
    /// Unique while the mount lives, as its parent's below.
    package let id: UInt64
    package let parent: UInt64
    /// The filesystem's device number, of which this is one half.
    package let major: UInt32
    package let minor: UInt32
    /// The part of the filesystem that is mounted: `/`, or the source's path for a bind mount.
    package let root: String
    /// Where, as seen from the process's root.
    package let mountPoint: String
    /// Per-mount options: `ro`, `nosuid`, …
    package let options: [String]
    /// `shared:N`, `master:N`, `propagate_from:N`, `unbindable`; empty for a private mount.
    package let propagation: [String]
    /// The filesystem's type: `ext4`, `overlay`, …
    package let type: String
    /// What it was mounted from, by the name the mounter gave.
    package let source: String
    /// Options of the filesystem itself.
    package let superOptions: [String]

    /// True when mounts made here travel to peers.
    package var isShared: Bool { propagation.contains { $0.hasPrefix("shared:") } }
}

/// Reading mount tables.
package enum MountInfo {
    /// The mounts that a process sees, in the kernel's order.
    ///
    /// - Parameter process: a process number, or the calling thread, which may be in a mount namespace of its own.
    /// - Throws: `KernelError`; EFBIG above 64 MiB, EPROTO for a line that cannot be understood.
    package static func read(process: String = "thread-self") throws(KernelError) -> [MountEntry] {
        let path = "/proc/\(process)/mountinfo"
        let text = try File.read(path, limit: 64 << 20)
        var entries: [MountEntry] = []
        for line in text.split(separator: UInt8(ascii: "\n")) {
            guard let entry = parse(line) else {
                throw KernelError(
                    "parse", path, errno: EPROTO, hint: String(decoding: line.prefix(200), as: UTF8.self))
            }
            entries.append(entry)
        }
        return entries
    }

    /// One line; nil when it does not have the fields it must have.
    package static func parse(_ line: some Collection<UInt8>) -> MountEntry? {
        let fields = line.split(separator: UInt8(ascii: " "), omittingEmptySubsequences: false)
        guard let separator = fields.firstIndex(where: { $0.elementsEqual("-".utf8) }), separator >= 6,
            fields.count >= separator + 3
        else { return nil }
        let device = fields[2].split(separator: UInt8(ascii: ":"))
        guard let id = number(fields[0]), let parent = number(fields[1]), device.count == 2,
            let major = number(device[0]).flatMap({ UInt32(exactly: $0) }),
            let minor = number(device[1]).flatMap({ UInt32(exactly: $0) })
        else { return nil }
        return MountEntry(
            id: id, parent: parent, major: major, minor: minor, root: unescape(fields[3]),
            mountPoint: unescape(fields[4]), options: list(fields[5]),
            propagation: fields[6..<separator].filter { !$0.isEmpty }.map { String(decoding: $0, as: UTF8.self) },
            type: unescape(fields[separator + 1]), source: unescape(fields[separator + 2]),
            superOptions: fields.count > separator + 3 ? list(fields[separator + 3]) : [])
    }

    private static func number(_ bytes: some Collection<UInt8>) -> UInt64? {
        UInt64(String(decoding: bytes, as: UTF8.self))
    }

    private static func list(_ bytes: some Collection<UInt8>) -> [String] {
        bytes.split(separator: UInt8(ascii: ",")).map { unescape($0) }
    }

    /// Undoes the octal escapes of space, tab, newline and backslash.
    private static func unescape(_ bytes: some Collection<UInt8>) -> String {
        let source = Array(bytes)
        guard source.contains(UInt8(ascii: "\\")) else { return String(decoding: source, as: UTF8.self) }
        var result: [UInt8] = []
        var index = 0
        while index < source.count {
            if source[index] == UInt8(ascii: "\\"), index + 3 < source.count {
                let digits = source[(index + 1)...(index + 3)].map { Int($0) - 48 }
                if digits.allSatisfy({ (0...7).contains($0) }) {
                    result.append(UInt8(truncatingIfNeeded: digits[0] * 64 + digits[1] * 8 + digits[2]))
                    index += 4
                    continue
                }
            }
            result.append(source[index])
            index += 1
        }
        return String(decoding: result, as: UTF8.self)
    }
}
