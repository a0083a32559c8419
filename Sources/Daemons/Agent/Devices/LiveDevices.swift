import AgentCore
import CDI
import CDISpec
import CKernel
import Cgroups
import DeviceNodes
import Glibc
import Kernel
import Model
import OCISpec
import Reactor
import Wire

/// Devices that a container is given while it runs, and such that it has to give back.
extension PodExecutor {
    /// Where no group is, nothing runs: the next start brings the devices.
    func updateDevices(_ assignment: TaskAssignment, _ previous: TaskAssignment) async throws {
        guard let spec = assignment.pod.containers.first,
            assignment.devices(of: spec.name) != previous.devices(of: spec.name)
        else { return }
        let group = try cgroup(of: assignment.task)
        let files = paths.task(assignment.task)
        try await pool.run { [self] in
            guard group.exists(), let record = table[assignment.task], record.isLive else { return }
            let bytes = try File.readRegular(files.config, limit: 16 << 20)
            let now = try OCISpec.ContainerSpec(parsing: bytes)
            let change = try LiveDevices(from: now, for: spec, edits: deviceEdits(assignment, spec))
            // From here on nothing new is opened of what it is to give back, by whatever node.
            try group.setDevices(change.rules)
            failpoint("agent.after_device_rules")
            if !change.isOfRulesOnly {
                try change.make(in: ProcessDirectory(record, parent: configuration.cgroupParent).open("ns/mnt"))
            }
            failpoint("agent.after_devices")
            try File.replace(files.config, with: change.configuration.encoded(), mode: 0o600)
        }
    }
}

/// What is between a container's configuration and the one that it would be started with now, as far as devices go.
struct LiveDevices: Sendable {
    /// All rules that hold from now on.
    let rules: [DeviceRule]
    /// What the container was started with, with the devices that it has from now on.
    private(set) var configuration: OCISpec.ContainerSpec
    private var gone: [DeviceNode] = []
    private var new: [DeviceNode] = []
    private var mounts: [MountSpec] = []

    /// - Parameters:
    ///   - now: the configuration that it runs with.
    ///   - edits: of all devices that it is to have.
    /// - Throws: `ExecutorFailure` naming a device that it cannot have.
    init(from now: OCISpec.ContainerSpec, for container: Model.ContainerSpec, edits: CDIEdits) throws {
        var wanted = OCISpec.ContainerSpec()
        wanted.process = now.process
        var (linux, resources) = (LinuxSpec(), ResourcesSpec())
        try SpecBuilder.addDevices(of: container, to: &linux, &resources)
        linux.resources = resources
        wanted.linux = linux
        do throws(CDIError) {
            try edits.apply(to: &wanted)
        } catch {
            throw ExecutorFailure("a device cannot be given to the container: \(error)")
        }
        let devices = wanted.linux?.devices ?? []
        let specs = wanted.linux?.resources?.devices ?? []
        rules = try specs.map(DeviceRule.init) + DeviceRule.containerDefaults
        let present = now.linux?.devices ?? []
        // What is another device under an old name is taken away first.
        gone = try present.filter { !devices.contains($0) }.map(DeviceNode.init)
        new = try devices.filter { !present.contains($0) }.map(DeviceNode.init)
        mounts = wanted.mounts.filter { mount in !now.mounts.contains { $0.destination == mount.destination } }
        configuration = now
        configuration.linux?.devices = devices
        configuration.linux?.resources?.devices = specs
        configuration.mounts += mounts
    }

    /// Nothing is to be made or removed in the container.
    var isOfRulesOnly: Bool { gone.isEmpty && new.isEmpty && mounts.isEmpty }

    /// Removes and makes nodes, and mounts the drivers' files. What is there already is left: after a failure all of it may
    /// be done again. Blocks.
    ///
    /// - Parameter namespace: the container's mount namespace.
    /// - Throws: `KernelError` naming the node or the file.
    func make(in namespace: SharedFD) throws {
        // Of this process's files, before those of the container are in sight.
        let trees = try mounts.map { mount throws(KernelError) in
            let tree = SharedFD(try Mounts.clone(mount.source ?? "", recursive: false))
            try Mounts.change(
                tree.raw, set: [.readOnly, .noSetuid, .noDevices], propagation: .private, subject: mount.destination)
            return (target: mount.destination, tree: tree)
        }
        try MountNamespace.run(in: namespace) { () throws(KernelError) in
            let root = try Root("/")
            try changeNodes(root)
            for (path, tree) in trees { try Self.attach(tree, at: path, root) }
        }
    }

    /// In the /dev that the runtime made, and nowhere else: what the container has put in its place gets no node.
    private func changeNodes(_ root: borrowing Root) throws(KernelError) {
        if gone.isEmpty, new.isEmpty { return }
        let directory = try root.open("/dev", Int32(CK_O_PATH) | O_DIRECTORY, .withoutSymlinks)
        var information = statfs()
        let raw = directory.raw
        try systemCall("fstatfs", "/dev") { fstatfs(raw, &information) }
        guard information.f_type == CK_TMPFS_MAGIC else {
            throw KernelError(
                "mknod", "/dev", errno: ENOTSUP,
                hint: "the container's /dev is not the one that it was started with: start it anew")
        }
        let dev = Root(adopting: directory, name: "/dev")
        for node in gone { try node.remove(from: dev) }
        for node in new { try node.make(in: dev) }
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
    private var place: (directory: String, name: String) {
        let parts = path.pathComponents.dropFirst()
        return (parts.dropLast().joined(separator: "/"), parts.last.map { String($0) } ?? "")
    }

    fileprivate func make(in dev: borrowing Root) throws(KernelError) {
        let directory = try dev.makeDirectories(place.directory)
        do throws(DeviceError) {
            try create(in: directory.raw)
        } catch {
            throw KernelError("mknod", path, errno: error.errno, hint: error.reason)
        }
    }

    /// Only what is this device: the container may have put something else there.
    fileprivate func remove(from dev: borrowing Root) throws(KernelError) {
        do throws(KernelError) {
            let directory = try dev.open(place.directory, Int32(CK_O_PATH) | O_DIRECTORY)
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
