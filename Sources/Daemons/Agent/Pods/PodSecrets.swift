import AgentCore
import CKernel
import Client
import Glibc
import JSON
import Kernel
import Model
import Reactor
import Wire

extension TaskPaths {
    /// The file of the container's mount with this number, in memory; see `PodExecutor.provideSecrets`.
    func secret(_ mount: Int) -> String { "\(secrets)/\(mount)" }
}

extension PodExecutor {
    /// Sees to it that the values of a task's secrets and configs are there, in a file system in memory of the task's own
    /// (RUN/secrets/<task>) that neither the disk nor, where the kernel can do that, swap ever sees.
    ///
    /// It appears whole or not at all, and what is in it never changes: neither does a secret, nor the task's pod. So
    /// the master is asked only when it is not there: at the first start, and after a reboot or `martlet down`.
    ///
    /// - Throws: a transient `ExecutorFailure` while the master cannot be reached or cannot open a secret.
    func provideSecrets(_ assignment: TaskAssignment, _ container: Model.ContainerSpec) async throws {
        guard container.mounts.contains(where: \.isFile) else { return }
        let task = paths.task(assignment.task)
        // Below the place there is nothing but in that file system.
        if let first = container.mounts.firstIndex(where: \.isFile), File.exists(task.secret(first)) { return }
        let values: TaskSecrets
        do {
            values = try await secrets(of: assignment.task)
        } catch let error as ClientError {
            if let status = error.status, status == 403 || status == 404 {
                throw ExecutorFailure("the master does not give the secrets: \(error.message)")
            }
            throw ExecutorFailure("waiting for secrets: \(error.message)", isTransient: true)
        } catch {
            try Task.checkCancellation()
            throw ExecutorFailure("waiting for secrets: \(error)", isTransient: true)
        }
        let files = try container.mounts.enumerated().filter(\.element.isFile).map { index, mount in
            try SecretFile(mount, number: index, in: values)
        }
        try await pool.run { try Self.mount(files, at: task.secrets) }
    }

    /// Blocks.
    private static func mount(_ files: [SecretFile], at place: String) throws {
        let page = Int(getpagesize())
        let pages = files.reduce(1) { $0 + ($1.value.count + page - 1) / page }
        let mount = try fileSystem(bytes: pages * page, files: files.count)
        for file in files { try file.write(in: mount.raw) }
        try Mounts.change(mount.raw, set: .readOnly, propagation: .private, subject: place)
        try File.makeDirectories(place)
        try Mounts.attach(mount, at: place)
    }

    /// Memory that holds so much and no more, mounted nowhere yet.
    private static func fileSystem(bytes: Int, files: Int) throws(KernelError) -> OwnedFD {
        do {
            return try fileSystem(bytes: bytes, files: files, mayBeSwapped: false)
        } catch {
            // Before Linux 6.4 tmpfs has no such option.
            guard error.errno == EINVAL else { throw error }
            return try fileSystem(bytes: bytes, files: files, mayBeSwapped: true)
        }
    }

    private static func fileSystem(bytes: Int, files: Int, mayBeSwapped: Bool) throws(KernelError) -> OwnedFD {
        let context = try FilesystemContext("tmpfs")
        try context.set("mode", "0700")
        try context.set("size", "\(bytes)")
        // The directory itself is one.
        try context.set("nr_inodes", "\(files + 1)")
        if !mayBeSwapped { try context.set("noswap") }
        return try context.create([.noSetuid, .noDevices, .noExecution])
    }

    /// Takes a task's secrets out of memory; where there are none this does nothing. Blocks.
    func removeSecrets(_ task: TaskPaths) throws {
        guard File.exists(task.secrets) else { return }
        try Mounts.detachAll(below: [task.secrets])
        try Tree.remove(task.secrets)
    }

    /// Removes secrets of tasks that are no more. Blocks.
    func removeSecrets(exceptOf living: Set<TaskID>) throws {
        guard File.exists(paths.secrets) else { return }
        for name in try File.list(paths.secrets) where !living.contains(TaskID(name)) {
            try removeSecrets(paths.task(TaskID(name)))
        }
    }
}

/// One file that a container is given.
private struct SecretFile: Sendable {
    let name: String
    let value: [UInt8]
    let mode: mode_t
    let uid: uid_t
    let gid: gid_t

    init(_ mount: Mount, number: Int, in values: TaskSecrets) throws(ExecutorFailure) {
        let given: String?
        let standard: mode_t
        let what: String
        switch mount.source {
        case .secret(let name): (given, standard, what) = (values.secrets[name], 0o400, "the secret \(name)")
        case .config(let name): (given, standard, what) = (values.configs[name], 0o444, "the config \(name)")
        case .bind, .volume, .tmpfs: throw ExecutorFailure("the mount at \(mount.target) is no secret")
        }
        guard let value = given.flatMap({ Base64.decode($0) }) else {
            throw ExecutorFailure("the master has not sent \(what)")
        }
        name = "\(number)"
        self.value = value
        mode = mount.mode.flatMap { mode_t($0, radix: 8) } ?? standard
        uid = uid_t(clamping: mount.uid ?? 0)
        gid = gid_t(clamping: mount.gid ?? 0)
    }

    /// Blocks.
    func write(in directory: Int32) throws(KernelError) {
        let file = OwnedFD(
            adopting: try systemCall("openat", "secret \(name)") {
                ck_openat(directory, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0o600)
            })
        try file.writeAll(value, subject: "secret \(name)")
        try systemCall("fchown", "secret \(name)") { fchown(file.raw, uid, gid) }
        try systemCall("fchmod", "secret \(name)") { fchmod(file.raw, mode) }
    }
}
