import HTTPService
import HTTPTypes
import Hummingbird
import Master
import MasterCore
import Model
import Wire

extension UnifiedAPI {
    private static let path = APIPaths.services

    var serviceOperations: [Operation] {
        [
            Operation(
                .get, access: .read, Self.path, "List services; with `watch`, follow them as lines.",
                query: [
                    .text("name", "A part of the name."), .list("label", "`key` or `key=value`; all must hold."),
                    .flag("watch", "First all, then every change."),
                ], answer: .json([ServiceView].self), statuses: [200]
            ) { call in
                try await listServices(call)
            },
            Operation(
                .post, access: .work, Self.path, "Make a service.", body: .json(CreateService.self),
                answer: .json(ServiceView.self),
                statuses: [201, 404, 409, 413, 507]
            ) { call in
                let wish = try await call.body(CreateService.self)
                let reply = try await master.pulling(wish.pull, wish.pod, wish.loginSecret, wish.login) {
                    try await master.performKnowingImages(.createService(wish))
                }
                guard case .service(let view) = reply else { throw APIProblem.unexpected }
                var response = try Response.json(view, status: .created)
                response.headers[.location] = "\(Self.path)/\(view.service.id)"
                return response
            },
            Operation(
                .get, access: .read, "\(Self.path)/{service}", "Inspect a service.", answer: .json(ServiceView.self),
                statuses: [200, 404, 409]
            ) { call in
                try .json(try await serviceView(call.name("service")))
            },
            Operation(
                .patch, access: .work, "\(Self.path)/{service}", "Scale or update a service: what is given changes.",
                body: .json(UpdateService.self), answer: .json(ServiceView.self), statuses: [200, 404, 409, 413, 507]
            ) { call in
                let wish = try await call.body(UpdateService.self)
                let name = try call.name("service")
                let reply = try await master.pulling(wish.pull, wish.pod, wish.loginSecret, wish.login) {
                    try await master.performKnowingImages(.updateService(name, wish))
                }
                guard case .service(let view) = reply else { throw APIProblem.unexpected }
                return try .json(view)
            },
            Operation(
                .delete, access: .work, "\(Self.path)/{service}", "Remove a service with its instances.",
                query: [
                    .flag("force", "Kill the instances, without their grace."),
                    .flag("wait", "Answer 204 once nothing is left of it, 202 after a minute; on by default."),
                ], statuses: [204, 202, 404, 409, 507]
            ) { call in
                let id = try await serviceView(call.name("service")).service.id
                let waits = try call.flag("wait", default: true)
                _ = try await master.perform(.removeService(id.text, force: try call.query.flag("force")))
                return try await removal(call, waits: waits) { try await untilGone(id) }
            },
            Operation(
                .get, access: .read, "\(Self.path)/{service}/revisions", "Its revisions, the newest first.",
                answer: .json([Revision].self), statuses: [200, 404, 409]
            ) { call in
                let reply = try await master.query(.revisions(call.name("service")))
                guard case .revisions(let revisions) = reply else { throw APIProblem.unexpected }
                return try .json(revisions)
            },
            Operation(
                .get, access: .read, "\(Self.path)/{service}/logs",
                "What its instances wrote, as frames, each line with a name before it.",
                query: Self.logParameters, answer: .bytes(Self.frames), statuses: [200, 404, 409]
            ) { call in
                let reply = try await master.query(.serviceContainers(call.name("service")))
                guard case .containers(let views) = reply else { throw APIProblem.unexpected }
                return await ServiceLogs(master: master, query: call.rawQuery()).response(views)
            },
        ]
    }

    private func listServices(_ call: Call) async throws -> Response {
        let name = call.query["name"]
        let labels = call.query.list("label").map { LabelSelector($0) }
        let shows: @Sendable (ServiceView) -> Bool = { view in
            (name.map { view.service.name.contains($0) } ?? true)
                && labels.allSatisfy { $0.matches(view.service.labels) }
        }
        if try call.query.flag("watch") {
            let watch = try await master.watchServices()
            let subject = Subject.current
            return .lines(call.context) { writer in
                try await follow(
                    watch, writer, id: { $0.service.id.text },
                    shows: {
                        shows($0) && subject.reaches(group: $0.service.group)
                    })
            }
        }
        guard case .services(let views) = try await master.query(.services) else { throw APIProblem.unexpected }
        return try .json(views.filter(shows))
    }

    private func untilGone(_ id: WorkloadID) async throws {
        let watch = try await master.watchServices()
        guard watch.present.contains(where: { $0.service.id == id }) else { return }
        for try await line in watch.changes where line.change == .delete && line.id == id.text { return }
    }
}
