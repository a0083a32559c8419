import DeviceNodes
import Glibc
import Kernel

extension CgroupManager {
    /// Lets the processes of the group use these devices and no others.
    ///
    /// The rules are read in order, the last that matches decides; what none matches is denied. With the v1 controller
    /// they are written to `devices.allow` and `devices.deny`; else a device program is attached to the cgroup2
    /// directory, in place of an earlier one of ours. Other rules set later never deny in between what both allow.
    /// - Throws: `CgroupError` of kind `unsupported` for a denial within an allowed range (or the reverse) with v1,
    ///   which the kernel would drop silently; `refused` when the kernel says no.
    package func setDevices(_ rules: [DeviceRule]) throws(CgroupError) {
        let policy = DevicePolicy(rules)
        guard let home = layout.home(of: .devices) else {
            throw CgroupError(
                .controllerAbsent, controller: "devices", path, "nothing can confine devices on this host",
                hint: "mount cgroup2 or the v1 devices controller")
        }
        let directory = ControlDirectory(home.directory(path), "devices")
        if home.version == .v1 { return try setOldDevices(policy, directory) }
        do throws(KernelError) {
            let group = try File.open(directory.path, O_RDONLY | O_DIRECTORY)
            if policy.allowsEverything {
                try DeviceProgram.detach(from: group)
            } else {
                try DeviceProgram(policy).attach(to: group)
            }
        } catch {
            throw CgroupError(
                .refused, controller: "devices", directory.path, "\(error.operation) \(error.subject)",
                errno: error.errno, hint: error.errno == EPERM ? "it needs CAP_BPF or CAP_SYS_ADMIN" : error.hint)
        }
    }

    private func setOldDevices(_ policy: DevicePolicy, _ directory: ControlDirectory) throws(CgroupError) {
        let (rules, inexpressible) = policy.forVersion1()
        if let rule = inexpressible {
            throw CgroupError(
                .unsupported, controller: "devices", "rule '\(rule)'",
                "cgroup v1 cannot except a part of a range that an earlier rule names",
                hint: "name the devices one by one")
        }
        if policy.allowsByDefault {
            try directory.write("devices.allow", "a")
            try directory.write("devices.deny", each: rules.map(\.kernelText))
            return
        }
        // A fresh group allows everything, or what its parent allows. From then on only the difference is written.
        let present = try Self.presentDevices(directory)
        guard let present else {
            try directory.write("devices.deny", "a")
            return try directory.write("devices.allow", each: rules.map(\.kernelText))
        }
        try directory.write("devices.allow", each: rules.filter { !present.contains($0) }.map(\.kernelText))
        for old in present {
            var excess = old
            for rule in rules where (rule.device, rule.major, rule.minor) == (old.device, old.major, old.minor) {
                excess.access.subtract(rule.access)
            }
            if !excess.access.isEmpty { try directory.write("devices.deny", excess.kernelText) }
        }
    }

    /// The rules in force with the v1 controller, for putting them back; nil where a device program holds, which is
    /// replaced at once or not at all, and for a group that allows by default: what it denies cannot be read.
    func oldDeviceRules() throws(CgroupError) -> [DeviceRule]? {
        guard let home = layout.home(of: .devices), home.version == .v1 else { return nil }
        return try Self.presentDevices(ControlDirectory(home.directory(path), "devices"))
    }

    /// What a group that denies by default allows now; nil for one that allows by default.
    private static func presentDevices(_ directory: ControlDirectory) throws(CgroupError) -> [DeviceRule]? {
        var rules: [DeviceRule] = []
        for line in try directory.read("devices.list").split(separator: "\n") {
            let fields = line.split(separator: " ")
            guard fields.count == 3, let device = DeviceClass(String(fields[0])), device != .all else { return nil }
            let numbers = fields[1].split(separator: ":")
            guard numbers.count == 2, let access = DeviceAccess(String(fields[2])) else { return nil }
            rules.append(
                DeviceRule(
                    allow: true, device, major: UInt32(numbers[0]), minor: UInt32(numbers[1]), access: access))
        }
        return rules
    }
}
