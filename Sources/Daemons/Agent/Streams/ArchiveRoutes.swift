import AgentCore
import Glibc
import HTTPService
import HTTPTypes
import Hummingbird
import Images
import JSON
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
            let (files, path) = try await files(
                request, context, known: ["path", "overwriteDirectory"], writing: true)
            let query = try Query(request, known: ["path", "overwriteDirectory"])
            let replaces = try query.flag("overwriteDirectory", or: true)
            try await explainingImages {
                try await transfers.upload(request.body) {
                    try files.extract($0, into: path, replacingKinds: replaces)
                }
            }
            return Response.empty
        }
    }

    /// The container's root: with its volumes while it runs.
    private func files(
        _ request: Request, _ context: ServiceContext, known: Set<String>, writing: Bool = false
    ) async throws -> (ContainerFiles, String) {
        let query = try Query(request, known: known)
        guard let path = query["path"], !path.isEmpty else {
            throw APIError.badRequest("the query parameter 'path' is missing")
        }
        let record = try record(context)
        let name = record.assignment.instanceName
        guard record.prepared || record.isLive else {
            throw APIError.conflict("container \(name) has no files: it has not been prepared")
        }
        let isLive = record.isLive && record.container.pid > 0
        let root =
            isLive
            ? "/proc/\(record.container.pid)/root" : executor.paths.task(record.assignment.task).rootfs
        let files = ContainerFiles(root: root)
        let place = try await explainingImages {
            try await transfers.pool.run { try files.place(of: path, directory: writing) }
        }
        for container in record.assignment.pod.containers {
            let mount = container.mounts.filter { Self.isInside(place.path, $0.target) }
                .max { $0.target.utf8.count < $1.target.utf8.count }
            // What lies under a mount point would be taken for what lies in the volume.
            if let mount, !isLive {
                throw APIError.conflict(
                    "this path is in the volume at \(mount.target), which container \(name) has only while it runs: "
                        + "start it first")
            }
            guard writing, isLive ? place.isReadOnly : container.readOnlyRoot else { continue }
            throw APIError.conflict(
                mount.map { "the volume at \($0.target) of container \(name) is read-only: nothing is copied there" }
                    ?? (container.readOnlyRoot
                        ? "the root file system of container \(name) is read-only: nothing is copied there"
                        : "\(place.path) of container \(name) is read-only: nothing is copied there"))
        }
        return (files, path)
    }

    private static func isInside(_ path: String, _ folder: String) -> Bool {
        let parts = path.split(separator: "/").filter { $0 != "." }
        let around = folder.split(separator: "/").filter { $0 != "." }
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
