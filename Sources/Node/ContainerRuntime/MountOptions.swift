import Glibc
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
    /// `idmap` and `ridmap`; nil without them.
    var idMapping: IDMapping?
    /// `tmpcopyup`: a tmpfs begins with what the image has in its place.
    var copiesUp = false
    /// `remount`: options of what is mounted at the destination already.
    var remount = false
    /// Flags of the superblock that fsconfig(2) knows by these names.
    var superblock: [String] = []
    /// `iversion`, a flag of the superblock that only mount(2) takes.
    var countsVersions = false
    /// Everything else: options of the filesystem, `key=value` or `key`.
    var data: [String] = []

    struct Propagation: Equatable {
        let kind: MountPropagation
        let recursive: Bool
    }

    /// Of the mount itself, or of all that are mounted below it too.
    enum IDMapping: Equatable { case top, recursive }

    /// Whether an option says read-only.
    var isReadOnly: Bool { self.set.contains(.readOnly) }
}

extension MountOptions {
    private enum Effect {
        case attribute(MountAttributes, on: Bool)
        case recursiveAttribute(MountAttributes, on: Bool)
        case time(AccessTime.Mode, on: Bool, recursive: Bool)
        case propagation(MountPropagation, recursive: Bool)
        case superblock(String)
        case versions(Bool)
        case bind(recursive: Bool)
        case idMapping(IDMapping)
        case copyUp
        case remount
        case nothing
        case refused(String)
    }

    /// All names that are no filesystem's own option.
    static var knownNames: [String] {
        effects.compactMap { name, effect in
            if case .refused = effect { nil } else { name }
        }.sorted()
    }

    /// Searched from the front: a dictionary's first use takes longer than the searches of a container's mounts.
    private static let effects: [(name: String, effect: Effect)] = {
        var table: [(name: String, effect: Effect)] = [
            ("defaults", .nothing), ("bind", .bind(recursive: false)), ("rbind", .bind(recursive: true)),
            ("tmpcopyup", .copyUp), ("remount", .remount), ("idmap", .idMapping(.top)),
            ("ridmap", .idMapping(.recursive)),
            ("private", .propagation(.private, recursive: false)),
            ("rprivate", .propagation(.private, recursive: true)),
            ("slave", .propagation(.slave, recursive: false)), ("rslave", .propagation(.slave, recursive: true)),
            ("shared", .propagation(.shared, recursive: false)), ("rshared", .propagation(.shared, recursive: true)),
            ("unbindable", .propagation(.unbindable, recursive: false)),
            ("runbindable", .propagation(.unbindable, recursive: true)),
            ("sync", .superblock("sync")), ("async", .superblock("async")), ("dirsync", .superblock("dirsync")),
            ("lazytime", .superblock("lazytime")), ("nolazytime", .superblock("nolazytime")),
            ("mand", .superblock("mand")), ("nomand", .superblock("nomand")),
            ("iversion", .versions(true)), ("noiversion", .versions(false)), ("silent", .nothing), ("loud", .nothing),
            ("move", .refused("moving a mount is not supported")),
        ]
        let attributes: [(on: String, off: String, MountAttributes)] = [
            ("ro", "rw", .readOnly), ("nosuid", "suid", .noSetuid), ("nodev", "dev", .noDevices),
            ("noexec", "exec", .noExecution), ("nodiratime", "diratime", .noDirectoryAccessTime),
            ("nosymfollow", "symfollow", .noSymlinks),
        ]
        for (on, off, attribute) in attributes {
            table.append((on, .attribute(attribute, on: true)))
            table.append((off, .attribute(attribute, on: false)))
            table.append(("r" + on, .recursiveAttribute(attribute, on: true)))
            table.append(("r" + off, .recursiveAttribute(attribute, on: false)))
        }
        let times: [(on: String, off: String, AccessTime.Mode)] = [
            ("noatime", "atime", .never), ("strictatime", "nostrictatime", .strict),
            ("relatime", "norelatime", .relative),
        ]
        for (on, off, mode) in times {
            for recursive in [false, true] {
                let prefix = recursive ? "r" : ""
                table.append((prefix + on, .time(mode, on: true, recursive: recursive)))
                table.append((prefix + off, .time(mode, on: false, recursive: recursive)))
            }
        }
        return table
    }()

