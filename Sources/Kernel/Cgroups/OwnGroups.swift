import Kernel

extension CgroupLayout {
    /// The layout whose paths start beside this process instead of at the root: below the group it is in in each
    /// hierarchy of v1, and below the parent of that group in v2, where a group with processes passes no controllers
    /// on.
    ///
    /// - Parameter membership: the content of /proc/self/cgroup, see cgroups(7).
    /// - Throws: `CgroupError` of kind `invalidPath` when the process is in a group that the mount does not show.
    package func startingFromOwnGroups(_ membership: String) throws(CgroupError) -> CgroupLayout {
        var moved: [CgroupHierarchy] = []
        for hierarchy in hierarchies {
            guard let own = Self.group(of: hierarchy, in: membership) else {
                moved.append(hierarchy)
                continue
            }
            let root = hierarchy.root == "/" ? "" : hierarchy.root
            guard own == root || own.isPath(inside: root), !own.pathComponents.contains("..") else {
                throw CgroupError(
                    .invalidPath, hierarchy.mountPoint, "does not show the group \(own) that this process is in",
                    hint: "use an absolute cgroup path")
            }
            var parts = own.dropFirst(root.count).pathComponents
            if hierarchy.version == .v2 { _ = parts.popLast() }
            moved.append(hierarchy.starting(from: parts.map { "/\($0)" }.joined()))
        }
        return CgroupLayout(moved)
    }

    /// The path after the second colon of the hierarchy's line.
    private static func group(of hierarchy: CgroupHierarchy, in membership: String) -> String? {
        for line in membership.split(separator: "\n") {
            let fields = line.split(separator: ":", maxSplits: 2, omittingEmptySubsequences: false)
            guard fields.count == 3 else { continue }
            let names = fields[1].split(separator: ",").map { String($0) }
            let isMeant: Bool
            if hierarchy.version == .v2 {
                isMeant = fields[0] == "0" && names.isEmpty
            } else if let name = hierarchy.name {
                isMeant = names.contains("name=\(name)")
            } else {
                isMeant = hierarchy.controllers.contains { names.contains($0.rawValue) }
            }
            if isMeant { return fields[2] == "/" ? "" : String(fields[2]) }
        }
        return nil
    }
}
