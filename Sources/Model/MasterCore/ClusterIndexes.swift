import Model
import Scheduling

/// Ways to find objects by what is in them, and what is placed where.
struct ClusterIndexes: Sendable {
    private(set) var workloadByName: [String: WorkloadID] = [:]
    private(set) var instanceByName: [String: InstanceID] = [:]
    private(set) var instanceByContainer: [ContainerID: InstanceID] = [:]
    /// By their first digits, see `containers(beginning:)`.
    private var containersByBeginning: [String: Set<ContainerID>] = [:]
    /// By age. Not kept here: it needs to know more than one object.
    var containers = ContainerOrder()
    private(set) var instancesByWorkload: [WorkloadID: Set<InstanceID>] = [:]
    private(set) var revisionsByWorkload: [WorkloadID: Set<Int>] = [:]
    private(set) var tasksByNode: [NodeID: Set<TaskID>] = [:]
    private(set) var claimsByInstance: [InstanceID: Set<Claim.Resource>] = [:]
    private(set) var volumeNodes: [String: Set<NodeID>] = [:]
    private(set) var volumesByNode: [NodeID: Set<String>] = [:]
    private(set) var nodeByName: [String: NodeID] = [:]
    private(set) var networkByName: [String: NetworkID] = [:]
    /// Revisions whose pods are attached to a network.
    private(set) var revisionsByNetwork: [NetworkID: Set<RevisionKey>] = [:]
    /// Revisions whose pods name a volume.
    private(set) var revisionsByVolume: [String: Set<RevisionKey>] = [:]
    /// Nodes that are cordoned or drained.
    private(set) var unavailable: Set<NodeID> = []
    /// Services with an instance on every node.
    private(set) var globalWorkloads: Set<WorkloadID> = []
    private(set) var loads: [NodeID: NodeLoad] = [:]
    /// Subnets, VXLAN numbers and nodes' addresses.
    private(set) var pools = AddressPools()
    /// Who has which address of overlays.
    private(set) var overlays = OverlayAddresses()

    /// What a node has given away.
    struct NodeLoad: Sendable {
        var allocated = Resources()
        var tasksByWorkload: [WorkloadID: Int] = [:]
        var tasks = 0
        var ports = PortTable()
    }

    /// Who has which device: by node, the device's id and the task.
    private(set) var deviceHolders: [NodeID: [String: [TaskID: DeviceClaim.Sharing]]] = [:]

    /// Who has which processors alone: by node and task.
    private(set) var processorHoldings: [NodeID: [TaskID: ProcessorHolding]] = [:]

    /// What each task counts for, so that it leaves as it came.
    private var promised: [TaskID: Resources] = [:]

    private static func beginning(_ id: String) -> String { String(id.prefix(3)) }

    /// Containers whose ids begin so.
    func containers(beginning text: String) -> [ContainerID] {
        guard text.utf8.count >= 3 else { return instanceByContainer.keys.filter { $0.text.hasPrefix(text) } }
        return (containersByBeginning[Self.beginning(text)] ?? []).filter { $0.text.hasPrefix(text) }
    }

    /// What a task has of overlays was one thing, and is another.
    mutating func setAddresses(_ before: OverlayAddresses.Holding?, _ after: OverlayAddresses.Holding?) {
        guard before != after else { return }
        if let before { overlays.remove(before) }
        if let after { overlays.insert(after) }
    }

    /// - Parameter promised: for a task, what is reserved for it on its node.
    mutating func insert(_ object: StoredObject, promised amount: Resources) {
        switch object {
        case .cluster, .token, .secret, .config: break
        case .node(let node):
            nodeByName[node.name] = node.id
            if node.availability != .active { unavailable.insert(node.id) }
            pools.insert(node)
        case .volume(let volume):
            volumeNodes[volume.name, default: []].insert(volume.node)
            volumesByNode[volume.node, default: []].insert(volume.name)
        case .workload(let workload):
            workloadByName[workload.name] = workload.id
            if workload.scale == .global { globalWorkloads.insert(workload.id) }
        case .network(let network):
            networkByName[network.name] = network.id
            pools.insert(network)
            overlays.insert(network)
        case .revision(let revision):
            revisionsByWorkload[revision.workload, default: []].insert(revision.number)
            for network in revision.networks { revisionsByNetwork[network, default: []].insert(revision.key) }
            for volume in revision.pod.volumes { revisionsByVolume[volume, default: []].insert(revision.key) }
            overlays.insert(revision)
        case .instance(let instance):
            instanceByName[instance.name] = instance.id
            for container in instance.containers {
                instanceByContainer[container] = instance.id
                containersByBeginning[Self.beginning(container.text), default: []].insert(container)
            }
            instancesByWorkload[instance.workload, default: []].insert(instance.id)
        case .task(let task):
            tasksByNode[task.node, default: []].insert(task.id)
            promised[task.id] = amount
            var load = loads.removeValue(forKey: task.node) ?? NodeLoad()
            load.allocated = load.allocated + amount
            load.tasks += 1
            load.tasksByWorkload[task.workload, default: 0] += 1
            loads[task.node] = load
            for grant in task.heldDevices {
                for id in grant.devices {
                    deviceHolders[task.node, default: [:]][id, default: [:]][task.id] = grant.sharing
                }
            }
            if !task.grantedProcessors.isEmpty, !task.rests {
                processorHoldings[task.node, default: [:]][task.id] = ProcessorHolding(
                    grants: task.grantedProcessors, promised: amount)
            }
        case .claim(let claim):
            claimsByInstance[claim.instance, default: []].insert(claim.resource)
            switch claim.resource {
            case .port(let node, let transport, let address, let number):
                loads[node, default: NodeLoad()].ports.insert(
                    transport, address: address, number: number, instance: claim.instance)
            }
        }
    }

