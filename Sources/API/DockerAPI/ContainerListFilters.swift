import JSON
import Master
import MasterCore
import Model
import Wire

/// What the filters of `docker ps` mean to the cluster.
extension DockerAPI {
    private static let listFilters: Set<String> = [
        "ancestor", "before", "exited", "expose", "health", "id", "is-task", "label", "label!", "name", "network",
        "node", "publish", "since", "status", "volume",
    ]

    func selection(_ call: DockerCall) async throws -> ContainerSelection {
        let filters = try call.filters(Self.listFilters)
        var selection = ContainerSelection()
        selection.ids = try filters["id"].map { try Self.pattern($0, of: "id") }
        selection.names = try filters["name"].map { try Self.pattern($0, of: "name") }
        selection.labels = filters["label"].map { LabelSelector($0) }
        selection.absentLabels = filters["label!"].map { LabelSelector($0) }
        selection.volumes = Set(filters["volume"])
        selection.networks = filters["network"]
        selection.nodes = Set(filters["node"])
        selection.ofServices = try filters.flag("is-task")
        selection.published = try filters["publish"].map { try Self.ports($0, of: "publish") }
        selection.exposed = try filters["expose"].map { try Self.ports($0, of: "expose") }
        for text in filters["exited"] {
            guard let code = Int(text) else { throw Self.invalid("exited", text, "it is an exit code") }
            selection.exitCodes.insert(code)
        }
        for text in filters["health"] {
            guard let health = ContainerStatus.Health(rawValue: text) else {
                throw Self.invalid("health", text, "it is starting, healthy, unhealthy or none")
            }
            selection.healths.insert(health)
        }
        let all = try call.query.flag("all") || (call.query.integer("limit", in: -1...(.max)) ?? 0) > 0
        selection.states = all ? nil : Set(ContainerState.allCases.filter(\.isActive))
        if filters.has("status") {
            selection.states = Set(
                try filters["status"].map { text in
                    guard let state = ContainerState(rawValue: text) else {
                        throw Self.invalid(
                            "status", text,
                            "it is one of \(ContainerState.allCases.map(\.rawValue).joined(separator: ", "))")
                    }
                    return state
                })
        }
        // Of several, the narrowest counts.
        for ref in filters["before"] + [call.query.text("before")].compactMap(\.self) {
            let position = try await container(ref).position
            selection.before = min(selection.before ?? position, position)
        }
        for ref in filters["since"] + [call.query.text("since")].compactMap(\.self) {
            let position = try await container(ref).position
            selection.since = max(selection.since ?? position, position)
        }
        if filters.has("ancestor") { selection.images = try await images(of: filters["ancestor"]) }
        return selection
    }

    private static func invalid(_ filter: String, _ text: String, _ why: String) -> DockerError {
        .badRequest("invalid filter '\(filter)=\(text.prefix(200))': \(why)")
    }

    private static func pattern(_ text: String, of filter: String) throws -> NamePattern {
        do {
            return try NamePattern(text)
        } catch {
            throw invalid(filter, text, "\(error)")
        }
    }

    /// Reads `80`, `80/udp`, `8000-8080/tcp`.
    private static func ports(_ text: String, of filter: String) throws -> ContainerSelection.PortRange {
        let parts = text.split(separator: "/", maxSplits: 1, omittingEmptySubsequences: false)
        let ends = parts[0].split(separator: "-", maxSplits: 1, omittingEmptySubsequences: false).map { Int($0) }
        guard let first = ends[0], let last = ends[ends.count - 1], 1 <= first, first <= last, last <= 65_535,
            let transport = PortMapping.Transport(rawValue: parts.count == 2 ? String(parts[1]) : "tcp")
        else { throw invalid(filter, text, "it is a port or a range of them, as 80, 53/udp or 8000-8080/tcp") }
        return ContainerSelection.PortRange(first...last, transport)
    }

    /// Digests of the images that are meant and of those that were made from them: their layers begin alike.
    private func images(of references: [String]) async throws -> Set<String> {
        guard case .images(let images) = try await master.query(.images) else { throw APIProblem.unexpected }
        var digests: Set<String> = []
        for reference in references {
            guard let ancestor = MasterCore.find(reference, in: images) else {
                // Containers outlive the names of their images.
                digests.insert(reference)
                continue
            }
            digests.insert(ancestor.digest)
            guard let layers = ancestor.layers, !layers.isEmpty else { continue }
            digests.formUnion(images.filter { $0.layers?.starts(with: layers) ?? false }.map(\.digest))
        }
        return digests
    }
}

extension ContainerView {
    var position: ContainerPosition { ContainerPosition(createdAt: createdAt, slot: slot, instance: instance) }
}
