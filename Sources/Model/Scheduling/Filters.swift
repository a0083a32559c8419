import Model

/// One demand on a node: whether the node meets it, and in a few words what is wanted.
protocol Filter: Sendable {
    func check(_ node: NodeSnapshot) -> Bool
    func explain() -> String
    /// The same for a node that does not meet it.
    func explain(_ node: NodeSnapshot) -> String
}

extension Filter {
    func explain(_ node: NodeSnapshot) -> String { explain() }
}

struct ReadyFilter: Filter {
    func check(_ node: NodeSnapshot) -> Bool { node.ready }
    func explain() -> String { "not ready" }
}

struct AvailabilityFilter: Filter {
    func check(_ node: NodeSnapshot) -> Bool { node.node.availability == .active }
    func explain() -> String { "cordoned or drained" }
}

struct FeatureFilter: Filter {
    let feature: String
    func check(_ node: NodeSnapshot) -> Bool { node.node.features.contains(feature) }
    func explain() -> String { "feature \(feature) missing" }
}

struct ConstraintFilter: Filter {
    let constraint: Constraint
    private let pattern: Pattern

    init(constraint: Constraint) {
        self.constraint = constraint
        pattern = constraint.pattern
    }

    func check(_ node: NodeSnapshot) -> Bool {
        let equal = node.values(of: constraint.label).contains(where: pattern.matches)
        return constraint.relation == .equal ? equal : !equal
    }
    func explain() -> String { "constraint \(constraint)" }
}

/// The content is on a node that can be reached: every other fetches it from there.
struct ImageFilter: Filter {
    let name: String
    let isReachable: Bool
    func check(_ node: NodeSnapshot) -> Bool { isReachable }
    func explain() -> String { "image \(name) (on no node that can be reached)" }
}

/// The node's whole capacity is too small, or what is left of it.
struct CPUFilter: Filter {
    let wanted: Int64
    func check(_ node: NodeSnapshot) -> Bool {
        wanted == 0 || node.allocated.cpu <= node.node.capacity.cpu - wanted
    }
    func explain() -> String { "cpu" }
}

struct MemoryFilter: Filter {
    let wanted: Int64
    func check(_ node: NodeSnapshot) -> Bool {
        wanted == 0 || node.allocated.memory <= node.node.capacity.memory - wanted
    }
    func explain() -> String { "memory" }
}

/// The node's pools of huge pages are too small, or what is left of them.
struct HugepagesFilter: Filter {
    let wanted: [String: Int64]
    func check(_ node: NodeSnapshot) -> Bool { lack(on: node) == nil }
    func explain() -> String { "hugepages" }
    func explain(_ node: NodeSnapshot) -> String { lack(on: node) ?? explain() }

    private func lack(on node: NodeSnapshot) -> String? {
        for (size, bytes) in wanted.sorted(by: { $0.key < $1.key }) {
            let pool = node.node.capacity.hugepages[size] ?? 0
            if pool == 0 { return "no hugepages of \(size)" }
            if pool < bytes { return "too few hugepages of \(size)" }
            if (node.allocated.hugepages[size] ?? 0) > pool - bytes { return "hugepages of \(size) taken" }
        }
        return nil
    }
}

/// The node has so many processors at all, whoever has them.
struct ProcessorFilter: Filter {
    let demanded: [DemandedProcessors]
    func check(_ node: NodeSnapshot) -> Bool { node.processors.shortage(for: demanded) == nil }
    func explain() -> String { "processors" }
    func explain(_ node: NodeSnapshot) -> String { node.processors.shortage(for: demanded) ?? explain() }
}

/// The node's label `containerslots` says how many containers it may have, running or not.
struct SlotFilter: Filter {
    func check(_ node: NodeSnapshot) -> Bool {
        guard let slots = node.node.labels["containerslots"].flatMap({ Int($0) }) else { return true }
        return node.tasks < slots
    }
    func explain() -> String { "container slots" }
}

/// The node has such devices at all, whoever has them.
struct DeviceFilter: Filter {
    let demanded: [DemandedDevices]
    func check(_ node: NodeSnapshot) -> Bool { shortage(on: node) == nil }
    func explain() -> String { "gpu" }
    func explain(_ node: NodeSnapshot) -> String { shortage(on: node) ?? explain() }

    private func shortage(on node: NodeSnapshot) -> String? {
        demanded.isEmpty ? nil : node.devices.shortage(for: demanded)
    }
}

/// The node's label `device-placement` keeps all off that does not claim devices.
struct ExclusiveFilter: Filter {
    let hasClaims: Bool
    func check(_ node: NodeSnapshot) -> Bool { hasClaims || node.devicePlacement != .exclusive }
    func explain() -> String { "kept for claims of devices" }
}

/// What the node's label `device-placement` says of work that claims no devices.
enum DevicePlacement: String {
    /// It comes when nothing else will do. This goes without the label.
    case restricted
    /// It comes as anywhere.
    case unrestricted
    /// It does not come, but for services with an instance on every node.
    case exclusive
}

extension NodeSnapshot {
    var devicePlacement: DevicePlacement {
        node.labels["device-placement"].flatMap { DevicePlacement(rawValue: $0) } ?? .restricted
    }

    /// Whether the demand is better kept off the node: it claims no devices, and the node has scarce ones.
    func isRestricted(for demand: PodDemand) -> Bool {
        demand.devices.isEmpty && devices.isScarce && devicePlacement == .restricted
    }
}

extension PodDemand {
    /// Filters whose answer does not change while instances of this demand are placed.
    var fixedFilters: [any Filter] {
        var filters: [any Filter] = [ReadyFilter(), AvailabilityFilter()]
        filters += features.map { FeatureFilter(feature: $0) }
        filters += constraints.map { ConstraintFilter(constraint: $0) }
        if !devices.isEmpty { filters.append(DeviceFilter(demanded: devices)) }
        if !processors.isEmpty { filters.append(ProcessorFilter(demanded: processors)) }
        return filters
    }

    /// Filters that every placement may change; ports, which also choose, come after them.
    var amountFilters: [any Filter] {
        resourceFilters + [SlotFilter()]
    }

    fileprivate var resourceFilters: [any Filter] {
        [CPUFilter(wanted: resources.cpu), MemoryFilter(wanted: resources.memory)]
            + (resources.hugepages.isEmpty ? [] : [HugepagesFilter(wanted: resources.hugepages)])
    }

    /// What is said when no port is free.
    var portsExplanation: String {
        "port "
            + ports.map {
                let range = $0.hostPort == $0.hostPortEnd ? "\($0.hostPort)" : "\($0.hostPort)-\($0.hostPortEnd)"
                return "\($0.hostPort == 0 ? "any" : range)/\($0.transport.rawValue)"
            }.joined(separator: " ") + " taken"
    }
}

extension NodeSnapshot {
    /// What is short for a task of this demand that is here already: `cpu`, `memory`, or words on huge pages; nil: there is
    /// room. Devices and processors of one's own are not looked at.
    package func shortage(for demand: PodDemand) -> String? {
        demand.resourceFilters.first { !$0.check(self) }?.explain(self)
    }

    /// Whether the node may have an instance of a global service, now or when there is room: availability,
    /// platform and constraints, not what is free.
    package func isEligible(for demand: PodDemand) -> Bool {
        node.availability == .active
            && demand.features.allSatisfy { FeatureFilter(feature: $0).check(self) }
            && demand.constraints.allSatisfy { $0.isSoft || ConstraintFilter(constraint: $0).check(self) }
    }
}
