import Confinement
import Glibc
import JSON
import Kernel
import OCISpec

/// Checks a configuration against the specification and against what this runtime honours. Whatever is not honoured is
/// refused by its place; nothing is silently left out.
struct Validation {
    let spec: ContainerSpec

    /// The versions of the specification that are accepted: 1.0.0 to 1.3.x.
    static let lowestVersion = "1.0.0"
    static let highestVersion = "1.3.0"
    static let highestMinor = 3

    /// - Throws: `RefusedField`.
    static func check(_ spec: ContainerSpec) throws {
        let validation = Validation(spec: spec)
        try checkVersion(spec.ociVersion)
        guard let process = spec.process else { throw RefusedField("process", "is missing") }
        try validation.checkRoot()
        try check(process, path: "process")
        guard let linux = spec.linux else { throw RefusedField("linux", "is missing") }
        if let seccomp = linux.seccomp { try validation.checkSeccomp(seccomp) }
        try validation.checkNamespaces(linux)
        try validation.checkIDMappings(linux)
        try validation.checkNames(linux)
        try validation.checkPaths(linux)
        if let resources = linux.resources { try check(resources, path: "linux.resources") }
        try SysctlCheck(linux: linux).run()
        try checkAttributes(linux)
        try validation.checkNetDevices(linux)
    }

    static func checkVersion(_ version: String) throws {
        let core = version.prefix { $0 != "-" && $0 != "+" }
        let parts = core.split(separator: ".", omittingEmptySubsequences: false).map { UInt32($0) }
        guard parts.count == 3, let major = parts[0], let minor = parts[1], parts[2] != nil else {
            throw RefusedField("ociVersion", "'\(version)' is not a version such as 1.2.0")
        }
        guard major == 1, minor <= highestMinor else {
            throw RefusedField(
                "ociVersion", "\(version) is not supported; \(lowestVersion) to 1.\(highestMinor).x are")
        }
    }

    private func checkRoot() throws {
        guard let root = spec.root else { throw RefusedField("root", "is missing") }
        guard !root.path.isEmpty else { throw RefusedField("root.path", "is empty") }
    }

    /// Checks a process, of config.json or of `exec --process`.
    static func check(_ process: ProcessSpec, path: String) throws {
        guard let program = process.args.first, !program.isEmpty else {
            throw RefusedField("\(path).args", "names no program")
        }
        guard process.cwd.isAbsolutePath else {
            throw RefusedField("\(path).cwd", "'\(process.cwd)' is not an absolute path")
        }
        for (index, entry) in process.env.enumerated() {
            // Of bytes: a value may begin with what joins with the sign into one character.
            guard let equals = entry.utf8.firstIndex(of: UInt8(ascii: "=")), equals != entry.startIndex else {
                throw RefusedField("\(path).env[\(index)]", "'\(entry.prefix(64))' is not NAME=value")
            }
        }
        try checkAttributes(process, path: path)
        if let score = process.oomScoreAdj, !OOMScoreAdjustment.range.contains(Int(score)) {
            throw RefusedField("\(path).oomScoreAdj", "\(score) is not between -1000 and 1000")
        }
        guard process.user.additionalGids.count <= 65536 else {
            throw RefusedField("\(path).user.additionalGids", "more than 65536 groups")
        }
        if let mask = process.user.umask, mask > 0o777 {
            throw RefusedField("\(path).user.umask", "is not between 0 and 0777")
        }
        guard process.rlimits.count <= 64 else { throw RefusedField("\(path).rlimits", "more than 64 limits") }
        for (index, limit) in process.rlimits.enumerated()
        where process.rlimits[..<index].contains(where: { $0.type == limit.type }) {
            throw RefusedField("\(path).rlimits[\(index)].type", "\(limit.type) is given twice")
        }
    }

    private func checkNamespaces(_ linux: LinuxSpec) throws {
        for (index, namespace) in linux.namespaces.enumerated() {
            let path = "linux.namespaces[\(index)]"
            guard !linux.namespaces[..<index].contains(where: { $0.type == namespace.type }) else {
                throw RefusedField(path, "the \(namespace.type.rawValue) namespace is given twice")
            }
            if let joined = namespace.path, !joined.isAbsolutePath {
                throw RefusedField("\(path).path", "'\(joined)' is not an absolute path")
            }
        }
        guard let mount = linux.namespace(.mount) else {
            throw RefusedField("linux.namespaces", "a mount namespace is required")
        }
        guard mount.path == nil else {
            throw RefusedField(
                "linux.namespaces",
                "joining a mount namespace by path is not supported: the container's "
                    + "root would replace that of everybody in it")
        }
        let user = linux.namespace(.user)
        let hasMaps = !linux.uidMappings.isEmpty || !linux.gidMappings.isEmpty
        if user == nil || user?.path != nil, hasMaps {
            throw RefusedField("linux.uidMappings", "id mappings need a new user namespace in linux.namespaces")
        }
        if let user, user.path == nil {
            guard !linux.uidMappings.isEmpty else { throw RefusedField("linux.uidMappings", "is missing") }
            guard !linux.gidMappings.isEmpty else { throw RefusedField("linux.gidMappings", "is missing") }
        }
        for (clock, _) in linux.timeOffsets where clock != "monotonic" && clock != "boottime" {
            throw RefusedField("linux.timeOffsets.\(clock)", "clocks with an offset are monotonic and boottime")
        }
        if !linux.timeOffsets.isEmpty {
            guard let time = linux.namespace(.time), time.path == nil else {
                throw RefusedField("linux.timeOffsets", "offsets need a new time namespace in linux.namespaces")
            }
        }
    }

