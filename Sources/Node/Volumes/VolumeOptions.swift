import CKernel
import Glibc
import Kernel
import Synchronization

/// How a volume is mounted on its node, as mount(8) and Docker's local driver say it: `type`, `device`, `o`.
package struct VolumeOptions: Sendable, Equatable {
    package enum Source: Sendable, Equatable {
        /// The volume's own directory.
        case directory
        /// A file system in memory, with the kernel's options (tmpfs(5)).
        case tmpfs(options: [String])
        /// A directory of the node.
        case bind(path: String, recursive: Bool)
        /// `nfs` or `nfs4` (nfs(5)); the options contain `addr`.
        case nfs(type: String, device: String, options: [String])
    }

    package var source: Source
    package var attributes: MountAttributes = []

    /// Bytes of one option's value.
    private static let longest = 4095

    /// - Throws: `VolumeError`: invalidArgument; unsupported, naming what is not known.
    package init(_ options: [String: String]) throws {
        source = .directory
        guard !options.isEmpty else { return }
        for (key, value) in options.sorted(by: { $0.key < $1.key }) {
            guard ["type", "device", "o"].contains(key) else {
                throw VolumeError(
                    .unsupported,
                    "the volume option '\(Self.shown(key))' is not supported: there are type, device and o")
            }
            guard value.utf8.count <= Self.longest, value.utf8.allSatisfy({ $0 >= 0x20 && $0 != 0x7f }) else {
                throw VolumeError(
                    .invalidArgument,
                    "the volume option '\(key)' has at most \(Self.longest) bytes and no control characters")
            }
        }
        let words = (options["o"] ?? "").split(separator: ",").map(String.init)
        let type = options["type"] ?? ""
        let device = options["device"] ?? ""
        switch type {
        case "tmpfs":
            source = .tmpfs(options: try rest(words, known: Self.memoryOptions, of: "tmpfs"))
        case "", "none", "bind":
            let recursive = words.contains("rbind")
            guard recursive || words.contains("bind") || type == "bind" else {
                throw VolumeError(
                    .invalidArgument, "a volume of the type '\(type)' needs 'bind' in its option o, and a device")
            }
            guard device.isAbsolutePath else {
                throw VolumeError(
                    .invalidArgument, "the volume's device '\(Self.shown(device))' is no absolute path of the node")
            }
            source = .bind(path: device, recursive: recursive)
            _ = try rest(words.filter { $0 != "bind" && $0 != "rbind" }, known: [], of: "bind")
        case "nfs", "nfs4":
            let left = try rest(words, known: nil, of: type)
            guard device.contains(":"), left.contains(where: { Self.address($0) != nil }) else {
                throw VolumeError(
                    .invalidArgument,
                    "a volume of the type \(type) needs a device as ':/path' and in its option o the server's "
                        + "'addr=', an IP address")
            }
            source = .nfs(type: type, device: device, options: left)
        default:
            throw VolumeError(
                .unsupported,
                "a volume of the type '\(Self.shown(type))' is not supported: there are tmpfs, none (with o=bind), "
                    + "nfs and nfs4")
        }
    }

    private static let memoryOptions: Set<String> = [
        "size", "nr_blocks", "nr_inodes", "mode", "uid", "gid", "huge", "inode32", "inode64",
    ]

    private static let flags: [String: (set: MountAttributes, clear: MountAttributes)] = [
        "ro": (.readOnly, []), "rw": ([], .readOnly), "nosuid": (.noSetuid, []), "suid": ([], .noSetuid),
        "nodev": (.noDevices, []), "dev": ([], .noDevices), "noexec": (.noExecution, []), "exec": ([], .noExecution),
        "noatime": (.noAccessTime, []), "nodiratime": (.noDirectoryAccessTime, []), "relatime": ([], []),
        "defaults": ([], []),
    ]

    /// Takes the flags out, and checks the others.
    ///
    /// - Parameter known: nil: the file system says itself what it does not know.
    private mutating func rest(_ words: [String], known: Set<String>?, of type: String) throws -> [String] {
        try words.filter { word in
            if let flag = Self.flags[word] {
                attributes.subtract(flag.clear)
                attributes.formUnion(flag.set)
                return false
            }
            let key = String(word.prefix { $0 != "=" })
            guard known?.contains(key) ?? true, !key.isEmpty else {
                throw VolumeError(
                    .unsupported, "the option '\(Self.shown(key))' of a \(type) volume is not supported")
            }
            return true
        }
    }

    /// The address of `addr=192.0.2.1`.
    private static func address(_ word: String) -> String? {
        guard word.hasPrefix("addr=") else { return nil }
        let text = String(word.dropFirst(5))
        var (four, six) = (in_addr(), in6_addr())
        return inet_pton(AF_INET, text, &four) == 1 || inet_pton(AF_INET6, text, &six) == 1 ? text : nil
    }

    private static func shown(_ text: String) -> String { ByteName.text(text.utf8) }
}

