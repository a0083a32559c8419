import Confinement
import DeviceNodes
import Kernel
import OCISpec

/// Everything that the container's process needs to know to set itself up: made by the runtime from a checked
/// configuration, so that the child only acts.
struct ContainerPlan {
    var id: ContainerID
    /// Absolute.
    var bundle: String
    /// Absolute, symbolic links resolved.
    var rootfs: String
    var readonlyRoot: Bool
    var rootPropagation: MountOptions.Propagation?
    /// The root is moved over the host's instead of changing places with it (`--no-pivot`).
    var noPivot: Bool
    var namespaces: NamespacePlan
    var cgroup: CgroupRecord
    var hostname: String?
    var domainname: String?
    var mounts: [MountPlan]
    /// False when /dev is a bind mount: then what is in it is the configuration's business.
    var populatesDev: Bool
    /// The configuration's, and with `populatesDev` those that every container has.
    var devices: [DeviceNode]
    var maskedPaths: [String]
    var readonlyPaths: [String]
    var sysctl: [Sysctl]
    /// The SELinux context of filesystems that are mounted for the container.
    var mountLabel: String?
    /// Links of the host that the runtime moves into the container's network namespace.
    var netDevices: [LinkTransfer]
    var hooks: HooksSpec
    var terminal: Bool
    var consoleSize: ConsoleSize?
    /// The session keyring's name; nil to keep the caller's keyring.
    var keyring: String?
    var process: ProcessPlan
    /// The state that hooks in the container's namespaces read; its pid is filled in by the child.
    var hookState: RuntimeState

    struct Sysctl: Equatable {
        /// As in config.json.
        let name: String
        /// Below /proc/sys.
        let path: String
        let value: String
    }
}

/// One mount, its options understood.
struct MountPlan {
    enum Kind: Equatable {
        /// The source is absolute.
        case bind(source: String)
        /// A filesystem of its own.
        case filesystem(type: String, source: String)
        /// The container's part of the cgroup hierarchies.
        case cgroup
    }

    /// Its place in config.json, for errors: `mounts[3]`.
    let path: String
    /// Absolute, normalised.
    let destination: String
    let kind: Kind
    var options: MountOptions
    /// The mount's own id map, of `uidMappings` and `gidMappings`.
    let idMap: IDMap?
    /// The user namespace that has the id map, once it is prepared.
    var mapping: SharedFD?
    /// A copy of a bind mount's source, opened by the runtime; nil when the child opens it.
    var source: SharedFD?

    /// Whether who makes it must be in the container's groups: they count the pages that `tmpcopyup` fills, allow the devices
    /// that filesystems are on, and are mounted themselves; and what is bound may be one of them.
    var needsGroup: Bool {
        switch kind {
        case .bind, .cgroup: true
        case .filesystem(let type, _):
            options.copiesUp || !["proc", "sysfs", "tmpfs", "devpts", "mqueue"].contains(type)
        }
    }
}

/// A process to execute, decided to the last detail.
struct ProcessPlan {
    var args: [String]
    var env: [String]
    var cwd: String
    var uid: UInt32
    var gid: UInt32
    /// nil leaves the supplementary groups as they are.
    var groups: [UInt32]?
    var mask: UInt32?
    var limits: [ResourceLimit]
    var capabilities: CapabilitySets
    var noNewPrivileges: Bool
    var filter: [UInt8]
    var filterFlags: UInt32
    /// For personality(2); nil leaves it.
    var personality: Int?
    var attributes: ProcessAttributes
    /// Descriptors from 3 on that the program gets.
    var keptDescriptors: Int32 = 0
    /// What the runtime's caller ignored and the program shall not: bit N - 1 for signal N.
    var ignoredSignals: UInt64 = .max
}
