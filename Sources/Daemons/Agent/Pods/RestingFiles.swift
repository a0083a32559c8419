import AgentCore
import CKernel
import Glibc
import HTTPService
import Images
import Kernel
import Wire

extension PodExecutor {
    /// The files of a container as its first process sees them. Blocks.
    ///
    /// - Throws: `APIError` 409 when it has ended.
    func liveFiles(_ record: TaskRecord) throws -> ContainerFiles {
        do throws(KernelError) {
            let process = try ProcessDirectory(record, parent: configuration.cgroupParent)
            return ContainerFiles(root: try process.open("root", Int32(CK_O_PATH) | O_DIRECTORY))
        } catch {
            guard error.isOfEnded else { throw error }
            throw APIError.conflict("container \(record.assignment.instanceName) has just ended: repeat")
        }
    }

    /// The files of a container that does not run, its volumes and what is bound from the node among them where they are
    /// prepared, as they will be when it runs. Blocks.
    ///
    /// They are mounted in a tree of their own, which has no name and goes when nobody holds the files any more.
    func restingFiles(_ record: TaskRecord) throws -> ContainerFiles {
        let task = paths.task(record.assignment.task)
        let mounts = record.prepared ? try PodFile.read(task)?.mounts ?? [] : []
        guard !mounts.isEmpty else { return try ContainerFiles(root: task.rootfs) }
        let place = "\(task.directory)/resting.\(UInt64.random(in: 0...UInt64.max))"
        try File.makeDirectories(place, mode: 0o700)
        defer {
            try? Mounts.detachAll(below: [place])
            rmdir(place)
        }
        try Mounts.attach(try Mounts.clone(task.rootfs, recursive: false), at: place)
        try Mounts.setPropagation(.private, at: place, recursive: true)
        let root = try File.open(place, Int32(CK_O_PATH) | O_DIRECTORY)
        for mount in mounts.sorted(by: { $0.target.utf8.count < $1.target.utf8.count }) {
            let recursive = mount.options?.contains("bind") != true
            let source =
                mount.isOpenedByStart == true
                ? try Mounts.clone(of: open(mount).raw, recursive: recursive, subject: mount.source)
                : try Mounts.clone(mount.source, recursive: recursive, followingSymlinks: false)
            // What is unmounted here is not to go on the node.
            try Mounts.change(
                source.raw, set: mount.readOnly ? .readOnly : [], propagation: .private, recursive: true,
                subject: mount.target)
            let target = try Self.mountPoint(mount.target, like: source.raw, in: root.raw)
            try Mounts.attach(source, on: target.raw, subject: mount.target)
        }
        return ContainerFiles(root: SharedFD(try Mounts.clone(place, recursive: true)))
    }

    /// Opens a place in a root, and makes what lacks of it.
    private static func mountPoint(_ path: String, like source: Int32, in root: Int32) throws -> OwnedFD {
        var info = stat()
        try systemCall("fstat", path) { fstat(source, &info) }
        let parts = path.pathComponents.map { Array($0.utf8) }
        let flags = Int32(CK_O_PATH)
        for count in parts.indices {
            let parent = Array(parts[..<count].joined(separator: [0x2f]))
            do throws(KernelError) {
                _ = try ByteName.open(parent + [0x2f] + parts[count], in: root, flags)
            } catch {
                guard error.errno == ENOENT else { throw error }
                let name = String(decoding: parts[count], as: UTF8.self)
                let folder = try ByteName.open(parent, in: root, flags | O_DIRECTORY)
                let number = folder.raw
                if count < parts.count - 1 || info.isDirectory {
                    try systemCall("mkdir", path) { mkdirat(number, name, 0o755) }
                } else {
                    try systemCall("mknod", path) { mknodat(number, name, S_IFREG | 0o644, 0) }
                }
            }
        }
        return try ByteName.open(Array(parts.joined(separator: [0x2f])), in: root, flags)
    }
}
