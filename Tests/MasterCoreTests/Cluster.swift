import JSON
import MasterCore
import Model
import Testing
import Wire

/// A master's core with a store in memory, and nodes that do at once what they are told.
struct Cluster {
    struct Generator: RandomNumberGenerator {
        var state: UInt64 = 1
        mutating func next() -> UInt64 {
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            return state ^ (state >> 29)
        }
    }

    var core: MasterCore
    var random = Generator()
    var now = Timestamp(nanoseconds: 1_700_000_000_000_000_000)
    var store: [String: (value: [UInt8], revision: Int64)] = [:]
    var storeRevision: Int64 = 0
    /// Commits wait in `pending` instead of being done.
    var holdsCommits = false
    var pending: [(TransactionNumber, [StoreWrite])] = []
    var commits = 0
    var replies: [RequestID: Result<MasterReply, APIProblem>] = [:]
    var assigned: [NodeID: [TaskID: TaskAssignment]] = [:]
    /// What nodes have heard of each other's overlays, by the lines' ids.
    var peers: [NodeID: [String: NetworkPeer]] = [:]
    /// How many lines of peers were sent.
    var peerLines = 0
    /// What telling of peers costs the master: lines made, and nodes named.
    var peerWork = 0
    /// Nodes keep what they hear of each other: a product of nodes.
    var hearsPeers = true
    var events: [Event] = []
    var containerLines: [WatchLine<ContainerView>] = []
    /// Nodes that hear nothing and say nothing.
    var away: Set<String> = []
    /// What was asked to be replicated: `name digest-end from-to`.
    var transfers: [String] = []
    /// What was asked to lose its names: `names digest-end node`.
    var untagged: [String] = []
    private var lastRequest = 0

    static let digest = "sha256:" + String(repeating: "1", count: 64)

    init() throws {
        core = try MasterCore(records: [], revision: 0)
        step(.start)
    }

    mutating func step(_ event: MasterEvent) {
        var effects = core.step(event, now: now, random: &random)
        while !effects.isEmpty {
            let effect = effects.removeFirst()
            switch effect {
            case .commit(let number, let writes):
                if holdsCommits {
                    pending.append((number, writes))
                } else {
                    effects += commit(number, writes)
                }
            case .reply(let request, let result): replies[request] = result
            case .assign(let node, let lines) where !away.contains(node.text):
                for line in lines { assigned[node, default: [:]][TaskID(line.id)] = line.object }
            case .peers(let nodes, let lines): tell(nodes, lines)
            case .event(let event): events.append(event)
            case .changed(let changes):
                for case .container(let line) in changes { containerLines.append(line) }
            case .replicate(let digest, let names, let from, let to):
                transfers.append("\(names.keys.sorted().joined(separator: " ")) \(digest.suffix(1)) \(from)-\(to)")
            case .untag(let node, let digest, let names):
                untagged.append("\(names.joined(separator: " ")) \(digest.suffix(1)) \(node)")
            case .assign, .wake: break
            }
        }
    }

    private mutating func tell(_ nodes: [NodeID], _ lines: [WatchLine<NetworkPeer>]) {
        peerWork += nodes.count + lines.count
        for node in nodes where hearsPeers && !away.contains(node.text) {
            for line in lines where !NetworkPeer.isAbout(node, line) {
                peerLines += 1
                peers[node, default: [:]][line.id] = line.object
            }
        }
    }

