import Model
import Wire

extension MasterCore {
    /// An event of a container with what users choose events by: its name, image, labels and node, and whose it is.
    ///
    /// What is known here counts more than what a node says.
    ///
    /// - Parameter node: where it happened; nil: where the container is.
    func described(_ event: Event, on node: NodeID? = nil) -> Event {
        guard event.kind == "container", let id = state.indexes.instanceByContainer[ContainerID(event.id)],
            let instance = state.instances[id], let workload = state.workloads[instance.workload]
        else { return event }
        var event = event
        let task = state.shownTask(of: instance)
        let spec = (task.flatMap { state.pod(of: $0) } ?? state.pod(of: workload))?.containers.first
        event.name = instance.name
        event.group = workload.group
        event.attributes["name"] = instance.name
        event.attributes["image"] = spec?.image
        if let node = (node ?? task?.node).flatMap({ state.nodes[$0] }) {
            event.attributes["node.name"] = node.name
            event.attributes["node.id"] = node.id.text
            event.attributes["node.ip"] = node.address
        }
        var room = Self.longestLabels
        for labels in [workload.labels, spec?.labels ?? [:]] {
            for (key, value) in labels.sorted(by: { $0.key < $1.key }) where event.attributes[key] == nil {
                room -= key.utf8.count + value.utf8.count
                guard room >= 0 else { return event }
                event.attributes[key] = value
            }
        }
        return event
    }

    /// Bytes of labels that an event carries, the first by their keys: the history has to stay small in memory.
    private static let longestLabels = 4096
}
