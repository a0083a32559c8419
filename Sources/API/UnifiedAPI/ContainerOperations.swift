import HTTPService
import HTTPTypes
import Hummingbird
import Master
import MasterCore
import Model
import Wire

extension UnifiedAPI {
    private static let path = APIPaths.containers

    var containerOperations: [Operation] {
        [
            Operation(
                .get, access: .read, Self.path, "List containers; with `watch`, follow them as lines.",
                query: Self.filterParameters + [.flag("watch", "First all, then every change.")],
                answer: .json([ContainerView].self), statuses: [200]
            ) { call in
                let filter = try Self.filter(call)
                if try call.query.flag("watch") { return try await watchContainers(filter, call) }
                guard case .containers(let views) = try await master.query(.containers(filter)) else {
                    throw APIProblem.unexpected
                }
                return try .json(views)
            },
            Operation(
                .post, access: .work, Self.path, "Make a container.", body: .json(CreateContainer.self),
                answer: .json(ContainerView.self), statuses: [201, 404, 409, 413, 507]
            ) { call in
                let wish = try await call.body(CreateContainer.self)
                let reply = try await master.pulling(wish.pull, wish.pod, wish.loginSecret, wish.login) {
                    try await master.performKnowingImages(.createContainer(wish))
                }
                guard case .container(let view) = reply else { throw APIProblem.unexpected }
                var response = try Response.json(view, status: .created)
                response.headers[.location] = "\(Self.path)/\(view.id)"
                return response
            },
            Operation(
                .get, access: .read, "\(Self.path)/{container}", "Inspect a container.",
                answer: .json(ContainerView.self),
                statuses: [200, 404, 409]
            ) { call in
                try .json(try await containerView(call.name("container")))
            },
            Operation(
                .delete, access: .work, "\(Self.path)/{container}", "Remove a container.",
                query: [
                    .flag("force", "Also when it runs: it is killed."),
                    .flag("volumes", "Volumes that belong to it alone go too."),
                    .flag("wait", "Answer 204 once nothing is left of it, 202 after a minute; on by default."),
                ], statuses: [204, 202, 404, 409, 507]
            ) { call in
                let view = try await containerView(call.name("container"))
                let waits = try call.flag("wait", default: true)
                let (force, volumes) = (try call.query.flag("force"), try call.query.flag("volumes"))
                _ = try await master.perform(.removeContainer(view.id.text, force: force, volumes: volumes))
                return try await removal(call, waits: waits) {
                    _ = try await master.wait(for: view.id.text, .removed)
                }
            },
        ]
    }

    /// 204 when what is removed has gone, 202 while it is going.
    func removal(
        _ call: Call, waits: Bool, _ gone: @escaping @Sendable () async throws -> Void
    ) async throws -> Response {
        guard waits else { return Response(status: .accepted) }
        let done = try await call.context.untilPeerCloses {
            try await within(.seconds(60)) {
                do {
                    try await gone()
                } catch let problem as APIProblem where problem.code == .notFound {
                    // It had gone before the wait began.
                }
                return true
            }
        }
        return done == true ? Response.empty : Response(status: .accepted)
    }

    static let filterParameters: [Operation.Parameter] = [
        .flag("all", "Also those that do not run."), .text("name", "A part of the name."),
        .list("label", "`key` or `key=value`; all must hold."),
        .list(
            "status",
            "waiting, assigned, preparing, prepared, running, paused, stopping, exited, failed; any of "
                + "them."),
        .text("service", "Of this service."), .text("node", "On this node."),
    ]

    private static func filter(_ call: Call) throws -> ContainerFilter {
        let statuses = call.query.list("status")
        let known = [
            "waiting", "assigned", "preparing", "prepared", "running", "paused", "stopping", "exited", "failed",
        ]
        if let unknown = statuses.first(where: { !known.contains($0) }) {
            throw APIError.badRequest("status=\(unknown) in the query is none of \(known.joined(separator: ", "))")
        }
        return ContainerFilter(
            all: try call.query.flag("all"), name: call.query["name"],
            labels: call.query.list("label").map { LabelSelector($0) },
            statuses: statuses, service: call.query["service"], node: call.query["node"])
    }

    private func watchContainers(_ filter: ContainerFilter, _ call: Call) async throws -> Response {
        let watch = try await master.watchContainers()
        let subject = Subject.current
        return .lines(call.context) { writer in
            try await follow(
                watch, writer, id: { $0.id.text },
                shows: {
                    filter.shows($0) && subject.reaches(group: $0.group)
                })
        }
    }

    /// Writes a watch: all that is shown, `synced`, then the changes. What is not shown any more is deleted for this
    /// watcher.
    func follow<Object>(
        _ watch: Watch<Object>, _ writer: LineWriter, id: (Object) -> String,
        as shown: (Object) -> Object = { $0 }, shows: (Object) -> Bool = { _ in true }
    ) async throws {
        var told: Set<String> = []
        for object in watch.present where shows(object) {
            told.insert(id(object))
            try await writer.write(WatchLine(.put, id: id(object), object: shown(object)))
        }
        try await writer.write(WatchLine<Object>(.synced))
        do {
            for try await line in watch.changes {
                switch line.change {
                case .put where line.object.map(shows) ?? false:
                    told.insert(line.id)
                    try await writer.write(WatchLine(.put, id: line.id, object: line.object.map(shown)))
                case .put, .delete:
                    if told.remove(line.id) != nil { try await writer.write(WatchLine<Object>(.delete, id: line.id)) }
                case .synced, .heartbeat: try await writer.write(line)
                }
            }
        } catch let problem as APIProblem {
            throw APIError(problem)
        }
    }
}
