import Model

/// What the scheduler knows of a node at one moment.
package struct NodeSnapshot: Sendable {
    package var node: Node
    /// The agent is connected and has told all about itself.
    package var ready: Bool
    /// Digests of the images whose content is there.
    package var images: Set<String>
    /// What its tasks were promised, but for those that rest.
    package var allocated: Resources
    /// Tasks by workload.
    package var tasksByWorkload: [WorkloadID: Int]
    package var tasks: Int
    package var ports: PortTable
    package var devices: DevicePool
    package var processors: ProcessorPool

    package init(
        node: Node, ready: Bool = true, images: Set<String> = [], allocated: Resources = Resources(),
        tasksByWorkload: [WorkloadID: Int] = [:], tasks: Int = 0, ports: PortTable = PortTable(),
        devices: DevicePool = DevicePool(), processors: ProcessorPool? = nil
    ) {
        self.processors = processors ?? ProcessorPool(node.processors)
        self.devices = devices
        self.node = node
        self.ready = ready
        self.images = images
        self.allocated = allocated
        self.tasksByWorkload = tasksByWorkload
        self.tasks = tasks
        self.ports = ports
    }

    /// The values that a constraint on `label` sees; empty: the node has no such label. Besides the node's own names
    /// these are Swarm classic's.
    package func values(of label: String) -> [String] {
        switch label {
        case "node": [node.name, node.id.text]
        case "node.name": [node.name]
        case "node.id": [node.id.text]
        case "node.os", "ostype": [node.platform.os]
        case "node.arch": [node.platform.architecture]
        case "kernelversion": [node.kernelVersion]
        case "operatingsystem": node.operatingSystem.map { [$0] } ?? []
        case "storagedriver": ["overlay2"]
        default: node.labels[label].map { [$0] } ?? []
        }
    }

    /// Counts a task that is placed here.
    package mutating func add(
        _ demand: PodDemand, ports chosen: [PortMapping], devices granted: [DeviceGrant] = [],
        processors own: [ProcessorGrant] = [], instance: InstanceID
    ) {
        devices.take(granted)
        processors.take(own, promised: demand.resources)
        allocated = allocated + demand.resources
        tasksByWorkload[demand.workload, default: 0] += 1
        tasks += 1
        for port in chosen {
            ports.insert(port.transport, address: port.hostAddress, number: port.hostPort, instance: instance)
        }
    }
}

/// What all instances of one revision want from a node.
package struct PodDemand: Sendable, Hashable {
    package var workload: WorkloadID
    package var resources: Resources
    package var features: [String]
    package var constraints: [Constraint]
    package var affinities: [Constraint]
    package var ports: [PortMapping]
    package var devices: [DemandedDevices]
    package var processors: [DemandedProcessors]
    package var strategy: PlacementStrategy
    /// Name (for messages) by digest.
    package var images: [String: String]
    /// What ties all who have it to one node.
    package var anchors: [Anchor]
    /// Of its containers, for others' affinities.
    package var labels: [String: String]

    package init(
        workload: WorkloadID, resources: Resources = Resources(), features: [String] = [],
        constraints: [Constraint] = [], affinities: [Constraint] = [], ports: [PortMapping] = [],
        devices: [DemandedDevices] = [], processors: [DemandedProcessors] = [],
        strategy: PlacementStrategy = .spread, images: [String: String] = [:],
        anchors: [Anchor] = [],
        labels: [String: String] = [:]
    ) {
        self.affinities = affinities
        self.labels = labels
        self.workload = workload
        self.resources = resources
        self.features = features
        self.constraints = constraints
        self.ports = ports
        self.devices = devices
        self.processors = processors
        self.strategy = strategy
        self.images = images
        self.anchors = anchors
    }

    package init(workload: WorkloadID, pod: PodSpec) {
        self.init(
            workload: workload, resources: pod.resources, features: pod.processorFeatures,
            constraints: pod.constraints,
            affinities: pod.affinities, ports: pod.ports, devices: DemandedDevices.all(of: pod),
            processors: DemandedProcessors.all(of: pod), strategy: pod.strategy ?? .spread,
            images: Dictionary(
                pod.containers.map { ($0.imageDigest, $0.image) }, uniquingKeysWith: { first, _ in first }),
            anchors: pod.volumes.map { .volume($0) } + pod.attachments.map { .network(NetworkID($0.network)) }
                + pod.namespaces.containers.map { .container(ContainerID($0)) })
    }
}

extension PodSpec {
    /// What a node's agent must know of for the pod's processors and huge pages; an earlier one would pass over them.
    fileprivate var processorFeatures: [String] {
        (containers.contains { $0.limits.pinning != nil } ? [NodeProcessors.pinningFeature] : [])
            + (containers.contains { !$0.limits.hugepages.isEmpty } ? [NodeProcessors.hugepagesFeature] : [])
    }
}

extension PodDemand {
    /// Whether some of what it wants need not be.
    var hasWishes: Bool { (constraints + affinities).contains(where: \.isSoft) }

    /// The same with nothing but what has to be.
    var withoutWishes: PodDemand {
        var demand = self
        demand.constraints.removeAll(where: \.isSoft)
        demand.affinities.removeAll(where: \.isSoft)
        return demand
    }
}

/// An instance that waits for a node.
package struct PlacementRequest: Sendable {
    package var instance: InstanceID
    /// Name and id of its container, for others' affinities.
    package var names: [String]
    package var demand: PodDemand
    /// The one node that will do, for an instance of a global service.
    package var pinned: NodeID?
    /// Devices that other tasks of the instance have or had: it gets them only where there are no others.
    package var avoided: [NodeID: Set<String>]

    package init(
        instance: InstanceID, names: [String] = [], demand: PodDemand, pinned: NodeID? = nil,
        avoided: [NodeID: Set<String>] = [:]
    ) {
        self.avoided = avoided
        self.instance = instance
        self.names = names
        self.demand = demand
        self.pinned = pinned
    }
}

package enum PlacementResult: Sendable, Hashable {
    /// The node, one port for each mapping of the demand, what each claim of devices got, and the processors that are its
    /// own.
    case placed(NodeID, ports: [PortMapping], devices: [DeviceGrant], processors: [ProcessorGrant])
    case refused(Refusal)
}

/// Why no node fits: "0 of 12 nodes: memory on 9, constraint zone==b on 3".
package struct Refusal: Sendable, Hashable, CustomStringConvertible {
    package struct Reason: Sendable, Hashable {
        package var explanation: String
        package var nodes: Int
    }

    package var nodes: Int
    /// Each node counts once, at the first filter that it failed; most frequent first.
    package var reasons: [Reason]

    package init(nodes: Int, counts: [String: Int]) {
        self.nodes = nodes
        reasons = counts.map { Reason(explanation: $0.key, nodes: $0.value) }
            .sorted { ($1.nodes, $0.explanation) < ($0.nodes, $1.explanation) }
    }

    package var description: String {
        if nodes == 0 { return "there is no node yet; start an agent" }
        return "0 of \(nodes) node\(nodes == 1 ? "" : "s"): "
            + reasons.map { "\($0.explanation) on \($0.nodes)" }.joined(separator: ", ") + inSwarmsWords
    }

    /// What programs made for Swarm classic look for, where one demand alone rules out all nodes.
    private var inSwarmsWords: String {
        guard reasons.count == 1, let explanation = reasons.first?.explanation,
            explanation.hasPrefix("constraint ") || explanation.hasPrefix("affinity ")
        else { return "" }
        return "; unable to find a node that satisfies the \(explanation)"
    }
}
