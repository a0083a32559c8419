import AgentCore
import Glibc
import HTTPService
import HTTPTypes
import Hummingbird
import Images
import JSON
import Kernel
import Model
import Reactor
import Wire

extension StreamPort {
    /// Files of a container, as tar archives.
    func addArchive(to group: RouterGroup<ServiceContext>) {
        group.head("tasks/{task}/archive") { request, context in
            let (files, path) = try await files(request, context, known: ["path"])
            return Response(status: .ok, headers: try await header(files, path))
        }
        group.get("tasks/{task}/archive") { request, context in
            let (files, path) = try await files(request, context, known: ["path"])
            var headers = try await header(files, path)
            // A refusal is said before the answer begins.
            try await explainingImages { try await transfers.pool.run { try files.checkContent(of: path) } }
            headers[.contentType] = "application/x-tar"
            return Response(
                status: .ok, headers: headers, body: transfers.download { try files.archive(path, to: $0) })
        }
        group.put("tasks/{task}/archive") { request, context in
            let known: Set = ["path", "overwriteDirectory", "containerOwner"]
            let (files, path) = try await files(request, context, known: known, writing: true)
            let query = try Query(request, known: known)
            let replaces = try query.flag("overwriteDirectory", or: true)
            let owner = try await query.flag("containerOwner") ? owner(try record(context)) : nil
            try await explainingImages {
                try await transfers.upload(request.body) {
                    try files.extract($0, into: path, owner: owner, replacingKinds: replaces)
                }
            }
            return Response.empty
        }
    }

    /// A task whose root file system is there: one that has just been made is waited for, and that of one that ended
    /// before the machine was started anew is mounted again.
    ///
    /// - Throws: `APIError` 409 while there is none.
    func withFiles(_ context: ServiceContext) async throws -> TaskRecord {
        var record = try await arrived(context)
        let isWanted =
            switch record.assignment.desired {
            case .prepared: true
            case .running: record.container.state == .waiting || record.restartAt != nil
            case .paused, .stopped, .removed: false
            }
        if !record.prepared, !record.isLive, isWanted, !record.failed { record = try await prepared(context) }
        if record.prepared || record.isLive { return record }
        let (images, directory) = (executor.images, executor.paths.task(record.assignment.task).directory)
        guard let image = Digest(record.assignment.pod.containers.first?.imageDigest ?? ""),
            File.exists("\(directory)/upper")
        else {
            throw APIError.conflict(
                "container \(record.assignment.instanceName) has no files: it has not been prepared"
                    + (record.message.isEmpty ? "" : " (\(record.message))"))
        }
        try await explainingImages {
            try await executor.pool.run { try images.mountSnapshot(image: image, taskDirectory: directory) }
        }
        return record
    }

    /// Whom the container's program runs as; nil when its spec says nothing about it.
    private func owner(_ record: TaskRecord) async throws -> (uid: UInt32, gid: UInt32)? {
        guard let user = record.assignment.pod.containers.first?.user, !user.isEmpty else { return nil }
        let root = executor.paths.task(record.assignment.task).rootfs
        let found = try await explainingImages { try await transfers.pool.run { try resolveUser(user, root: root) } }
        return (found.uid, found.gid)
    }

    /// The container's root with its volumes.
    private func files(
        _ request: Request, _ context: ServiceContext, known: Set<String>, writing: Bool = false
    ) async throws -> (ContainerFiles, String) {
        let query = try Query(request, known: known)
        guard let path = query["path"], !path.isEmpty else {
            throw APIError.badRequest("the query parameter 'path' is missing")
        }
        let record = try await withFiles(context)
        let name = record.assignment.instanceName
        let isLive = record.isLive && record.container.pid > 0
        let mounts = record.assignment.pod.containers.flatMap(\.mounts)
        let executor = executor
        let (files, place, targets) = try await explainingImages {
            try await transfers.pool.run {
                let files = isLive ? try executor.liveFiles(record) : try executor.restingFiles(record)
                let place = try files.place(of: path, directory: writing)
                // A link of the image leads a volume's target elsewhere, as it leads the path.
                let targets = mounts.map { (try? files.place(of: $0.target, directory: true).path) ?? $0.target }
                return (files, place, targets)
            }
        }
        for container in record.assignment.pod.containers {
            let mount = zip(mounts, targets).filter { Self.isInside(place.path, $0.1) }
                .max { $0.1.utf8.count < $1.1.utf8.count }?.0
            // What lies under a mount point would be taken for what is mounted there.
            if let mount, !isLive, !record.prepared || !mount.isOfNode {
                throw APIError.conflict(
                    "this path is in what is mounted at \(mount.target), which container \(name) has only "
                        + (mount.isOfNode ? "once it is prepared" : "while it runs") + ": start it first")
            }
            guard writing, place.isReadOnly || !isLive && container.readOnlyRoot && mount == nil else { continue }
            throw APIError.conflict(
                mount.map { "the volume at \($0.target) of container \(name) is read-only: nothing is copied there" }
                    ?? (container.readOnlyRoot
                        ? "the root file system of container \(name) is read-only: nothing is copied there"
                        : "\(place.path) of container \(name) is read-only: nothing is copied there"),
                code: mount == nil ? "read-only-root" : "read-only-volume")
        }
        return (files, path)
    }

    private static func isInside(_ path: String, _ folder: String) -> Bool {
        let parts = path.pathComponents.filter { $0 != "." }
        let around = folder.pathComponents.filter { $0 != "." }
        return parts.starts(with: around)
    }

    private func header(_ files: ContainerFiles, _ path: String) async throws -> HTTPFields {
        let status = try await explainingImages { try await transfers.pool.run { try files.status(path) } }
        let stat = PathStat(
            name: status.name, size: Int64(clamping: status.size), mode: status.mode | status.kind.typeBits,
            modifiedAt: status.modified, linkTarget: status.linkTarget)
        var headers = HTTPFields()
        if let field = HTTPField.Name(PathStat.header) {
            headers[field] = ClientStream.escaped(String(decoding: try JSONCoding.encode(stat), as: UTF8.self))
        }
        return headers
    }
}

extension Mount {
    /// It is the node's and not made for the container's processes.
    fileprivate var isOfNode: Bool {
        switch source {
        case .volume, .bind: true
        case .tmpfs, .secret, .config: false
        }
    }
}

extension ContainerPathStatus.Kind {
    /// S_IFMT bits of stat(2); devices are told as character devices.
    fileprivate var typeBits: UInt32 {
        switch self {
        case .file: UInt32(S_IFREG)
        case .directory: UInt32(S_IFDIR)
        case .link: UInt32(S_IFLNK)
        case .device: UInt32(S_IFCHR)
        case .fifo: UInt32(S_IFIFO)
        case .socket: UInt32(S_IFSOCK)
        }
    }
}
