import CCapabilities
import Glibc
import Kernel

/// One capability of Linux, by its number in linux/capability.h. See capabilities(7).
package struct Capability: Sendable, Hashable, CustomStringConvertible {
    /// 0 to 63; those of today end at 40.
    package let number: Int

    /// From a number; nil outside 0 to 63.
    package init?(number: Int) {
        guard (0..<64).contains(number) else { return nil }
        self.number = number
    }

    /// From a name with or without `CAP_`, in any case; nil for one that this program does not know.
    package init?(name: String) {
        var text = name.uppercased()
        if text.hasPrefix("CAP_") { text.removeFirst(4) }
        guard let number = Self.names.firstIndex(of: text) else { return nil }
        self.number = number
    }

    /// `CAP_CHOWN`; a number that has no name yet is `CAP_41`.
    package var name: String {
        number < Self.names.count ? "CAP_" + Self.names[number] : "CAP_\(number)"
    }

    package var description: String { name }

    /// All capabilities that this program knows by name, in the order of their numbers.
    package static var all: [Capability] { names.indices.compactMap { Capability(number: $0) } }

    /// The highest capability of the running kernel: what /proc/sys/kernel/cap_last_cap says, 40 where it cannot be
    /// read.
    package static func last() -> Capability {
        let text = try? File.text("/proc/sys/kernel/cap_last_cap", limit: 16)
        return text.flatMap { Int($0) }.flatMap { Capability(number: $0) } ?? Capability(unchecked: names.count - 1)
    }

    private init(unchecked number: Int) { self.number = number }

    /// The place of each is its number.
    static let names = [
        "CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP",
        "LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER",
        "SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE",
        "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP",
        "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF",
        "CHECKPOINT_RESTORE",
    ]

    // Those that the default seccomp profile asks about; see capabilities(7).
    package static let dacReadSearch = Capability(unchecked: 2)
    package static let sysModule = Capability(unchecked: 16)
    package static let sysRawIO = Capability(unchecked: 17)
    package static let sysChroot = Capability(unchecked: 18)
    package static let sysPtrace = Capability(unchecked: 19)
    package static let sysPacct = Capability(unchecked: 20)
    package static let sysAdmin = Capability(unchecked: 21)
    package static let sysBoot = Capability(unchecked: 22)
    package static let sysNice = Capability(unchecked: 23)
    package static let sysResource = Capability(unchecked: 24)
    package static let sysTime = Capability(unchecked: 25)
    package static let sysTTYConfig = Capability(unchecked: 26)
    package static let syslog = Capability(unchecked: 34)
    package static let perfmon = Capability(unchecked: 38)
    package static let bpf = Capability(unchecked: 39)
}

/// A set of capabilities as the kernel's 64-bit mask.
package struct CapabilitySet: OptionSet, Sendable, Hashable {
    package let rawValue: UInt64

    package init(rawValue: UInt64) { self.rawValue = rawValue }

    /// The set of these.
    package init(_ capabilities: some Sequence<Capability>) {
        rawValue = capabilities.reduce(0) { $0 | 1 << UInt64($1.number) }
    }

    /// Whether it is a member.
    package func contains(_ capability: Capability) -> Bool { rawValue >> UInt64(capability.number) & 1 == 1 }

    /// The members, in the order of their numbers.
    package var members: [Capability] { (0..<64).compactMap { Capability(number: $0) }.filter { contains($0) } }

    /// Their names, `CAP_…`, in the order of their numbers.
    package var names: [String] { members.map(\.name) }

    /// What the running kernel has.
    package static func known() -> CapabilitySet {
        let last = Capability.last().number
        return CapabilitySet(rawValue: last == 63 ? .max : 1 << UInt64(last + 1) - 1)
    }

    /// What a container gets when nothing is said: chown, dac_override, fsetid, fowner, mknod, net_raw, setgid, setuid,
    /// setfcap, setpcap, net_bind_service, sys_chroot, kill, audit_write, as Docker grants them.
    package static let containerDefaults = CapabilitySet(
        [
            "CHOWN", "DAC_OVERRIDE", "FSETID", "FOWNER", "MKNOD", "NET_RAW", "SETGID", "SETUID", "SETFCAP", "SETPCAP",
            "NET_BIND_SERVICE", "SYS_CHROOT", "KILL", "AUDIT_WRITE",
        ].compactMap { Capability(name: $0) })
}

