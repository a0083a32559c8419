/// What a process may do with a device: the letters `r`, `w` and `m` of the device cgroup.
package struct DeviceAccess: OptionSet, Sendable, Hashable, CustomStringConvertible {
    package let rawValue: UInt8

    package init(rawValue: UInt8) { self.rawValue = rawValue }

    // The values are the kernel's BPF_DEVCG_ACC_* bits, see linux/bpf.h.
    /// `m`: making a node.
    package static let mknod = DeviceAccess(rawValue: 1)
    /// `r`: opening for reading.
    package static let read = DeviceAccess(rawValue: 2)
    /// `w`: opening for writing.
    package static let write = DeviceAccess(rawValue: 4)
    /// `rwm`.
    package static let all: DeviceAccess = [.mknod, .read, .write]

    /// From letters in any order, each at most once; nil for anything else. Empty text is no access.
    package init?(_ text: String) {
        var access: DeviceAccess = []
        for letter in text.utf8 {
            let bit: DeviceAccess
            switch letter {
            case UInt8(ascii: "r"): bit = .read
            case UInt8(ascii: "w"): bit = .write
            case UInt8(ascii: "m"): bit = .mknod
            default: return nil
            }
            guard !access.contains(bit) else { return nil }
            access.insert(bit)
        }
        self = access
    }

    /// The letters in the kernel's order, `rwm`.
    package var description: String {
        (contains(.read) ? "r" : "") + (contains(.write) ? "w" : "") + (contains(.mknod) ? "m" : "")
    }
}

/// The kind of device that a rule speaks of: `a`, `b` or `c` of the device cgroup.
package enum DeviceClass: String, Sendable, Hashable, CaseIterable {
    case all = "a"
    case block = "b"
    case char = "c"

    /// From the letter in an OCI specification; `u` (unbuffered) means the same as `c`.
    package init?(_ text: String) {
        switch text {
        case "a": self = .all
        case "b": self = .block
        case "c", "u": self = .char
        default: return nil
        }
    }
}

/// One line of a device cgroup: allow or deny some access to some devices.
///
/// A list of rules is read in order and the last one that matches decides, separately for each kind of access.
package struct DeviceRule: Sendable, Hashable, CustomStringConvertible {
    /// Whether it allows; else it denies.
    package var allow: Bool
    /// Which class of devices.
    package var device: DeviceClass
    /// The major number; nil for every one.
    package var major: UInt32?
    /// The minor number; nil for every one.
    package var minor: UInt32?
    /// The kinds of access it decides; without any it says nothing.
    package var access: DeviceAccess

    /// A rule; without numbers and access it is for everything of its class.
    package init(
        allow: Bool, _ device: DeviceClass, major: UInt32? = nil, minor: UInt32? = nil, access: DeviceAccess = .all
    ) {
        self.allow = allow
        self.device = device
        self.major = major
        self.minor = minor
        self.access = access
    }

    /// As cgroup v1's `devices.allow` takes it: `c 1:3 rwm`.
    package var kernelText: String {
        "\(device.rawValue) \(major.map { String($0) } ?? "*"):\(minor.map { String($0) } ?? "*") \(access)"
    }

    package var description: String { (allow ? "allow " : "deny ") + kernelText }

    /// Denies everything: where the rules of a container begin.
    package static let denyAll = DeviceRule(allow: false, .all)

    /// What every container gets beside its configuration: nodes may be made, the default devices (1:3 null, 1:5 zero,
    /// 1:7 full, 1:8 random, 1:9 urandom, 5:0 tty) and the pseudo terminals (5:2 ptmx, 136:* pts) may be used.
    ///
    /// They go after the rules of the configuration, which usually begin with a deny of everything.
    package static let containerDefaults: [DeviceRule] = [
        DeviceRule(allow: true, .char, access: .mknod),
        DeviceRule(allow: true, .block, access: .mknod),
        DeviceRule(allow: true, .char, major: 1, minor: 3),
        DeviceRule(allow: true, .char, major: 1, minor: 5),
        DeviceRule(allow: true, .char, major: 1, minor: 7),
        DeviceRule(allow: true, .char, major: 1, minor: 8),
        DeviceRule(allow: true, .char, major: 1, minor: 9),
        DeviceRule(allow: true, .char, major: 5, minor: 0),
        DeviceRule(allow: true, .char, major: 5, minor: 2),
        DeviceRule(allow: true, .char, major: 136),
    ]
}
