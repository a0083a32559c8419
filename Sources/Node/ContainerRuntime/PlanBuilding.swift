import CKernel
import DeviceNodes
import Glibc
import Kernel
import OCISpec

extension ContainerPlan {
    /// What the caller of the runtime decides, beside the configuration.
    struct Request {
        var id: ContainerID
        /// Absolute.
        var bundle: String
        var cgroup: CgroupRecord
        var newKeyring: Bool
        var noPivot: Bool
        var keptDescriptors: Int32
    }

    /// Resolves a checked configuration: opens namespaces to join, understands options, compiles nothing.
    init(_ spec: ContainerSpec, _ request: Request, filter: Filter, log: RuntimeLog) throws {
        guard let root = spec.root, let linux = spec.linux, let process = spec.process else {
            throw RefusedField("root", "is missing")
        }
        id = request.id
        bundle = request.bundle
        rootfs = try Self.resolveRoot(root.path, bundle: request.bundle)
        readonlyRoot = root.readonly
        rootPropagation = try linux.rootfsPropagation.flatMap {
            $0.isEmpty ? nil : try MountOptions([$0], path: "linux.rootfsPropagation").propagation.first
        }
        namespaces = try NamespacePlan(linux)
        cgroup = request.cgroup
        hostname = spec.hostname.flatMap { $0.isEmpty ? nil : $0 }
        domainname = spec.domainname.flatMap { $0.isEmpty ? nil : $0 }
        mounts = []
        for (index, mount) in spec.mounts.enumerated() {
            let plan = try MountPlan(mount, path: "mounts[\(index)]", bundle: request.bundle)
            if plan.mapsIDs, plan.idMap == nil, !namespaces.changesUser {
                throw RefusedField(
                    "mounts[\(index)].options", "without uidMappings and gidMappings, idmap needs a user namespace")
            }
            mounts.append(plan.labelled(linux.mountLabel))
        }
        populatesDev = !mounts.contains { mount in
            if case .bind = mount.kind, !mount.options.remount { mount.destination == "/dev" } else { false }
        }
        devices = Self.devices(linux.devices, withDefaults: populatesDev)
        maskedPaths = linux.maskedPaths
        readonlyPaths = linux.readonlyPaths
        sysctl = linux.sysctl.keys.sorted().map { name in
            Sysctl(name: name, path: SysctlCheck.place(of: name) ?? "", value: linux.sysctl[name] ?? "")
        }
        mountLabel = linux.mountLabel.flatMap { $0.isEmpty ? nil : $0 }
        netDevices = LinkTransfer.all(of: linux.netDevices)
        hooks = spec.hooks ?? HooksSpec()
        terminal = process.terminal
        consoleSize = process.consoleSize
        noPivot = request.noPivot
        keyring = request.newKeyring ? "_ses.\(request.id)" : nil
        self.process = try ProcessPlan(
            process, filter: filter, personality: linux.personality, memoryPolicy: linux.memoryPolicy,
            inUserNamespace: namespaces.changesUser, log: log)
        self.process.keptDescriptors = request.keptDescriptors
        hookState = RuntimeState(
            ociVersion: spec.ociVersion, id: request.id.description, status: .creating, pid: 0,
            bundle: request.bundle, annotations: spec.annotations)
    }

    /// The host path of the root filesystem; the bundle belongs to the caller, so it is an ordinary path.
    private static func resolveRoot(_ path: String, bundle: String) throws -> String {
        let joined = path.isAbsolutePath ? path : "\(bundle)/\(path)"
        guard let resolved = realpath(joined, nil) else {
            throw KernelError("config.json: root.path:", joined, errno: errno)
        }
        defer { free(resolved) }
        let result = String(cString: resolved)
        var info = stat()
        guard stat(result, &info) == 0, info.st_mode & S_IFMT == S_IFDIR else {
            throw RefusedField("root.path", "\(result) is not a directory")
        }
        guard result != "/" else { throw RefusedField("root.path", "is the host's root directory") }
        return result
    }

    /// Opens what is to be bound and cannot be found once the namespaces are entered: all of it where a user namespace is
    /// made, whose root might not reach it by path (but what lies in the container's root, where mounts of the
    /// configuration come before); else what another process holds open and the configuration names as
    /// `/proc/<pid>/fd/<number>`, which is a place in the host's mount namespace.
    mutating func openBindSources() throws {
        try prepareIDMaps()
        for index in mounts.indices {
            // Without root, only the container's process may make such copies.
            guard case .bind(let source) = mounts[index].kind,
                namespaces.changesUser && geteuid() == 0 || Self.isDescriptor(source)
            else { continue }
            let mount = mounts[index]
            if mount.options.remount || mount.mapping == nil && placeInRoot(source) != nil { continue }
            let tree = try withContext("\(mount.path) (\(mount.destination))") {
                let tree = try cloneSource(of: mount, source)
                // A copy made here is connected to the host's mounts as the source is; in the container's namespace it
                // would be a slave of them, unless its root is to stay connected.
                if let propagation = copiesPropagation {
                    try Mounts.change(tree.raw, propagation: propagation, recursive: true, subject: source)
                }
                return SharedFD(tree)
            }
            mounts[index].source = tree
        }
    }

