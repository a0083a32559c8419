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
            filters: try call.filters(EventFilter.keys), subject: .current, since: try call.query.time("since"),
            until: try call.query.time("until"))
        if let since = filter.since, let until = filter.until, since > until {
            throw DockerError.badRequest(
                "since=\(since) is later than until=\(until): no time lies between them, so exchange them or leave one out"
            )
        }
        let style = EventStyle(
            version: call.version,
            type: .events(call.version, accept: call.request.headers[values: .accept]))
        // Whoever names no time wants what comes, and nothing that has been.
        let past: Timestamp? = filter.until == nil ? filter.since ?? .now() : filter.since
        guard filter.until.map({ $0 > .now() }) ?? true else {
            let history = try await history(since: past)
            return .dockerLines(call.context, as: style.type) { writer in
                for line in lines(history, filter, style) { try await writer.write(bytes: line) }
            }
        }
        let (history, following) = try await master.followEvents(since: past)
        return .dockerLines(call.context, as: style.type) { writer in
            for line in lines(history, filter, style) { try await writer.write(bytes: line) }
            guard let until = filter.until else {
                return try await follow(following, filter, style, writer)
            }
            try await withThrowingTaskGroup(of: Void.self) { group in
                defer { group.cancelAll() }
                group.addTask { try await follow(following, filter, style, writer) }
                group.addTask { try await Task.sleep(for: .nanoseconds(max(0, until - .now()))) }
                try await group.next()
            }
        }
    }

    private func history(since: Timestamp?) async throws -> [Event] {
        guard case .events(let events) = try await master.query(.events(since: since, until: nil)) else {
            throw APIProblem.unexpected
        }
        return events
    }

    private func lines(_ events: [Event], _ filter: EventFilter, _ style: EventStyle) -> [[UInt8]] {
        events.compactMap { line($0, filter, style) }
    }

    private func line(_ event: Event, _ filter: EventFilter, _ style: EventStyle) -> [UInt8]? {
        guard let shown = DockerEvent(event), filter.shows(shown, of: event) else { return nil }
        return style.type.framed(shown.line(for: style.version))
    }

    private func follow(
        _ following: AsyncThrowingStream<Event?, any Error>, _ filter: EventFilter, _ style: EventStyle,
        _ writer: LineWriter
    ) async throws {
        for try await event in following {
            guard let event, let line = line(event, filter, style) else { continue }
            try await writer.write(bytes: line)
        }
    }
}

/// In what form a client is told events.
private struct EventStyle: Sendable {
    let version: APIVersion
    let type: JSONStreamType
}
