import Kernel

/// The options of a mount in config.json, sorted by what they act on.
struct MountOptions: Equatable {
    /// Attributes to set and to clear on the mount itself.
    var set: MountAttributes = []
    var clear: MountAttributes = []
    /// The same for the mount and all below it (`rro`, …; they need mount_setattr).
    var setRecursively: MountAttributes = []
    var clearRecursively: MountAttributes = []
    /// In the order in which they were given.
    var propagation: [Propagation] = []
    /// `bind` and `rbind`.
    var bind = false
    var recursive = false
    /// Flags of the superblock that fsconfig(2) knows by these names.
    var superblock: [String] = []
    /// Everything else: options of the filesystem, `key=value` or `key`.
    var data: [String] = []

    struct Propagation: Equatable {
        let kind: MountPropagation
        let recursive: Bool
    }

    /// Whether an option says read-only.
    var isReadOnly: Bool { self.set.contains(.readOnly) }
}

extension MountOptions {
    private enum Effect {
        case attribute(set: MountAttributes, clear: MountAttributes)
        case recursiveAttribute(set: MountAttributes, clear: MountAttributes)
        case propagation(MountPropagation, recursive: Bool)
        case superblock(String)
        case bind(recursive: Bool)
        case nothing
        case refused(String)
    }

    /// All names that are no filesystem's own option.
    static var knownNames: [String] {
        effects.keys.filter {
            if case .refused = effects[$0] { false } else { true }
        }.sorted()
    }

    private static let effects: [String: Effect] = {
        var table: [String: Effect] = [
            "defaults": .nothing, "bind": .bind(recursive: false), "rbind": .bind(recursive: true),
            "tmpcopyup": .refused("it is not supported; mount a tmpfs without it"),
            "private": .propagation(.private, recursive: false), "rprivate": .propagation(.private, recursive: true),
            "slave": .propagation(.slave, recursive: false), "rslave": .propagation(.slave, recursive: true),
            "shared": .propagation(.shared, recursive: false), "rshared": .propagation(.shared, recursive: true),
            "unbindable": .propagation(.unbindable, recursive: false),
            "runbindable": .propagation(.unbindable, recursive: true),
            "sync": .superblock("sync"), "async": .superblock("async"), "dirsync": .superblock("dirsync"),
            "lazytime": .superblock("lazytime"), "nolazytime": .superblock("nolazytime"),
            "mand": .superblock("mand"), "nomand": .superblock("nomand"),
            "iversion": .refused("it belongs to no filesystem that a container may have of its own"),
            "noiversion": .nothing, "silent": .nothing, "loud": .nothing,
            "idmap": .refused("id-mapped mounts are not supported"),
            "ridmap": .refused("id-mapped mounts are not supported"),
            "remount": .refused("remounting is not supported"),
            "move": .refused("moving a mount is not supported"),
        ]
        let attributes: [(on: String, off: String, MountAttributes)] = [
            ("ro", "rw", .readOnly), ("nosuid", "suid", .noSetuid), ("nodev", "dev", .noDevices),
            ("noexec", "exec", .noExecution), ("nodiratime", "diratime", .noDirectoryAccessTime),
            ("nosymfollow", "symfollow", .noSymlinks),
        ]
        for (on, off, attribute) in attributes {
            table[on] = .attribute(set: attribute, clear: [])
            table[off] = .attribute(set: [], clear: attribute)
            table["r" + on] = .recursiveAttribute(set: attribute, clear: [])
            table["r" + off] = .recursiveAttribute(set: [], clear: attribute)
        }
        // The three access time modes share one field: setting one clears the field first.
        let times: [(String, MountAttributes)] = [
            ("noatime", .noAccessTime), ("strictatime", .strictAccessTime), ("relatime", []),
            ("atime", []), ("nostrictatime", []), ("norelatime", []),
        ]
        for (name, mode) in times {
            table[name] = .attribute(set: mode, clear: .accessTimeMask)
            table["r" + name] = .recursiveAttribute(set: mode, clear: .accessTimeMask)
        }
        return table
    }()

    /// - Parameter path: the place in config.json, for errors.
    /// - Throws: `RefusedField` for an option that this runtime does not honour.
    init(_ options: [String], path: String) throws {
        for (index, option) in options.enumerated() {
            guard let effect = Self.effects[option] else {
                data.append(option)
                continue
            }
            switch effect {
            case .attribute(let set, let clear): Self.apply(set, clear, &self.set, &self.clear)
            case .recursiveAttribute(let set, let clear):
                Self.apply(set, clear, &setRecursively, &clearRecursively)
            case .propagation(let kind, let recursive):
                propagation.append(Propagation(kind: kind, recursive: recursive))
            case .superblock(let name): superblock.append(name)
            case .bind(let recursive):
                bind = true
                if recursive { self.recursive = true }
            case .nothing: break
            case .refused(let reason): throw RefusedField("\(path)[\(index)] (\(option))", reason)
            }
        }
    }

    /// The later of two options that contradict each other wins.
    private static func apply(
        _ set: MountAttributes, _ clear: MountAttributes, _ allSet: inout MountAttributes,
        _ allClear: inout MountAttributes
    ) {
        let isTime = clear == .accessTimeMask
        allSet.subtract(clear)
        if isTime { allClear.insert(.accessTimeMask) } else { allClear.subtract(set) }
        allSet.formUnion(set)
        allClear.formUnion(clear)
    }
}