    /// What lies in the container's root is found inside it, where a link of the image's leads nowhere else.
    private func cloneSource(of mount: MountPlan, _ source: String) throws -> OwnedFD {
        guard let inside = placeInRoot(source) else { return try mount.clone(source) }
        let place = try Root(rootfs).open(inside, Int32(CK_O_PATH))
        return try mount.clone(of: place, source)
    }

    /// The path inside the root of a host path that begins with the root's; nil for another.
    func placeInRoot(_ path: String) -> String? {
        // With dots it may be a place beside the root.
        guard path.isPath(inside: rootfs), !path.pathComponents.contains("..") else { return nil }
        return String(Substring(path.utf8.dropFirst(rootfs.utf8.count)))
    }

    private var copiesPropagation: MountPropagation? {
        switch rootPropagation?.kind {
        case .shared: nil
        case .private where rootPropagation?.recursive == true: .private
        default: .slave
        }
    }

    /// Through a process's open files: `/proc/<pid>/fd/<number>`, `/dev/fd/<number>`, and what lies below them.
    private static func isDescriptor(_ path: String) -> Bool {
        let parts = path.pathComponents
        return parts.count >= 4 && parts[0] == "proc" && parts[2] == "fd"
            || parts.count >= 3 && parts[0] == "dev" && parts[1] == "fd"
    }

    /// The default nodes that the configuration does not define itself, then the configuration's.
    private static func devices(_ specs: [DeviceSpec], withDefaults: Bool) -> [DeviceNode] {
        let wanted = specs.map { spec in
            let kind: DeviceNode.Kind =
                switch spec.type {
                case .character, .unbuffered: .char
                case .block: .block
                case .fifo: .fifo
                }
            return DeviceNode(
                spec.path, kind, major: spec.major, minor: spec.minor, mode: mode_t(spec.fileMode ?? 0o666),
                uid: spec.uid ?? 0, gid: spec.gid ?? 0)
        }
        if !withDefaults { return wanted }
        return DeviceNode.containerDefaults.filter { node in !wanted.contains { $0.path == node.path } } + wanted
    }
}

extension MountPlan {
    init(_ spec: MountSpec, path: String, bundle: String) throws {
        self.path = path
        source = nil
        mapping = nil
        // One that is not absolute, which the specification still allows, begins at the root.
        var parts: [Substring] = []
        for part in spec.destination.pathComponents where part != "." {
            if part == ".." { _ = parts.popLast() } else { parts.append(part) }
        }
        guard !parts.isEmpty else {
            throw RefusedField("\(path).destination", "the root itself cannot be mounted over")
        }
        destination = parts.reduce(into: "") { $0 += "/" + String($1) }
        let hasMap = !spec.uidMappings.isEmpty || !spec.gidMappings.isEmpty
        idMap = hasMap ? IDMap(uids: spec.uidMappings, gids: spec.gidMappings) : nil
        options = try MountOptions(spec.options, path: "\(path).options")
        let type = spec.type ?? ""
        try Self.checkOptions(options, hasMap: hasMap, type: type, path: path)
        if options.bind || type == "bind" {
            let source = spec.source ?? ""
            guard !source.isEmpty || options.remount else {
                throw RefusedField("\(path).source", "a bind mount needs one")
            }
            kind = .bind(source: source.isAbsolutePath ? source : "\(bundle)/\(source)")
            if let unknown = options.data.first {
                throw RefusedField("\(path).options", "'\(unknown)' is no option of a bind mount")
            }
            return
        }
        guard options.remount || !type.isEmpty && type != "none" else {
            throw RefusedField("\(path).type", "is missing, and no option says bind")
        }
        if type == "cgroup" {
            kind = .cgroup
        } else {
            kind = .filesystem(type: type, source: spec.source.flatMap { $0.isEmpty ? nil : $0 } ?? type)
        }
    }

    /// Options that go only with some kinds of mounts.
    private static func checkOptions(_ options: MountOptions, hasMap: Bool, type: String, path: String) throws {
        let isBind = options.bind || type == "bind"
        if options.idMapping != nil || hasMap {
            let field = hasMap ? "\(path).uidMappings" : "\(path).options"
            guard isBind else { throw RefusedField(field, "only bind mounts can be id-mapped") }
            guard !options.remount else { throw RefusedField(field, "a remount cannot map ids") }
        }
        if options.copiesUp, isBind || options.remount || type != "tmpfs" {
            throw RefusedField("\(path).options", "tmpcopyup is for a new tmpfs")
        }
        if options.remount, type == "cgroup", !isBind {
            throw RefusedField("\(path).options", "a cgroup mount cannot be remounted; give it its options at once")
        }
    }
}
