/// The meaning of an ordered list of device rules, made as short as it can be.
///
/// Per kind of access the last matching rule decides; without a match the device is denied.
package struct DevicePolicy: Sendable, Equatable {
    /// What holds for a device that no exception names.
    package private(set) var allowsByDefault: Bool
    /// The rules that still matter, in order. None has the class `all`, and none is followed by one that covers it.
    package private(set) var exceptions: [DeviceRule]

    /// Reads the rules in order. Rules without any access letter say nothing and are dropped.
    package init(_ rules: [DeviceRule]) {
        allowsByDefault = false
        exceptions = []
        for rule in rules where !rule.access.isEmpty { append(rule) }
        exceptions = Self.shortened(exceptions, default: allowsByDefault)
    }

    /// Whether nothing is denied.
    package var allowsEverything: Bool { allowsByDefault && exceptions.isEmpty }

    /// Whether every one of the accesses is allowed, as the kernel decides for open(2) and mknod(2).
    ///
    /// - Parameter device: `block` or `char`; `all` asks for both.
    package func allows(_ device: DeviceClass, major: UInt32, minor: UInt32, _ access: DeviceAccess) -> Bool {
        if device == .all {
            return allows(.block, major: major, minor: minor, access)
                && allows(.char, major: major, minor: minor, access)
        }
        var undecided = access
        for rule in exceptions.reversed() {
            guard rule.device == device, rule.major.map({ $0 == major }) ?? true,
                rule.minor.map({ $0 == minor }) ?? true
            else { continue }
            if !rule.allow && !undecided.isDisjoint(with: rule.access) { return false }
            if rule.allow { undecided.subtract(rule.access) }
        }
        return undecided.isEmpty || allowsByDefault
    }

    /// The exceptions as cgroup v1 can hold them: no two of opposite sense overlap, and all say the opposite of the
    /// default.
    ///
    /// - Returns: the rules, or nil and the first rule that v1 cannot express: a denial within an allowed range, or the
    ///   reverse. The kernel would drop it silently.
    package func forVersion1() -> (rules: [DeviceRule], inexpressible: DeviceRule?) {
        for rule in exceptions where rule.allow == allowsByDefault { return ([], rule) }
        return (exceptions, nil)
    }

    private mutating func append(_ rule: DeviceRule) {
        if rule.device == .all {
            if rule.major == nil && rule.minor == nil && rule.access == .all {
                allowsByDefault = rule.allow
                exceptions = []
                return
            }
            for device in [DeviceClass.block, .char] {
                var half = rule
                half.device = device
                append(half)
            }
            return
        }
        // Take away from the rules before it what the new one decides.
        exceptions = exceptions.compactMap { old in
            guard Self.covers(rule, old) else { return old }
            var rest = old
            rest.access.subtract(rule.access)
            return rest.access.isEmpty ? nil : rest
        }
        exceptions.append(rule)
    }

    /// Drops what says only what holds anyway and joins rules for the same devices, without a change of meaning.
    private static func shortened(_ rules: [DeviceRule], default allowsByDefault: Bool) -> [DeviceRule] {
        var kept: [DeviceRule] = []
        for rule in rules {
            let lastOpposed = kept.lastIndex { $0.allow != rule.allow && overlap($0, rule) }
            if rule.allow == allowsByDefault && lastOpposed == nil { continue }
            let same = kept.lastIndex {
                $0.allow == rule.allow && $0.device == rule.device && $0.major == rule.major && $0.minor == rule.minor
            }
            // Joined only where no rule of the opposite sense stands between the two.
            if let same, same > lastOpposed ?? -1 {
                kept[same].access.formUnion(rule.access)
            } else {
                kept.append(rule)
            }
        }
        return kept
    }

    /// Whether every device of `old` is one of `new`.
    private static func covers(_ new: DeviceRule, _ old: DeviceRule) -> Bool {
        new.device == old.device && (new.major == nil || new.major == old.major)
            && (new.minor == nil || new.minor == old.minor)
    }

    /// Whether some device and access belong to both.
    private static func overlap(_ one: DeviceRule, _ two: DeviceRule) -> Bool {
        func meet(_ a: UInt32?, _ b: UInt32?) -> Bool { a == nil || b == nil || a == b }
        return one.device == two.device && meet(one.major, two.major) && meet(one.minor, two.minor)
            && !one.access.isDisjoint(with: two.access)
    }
}
