import Glibc
import Kernel

/// Which group below a container's own a further process goes to, for all hierarchies or for single ones.
package struct CgroupSubgroups: Sendable, Equatable {
    /// `/a/b`, or empty for the container's own group; nil when single controllers are named.
    private var everywhere: String?
    /// By the name of the controller, or `name=systemd` for a v1 hierarchy without one.
    private var single: [(controller: String, path: String)] = []

    package static func == (one: CgroupSubgroups, other: CgroupSubgroups) -> Bool {
        one.everywhere == other.everywhere && one.single.map(\.controller) == other.single.map(\.controller)
            && one.single.map(\.path) == other.single.map(\.path)
    }

    /// Reads `PATH` (once), or `CONTROLLER[,CONTROLLER…]:PATH` (several times).
    ///
    /// - Throws: `CgroupError` of kind `invalidPath`: `.` or `..` in it, more than 16 components, a controller without
    ///   a name, named twice or mixed with a path for all.
    package init(_ texts: [String]) throws(CgroupError) {
        for text in texts {
            guard let colon = text.firstIndex(of: ":") else {
                guard texts.count == 1 else {
                    throw Self.refuse(text, "names no controller, and more than one place is given")
                }
                everywhere = try Self.cleaned(text)
                continue
            }
            let path = try Self.cleaned(String(text[text.index(after: colon)...]))
            for name in text[..<colon].split(separator: ",", omittingEmptySubsequences: false) {
                guard !name.isEmpty else { throw Self.refuse(text, "names an empty controller") }
                guard !single.contains(where: { $0.controller == name }) else {
                    throw Self.refuse(text, "names the controller \(name) a second time")
                }
                single.append((String(name), path))
            }
        }
    }

    /// Whether nothing was asked for, so that the usual place is meant.
    package var isEmpty: Bool { everywhere == nil && single.isEmpty }

    /// The place in one hierarchy: `/a/b`, or empty for the container's own group.
    func path(in hierarchy: CgroupHierarchy) -> String {
        if let everywhere { return everywhere }
        return single.first { Self.names(hierarchy).contains($0.controller) }?.path ?? ""
    }

    /// - Throws: `CgroupError` for a controller that the layout does not have, and for two controllers of the same
    ///   hierarchy with different places.
    func check(against layout: CgroupLayout) throws(CgroupError) {
        for (controller, path) in single {
            guard let home = layout.hierarchies.first(where: { Self.names($0).contains(controller) }) else {
                throw CgroupError(
                    .controllerAbsent, controller: controller, "--cgroup", "this host has no such controller",
                    hint: "see /proc/self/cgroup")
            }
            guard home.version == .v1 || !layout.isUnified else {
                throw CgroupError(
                    .unsupported, controller: controller, "--cgroup", "cgroup v2 has one place for all controllers",
                    hint: "give the path alone")
            }
            guard self.path(in: home) == path else {
                throw CgroupError(
                    .invalidPath, controller: controller, "--cgroup",
                    "shares its hierarchy with a controller that is to be elsewhere")
            }
        }
    }

    private static func names(_ hierarchy: CgroupHierarchy) -> [String] {
        let controllers = hierarchy.controllers.map { controller in
            hierarchy.version == .v2 ? controller.unifiedName ?? controller.rawValue : controller.rawValue
        }
        return controllers + (hierarchy.name.map { ["name=\($0)"] } ?? [])
    }

    private static func cleaned(_ text: String) throws(CgroupError) -> String {
        let parts = text.pathComponents
        guard parts.count <= 16, text.utf8.count <= 2048 else { throw refuse(text, "is too long") }
        for part in parts {
            guard part != ".", part != ".." else { throw refuse(text, "contains '\(part)'") }
            guard part.utf8.count <= 255, part.utf8.allSatisfy({ $0 >= 32 && $0 != 127 }) else {
                throw refuse(text, "contains what is no name of a group")
            }
        }
        return parts.map { "/\($0)" }.joined()
    }

    private static func refuse(_ text: String, _ reason: String) -> CgroupError {
        CgroupError(
            .invalidPath, "sub-group '\(text)'", reason,
            hint: "write it as PATH or CONTROLLER:PATH, below the container's own group")
    }
}
