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
            let (files, path) = try files(request, context, known: ["path"])
            return Response(status: .ok, headers: try await header(files, path))
        }
        group.get("tasks/{task}/archive") { request, context in
            let (files, path) = try files(request, context, known: ["path"])
            var headers = try await header(files, path)
            headers[.contentType] = "application/x-tar"
            return Response(
                status: .ok, headers: headers, body: transfers.download { try files.archive(path, to: $0) })
        }
        group.put("tasks/{task}/archive") { request, context in
            let (files, path) = try files(request, context, known: ["path", "overwriteDirectory"])
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
        _ request: Request, _ context: ServiceContext, known: Set<String>
    ) throws(APIError) -> (ContainerFiles, String) {
        let query = try Query(request, known: known)
        guard let path = query["path"], !path.isEmpty else {
            throw .badRequest("the query parameter 'path' is missing")
        }
        let record = try record(context)
        let name = record.assignment.instanceName
        guard record.prepared || record.isLive else {
            throw .conflict("container \(name) has no files: it has not been prepared")
        }
        let root =
            record.isLive && record.container.pid > 0
            ? "/proc/\(record.container.pid)/root" : executor.paths.task(record.assignment.task).rootfs
        return (ContainerFiles(root: root), path)
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
