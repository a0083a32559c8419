import HTTPService
import HTTPTypes
import Hummingbird
import JSON
import Master
import MasterCore
import Model
import Wire

/// `/events`: what happened, from the bounded history, and what happens.
extension DockerAPI {
    var eventRoutes: [DockerRoute] {
        [DockerRoute(.get, "/events", access: .read) { call in try await events(call) }]
    }

    private func events(_ call: DockerCall) async throws -> Response {
        let filter = EventFilter(
            filters: try call.filters(EventFilter.keys), subject: .current, since: try time("since", call),
            until: try time("until", call))
        if let since = filter.since, let until = filter.until, since > until {
            throw DockerError.badRequest("since is later than until: no time lies between them")
        }
        let version = call.version
        // Whoever names no time wants what comes, and nothing that has been.
        let past: Timestamp? = filter.until == nil ? filter.since ?? .now() : filter.since
        guard filter.until.map({ $0 > .now() }) ?? true else {
            let history = try await history(since: past)
            return .dockerLines(call.context) { writer in
                for line in lines(history, filter, version) { try await writer.write(bytes: line) }
            }
        }
        let (history, following) = try await master.followEvents(since: past)
        return .dockerLines(call.context) { writer in
            for line in lines(history, filter, version) { try await writer.write(bytes: line) }
            guard let until = filter.until else {
                return try await follow(following, filter, version, writer)
            }
            try await withThrowingTaskGroup(of: Void.self) { group in
                defer { group.cancelAll() }
                group.addTask { try await follow(following, filter, version, writer) }
                group.addTask { try await Task.sleep(for: .nanoseconds(max(0, until - .now()))) }
                try await group.next()
            }
        }
    }

    /// A time of the query; 0 is the beginning of all.
    private func time(_ key: String, _ call: DockerCall) throws -> Timestamp? {
        call.query[key] == "0" ? Timestamp(nanoseconds: 0) : try call.query.time(key)
    }

    private func history(since: Timestamp?) async throws -> [Event] {
        guard case .events(let events) = try await master.query(.events(since: since, until: nil)) else {
            throw APIProblem.unexpected
        }
        return events
    }

    private func lines(_ events: [Event], _ filter: EventFilter, _ version: APIVersion) -> [[UInt8]] {
        events.compactMap { line($0, filter, version) }
    }

    private func line(_ event: Event, _ filter: EventFilter, _ version: APIVersion) -> [UInt8]? {
        guard let shown = DockerEvent(event), filter.shows(shown, of: event) else { return nil }
        return shown.line(for: version)
    }

    private func follow(
        _ following: AsyncThrowingStream<Event?, any Error>, _ filter: EventFilter, _ version: APIVersion,
        _ writer: LineWriter
    ) async throws {
        for try await event in following {
            guard let event, let line = line(event, filter, version) else { continue }
            try await writer.write(bytes: line)
        }
    }
}
