import AgentCore
import CKernel
import Cgroups
import Glibc
import Images
import Kernel
import Model
import OCISpec
import Reactor
import Wire

/// What the runtime reads to make a container: `bundle/config.json`, and what that names.
extension PodExecutor {
    /// Blocks.
    ///
    /// - Returns: what has to stay open until the container is made.
    func writeBundle(
        _ assignment: TaskAssignment, _ spec: Model.ContainerSpec, _ task: TaskPaths
    ) throws -> JoinedNamespaces {
        guard let pod = try PodFile.read(task), pod.bootID == bootID else {
            throw ExecutorFailure("the task is not prepared", isTransient: true)
        }
        let user = try Images.resolveUser(
            spec.user.isEmpty ? pod.image.user : spec.user, root: task.rootfs)
        var builder = SpecBuilder(
            assignment: assignment, container: spec, pod: pod, user: user, paths: task,
            cgroup: "/\(configuration.cgroupParent)/\(task.id)",
            isUnified: cgroups.hierarchies.allSatisfy { $0.version == .v2 })
        builder.groups = try spec.groups.isEmpty ? [] : Images.resolveGroups(spec.groups, root: task.rootfs)
        builder.joined = try JoinedNamespaces(assignment, table, paths, parent: configuration.cgroupParent)
        if let namespace = builder.joined.mountNamespace { try shareMemory(of: namespace, task) }
        if spec.initProcess { builder.initProgram = try initProgram() }
        try makeWorkingDirectory(builder.workingDirectory, task)
        try File.makeDirectories(task.bundle)
        try File.makeDirectories(task.logs)
        try File.makeDirectories(task.exits)
        // Made anew at each start, so it need not outlive the machine.
        let file = try File.open(task.config, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW)
        try file.writeAll(builder.build().encoded(), subject: task.config)
        return builder.joined
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
        let memory = try MountNamespace.clone("/dev/shm", in: namespace)
        var information = statfs()
        try systemCall("fstatfs", "/dev/shm") { fstatfs(memory.raw, &information) }
        guard information.f_type == CK_TMPFS_MAGIC else {
            throw ExecutorFailure("/dev/shm of the container whose IPC namespace is shared is no file system in memory")
        }
        try Mounts.attach(memory.duplicate(), at: task.sharedMemory)
    }

    /// The copy of the runtime that is the init of containers; made when it is missing or another program's.
    private func initProgram() throws -> String {
        let path = paths.initProgram
        var source = stat()
        var copy = stat()
        try systemCall("stat", configuration.runtimeProgram) { stat(configuration.runtimeProgram, &source) }
        let isCurrent =
            stat(path, &copy) == 0 && copy.st_size == source.st_size && copy.st_mtim.tv_sec >= source.st_mtim.tv_sec
        if !isCurrent {
            // Containers that run keep the one they have: it is replaced, not overwritten.
            try File.replace(path, with: File.read(configuration.runtimeProgram, limit: 256 << 20), mode: 0o755)
        }
        return path
    }
}
