import CKernel
import Confinement
import Glibc
import JSON
import Kernel

/// The directory of `--root`: one directory per container, 0700.
struct StateStore {
    let root: String

    /// Where a container's files are: `state.json`, `seccomp.bpf`, and `start.sock` while it waits for `start`.
    func directory(_ id: ContainerID) -> String { "\(root)/\(id)" }

    func startSocket(_ id: ContainerID) -> String { "\(directory(id))/start.sock" }
    /// Beside the containers, under a name that none of them can have.
    var filters: SeccompCache { SeccompCache(directory: "\(root)/.filters") }

    private func recordPath(_ id: ContainerID) -> String { "\(directory(id))/state.json" }
    private func filterPath(_ id: ContainerID) -> String { "\(directory(id))/seccomp.bpf" }

    /// Makes the container's directory and locks it.
    ///
    /// - Throws: `RuntimeError` when there is one of this name.
    func create(_ id: ContainerID) throws -> StateLock {
        if mkdir(directory(id), 0o700) != 0 {
            let number = errno
            if number == EEXIST { throw RuntimeError.alreadyExists(id.description) }
            guard number == ENOENT else { throw KernelError("mkdir", directory(id), errno: number) }
            try File.makeDirectories(root, mode: 0o700)
            guard mkdir(directory(id), 0o700) == 0 else { throw KernelError("mkdir", directory(id), errno: errno) }
        }
        let lock = try lock(id)
        // Somebody may have removed the directory and made a container of this name before it was locked.
        guard !File.exists(recordPath(id)) else { throw RuntimeError.alreadyExists(id.description) }
        return lock
    }

    /// Keeps other calls that change this container waiting until the lock goes away.
    func lock(_ id: ContainerID) throws -> StateLock {
        do throws(KernelError) {
            while true {
                let directory = try File.open(directory(id), O_RDONLY | O_DIRECTORY | O_NOFOLLOW)
                let raw = directory.raw
                try systemCall("flock", self.directory(id)) { flock(raw, LOCK_EX) }
                // Who held it may have deleted the container, and another of its name may be there by now, with a lock
                // of its own.
                if try isPlace(of: id, raw) { return StateLock(directory: directory) }
            }
        } catch {
            if error.errno == ENOENT || error.errno == ENOTDIR { throw RuntimeError.noContainer(id.description) }
            throw error
        }
    }

    private func isPlace(of id: ContainerID, _ descriptor: Int32) throws(KernelError) -> Bool {
        var held = stat()
        var present = stat()
        try systemCall("fstat", directory(id)) { fstat(descriptor, &held) }
        try systemCall("stat", directory(id)) { lstat(directory(id), &present) }
        return held.st_ino == present.st_ino && held.st_dev == present.st_dev
    }

    /// Whether some call is changing the container right now.
    func isLocked(_ id: ContainerID) -> Bool {
        guard let directory = try? File.open(directory(id), O_RDONLY | O_DIRECTORY | O_NOFOLLOW) else { return false }
        return flock(directory.raw, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK
    }

    /// Replaces the record at once; a reader sees the old or the new one. It need not survive a crash of the machine,
    /// because the container does not.
    ///
    /// - Throws: `RuntimeError` for one that could not be read again: of a configuration almost as long as one may be.
    func write(_ record: ContainerRecord) throws {
        let path = recordPath(record.id)
        let bytes = record.json.serialized()
        guard bytes.count <= JSONLimits.standard.bytes else {
            throw RuntimeError(
                "config.json: annotations, process and hooks take \(bytes.count) bytes of a record that may have "
                    + "\(JSONLimits.standard.bytes)")
        }
        let temporary = path + ".new"
        let file = try File.open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW, mode: 0o600)
        try file.writeAll(bytes, subject: temporary)
        try systemCall("rename", path) { rename(temporary, path) }
    }

    /// - Returns: nil for a container that is just being made (or whose making was cut off).
    /// - Throws: `RuntimeError` when there is no such container.
    func read(_ id: ContainerID) throws -> ContainerRecord? {
        let path = recordPath(id)
        let bytes: [UInt8]
        do throws(KernelError) {
            bytes = try File.read(path, limit: JSONLimits.standard.bytes)
        } catch {
            guard error.errno == ENOENT || error.errno == ENOTDIR else { throw error }
            guard File.exists(directory(id)) else { throw RuntimeError.noContainer(id.description) }
            return nil
        }
        return try withContext(path) { try ContainerRecord(JSONReader(try JSONValue.parse(bytes))) }
    }

    /// Like `read`, for verbs that need a whole container.
    func require(_ id: ContainerID) throws -> ContainerRecord {
        guard let record = try read(id), record.pid != 0 else {
            throw RuntimeError("container \(id) is being created, or its creation was cut off; 'delete' removes it")
        }
        return record
    }

    /// Keeps the compiled filter for `exec`.
    func write(filter: [UInt8], of id: ContainerID) throws {
        let file = try File.open(filterPath(id), O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW, mode: 0o600)
        try file.writeAll(filter, subject: filterPath(id))
    }

    func readFilter(_ id: ContainerID) throws -> [UInt8] {
        // 4096 instructions of 8 bytes are the kernel's limit.
        try File.read(filterPath(id), limit: 4096 * 8)
    }

    func remove(_ id: ContainerID) throws {
        // Mostly the record is all there is.
        unlink(recordPath(id))
        if rmdir(directory(id)) != 0 { try Tree.remove(directory(id)) }
    }

    /// The names of all containers, sorted. What is no container's directory is left out.
    func list() throws -> [ContainerID] {
        guard File.exists(root) else { return [] }
        return try File.list(root).compactMap { try? ContainerID($0) }.filter { id in
            var info = stat()
            return lstat(directory(id), &info) == 0 && info.st_mode & S_IFMT == S_IFDIR
        }.sorted { $0.description < $1.description }
    }
}

/// Holds a container's state directory locked (flock) while it lives. A forked child shares the lock and has to close
/// its descriptor.
struct StateLock: ~Copyable {
    private let directory: OwnedFD
    init(directory: consuming OwnedFD) { self.directory = directory }
    var raw: Int32 { directory.raw }
}