/// The five sets of a process.
package struct CapabilitySets: Sendable, Equatable {
    /// What can ever be gained by execve(2).
    package var bounding: CapabilitySet = []
    /// What permission checks see.
    package var effective: CapabilitySet = []
    /// What files may let through execve(2).
    package var inheritable: CapabilitySet = []
    /// What may be made effective.
    package var permitted: CapabilitySet = []
    /// What stays over execve(2) without files that say so.
    package var ambient: CapabilitySet = []

    /// Five empty sets.
    package init() {}

    /// These five sets, unchecked.
    package init(
        bounding: CapabilitySet, effective: CapabilitySet, inheritable: CapabilitySet, permitted: CapabilitySet,
        ambient: CapabilitySet
    ) {
        self.bounding = bounding
        self.effective = effective
        self.inheritable = inheritable
        self.permitted = permitted
        self.ambient = ambient
    }

    /// Those of the calling thread. The bounding and the ambient set take a call for each capability.
    ///
    /// - Throws: `KernelError` of capget(2).
    package static func current() throws(KernelError) -> CapabilitySets {
        var sets = try ofCapget()
        sets.bounding = CapabilitySet(Capability.all.filter(\.isBounding))
        sets.ambient = CapabilitySet(Capability.all.filter { cap_get_ambient(cap_value_t($0.number)) == 1 })
        return sets
    }

    /// The three sets that capget(2) tells.
    fileprivate static func ofCapget() throws(KernelError) -> CapabilitySets {
        guard let state = cap_get_proc() else { throw KernelError("capget", errno: errno) }
        defer { cap_free(UnsafeMutableRawPointer(state)) }
        func flag(_ kind: cap_flag_t) -> CapabilitySet {
            CapabilitySet(
                Capability.all.filter { capability in
                    var value = CAP_CLEAR
                    return cap_get_flag(state, cap_value_t(capability.number), kind, &value) == 0 && value == CAP_SET
                })
        }
        var sets = CapabilitySets()
        sets.effective = flag(CAP_EFFECTIVE)
        sets.inheritable = flag(CAP_INHERITABLE)
        sets.permitted = flag(CAP_PERMITTED)
        return sets
    }
}

extension Capability {
    /// Whether it is in the bounding set of the calling thread: one call.
    fileprivate var isBounding: Bool { cap_get_bound(cap_value_t(number)) == 1 }
}

/// What a configuration asks for, held against what this process can give.
///
/// A name nobody knows and a capability that we do not have ourselves are left out and listed, so that the caller can
/// warn: a container that asks for more than there is starts with what there is, as callers of OCI runtimes expect.
package struct CapabilityPlan: Sendable, Equatable {
    /// The masks for capset(2), PR_CAPBSET_DROP and PR_CAP_AMBIENT.
    package let sets: CapabilitySets
    /// Names that are no capability, each once, in the order of the configuration.
    package let unknown: [String]
    /// Capabilities that were asked for and cannot be granted: the kernel or this process lacks them, or, for ambient
    /// ones, they are not permitted and inheritable too.
    package let unavailable: [Capability]

    /// - Parameter available: what can be granted: the caller's bounding and permitted sets together
    ///   (`CapabilityPlan.grantable`), or everything the kernel has when a new user namespace is made.
    package init(
        bounding: [String], effective: [String], inheritable: [String], permitted: [String], ambient: [String],
        available: CapabilitySet
    ) {
        var unknown: [String] = []
        var missing: CapabilitySet = []
        func resolve(_ names: [String]) -> CapabilitySet {
            var wanted: CapabilitySet = []
            for name in names {
                if let capability = Capability(name: name) {
                    wanted.formUnion(CapabilitySet([capability]))
                } else if !unknown.contains(name) {
                    unknown.append(name)
                }
            }
            missing.formUnion(wanted.subtracting(available))
            return wanted.intersection(available)
        }
        var sets = CapabilitySets(
            bounding: resolve(bounding), effective: resolve(effective), inheritable: resolve(inheritable),
            permitted: resolve(permitted), ambient: resolve(ambient))
        let raisable = sets.permitted.intersection(sets.inheritable)
        missing.formUnion(sets.ambient.subtracting(raisable))
        sets.ambient.formIntersection(raisable)
        self.sets = sets
        self.unknown = unknown
        unavailable = missing.members
    }

    /// What this process can give to a container: permitted to itself and in its bounding set.
    ///
    /// - Parameter names: the only ones that are asked about, each of which takes a call; nil for all.
    /// - Throws: `KernelError` of capget(2).
    package static func grantable(of names: [String]? = nil) throws(KernelError) -> CapabilitySet {
        var candidates = try CapabilitySets.ofCapget().permitted
        if let names { candidates.formIntersection(CapabilitySet(names.compactMap { Capability(name: $0) })) }
        return CapabilitySet(candidates.members.filter(\.isBounding))
    }
}