    /// Writes as a store does: all or nothing, compared with what each key was.
    private mutating func commit(_ number: TransactionNumber, _ writes: [StoreWrite]) -> [MasterEffect] {
        for write in writes { #expect(store[write.key]?.revision ?? 0 == write.expectedRevision, "\(write.key)") }
        storeRevision += 1
        commits += 1
        for write in writes { store[write.key] = write.value.map { ($0, storeRevision) } }
        return core.step(.committed(number, revision: storeRevision), now: now, random: &random)
    }

    /// Does what was held back.
    mutating func releaseCommits() {
        holdsCommits = false
        while !pending.isEmpty {
            let (number, writes) = pending.removeFirst()
            storeRevision += 1
            commits += 1
            for write in writes { store[write.key] = write.value.map { ($0, storeRevision) } }
            step(.committed(number, revision: storeRevision))
        }
    }

    mutating func failCommits(_ failure: StoreFailure) {
        while !pending.isEmpty {
            let (number, _) = pending.removeFirst()
            step(.commitFailed(number, failure))
        }
    }

    /// A new master on the same store.
    mutating func restart() throws {
        let records = store.map {
            StoreRecord(key: $0.key, value: $0.value.value, modificationRevision: $0.value.revision)
        }
        core = try MasterCore(records: records, revision: storeRevision)
        pending = []
        step(.start)
    }

    /// Lets time pass, with a tick each second; the nodes named are heard of.
    mutating func pass(seconds: Int, heard: [String] = []) {
        for second in 0..<seconds {
            now = now.adding(seconds: 1)
            if second % 5 == 4 { for node in heard { send(.report(node, NodeReport())) } }
            step(.tick)
        }
    }

    @discardableResult
    mutating func send(_ command: MasterCommand, by subject: Subject = .master) -> RequestID {
        lastRequest += 1
        step(.command(lastRequest, command, by: subject))
        return lastRequest
    }

    @discardableResult
    mutating func perform(_ command: MasterCommand, by subject: Subject = .master) throws -> MasterReply {
        let request = send(command, by: subject)
        return try #require(replies[request], "no reply yet").get()
    }

    mutating func problem(_ command: MasterCommand, by subject: Subject = .master) -> APIProblem? {
        let request = send(command, by: subject)
        guard case .failure(let problem)? = replies[request] else { return nil }
        return problem
    }

    mutating func query(_ query: MasterQuery, by subject: Subject = .master) throws -> MasterReply {
        lastRequest += 1
        step(.query(lastRequest, query, by: subject))
        return try #require(replies[lastRequest], "no reply yet").get()
    }

    mutating func container(_ ref: String) throws -> ContainerView {
        guard case .container(let view) = try query(.container(ref)) else { throw Unexpected() }
        return view
    }

    mutating func service(_ ref: String) throws -> ServiceView {
        guard case .service(let view) = try query(.service(ref)) else { throw Unexpected() }
        return view
    }

    mutating func containers() throws -> [ContainerView] {
        guard case .containers(let views) = try query(.containers(ContainerFilter())) else { throw Unexpected() }
        return views
    }

    struct Unexpected: Error {}

    // MARK: Nodes

    mutating func addNode(
        _ name: String, memory: Int64 = 4 << 30, labels: [String: String] = [:], address: String = "127.0.0.1",
        features: [String] = ["overlay", "cni"], processors: NodeProcessors? = nil, hugepages: [String: Int64] = [:]
    ) throws {
        let node = Node(
            id: NodeID(name), name: name, labels: labels, platform: Platform(os: "linux", architecture: "amd64"),
            features: features, capacity: Resources(cpu: 4_000_000_000, memory: memory, hugepages: hugepages),
            processors: processors, address: address,
            streamEndpoint: "unix:/run/\(name).sock", agentVersion: "1", kernelVersion: "6", bootID: "b", createdAt: now
        )
        try perform(.registerNode(NodeRegistration(node: node)))
        try connect(name)
    }

    static let image = ImageView(
        names: ["web:latest"], digest: digest, id: digest, size: 1,
        platform: Platform(os: "linux", architecture: "amd64"), createdAt: nil)

    /// The node connects and tells all; what it had when it went away goes on as it was.
    mutating func connect(_ name: String, volumes: [String] = []) throws {
        away.remove(name)
        let node = NodeID(name)
        let had = assigned[node] ?? [:]
        guard case .assignments(_, let list) = try perform(.connectNode(name)) else { throw Unexpected() }
        assigned[node] = Dictionary(uniqueKeysWithValues: list.map { ($0.task, $0) })
        guard case .peers(let others) = try query(.peers(name)) else { throw Unexpected() }
        peers[node] = Dictionary(uniqueKeysWithValues: others.map { ($0.id, $0) })
        let tasks = had.values.filter { task in list.contains { $0.task == task.task } }.map {
            NodeReport.TaskReport(
                task: $0.task, instance: $0.instance, epoch: $0.epoch, status: Self.obedient($0, now))
        }
        let views = volumes.map { VolumeView(name: $0, node: node, path: "/v/\($0)", labels: [:], createdAt: now) }
        try perform(.report(name, NodeReport(full: true, tasks: tasks, images: [Self.image], volumes: views)))
    }

    func node(_ ref: String) throws -> NodeView {
        var copy = self
        guard case .node(let view) = try copy.query(.node(ref)) else { throw Unexpected() }
        return view
    }

    mutating func report(_ task: TaskAssignment, on node: NodeID, _ status: TaskStatus) {
        let report = NodeReport.TaskReport(
            task: task.task, instance: task.instance, epoch: task.epoch, status: status)
        send(.report(node.text, NodeReport(tasks: [report])))
    }

    /// Lets all nodes do what their assignments say, until nothing is left to do.
    mutating func obey() {
        var done: Set<TaskAssignment> = []
        for _ in 0..<50 {
            var idle = true
            for (node, tasks) in assigned where !away.contains(node.text) {
                for task in tasks.values where done.insert(task).inserted {
                    idle = false
                    report(task, on: node, Self.obedient(task, now))
                }
            }
            if idle { return }
        }
        Issue.record("the master never comes to rest")
    }

    private static func obedient(_ task: TaskAssignment, _ now: Timestamp) -> TaskStatus {
        let phase: TaskStatus.Phase =
            switch task.desired {
            case .prepared: .prepared
            case .running: .running
            case .paused: .paused
            case .stopped: .exited
            case .removed: .removed
            }
        let runs = phase == .running
        return TaskStatus(
            phase: phase, generation: task.generation,
            containers: [
                ContainerStatus(
                    name: "main", id: task.containers[0], state: runs ? .running : .exited, start: 1,
                    exitCode: phase == .exited ? 143 : nil)
            ], serving: runs, servingSince: runs ? now : nil, revision: task.revision)
    }

    func pod(_ change: (inout PodSpec) -> Void = { _ in }) -> PodSpec {
        var pod = PodSpec(containers: [ContainerSpec(image: "web")])
        change(&pod)
        return pod
    }

    /// Claims in the store; what invariants are about.
    var claims: [String] { store.keys.filter { $0.hasPrefix("claims/") }.sorted() }
    func keys(_ prefix: String) -> [String] { store.keys.filter { $0.hasPrefix(prefix) }.sorted() }
}
