import Client
import Glibc
import HTTPService
import HTTPTypes
import Hummingbird
import JSON
import Kernel
import Master
import MasterCore
import Model
import NIOCore
import NIOHTTP1
import Wire

extension DockerAPI {
    var archiveRoutes: [DockerRoute] {
        let path = "/containers/{id}/archive"
        return [
            DockerRoute(.head, path, access: .work) { call in
                let files = try await files(call)
                return Response(status: .ok, headers: try await files.header(of: try files.stat()))
            },
            DockerRoute(.get, path, access: .work) { call in
                let files = try await files(call)
                let answer = try await files.explaining {
                    try await files.streams.open(.GET, files.agentPath, query: files.query)
                }
                var headers = try await files.header(of: try PathStat(answer))
                headers[.contentType] = "application/x-tar"
                return Response(
                    status: .ok, headers: headers,
                    body: ResponseBody { writer in
                        for try await piece in answer.body { try await writer.write(piece) }
                        try await writer.finish(nil)
                    })
            },
            DockerRoute(.put, path, access: .work) { call in
                let files = try await files(call)
                let keeps = call.query.flag("noOverwriteDirNonDir")
                let query =
                    files.query + "&overwriteDirectory=\(!keeps)&containerOwner=\(call.query.flag("copyUIDGID"))"
                try await files.explaining {
                    try await files.streams.upload(call.request, .PUT, files.agentPath, query: query)
                }
                return Response(status: .ok)
            },
        ]
    }

    private func files(_ call: DockerCall) async throws -> ArchivedFiles {
        guard let path = call.query.text("path") else {
            throw DockerError.badRequest("bad parameter: path cannot be empty")
        }
        let view = try await container(call.id)
        let (streams, task) = try await streams(of: view, call)
        return ArchivedFiles(
            container: call.id, path: path, streams: streams, agentPath: NodeStreams.path(task, "archive"))
    }
}

/// A path in a container whose files are on a node.
private struct ArchivedFiles: Sendable {
    /// As the client named it.
    let container: String
    let path: String
    let streams: NodeStreams
    let agentPath: String

    var query: String { "path=\(Client.PercentEncoding.encode(path))" }

    func stat() async throws -> PathStat { try await stat(path) }

    private func stat(_ path: String) async throws -> PathStat {
        try await explaining {
            try PathStat(
                await streams.open(.HEAD, agentPath, query: "path=\(Client.PercentEncoding.encode(path))"))
        }
    }

    /// What is at the path; of a symbolic link, where it leads in the end.
    func header(of stat: PathStat) async throws -> HTTPFields {
        var target = ""
        if stat.mode & UInt32(S_IFMT) == UInt32(S_IFLNK) {
            target = Self.target(of: stat, at: path)
            // As many as the kernel follows.
            for _ in 0..<40 {
                guard let next = try? await self.stat(target), next.mode & UInt32(S_IFMT) == UInt32(S_IFLNK) else {
                    break
                }
                target = Self.target(of: next, at: target)
            }
        }
        let told = DockerPathStat(
            name: stat.name, size: stat.size, mode: DockerPathStat.mode(stat.mode), mtime: stat.modifiedAt,
            linkTarget: target)
        return [.pathStat: Base64.encode(try JSONCoding.encode(told))]
    }

    /// Where a link says that it leads, from the root.
    private static func target(of stat: PathStat, at path: String) -> String {
        if stat.linkTarget.hasPrefix("/") { return stat.linkTarget }
        let folder = path.pathComponents.filter { $0 != "." }.dropLast()
        var parts = folder.map(String.init)
        for part in stat.linkTarget.pathComponents where part != "." {
            if part == ".." { _ = parts.popLast() } else { parts.append(String(part)) }
        }
        return "/" + parts.joined(separator: "/")
    }

    /// Gives an agent's refusal Docker's words.
    func explaining<Result>(_ body: () async throws -> Result) async throws -> Result {
        do {
            return try await body()
        } catch let error as APIError {
            switch (error.status, error.code) {
            case (404, _): throw DockerError.notFound("Could not find the file \(path) in container \(container)")
            case (_, "read-only-root"): throw DockerError(403, "container rootfs is marked read-only")
            case (_, "read-only-volume"): throw DockerError(403, "mounted volume is marked read-only")
            default: throw error
            }
        }
    }
}

extension PathStat {
    /// - Throws: `DockerError` 500 when the agent's answer has none.
    fileprivate init(_ answer: Client.Response) throws {
        guard let text = answer.headers.first(name: Self.header).flatMap({ HTTPService.PercentEncoding.decode($0) })
        else { throw DockerError(500, "the node does not say what is at the path") }
        self = try JSONCoding.decode(PathStat.self, from: Array(text.utf8))
    }
}

/// What `X-Docker-Container-Path-Stat` has in base64.
struct DockerPathStat: Encodable {
    var name: String
    var size: Int64
    var mode: UInt32
    var mtime: Timestamp
    var linkTarget: String

    /// The bits of Go's `os.FileMode` for those of stat(2).
    static func mode(_ bits: UInt32) -> UInt32 {
        var mode = bits & 0o777
        switch bits & UInt32(S_IFMT) {
        case UInt32(S_IFDIR): mode |= 1 << 31
        case UInt32(S_IFLNK): mode |= 1 << 27
        case UInt32(S_IFBLK): mode |= 1 << 26
        case UInt32(S_IFCHR): mode |= 1 << 26 | 1 << 21
        case UInt32(S_IFIFO): mode |= 1 << 25
        case UInt32(S_IFSOCK): mode |= 1 << 24
        default: break
        }
        if bits & 0o4000 != 0 { mode |= 1 << 23 }
        if bits & 0o2000 != 0 { mode |= 1 << 22 }
        if bits & 0o1000 != 0 { mode |= 1 << 20 }
        return mode
    }
}
