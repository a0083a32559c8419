import AgentCore
import CDI
import CDISpec
import CKernel
import Cgroups
import DeviceNodes
import Glibc
import JSON
import Kernel
import Logging
import Model
import OCISpec
import Reactor
import Wire

/// Devices that a container is given while it runs, and such that it has to give back.
extension PodExecutor {
    /// Where no group is, nothing runs: the next start brings the devices.
    ///
    /// What the container may have is written down before it gets it, so that any later attempt takes away what an earlier one has
    /// left. What it gives back is rather in force before it is gone than the other way round: the rules come first.
    ///
    /// - Throws: also while a process of the container has something open that is to be given back: it is nobody else's then.
    func updateDevices(_ assignment: TaskAssignment, _ previous: TaskAssignment) async throws {
        guard let spec = assignment.pod.containers.first else { return }
        let granted = assignment.devices(of: spec.name)
        let group = try cgroup(of: assignment.task)
        let files = paths.task(assignment.task)
        try await pool.run { [self] in
            guard !granted.isEmpty || File.exists(files.unclaimedConfig), group.exists(),
                let record = table[assignment.task], record.isLive
            else { return }
            let now = try LiveDevices.read(files.config)
            if !File.exists(files.unclaimedConfig) {
                // It was started without any.
                try File.replace(files.unclaimedConfig, with: now.encoded())
            }
            let edits = try claimedEdits(assignment, spec, had: Set(previous.devices(of: spec.name)))
            let change = try LiveDevices(from: now, to: LiveDevices.read(files.unclaimedConfig), with: edits)
            if change.isMade { return }
            try File.replace(files.config, with: change.attempt.encoded())
            try group.setDevices(change.rules)
            failpoint("agent.after_device_rules")
            let namespace = try ProcessDirectory(record, parent: configuration.cgroupParent).open("ns/mnt")
            for problem in try change.make(in: namespace) {
                // By the rules it is of no use any more.
                logger.warning(
                    "a device's node stays in a container",
                    metadata: ["task": "\(assignment.task)", "problem": "\(problem)"])
            }
            failpoint("agent.after_devices")
            try change.expectUnused(by: group.processes())
            try File.replace(files.config, with: change.configuration.encoded())
        }
    }
}

/// What is between a container's configuration and the one that it would be started with now, as far as devices go.
struct LiveDevices: Sendable {
    /// All rules that hold from now on.
    let rules: [DeviceRule]
    /// What the container is started with, with the devices that it has from now on.
    let configuration: OCISpec.ContainerSpec
    /// The same with all that there may be until it is done.
    let attempt: OCISpec.ContainerSpec
    /// Nothing is to be done.
    let isMade: Bool
    /// What it had and is not to have.
    private let left: [DeviceNode]
    private let isOfHost: Bool
    private let given: [DeviceNode]
    private let mounts: [MountSpec]

    /// In annotations of a configuration that is being changed.
    private static let mark = "martlet.devices"

    static func read(_ path: String) throws -> OCISpec.ContainerSpec {
        try OCISpec.ContainerSpec(parsing: File.readRegular(path, limit: JSONLimits.standard.bytes))
    }

    /// - Parameters:
    ///   - now: the configuration that it runs with, or was to run with when an attempt failed.
    ///   - base: what it would have without claims.
    ///   - edits: of all devices that it claims.
    /// - Throws: `ExecutorFailure` naming a device that it cannot have.
    init(from now: OCISpec.ContainerSpec, to base: OCISpec.ContainerSpec, with edits: CDIEdits) throws {
        var wanted = base
        do throws(CDIError) {
            try CDIEdits(deviceNodes: edits.deviceNodes, mounts: edits.mounts).apply(to: &wanted)
        } catch {
            throw ExecutorFailure("a device cannot be given to the container: \(error)")
        }
        let (devices, present) = (wanted.linux?.devices ?? [], now.linux?.devices ?? [])
        let (wantedRules, presentRules) = (
            wanted.linux?.resources?.devices ?? [], now.linux?.resources?.devices ?? []
        )
        rules = try wantedRules.map(DeviceRule.init) + DeviceRule.containerDefaults
        configuration = wanted
        isMade = now.annotations[Self.mark] == nil && devices == present && wantedRules == presentRules
        var attempt = wanted
        attempt.annotations[Self.mark] = "changing"
        attempt.linux?.devices = devices + present.filter { !devices.contains($0) }
        attempt.linux?.resources?.devices = wantedRules + presentRules.filter { !wantedRules.contains($0) }
        self.attempt = attempt
        // Where /dev is the host's, its nodes are.
        isOfHost = base.mounts.contains {
            $0.destination == "/dev"
                && ($0.type == "bind" || $0.options.contains("bind") || $0.options.contains("rbind"))
        }
        let paths = Set(edits.deviceNodes.map(\.path))
        left = try present.filter { !devices.contains($0) }.map(DeviceNode.init)
        given = try isOfHost ? [] : devices.filter { paths.contains($0.path) }.map(DeviceNode.init)
        let places = Set(edits.mounts.map(\.containerPath))
        mounts = wanted.mounts.filter { places.contains($0.destination) }
    }

