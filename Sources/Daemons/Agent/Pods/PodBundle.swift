import AgentCore
import CDISpec
import CKernel
import Cgroups
import Glibc
import Images
import JSON
import Kernel
import Model
import OCISpec
import Reactor
import Synchronization
import Volumes
import Wire

/// What the runtime reads to make a container: `bundle/config.json`, and what that names.
extension PodExecutor {
    /// Blocks.
    ///
    /// - Returns: what it was built from, parts of which have to stay open until the container is made, and whether something else
    ///   was there.
    func writeBundle(
        _ assignment: TaskAssignment, _ spec: Model.ContainerSpec, _ task: TaskPaths
    ) throws -> (opened: SpecBuilder, isOther: Bool) {
        guard let pod = try PodFile.read(task), pod.bootID == bootID else {
            throw ExecutorFailure("the task is not prepared", isTransient: true)
        }
        let user = try Images.resolveUser(
            spec.user.isEmpty ? pod.image.user : spec.user, root: task.rootfs)
        var builder = SpecBuilder(
            assignment: assignment, container: spec, pod: pod, user: user, paths: task,
            cgroup: "/\(configuration.cgroupParent)/\(task.id)",
            isUnified: cgroups.isUnified)
        builder.accountsSwap = try cgroup(of: assignment.task).accountsSwap()
        builder.groups = try spec.groups.isEmpty ? [] : Images.resolveGroups(spec.groups, root: task.rootfs)
        builder.joined = try JoinedNamespaces(assignment, table, paths, parent: configuration.cgroupParent)
        if let namespace = builder.joined.mountNamespace { try shareMemory(of: namespace, task) }
        for mount in pod.mounts where mount.isOpenedByStart == true { builder.sources[mount.target] = try open(mount) }
        let devices = try deviceEdits(assignment, spec)
        builder.deviceEdits = devices.claimed
        builder.deviceEdits.append(devices.named)
        builder.hugepageSizes = hugepageSizes
        builder.sharedProcessors = sharedProcessors.list(for: spec.limits, beside: table.all)
        if !assignment.grantedProcessors.isEmpty {
            builder.allowedProcessors = cgroups.allowedProcessors(parent: configuration.cgroupParent)
        }
        if spec.initProcess { builder.initProgram = try initProgram() }
        try makeWorkingDirectory(builder.workingDirectory, task)
        try File.makeDirectories(task.bundle)
        try File.makeDirectories(task.logs)
        try File.makeDirectories(task.exits)
        if devices.claimed.isEmpty {
            try File.removeFile(task.unclaimedConfig)
        } else {
            var unclaimed = builder
            unclaimed.deviceEdits = devices.named
            try File.replace(task.unclaimedConfig, with: unclaimed.build().encoded())
        }
        // Made anew at each start, so it need not outlive the machine.
        let text = try builder.build().encoded()
        let isOther =
            try File.exists(task.config) && File.readRegular(task.config, limit: JSONLimits.standard.bytes) != text
        let file = try File.open(task.config, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW)
        try file.writeAll(text, subject: task.config)
        return (builder, isOther)
    }

    /// Opens what the runtime is to bind by descriptor: whoever can write to a directory above it could lead its path
    /// elsewhere.
    func open(_ mount: PodFile.HostMount) throws -> SharedFD {
        let source = try volumes.openBindSource(mount.source)
        guard source.path == mount.source else {
            throw ExecutorFailure(
                "the bind source '\(mount.source)' leads to '\(source.path)' by now: make the container anew")
        }
        return SharedFD(try source.descriptor.duplicate())
    }

    /// The directory that the program starts in is made, inside the container's root.
    private func makeWorkingDirectory(_ path: String, _ task: TaskPaths) throws {
        guard path != "/" else { return }
        let root = try Root(task.rootfs)
        _ = try root.makeDirectories(path)
    }

    /// Mounts the shared memory of another container where this one's is bound from.
    private func shareMemory(of namespace: SharedFD, _ task: TaskPaths) throws {
        try Mounts.detachAll(below: [task.sharedMemory])
        try File.makeDirectories(task.sharedMemory)
        let memory: SharedFD
        do throws(KernelError) {
            memory = try MountNamespace.clone("/dev/shm", in: namespace)
        } catch {
            throw ExecutorFailure(
                "cannot have /dev/shm of the container whose IPC namespace is shared: \(error); it has to run, and to have "
                    + "something mounted there")
        }
        var information = statfs()
        try systemCall("fstatfs", "/dev/shm") { fstatfs(memory.raw, &information) }
        guard information.f_type == CK_TMPFS_MAGIC else {
            throw ExecutorFailure("/dev/shm of the container whose IPC namespace is shared is no file system in memory")
        }
        // A copy may be a peer of the other container's mount, and what goes here would go there too.
        try Mounts.change(memory.raw, propagation: .private, recursive: true, subject: task.sharedMemory)
        try Mounts.attach(memory.duplicate(), at: task.sharedMemory)
    }

    /// The copy of the runtime that is the init of containers; made when it is missing or another program's.
    private func initProgram() throws -> String {
        try initCopy.withLock { _ in
            try Self.copyProgram(configuration.runtimeProgram, to: paths.initProgram)
            return paths.initProgram
        }
    }

    /// Has `path` be a copy of a program, with its time of change, by which it is known to be one. Containers that run the
    /// one before keep it: it is replaced, not overwritten. Two at a time would write to one new file.
    static func copyProgram(_ program: String, to path: String) throws {
        var source = stat()
        var copy = stat()
        try systemCall("stat", program) { stat(program, &source) }
        let isCurrent =
            stat(path, &copy) == 0 && copy.st_size == source.st_size
            && copy.st_mtim.tv_sec == source.st_mtim.tv_sec && copy.st_mtim.tv_nsec == source.st_mtim.tv_nsec
        if isCurrent { return }
        try File.replace(path, with: File.read(program, limit: 256 << 20), mode: 0o755)
        let times = [source.st_mtim, source.st_mtim]
        try systemCall("utimensat", path) { utimensat(AT_FDCWD, path, times, 0) }
    }
}
