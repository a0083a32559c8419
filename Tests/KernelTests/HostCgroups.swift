import Cgroups

/// Where a cgroup path lies on this host, whichever of its controllers are on v1 and which on v2.
enum HostCgroups {
    private static let layout = try? CgroupLayout.detect()

    /// Every controller of the host is on v2.
    static var isUnified: Bool { layout?.isUnified == true }

    /// The directory of a group in every hierarchy of the host.
    static func directories(_ path: String) -> [String] {
        (layout?.hierarchies ?? []).map { "\($0.mountPoint)/\(path)" }
    }

    /// The directory of a group where a controller is.
    ///
    /// - Parameter name: v1's name of the controller, or `unified` for cgroup2 itself.
    static func directory(_ name: String, _ path: String) -> String {
        let home = CgroupController(rawValue: name).flatMap { layout?.home(of: $0) } ?? layout?.unified
        return "\(home?.mountPoint ?? "/sys/fs/cgroup/\(name)")/\(path)"
    }
}
