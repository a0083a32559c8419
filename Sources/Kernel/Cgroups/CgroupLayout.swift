import CKernel
import Glibc
import Kernel

/// What limits or counts one kind of resource. Raw values are cgroup v1's names; v2 calls `blkio` `io`.
package enum CgroupController: String, Sendable, Hashable, CaseIterable {
    case cpu
    case cpuacct
    case cpuset
    case memory
    case devices
    case freezer
    case blkio
    case pids
    case hugetlb
    case netClassifier = "net_cls"
    case netPriority = "net_prio"
    case perfEvent = "perf_event"
    case rdma
    case misc

    /// From the name in `cgroup.controllers` of cgroup v2; nil for one we have no use for.
    package init?(unifiedName: String) {
        switch unifiedName {
        case "io": self = .blkio
        case "cpu", "cpuset", "memory", "pids", "hugetlb", "rdma", "misc": self.init(rawValue: unifiedName)
        default: return nil
        }
    }

    /// The name in cgroup v2; nil for what v2 has no controller for.
    package var unifiedName: String? {
        switch self {
        case .blkio: "io"
        case .cpu, .cpuset, .memory, .pids, .hugetlb, .rdma, .misc: rawValue
        default: nil
        }
    }
}

/// One mounted tree of control groups.
package struct CgroupHierarchy: Sendable, Equatable {
    /// The interface: v1 of one or more controllers, or v2, the unified one.
    package enum Version: Sendable, Equatable {
        case v1
        case v2
    }

    /// Where it is mounted: an absolute path.
    package let mountPoint: String
    /// Which interface it has.
    package let version: Version
    /// The controllers bound to it; none for a named v1 hierarchy and for a bare cgroup2.
    package let controllers: [CgroupController]
    /// The name of a v1 hierarchy without controllers (`systemd`); nil for others.
    package let name: String?
    /// The group that the mount shows as its root: `/`, unless somebody bound a part of the tree there.
    package let root: String
    /// A group below the mount point, as `/user/x`, that paths of groups start from; empty for the mount point itself.
    package private(set) var base: String

    /// Describes a hierarchy; nothing is looked up.
    package init(
        mountPoint: String, version: Version, controllers: [CgroupController], name: String? = nil, root: String = "/",
        base: String = ""
    ) {
        self.mountPoint = mountPoint
        self.version = version
        self.controllers = controllers
        self.name = name
        self.root = root
        self.base = base
    }

    /// The directory of the group at an absolute path.
    package func directory(_ path: String) -> String { mountPoint + base + path }

    /// The same hierarchy with paths that start from another group.
    func starting(from base: String) -> CgroupHierarchy {
        var copy = self
        copy.base = base
        return copy
    }
}

/// Which hierarchies this host has and where: each controller is bound to v1 or v2 by the kernel.
package struct CgroupLayout: Sendable, Equatable {
    /// Those of v1 in mount order, then the unified one.
    package let hierarchies: [CgroupHierarchy]

    /// A layout of these hierarchies, whatever the host has.
    package init(_ hierarchies: [CgroupHierarchy]) {
        self.hierarchies = hierarchies.filter { $0.version == .v1 } + hierarchies.filter { $0.version == .v2 }
    }

    /// The cgroup v2 tree, with or without controllers.
    package var unified: CgroupHierarchy? { hierarchies.first { $0.version == .v2 } }

    /// Every controller that there is is on cgroup v2.
    package var isUnified: Bool { hierarchies.allSatisfy { $0.version == .v2 } }

    /// The hierarchy that has a controller. Freezing, CPU accounting and device rules need no controller in v2.
    package func home(of controller: CgroupController) -> CgroupHierarchy? {
        if let home = hierarchies.first(where: { $0.controllers.contains(controller) }) { return home }
        switch controller {
        case .freezer, .devices, .cpuacct: return unified
        default: return nil
        }
    }

    /// Reads the mounts and controllers of this host.
    ///
    /// - Parameter procfs: where procfs is mounted.
    /// - Throws: `CgroupError` when the mount table cannot be read or no hierarchy is mounted.
    package static func detect(procfs: String = "/proc") throws(CgroupError) -> CgroupLayout {
        let path = "\(procfs)/self/mountinfo"
        let mounts: [UInt8]
        do {
            mounts = try File.read(path, limit: 16 << 20)
        } catch {
            throw CgroupError(.refused, path, "cannot be read", errno: error.errno)
        }
        let layout = parse(mountInfo: mounts, isReachable: isReachable) { mountPoint in
            (try? File.text("\(mountPoint)/cgroup.controllers")) ?? ""
        }
        guard !layout.hierarchies.isEmpty else {
            throw CgroupError(
                .controllerAbsent, path, "no cgroup hierarchy is mounted",
                hint: "mount cgroup2 on /sys/fs/cgroup, or the v1 controllers below it")
        }
        return layout
    }

    /// Reads a mount table.
    ///
    /// - Parameters:
    ///   - mountInfo: the content of /proc/self/mountinfo, see proc_pid_mountinfo(5).
    ///   - isReachable: whether the path leads to the file system of this number (`major:minor`). A mount that another
    ///     one covers is still in the table.
    ///   - unifiedControllers: the content of `cgroup.controllers` of the cgroup2 mount at a path.
    package static func parse(
        mountInfo: [UInt8], isReachable: (_ mountPoint: String, _ device: String) -> Bool = { _, _ in true },
        unifiedControllers: (String) -> String
    ) -> CgroupLayout {
        var found: [CgroupHierarchy] = []
        for mount in CgroupMount.all(in: mountInfo) {
            var hierarchy = mount.hierarchy
            // The same tree may be mounted again, in a container's root say: the one in the usual place is the host's.
            let other = found.firstIndex { sameTree($0, hierarchy) }
            if let other, isUsualPlace(found[other].mountPoint) || !isUsualPlace(hierarchy.mountPoint) { continue }
            guard isReachable(hierarchy.mountPoint, mount.device) else { continue }
            if hierarchy.version == .v2 {
                let names = unifiedControllers(hierarchy.mountPoint).split { $0 == " " || $0 == "\n" }
                hierarchy = CgroupHierarchy(
                    mountPoint: hierarchy.mountPoint, version: .v2,
                    controllers: names.compactMap { CgroupController(unifiedName: String($0)) }, root: hierarchy.root)
            }
            if let other { found[other] = hierarchy } else { found.append(hierarchy) }
        }
        return CgroupLayout(found)
    }

    private static func isReachable(_ mountPoint: String, _ device: String) -> Bool {
        var info = stat()
        guard stat(mountPoint, &info) == 0 else { return false }
        return device == "\(ck_major(UInt64(info.st_dev))):\(ck_minor(UInt64(info.st_dev)))"
    }

    private static func sameTree(_ one: CgroupHierarchy, _ two: CgroupHierarchy) -> Bool {
        one.version == two.version
            && (one.version == .v2 || (one.controllers == two.controllers && one.name == two.name))
    }

    private static func isUsualPlace(_ path: String) -> Bool { path.hasPrefix("/sys/fs/cgroup") }

    /// Why a controller cannot be had, for an error's hint: /proc/cgroups tells whether the kernel has it.
    func absence(of controller: CgroupController, procfs: String = "/proc") -> String {
        let table = (try? File.text("\(procfs)/cgroups")) ?? ""
        for line in table.split(separator: "\n") {
            let fields = line.split { $0 == "\t" || $0 == " " }
            guard fields.count >= 4, fields[0] == controller.rawValue else { continue }
            if fields[3] == "0" { return "the kernel has it disabled: see cgroup_disable on its command line" }
            return "the kernel has it, but no mounted hierarchy does: mount it, or remove the limit"
        }
        return "this kernel does not have it: remove the limit"
    }
}

