import Model
import Wire

/// Which containers a list shows.
package struct ContainerFilter: Sendable {
    /// Also those that do not run.
    package var all = true
    package var name: String?
    /// `key` or `key=value`; all must hold.
    package var labels: [LabelSelector] = []
    /// Any of these; a container without a node is `waiting`, one whose node is not heard of `unreachable`.
    package var statuses: [String] = []
    package var service: String?
    package var node: String?

    package init(
        all: Bool = true, name: String? = nil, labels: [LabelSelector] = [], statuses: [String] = [],
        service: String? = nil,
        node: String? = nil
    ) {
        self.all = all
        self.name = name
        self.labels = labels
        self.statuses = statuses
        self.service = service
        self.node = node
    }

    /// Whether the filter shows the container.
    package func shows(_ view: ContainerView) -> Bool {
        let status = view.state
        if !statuses.isEmpty {
            guard statuses.contains(status) else { return false }
        } else if !all, !Self.running.contains(status), view.status.restartAt == nil {
            return false
        }
        if let name, !view.name.contains(name) { return false }
        if let service, view.kind != .service || (view.workloadName != service && view.workload.text != service) {
            return false
        }
        if let node, view.nodeName != node && view.node?.text != node { return false }
        return labels.allSatisfy { $0.matches(view.labels) }
    }

    /// Whether it may show the container, by what is at hand without a search.
    func admits(_ entry: ListedContainer) -> Bool {
        if let name, !entry.name.contains(name) { return false }
        if service != nil, entry.own != nil { return false }
        return entry.own.map { own in labels.allSatisfy { $0.matches(own.labels) } } ?? true
    }

    private static let running: Set = [
        "waiting", "assigned", "preparing", "running", "paused", "stopping", "unreachable",
    ]
}