    mutating func remove(_ object: StoredObject) {
        switch object {
        case .cluster, .token, .secret, .config: break
        case .node(let node):
            // A draft may have given the name to another.
            if nodeByName[node.name] == node.id { nodeByName[node.name] = nil }
            unavailable.remove(node.id)
            pools.remove(node)
        case .volume(let volume):
            volumeNodes[volume.name]?.remove(volume.node)
            if volumeNodes[volume.name]?.isEmpty == true { volumeNodes[volume.name] = nil }
            volumesByNode[volume.node]?.remove(volume.name)
            if volumesByNode[volume.node]?.isEmpty == true { volumesByNode[volume.node] = nil }
        case .workload(let workload):
            if workloadByName[workload.name] == workload.id { workloadByName[workload.name] = nil }
            globalWorkloads.remove(workload.id)
        case .revision(let revision):
            revisionsByWorkload[revision.workload]?.remove(revision.number)
            if revisionsByWorkload[revision.workload]?.isEmpty == true { revisionsByWorkload[revision.workload] = nil }
            for network in revision.networks {
                revisionsByNetwork[network]?.remove(revision.key)
                if revisionsByNetwork[network]?.isEmpty == true { revisionsByNetwork[network] = nil }
            }
            for volume in revision.pod.volumes {
                revisionsByVolume[volume]?.remove(revision.key)
                if revisionsByVolume[volume]?.isEmpty == true { revisionsByVolume[volume] = nil }
            }
            overlays.remove(revision)
        case .network(let network):
            if networkByName[network.name] == network.id { networkByName[network.name] = nil }
            pools.remove(network)
            overlays.remove(network)
        case .instance(let instance):
            if instanceByName[instance.name] == instance.id { instanceByName[instance.name] = nil }
            for container in instance.containers {
                instanceByContainer[container] = nil
                let beginning = Self.beginning(container.text)
                containersByBeginning[beginning]?.remove(container)
                if containersByBeginning[beginning]?.isEmpty == true { containersByBeginning[beginning] = nil }
            }
            instancesByWorkload[instance.workload]?.remove(instance.id)
            if instancesByWorkload[instance.workload]?.isEmpty == true { instancesByWorkload[instance.workload] = nil }
        case .task(let task):
            tasksByNode[task.node]?.remove(task.id)
            if tasksByNode[task.node]?.isEmpty == true { tasksByNode[task.node] = nil }
            var load = loads.removeValue(forKey: task.node) ?? NodeLoad()
            load.allocated = load.allocated - (promised.removeValue(forKey: task.id) ?? Resources())
            load.tasks -= 1
            load.tasksByWorkload[task.workload, default: 0] -= 1
            if load.tasksByWorkload[task.workload] == 0 { load.tasksByWorkload[task.workload] = nil }
            loads[task.node] = load
            for id in task.heldDevices.flatMap(\.devices) {
                deviceHolders[task.node]?[id]?[task.id] = nil
                if deviceHolders[task.node]?[id]?.isEmpty == true { deviceHolders[task.node]?[id] = nil }
                if deviceHolders[task.node]?.isEmpty == true { deviceHolders[task.node] = nil }
            }
            processorHoldings[task.node]?[task.id] = nil
            if processorHoldings[task.node]?.isEmpty == true { processorHoldings[task.node] = nil }
        case .claim(let claim):
            claimsByInstance[claim.instance]?.remove(claim.resource)
            if claimsByInstance[claim.instance]?.isEmpty == true { claimsByInstance[claim.instance] = nil }
            switch claim.resource {
            case .port(let node, let transport, let address, let number):
                loads[node]?.ports.remove(transport, address: address, number: number, instance: claim.instance)
            }
        }
    }
}

extension NodeTask {
    /// What it has of its node's devices now: nothing when it rests.
    fileprivate var heldDevices: [DeviceGrant] { grantedDevices.isEmpty || rests ? [] : grantedDevices }
}

extension Revision {
    var key: RevisionKey { RevisionKey(workload: workload, number: number) }

    fileprivate var networks: [NetworkID] { pod.attachments.map { NetworkID($0.network) } }
}