extension VolumeStore {
    /// Has a volume's data be what its options say, if it is not yet: before a container gets it.
    ///
    /// - Returns: whether it is a directory of its own, and nothing was to be mounted.
    /// - Throws: `VolumeError`: notFound, invalidArgument, refused, system.
    package func mount(_ name: String) throws -> Bool {
        let options = try VolumeOptions(try inspect(name).options)
        if options.source == .directory { return true }
        let target = try path(name)
        try VolumeError.explaining("mounting the volume \(name)") {
            try turns.withTurn(name) {
                if try isMounted(name) { return }
                switch options.source {
                case .directory: return
                case .tmpfs(let words):
                    let context = try FilesystemContext("tmpfs")
                    try context.set("source", name)
                    for word in words {
                        let pair = word.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
                        if pair.count == 2 {
                            try context.set(String(pair[0]), String(pair[1]))
                        } else {
                            try context.set(word)
                        }
                    }
                    try Mounts.attach(try context.create(options.attributes), at: target)
                case .bind(let path, let recursive):
                    let source = try openBindSource(path)
                    guard source.isDirectory else {
                        throw VolumeError(
                            .invalidArgument,
                            "the device '\(ByteName.text(path.utf8))' of the volume \(name) is no directory")
                    }
                    let tree = try Mounts.clone(
                        of: source.descriptor.raw, recursive: recursive, subject: source.path)
                    try Mounts.change(
                        tree.raw, set: options.attributes, propagation: .private, recursive: recursive, subject: name)
                    try Mounts.attach(tree, at: target)
                case .nfs(let type, let device, let words):
                    let place = try File.open(target, Int32(CK_O_PATH) | O_DIRECTORY | O_NOFOLLOW)
                    try Mounts.mount(
                        type: type, source: device, on: place.raw, flags: options.attributes.oldFlags,
                        data: words.joined(separator: ","), subject: name)
                }
            }
        }
        return false
    }

    /// Takes away what `mount` has mounted; what still uses it keeps it. Nothing happens to a volume that is a directory.
    ///
    /// - Parameter inUse: as of `remove`; nothing happens to a volume that is among them.
    package func unmount(_ name: String, inUse: @autoclosure () -> Set<String> = []) throws {
        guard let record = volumes.withLock({ $0[name] }), !record.options.isEmpty else { return }
        try VolumeError.explaining("unmounting the volume \(name)") {
            try turns.withTurn(name) {
                if inUse().contains(name) { return }
                while try isMounted(name) { try Mounts.detach("\(directory(name))/_data") }
            }
        }
    }

    /// Whether something is mounted on a volume's data. Asks the kernel's table and never what is mounted, whose server may
    /// be away.
    private func isMounted(_ name: String) throws -> Bool {
        let directory = directory(name)
        guard let resolved = realpath(directory, nil) else { throw KernelError("realpath", directory, errno: errno) }
        defer { free(resolved) }
        let place = String(cString: resolved) + "/_data"
        return try MountInfo.read().contains { $0.mountPoint == place }
    }
}

extension MountAttributes {
    /// As mount(2) has them.
    fileprivate var oldFlags: UInt {
        let names: [(MountAttributes, UInt)] = [
            (.readOnly, UInt(MS_RDONLY)), (.noSetuid, UInt(MS_NOSUID)), (.noDevices, UInt(MS_NODEV)),
            (.noExecution, UInt(MS_NOEXEC)), (.noAccessTime, UInt(MS_NOATIME)),
            (.noDirectoryAccessTime, UInt(MS_NODIRATIME)),
        ]
        return names.reduce(0) { contains($1.0) ? $0 | $1.1 : $0 }
    }
}