    private func checkNames(_ linux: LinuxSpec) throws {
        let names = [("hostname", spec.hostname), ("domainname", spec.domainname)]
        for case (let field, let name?) in names where !name.isEmpty {
            guard linux.namespace(.uts) != nil else {
                throw RefusedField(field, "cannot be set without a uts namespace in linux.namespaces")
            }
            guard name.utf8.count <= 64 else { throw RefusedField(field, "is longer than 64 bytes") }
        }
        if let propagation = linux.rootfsPropagation, !propagation.isEmpty {
            let options = try MountOptions([propagation], path: "linux.rootfsPropagation")
            guard options.propagation.count == 1 else {
                throw RefusedField("linux.rootfsPropagation", "'\(propagation)' is no kind of propagation")
            }
        }
    }

    private func checkPaths(_ linux: LinuxSpec) throws {
        for (name, paths) in [("maskedPaths", linux.maskedPaths), ("readonlyPaths", linux.readonlyPaths)] {
            for (index, path) in paths.enumerated() where !path.isAbsolutePath {
                throw RefusedField("linux.\(name)[\(index)]", "'\(path)' is not an absolute path")
            }
        }
        for (index, device) in linux.devices.enumerated() {
            guard device.path.isAbsolutePath, device.path.pathComponents.last.map({ $0 != ".." }) ?? false else {
                throw RefusedField("linux.devices[\(index)].path", "'\(device.path)' is not an absolute path of a file")
            }
            if let mode = device.fileMode, mode & ~0o170000 > 0o7777 {
                throw RefusedField("linux.devices[\(index)].fileMode", "is more than permission bits")
            }
        }
    }
}

/// Which sysctls belong to a namespace of the container's own: the others would change the host.
struct SysctlCheck {
    let linux: LinuxSpec

    func run() throws {
        for name in linux.sysctl.keys.sorted() {
            let path = "linux.sysctl.\(name)"
            guard let place = Self.place(of: name) else { throw RefusedField(path, "is no name of a sysctl") }
            if let missing = missingNamespace(place) {
                throw RefusedField(path, "the container has no \(missing) namespace of its own that it belongs to")
            }
        }
    }

    /// The path below /proc/sys. The first separator decides what the other character means: `net.ipv4.conf.eth0/1.tag`
    /// is the interface eth0.1, as in sysctl(8).
    static func place(of name: String) -> String? {
        let (dot, slash) = (UInt8(ascii: "."), UInt8(ascii: "/"))
        let separator = name.utf8.first { $0 == dot || $0 == slash } ?? dot
        let parts = name.utf8.split(separator: separator, omittingEmptySubsequences: false).map { part in
            String(decoding: separator == dot ? part.map { $0 == slash ? dot : $0 } : Array(part), as: UTF8.self)
        }
        guard parts.count >= 2, parts.allSatisfy({ !$0.isEmpty && $0 != "." && $0 != ".." }) else { return nil }
        return parts.joined(separator: "/")
    }

    private func missingNamespace(_ place: String) -> String? {
        let ipc = [
            "kernel/msgmax", "kernel/msgmnb", "kernel/msgmni", "kernel/sem", "kernel/shmall", "kernel/shmmax",
            "kernel/shmmni", "kernel/shm_rmid_forced",
        ]
        if ipc.contains(place) || place.hasPrefix("fs/mqueue/") { return owns(.ipc) ? nil : "ipc" }
        if place.hasPrefix("net/") { return owns(.network) ? nil : "network" }
        if place == "kernel/domainname" || place == "kernel/hostname" { return owns(.uts) ? nil : "uts" }
        return "(any)"
    }

    /// True for a new namespace and for a joined one that is not the runtime's.
    func owns(_ kind: NamespaceSpec.Kind) -> Bool {
        guard let namespace = linux.namespace(kind) else { return false }
        guard let path = namespace.path else { return true }
        let name = kind == .network ? "net" : kind.rawValue
        return !NamespaceFiles.same(path, "/proc/self/ns/\(name)")
    }
}