    /// Removes and makes nodes, and mounts the drivers' files. What is there already is left. Blocks.
    ///
    /// - Parameter namespace: the container's mount namespace.
    /// - Returns: why nodes that are to go are still there.
    /// - Throws: `KernelError` naming the node or the file that cannot be made.
    func make(in namespace: SharedFD) throws -> [String] {
        // Of this process's files, before those of the container are in sight.
        let trees = try mounts.map { mount throws(KernelError) in
            let tree = SharedFD(try Mounts.clone(mount.source ?? "", recursive: false))
            try Mounts.change(
                tree.raw, set: [.readOnly, .noSetuid, .noDevices], propagation: .private, subject: mount.destination)
            return (target: mount.destination, tree: tree)
        }
        var host = stat()
        try systemCall("stat", "/dev") { stat("/dev", &host) }
        let device = host.st_dev
        return try MountNamespace.run(in: namespace) { () throws(KernelError) in
            let root = try Root("/")
            let problems = try changeNodes(root, host: device)
            for (path, tree) in trees { try Self.attach(tree, at: path, root) }
            return problems
        }
    }

    /// In the /dev that the runtime made, and nowhere else: what the container, or a mount of the node's, has put in its place
    /// gets no node and loses none.
    private func changeNodes(_ root: borrowing Root, host: dev_t) throws(KernelError) -> [String] {
        if isOfHost || left.isEmpty && given.isEmpty { return [] }
        let dev: Root
        do throws(KernelError) {
            let directory = try root.open("/dev", Int32(CK_O_PATH) | O_DIRECTORY, .withoutSymlinks)
            var (system, information) = (statfs(), stat())
            let raw = directory.raw
            try systemCall("fstatfs", "/dev") { fstatfs(raw, &system) }
            try systemCall("fstat", "/dev") { fstat(raw, &information) }
            // The kernel's devtmpfs says of itself that it is a tmpfs.
            guard system.f_type == CK_TMPFS_MAGIC, information.st_dev != host else {
                throw KernelError(
                    "mknod", "/dev", errno: ENOTSUP,
                    hint: "the container's /dev is not the one that it was started with: start it anew")
            }
            dev = Root(adopting: directory, name: "/dev")
        } catch {
            if given.isEmpty { return [error.description] }
            throw error
        }
        var problems: [String] = []
        for node in left {
            do throws(KernelError) {
                try node.remove(from: dev)
            } catch {
                problems.append(error.description)
            }
        }
        for node in given { try node.make(in: dev) }
        return problems
    }

    private static func attach(_ tree: SharedFD, at path: String, _ root: borrowing Root) throws(KernelError) {
        let target: OwnedFD
        do throws(KernelError) {
            target = try root.makeFile(path)
        } catch {
            guard error.errno == EROFS else { throw error }
            throw KernelError(
                error.operation, error.subject, errno: EROFS,
                hint: "there is no place for a driver's file in a read-only root: start the container anew")
        }
        let (place, source) = (target.raw, tree.raw)
        var (there, file) = (stat(), stat())
        try systemCall("fstat", path) { fstat(place, &there) }
        try systemCall("fstat", path) { fstat(source, &file) }
        if (there.st_dev, there.st_ino) == (file.st_dev, file.st_ino) { return }
        try Mounts.attach(try tree.duplicate(), on: place, subject: path)
    }

    // MARK: What is still in use

    /// Files of processes that are looked at.
    private static let mostFiles = 1 << 20