/// One line of mountinfo that is a cgroup mount.
private struct CgroupMount {
    let hierarchy: CgroupHierarchy
    /// The number of its file system, `major:minor`.
    let device: String

    /// Those in a mount table. Every start of a container reads one: lines of other file systems are read up to their type.
    static func all(in mountInfo: [UInt8]) -> [CgroupMount] {
        mountInfo.withUnsafeBufferPointer { table in
            var found: [CgroupMount] = []
            var rest = table[...]
            while let line = next(&rest, upTo: UInt8(ascii: "\n")) {
                if let mount = CgroupMount(line) { found.append(mount) }
            }
            return found
        }
    }

    private typealias Bytes = Slice<UnsafeBufferPointer<UInt8>>

    private static func next(_ rest: inout Bytes, upTo separator: UInt8) -> Bytes? {
        while rest.first == separator { rest = rest.dropFirst() }
        if rest.isEmpty { return nil }
        let end = rest.firstIndex(of: separator) ?? rest.endIndex
        defer { rest = rest[end...] }
        return rest[..<end]
    }

    private init?(_ line: Bytes) {
        let blank = UInt8(ascii: " ")
        var rest = line
        guard Self.next(&rest, upTo: blank) != nil, Self.next(&rest, upTo: blank) != nil,
            let device = Self.next(&rest, upTo: blank), let root = Self.next(&rest, upTo: blank),
            let mountPoint = Self.next(&rest, upTo: blank), Self.next(&rest, upTo: blank) != nil
        else { return nil }
        // Optional fields end with a dash.
        while let field = Self.next(&rest, upTo: blank) {
            if field.count == 1, field.first == UInt8(ascii: "-") { break }
        }
        guard let type = Self.next(&rest, upTo: blank), type.starts(with: "cgroup".utf8), type.count <= 7,
            Self.next(&rest, upTo: blank) != nil, let options = Self.next(&rest, upTo: blank)
        else { return nil }
        let version: CgroupHierarchy.Version
        var controllers: [CgroupController] = []
        var name: String?
        if type.count == 6 {
            version = .v1
            var options = options
            while let option = Self.next(&options, upTo: UInt8(ascii: ",")) {
                let text = String(decoding: option, as: UTF8.self)
                if let controller = CgroupController(rawValue: text) { controllers.append(controller) }
                if name == nil, text.hasPrefix("name=") { name = String(text.dropFirst(5)) }
            }
            guard name != nil || !controllers.isEmpty else { return nil }
        } else {
            guard type.last == UInt8(ascii: "2") else { return nil }
            version = .v2
        }
        self.device = String(decoding: device, as: UTF8.self)
        hierarchy = CgroupHierarchy(
            mountPoint: Self.unescaped(mountPoint), version: version, controllers: controllers, name: name,
            root: Self.unescaped(root))
    }

    /// Blanks, tabs, newlines and backslashes are written as three octal digits.
    private static func unescaped(_ text: Bytes) -> String {
        let backslash = UInt8(ascii: "\\")
        guard text.contains(backslash) else { return String(decoding: text, as: UTF8.self) }
        var bytes: [UInt8] = []
        var rest = text
        while let byte = rest.popFirst() {
            let digits = rest.prefix(3)
            if byte == backslash, digits.count == 3, digits.allSatisfy({ (48...55).contains($0) }) {
                bytes.append(digits.reduce(0) { $0 &* 8 &+ ($1 - 48) })
                rest = rest.dropFirst(3)
            } else {
                bytes.append(byte)
            }
        }
        return String(decoding: bytes, as: UTF8.self)
    }
}