    /// - Parameter path: the place in config.json, for errors.
    /// - Throws: `RefusedField` for an option that this runtime does not honour.
    init(_ options: [String], path: String) throws {
        var time = AccessTime()
        var recursiveTime = AccessTime()
        for (index, option) in options.enumerated() {
            guard let effect = Self.effects.first(where: { $0.name == option })?.effect else {
                data.append(option)
                continue
            }
            switch effect {
            case .attribute(let attribute, let on): Self.apply(attribute, on, &self.set, &self.clear)
            case .recursiveAttribute(let attribute, let on):
                Self.apply(attribute, on, &setRecursively, &clearRecursively)
            case .time(let mode, let on, let recursive):
                if recursive { recursiveTime.apply(mode, on) } else { time.apply(mode, on) }
            case .propagation(let kind, let recursive):
                propagation.append(Propagation(kind: kind, recursive: recursive))
            case .superblock(let name): superblock.append(name)
            case .versions(let on): countsVersions = on
            case .bind(let recursive):
                bind = true
                if recursive { self.recursive = true }
            case .idMapping(let mapping): idMapping = mapping
            case .copyUp: copiesUp = true
            case .remount: remount = true
            case .nothing: break
            case .refused(let reason): throw RefusedField("\(path)[\(index)] (\(option))", reason)
            }
        }
        time.finish(&self.set, &self.clear)
        recursiveTime.finish(&setRecursively, &clearRecursively)
    }

    /// The later of two options that contradict each other wins.
    private static func apply(
        _ attribute: MountAttributes, _ on: Bool, _ set: inout MountAttributes, _ clear: inout MountAttributes
    ) {
        set.subtract(attribute)
        clear.subtract(attribute)
        if on { set.formUnion(attribute) } else { clear.formUnion(attribute) }
    }
}

/// What options say about access times: flags to mount(2), of which the strictest counts, and one field to
/// mount_setattr(2).
private struct AccessTime {
    enum Mode { case never, strict, relative }

    private var wanted: [Mode] = []
    private var isGiven = false

    mutating func apply(_ mode: Mode, _ on: Bool) {
        isGiven = true
        wanted.removeAll { $0 == mode }
        if on { wanted.append(mode) }
    }

    /// The field is cleared first whenever it is set; all bits clear are relative times.
    func finish(_ set: inout MountAttributes, _ clear: inout MountAttributes) {
        guard isGiven else { return }
        clear.formUnion(.accessTimeMask)
        if wanted.contains(.strict) {
            set.formUnion(.strictAccessTime)
        } else if wanted.contains(.never) {
            set.formUnion(.noAccessTime)
        }
    }
}

extension MountOptions {
    /// MS_* of the attributes and of the superblock, for mount(2).
    func flags(except: MountAttributes = []) -> UInt {
        let attributes: [(MountAttributes, UInt)] = [
            (.readOnly, UInt(MS_RDONLY)), (.noSetuid, UInt(MS_NOSUID)), (.noDevices, UInt(MS_NODEV)),
            (.noExecution, UInt(MS_NOEXEC)), (.noDirectoryAccessTime, UInt(MS_NODIRATIME)),
            (.noAccessTime, UInt(MS_NOATIME)), (.strictAccessTime, UInt(MS_STRICTATIME)),
            (.noSymlinks, 256 /* MS_NOSYMFOLLOW */),
        ]
        let wanted = set.subtracting(except)
        var flags: UInt = 0
        for (attribute, flag) in attributes where wanted.contains(attribute) { flags |= flag }
        // Without any of these flags, a remount keeps what there is.
        if clear.contains(.accessTimeMask), set.isDisjoint(with: .accessTimeMask) { flags |= UInt(MS_RELATIME) }
        for name in superblock {
            switch name {
            case "sync": flags |= UInt(MS_SYNCHRONOUS)
            case "async": flags &= ~UInt(MS_SYNCHRONOUS)
            case "dirsync": flags |= UInt(MS_DIRSYNC)
            case "lazytime": flags |= 1 << 25  // MS_LAZYTIME
            case "nolazytime": flags &= ~(1 << 25)
            case "mand": flags |= UInt(MS_MANDLOCK)
            default: flags &= ~UInt(MS_MANDLOCK)
            }
        }
        if countsVersions { flags |= UInt(MS_I_VERSION) }
        return flags
    }
}
