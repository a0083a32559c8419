import Client
import HTTPService
import HTTPTypes
import Hummingbird
import JSON
import Master
import MasterCore
import Model
import NIOHTTP1
import Wire

/// What lives on a container's node and is passed through.
extension UnifiedAPI {
    private static let path = "\(APIPaths.containers)/{container}"

    static let logParameters: [Operation.Parameter] = [
        .flag("follow", "Also what comes, until it ended for good."),
        .text("tail", "So many lines from the end; `all` by default."),
        .text("since", "RFC 3339, or seconds since 1970."), .text("until", "RFC 3339, or seconds since 1970."),
        .flag("timestamps", "Each line with its time before it."), .flag("stdout", "On by default."),
        .flag("stderr", "On by default."),
    ]
    static let frames = "application/vnd.martlet.frames"
    static let tar = "application/x-tar"

    var containerStreams: [Operation] {
        [
            Operation(
                .get, access: .read, "\(Self.path)/logs", "What it wrote, as frames.", query: Self.logParameters,
                answer: .bytes(Self.frames), statuses: [200, 404, 409]
            ) { call in
                try await relay(call, .GET, "logs")
            },
            Operation(
                .post, access: .work, "\(Self.path)/attach", "Join its streams: 101, then frames in both directions.",
                query: [
                    .flag("stdin", "Off by default."), .flag("stdout", "On by default."),
                    .flag("stderr", "On by default."),
                ], answer: .frames, statuses: [101, 404, 409, 426]
            ) { call in
                try await join(call, "attach")
            },
            Operation(
                .post, access: .work, "\(Self.path)/exec", "Run a program in it: 101, then frames in both directions.",
                query: [.text("spec", "An ExecRequest as JSON.")], answer: .frames, statuses: [101, 404, 409, 426]
            ) { call in
                guard let spec = call.query["spec"] else {
                    throw APIError.badRequest("spec is missing in the query: what shall be run")
                }
                try JSONCoding.decode(ExecRequest.self, from: Array(spec.utf8), strict: true).admit(by: .current)
                return try await join(call, "exec")
            },
            Operation(
                .get, access: .read, "\(Self.path)/stats", "What it uses; with `stream` as lines.",
                query: [
                    .flag("stream", "Again and again."), .integer("interval", "Seconds between samples, 1 to 60."),
                ],
                answer: .json(ContainerStats.self), statuses: [200, 404, 409]
            ) { call in
                try await relay(call, .GET, "stats")
            },
            Operation(
                .get, access: .read, "\(Self.path)/top", "Its processes.", answer: .json(ProcessList.self),
                statuses: [200, 404, 409]
            ) { call in
                try await relay(call, .GET, "top")
            },
        ] + archive
    }

    private var archive: [Operation] {
        let where_ = Operation.Parameter.text("path", "Absolute path in the container.")
        return [
            Operation(
                .get, access: .work, "\(Self.path)/archive", "A file or directory in it, as tar.", query: [where_],
                answer: .bytes(Self.tar), statuses: [200, 404, 409]
            ) { call in
                try await relay(call, .GET, "archive")
            },
            Operation(
                .head, access: .work, "\(Self.path)/archive",
                "What is at a path in it: a PathStat, percent-encoded, in the field \(PathStat.header).",
                query: [where_],
                statuses: [200, 404, 409]
            ) { call in
                try await relay(call, .HEAD, "archive")
            },
            Operation(
                .put, access: .work, "\(Self.path)/archive", "Unpack a tar in a directory of it.",
                query: [where_, .flag("overwriteDirectory", "A file may take a directory's place; on by default.")],
                body: .bytes(Self.tar), statuses: [204, 404, 409, 507]
            ) { call in
                try await relay(call, .PUT, "archive", upload: true)
            },
        ]
    }

    private func located(_ call: Call) async throws -> (streams: NodeStreams, task: TaskID) {
        let name = try call.name("container")
        let location = try await call.context.untilPeerCloses {
            try await within(.seconds(60)) { try await master.locate(name) }
        }
        guard let location, let task = location.task else {
            throw APIProblem(
                .timeout, "the container \(name) has had no node for a minute; see `martlet inspect \(name)`")
        }
        return (try master.streams(location), task)
    }

    func relay(
        _ call: Call, _ method: NodeStreams.Method, _ what: String, upload: Bool = false
    ) async throws -> Response {
        let (streams, task) = try await located(call)
        return try await streams.relay(
            call.request, method, NodeStreams.path(task, what), query: call.rawQuery(), upload: upload)
    }

    private func join(_ call: Call, _ what: String) async throws -> Response {
        let (streams, task) = try await located(call)
        return try await streams.join(
            call.request, call.context, NodeStreams.path(task, what), query: call.rawQuery())
    }
}
