import HTTPService
import HTTPTypes
import Hummingbird
import JSON
import Master
import MasterCore
import Model
import Wire

extension UnifiedAPI {
    var eventOperations: [Operation] {
        [
            Operation(
                .get, access: .observe, APIPaths.events, "What happened, as lines; with `follow` also what happens.",
                query: [
                    .text("since", "RFC 3339, or seconds since 1970."),
                    .text("until", "RFC 3339, or seconds since 1970."),
                    .flag("follow", "Go on until the client leaves, or until `until`."),
                    .list("kind", "container, service, node, image, volume."), .list("action", "start, die, oom, …"),
                    .list("id", "Of these objects."), .list("name", "Of these objects."),
                ], answer: .lines(Event.self), statuses: [200]
            ) { call in
                try await events(call)
            }
        ]
    }

    private func events(_ call: Call) async throws -> Response {
        let until = try call.time("until")
        let follows = try call.query.flag("follow")
        let query = call.query
        let shows: @Sendable (Event) -> Bool = { event in
            func allows(_ key: String, _ value: String) -> Bool {
                query.list(key).isEmpty || query.list(key).contains(value)
            }
            return allows("kind", event.kind) && allows("action", event.action) && allows("id", event.id)
                && allows("name", event.name) && until.map { event.time <= $0 } ?? true
        }
        // Whoever follows without naming a time wants what comes.
        let since = try call.time("since") ?? (follows ? .now() : nil)
        let (history, following) = try await master.followEvents(since: since)
        return .lines(call.context) { writer in
            for event in history where shows(event) { try await writer.write(event) }
            guard follows else { return }
            try await APIError.translating {
                for try await event in following {
                    if let until, until < .now() { return }
                    if let event, shows(event) { try await writer.write(event) }
                }
            }
        }
    }
}