    /// That none of these processes has a device open, or mapped, that is to be given back. What a process has sent to another
    /// one, which has not received it yet, is not seen.
    ///
    /// - Throws: `ExecutorFailure` that is transient, naming process and device.
    func expectUnused(by processes: [pid_t]) throws(ExecutorFailure) {
        let policy = DevicePolicy(rules)
        var given: [dev_t: String] = [:]
        for node in left where !policy.allows(.char, major: node.major, minor: node.minor, .read) {
            given[dev_t(ck_makedev(node.major, node.minor))] = node.path
        }
        if given.isEmpty { return }
        var looked = 0
        for pid in processes {
            for folder in ["fd", "map_files"] {
                for name in (try? File.list("/proc/\(pid)/\(folder)")) ?? [] {
                    looked += 1
                    var file = stat()
                    // Who has ended meanwhile has nothing open.
                    guard stat("/proc/\(pid)/\(folder)/\(name)", &file) == 0, file.st_mode & S_IFMT == S_IFCHR,
                        let path = given[file.st_rdev]
                    else { continue }
                    throw ExecutorFailure(
                        "the process \(pid) of the container has \(path) open, which it cannot open again: the device is given "
                            + "back when it closes it; end the process, or restart the container", isTransient: true)
                }
                guard looked < Self.mostFiles else {
                    throw ExecutorFailure(
                        "the container's processes have so many files open that nobody can say whether a device is among them: "
                            + "restart the container", isTransient: true)
                }
            }
        }
    }
}

extension DeviceNode {
    /// - Throws: `ExecutorFailure` for what is nowhere below /dev.
    fileprivate init(_ spec: DeviceSpec) throws(ExecutorFailure) {
        guard spec.path.hasPrefix("/dev/"), let kind = Kind(spec.type.rawValue) else {
            throw ExecutorFailure(
                "the device \(spec.path) cannot be given to a container that runs, or taken from it: stop it first")
        }
        self.init(
            spec.path, kind, major: UInt32(clamping: spec.major), minor: UInt32(clamping: spec.minor),
            mode: mode_t(spec.fileMode ?? 0o666), uid: spec.uid ?? 0, gid: spec.gid ?? 0)
    }

    /// Below /dev.
    private var place: (folders: [String], name: String) {
        let parts = path.pathComponents.dropFirst().map { String($0) }
        return (Array(parts.dropLast()), parts.last ?? "")
    }

    /// The directory of the node, in the same file system, by no link.
    ///
    /// - Parameter makes: whether those are made that are not there.
    private func directory(in dev: borrowing Root, makes: Bool) throws(KernelError) -> OwnedFD {
        var directory = try dev.open(".", Int32(CK_O_PATH) | O_DIRECTORY)
        var way = ""
        for folder in place.folders {
            let raw = directory.raw
            if makes, mkdirat(raw, folder, 0o755) != 0, errno != EEXIST {
                throw KernelError("mkdir", "/dev/\(way)\(folder)", errno: errno)
            }
            way += folder
            directory = try dev.open(
                way, Int32(CK_O_PATH) | O_DIRECTORY, [.withoutSymlinks, .withoutCrossing])
            way += "/"
        }
        return directory
    }

    fileprivate func make(in dev: borrowing Root) throws(KernelError) {
        let directory = try directory(in: dev, makes: true)
        do throws(DeviceError) {
            try create(in: directory.raw)
        } catch {
            throw KernelError("mknod", path, errno: error.errno, hint: error.reason)
        }
    }

    /// Only what is this device: the container may have put something else there.
    fileprivate func remove(from dev: borrowing Root) throws(KernelError) {
        do throws(KernelError) {
            let directory = try directory(in: dev, makes: false)
            var there = stat()
            let (raw, name) = (directory.raw, place.name)
            try systemCall("fstatat", path) { fstatat(raw, name, &there, AT_SYMLINK_NOFOLLOW) }
            let isDevice = there.st_mode & S_IFMT == (kind == .block ? S_IFBLK : S_IFCHR)
            guard isDevice, (ck_major(UInt64(there.st_rdev)), ck_minor(UInt64(there.st_rdev))) == (major, minor) else {
                return
            }
            try systemCall("unlinkat", path) { unlinkat(raw, name, 0) }
        } catch {
            guard error.errno == ENOENT || error.errno == ENOTDIR else { throw error }
        }
    }
}

extension DeviceRule {
    /// One of those that `SpecBuilder` and the edits write.
    fileprivate init(_ spec: DeviceRuleSpec) throws(ExecutorFailure) {
        let kind = spec.type.flatMap { $0.isEmpty ? nil : $0 } ?? "a"
        guard let device = DeviceClass(kind), let access = spec.access.map({ DeviceAccess($0) }) ?? .all else {
            throw ExecutorFailure("the rule '\(kind) \(spec.access ?? "")' is none for devices")
        }
        func number(_ value: Int64?) -> UInt32? { value.flatMap { $0 < 0 ? nil : UInt32(clamping: $0) } }
        self.init(
            allow: spec.allow, device, major: number(spec.major), minor: number(spec.minor), access: access)
    }
}
