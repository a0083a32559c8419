import JSON
import Model
import Wire

/// Which events a client of `/events` wants to see.
struct EventFilter: Sendable {
    static let keys: Set<String> = [
        "config", "container", "daemon", "event", "image", "label", "network", "node", "plugin", "scope", "secret",
        "service", "type", "volume",
    ]

    let filters: DockerFilters
    /// Whoever is confined to a group hears of that group only.
    let subject: Subject
    let since: Timestamp?
    let until: Timestamp?

    /// Whether the event, which happened as `event`, is shown.
    func shows(_ shown: DockerEvent, of event: Event) -> Bool {
        if subject.confinement != nil, !(event.group.map { subject.reaches(group: $0) } ?? false) { return false }
        if let until, event.time > until { return false }
        return filters.isEmpty || matches(shown)
    }

    /// The values of one key are alternatives, but for labels, and every key has to be met.
    private func matches(_ event: DockerEvent) -> Bool {
        let attributes = event.attributes
        for (key, type) in [
            ("container", "container"), ("network", "network"), ("volume", "volume"), ("daemon", "daemon"),
            ("service", "service"), ("secret", "secret"), ("config", "config"), ("plugin", "plugin"),
        ] where filters.has(key) {
            guard event.type == type, hits(key, [event.id, attributes["name"]]) else { return false }
        }
        // Containers' events are on a node too.
        if filters.has("node"), !hits("node", nodes(of: event)) { return false }
        if filters.has("image"), !hitsImage(event) { return false }
        if filters.has("type"), !filters["type"].contains(event.type) { return false }
        if filters.has("scope"), !filters["scope"].contains(event.scope) { return false }
        if filters.has("event"), !filters["event"].contains(where: { isAction($0, event.action) }) { return false }
        return filters.allow(labels: attributes)
    }

    private func nodes(of event: DockerEvent) -> [String?] {
        event.type == "node"
            ? [event.id, event.attributes["name"]] : [event.attributes["node.id"], event.attributes["node.name"]]
    }

    /// `health_status` stands for `health_status: healthy` too.
    private func isAction(_ wanted: String, _ action: String) -> Bool {
        action == wanted || action.hasPrefix(wanted + ":")
    }

    /// One of the key's values is one of the texts, or the beginning of one.
    private func hits(_ key: String, _ texts: [String?]) -> Bool {
        filters[key].contains { wanted in texts.contains { $0?.hasPrefix(wanted) ?? false } }
    }

    /// Of an image, or of a container that was made of it, with the tag and without.
    private func hitsImage(_ event: DockerEvent) -> Bool {
        let names: [String?] =
            switch event.type {
            case "image": [event.id, event.attributes["name"]]
            case "container": [event.attributes["image"]]
            default: []
            }
        let known = names.compactMap(\.self).flatMap { name in
            [name] + (ImageName(name).map { [$0.repository, $0.description] } ?? [])
        }
        return filters["image"].contains { wanted in
            known.contains(wanted) || ImageName(wanted).map { known.contains($0.description) } ?? false
        }
    }
}
