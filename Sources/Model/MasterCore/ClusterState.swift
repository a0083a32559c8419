import JSON
import Model
import Scheduling

/// The objects of the cluster, with indexes, and the draft of the next transaction: which keys changed, and what they
/// held before.
struct ClusterState: Sendable {
    private(set) var cluster: ClusterRecord?
    private(set) var nodes: [NodeID: Node] = [:]
    private(set) var workloads = ObjectTable<WorkloadID, Workload>()
    private(set) var revisions = ObjectTable<RevisionKey, Revision>()
    private(set) var instances = ObjectTable<InstanceID, Instance>()
    private(set) var tasks = ObjectTable<TaskID, NodeTask>()
    private(set) var claims: [Claim.Resource: Claim] = [:]
    private(set) var tokens: [TokenID: Token] = [:] { didSet { tokenChanges += 1 } }
    /// Grows with every change of a token.
    private(set) var tokenChanges = 0
    private(set) var secrets: [SecretID: Secret] = [:]
    private(set) var configs: [ConfigID: Config] = [:]
    private(set) var volumes: [VolumeKey: VolumeRecord] = [:]
    private(set) var networks: [NetworkID: Network] = [:]
    /// Follow from the objects, with every change.
    private(set) var indexes = ClusterIndexes()

    private var modificationRevisions: [ObjectKey: Int64] = [:]
    /// The store's revision at the last commit.
    private(set) var storeRevision: Int64
    /// Changed keys with what they held at the last commit.
    private(set) var draft: [ObjectKey: StoredObject?] = [:]

    /// Reads what the store holds.
    ///
    /// - Throws: `UnreadableRecord`.
    init(records: [StoreRecord], revision: Int64) throws(UnreadableRecord) {
        storeRevision = revision
        var tasks: [StoredObject] = []
        var networks: [StoredObject] = []
        var instances: [Instance] = []
        var ids = SharedIDs()
        for record in records {
            guard let object = try StoredObject(record).map({ ids.shared($0) }) else { continue }
            modificationRevisions[object.key] = record.modificationRevision
            switch object {
            // What a task was promised is in its revision, so revisions come first.
            case .task: tasks.append(object)
            case .network: networks.append(object)
            case .instance(let instance): instances.append(instance)
            default: set(object.key, to: object)
            }
        }
        // Before the tasks that have their addresses.
        for network in networks { set(network.key, to: network) }
        // In their order, so that each is appended.
        for instance in instances.sorted(by: { $0.position < $1.position }) {
            set(.instance(instance.id), to: .instance(instance))
        }
        for task in tasks { set(task.key, to: task) }
    }

    // MARK: Writing

    mutating func put(_ object: StoredObject) { write(object.key, object) }

    mutating func delete(_ key: ObjectKey) { write(key, nil) }

    private mutating func write(_ key: ObjectKey, _ object: StoredObject?) {
        let previous = self[key]
        guard previous != object else { return }
        if draft[key] == nil { draft.updateValue(previous, forKey: key) }
        set(key, to: object)
    }

    /// The draft as writes, in the order of keys. What came back to what it was is left out.
    func writes() throws -> [StoreWrite] {
        var writes: [StoreWrite] = []
        for (key, previous) in draft {
            let object = self[key]
            guard previous != object else { continue }
            writes.append(
                StoreWrite(
                    key: key.text, value: try object?.encoded(), expectedRevision: modificationRevisions[key] ?? 0))
        }
        return writes.sorted { $0.key < $1.key }
    }

    /// The draft is in the store now.
    mutating func committed(revision: Int64) {
        for (key, previous) in draft {
            let object = self[key]
            guard previous != object else { continue }
            modificationRevisions[key] = object == nil ? nil : revision
        }
        storeRevision = revision
        draft = [:]
    }

    /// The draft did not come to be, or changed nothing: everything is as it was.
    mutating func undo() {
        // What a task was promised is in its revision, and its addresses are a network's: tasks come back last.
        for (key, previous) in draft where !key.isTask { set(key, to: previous) }
        for (key, previous) in draft where key.isTask { set(key, to: previous) }
        draft = [:]
    }

    // MARK: Objects by key

    subscript(key: ObjectKey) -> StoredObject? {
        switch key {
        case .cluster: cluster.map { .cluster($0) }
        case .node(let id): nodes[id].map { .node($0) }
        case .workload(let id): workloads[id].map { .workload($0) }
        case .revision(let key): revisions[key].map { .revision($0) }
        case .instance(let id): instances[id].map { .instance($0) }
        case .task(let id): tasks[id].map { .task($0) }
        case .claim(let resource): claims[resource].map { .claim($0) }
        case .token(let id): tokens[id].map { .token($0) }
        case .secret(let id): secrets[id].map { .secret($0) }
        case .config(let id): configs[id].map { .config($0) }
        case .volume(let key): volumes[key].map { .volume($0) }
        case .network(let id): networks[id].map { .network($0) }
        }
    }

    private mutating func set(_ key: ObjectKey, to object: StoredObject?) {
        let before = self[key]
        if let before { indexes.remove(before) }
        switch key {
        case .cluster:
            if case .cluster(let record)? = object { cluster = record } else { cluster = nil }
        case .node(let id):
            if case .node(let node)? = object { nodes[id] = node } else { nodes[id] = nil }
        case .workload(let id):
            if case .workload(let workload)? = object { workloads[id] = workload } else { workloads[id] = nil }
        case .revision(let key):
            if case .revision(let revision)? = object { revisions[key] = revision } else { revisions[key] = nil }
        case .instance(let id):
            if case .instance(let instance)? = object { instances[id] = instance } else { instances[id] = nil }
        case .task(let id):
            if case .task(let task)? = object { tasks[id] = task } else { tasks[id] = nil }
        case .claim(let resource):
            if case .claim(let claim)? = object { claims[resource] = claim } else { claims[resource] = nil }
        case .token(let id):
            if case .token(let token)? = object { tokens[id] = token } else { tokens[id] = nil }
        case .secret(let id):
            if case .secret(let secret)? = object { secrets[id] = secret } else { secrets[id] = nil }
        case .config(let id):
            if case .config(let config)? = object { configs[id] = config } else { configs[id] = nil }
        case .volume(let key):
            if case .volume(let volume)? = object { volumes[key] = volume } else { volumes[key] = nil }
        case .network(let id):
            if case .network(let network)? = object { networks[id] = network } else { networks[id] = nil }
        }
        if case .task = key { indexes.setAddresses(before?.holding, object?.holding) }
        if let object {
            var promised = Resources()
            if case .task(let task) = object, !task.rests, let pod = pod(of: task) { promised = pod.resources }
            indexes.insert(object, promised: promised)
        }
        list(object ?? before, exists: object != nil)
    }

    /// Keeps what lists look at first true.
    private mutating func list(_ object: StoredObject?, exists: Bool) {
        switch object {
        case .instance(let instance)?:
            if exists { list(instance) } else { indexes.containers.remove(instance.position) }
        // Only these two change what its spec says.
        case .workload(let workload)?: listContainers(of: workload.id)
        case .revision(let revision)?: listContainers(of: revision.workload)
        case .task(let task)?: if let instance = instances[task.instance] { list(instance) }
        default: break
        }
    }

    private mutating func listContainers(of workload: WorkloadID) {
        guard workloads[workload]?.kind == .container else { return }
        for id in indexes.instancesByWorkload[workload] ?? [] {
            if let instance = instances[id] { list(instance, isSpecNew: true) }
        }
    }

    private mutating func list(_ instance: Instance, isSpecNew: Bool = false) {
        var own = isSpecNew ? nil : indexes.containers[instance.position]?.own
        let workload = workloads[instance.workload]
        if own == nil, let workload, workload.kind == .container, let pod = pod(of: workload) {
            own = ListedContainer.Own(workload, pod)
        }
        let entry = ListedContainer(
            instance, task: shownTask(of: instance), desired: workload?.desired ?? .prepared, own: own)
        if let entry { indexes.containers.set(entry) }
    }
}

extension StoredObject {
    fileprivate var holding: OverlayAddresses.Holding? {
        if case .task(let task) = self { OverlayAddresses.Holding(task) } else { nil }
    }
}

// MARK: - Ways from object to object

extension ClusterState {
    /// The newest pod of a workload.
    func pod(of workload: Workload) -> PodSpec? {
        revisions[RevisionKey(workload: workload.id, number: workload.revision)]?.pod
    }

    /// The pod that the task was made from.
    func pod(of task: NodeTask) -> PodSpec? {
        revisions[RevisionKey(workload: task.workload, number: task.revision)]?.pod
    }

    func task(of instance: Instance) -> NodeTask? { instance.task.flatMap { tasks[$0] } }

    /// The task that users see: the one that serves until its replacement does, else the one that counts, else the one
    /// whose node is not heard of.
    func shownTask(of instance: Instance) -> NodeTask? {
        func task(_ isShown: (Displaced) -> Bool) -> NodeTask? {
            instance.displaced.lazy.filter(isShown).compactMap { tasks[$0.task] }.first { $0.desired != .removed }
        }
        return task { $0.cause != .lost } ?? self.task(of: instance) ?? task { _ in true }
    }

    /// A workload's instances in the order of slots.
    func instances(of workload: WorkloadID) -> [Instance] {
        (indexes.instancesByWorkload[workload] ?? []).compactMap { instances[$0] }
            .sorted { ($0.slot, $0.name) < ($1.slot, $1.name) }
    }

    /// Revisions of a workload that its tasks have, those on their way out too.
    func usedRevisions(of workload: WorkloadID) -> Set<Int> {
        Set(tasks(of: workload).map(\.revision))
    }

    /// Networks that keep all pods that are attached to them on one node.
    func networksOfOneNode(_ pod: PodSpec) -> [NetworkID] {
        pod.attachments.map { NetworkID($0.network) }.filter { networks[$0]?.isOfOneNode ?? true }
    }

    /// Whether the pod depends on what is on one node.
    func isAnchored(_ pod: PodSpec) -> Bool {
        !pod.volumes.isEmpty || !pod.namespaces.containers.isEmpty || !networksOfOneNode(pod).isEmpty
    }

    /// All tasks of a workload's instances, in no order.
    func tasks(of workload: WorkloadID) -> [NodeTask] {
        (indexes.instancesByWorkload[workload] ?? []).compactMap { instances[$0] }.flatMap(\.tasks)
            .compactMap { tasks[$0] }
    }

    func tasks(on node: NodeID) -> [NodeTask] {
        (indexes.tasksByNode[node] ?? []).sorted().compactMap { tasks[$0] }
    }

    func claims(of instance: InstanceID) -> [Claim] {
        (indexes.claimsByInstance[instance] ?? []).compactMap { claims[$0] }
    }
}
