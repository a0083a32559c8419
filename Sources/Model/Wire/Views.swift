import JSON
import Model

/// One container as users see it: an instance of a workload, with its task's state.
package struct ContainerView: Sendable, Codable {
    package var id: ContainerID
    package var name: String
    package var kind: Workload.Kind
    package var instance: InstanceID
    package var workload: WorkloadID
    package var workloadName: String
    package var group: String
    package var slot: Int
    /// nil while no node has been chosen.
    package var task: TaskID?
    package var node: NodeID?
    package var nodeName: String
    package var revision: Int
    package var desired: DesiredState
    /// Counts the user's starts; `status.generation` follows it.
    package var generation: Int
    package var status: TaskStatus
    package var container: ContainerStatus
    package var spec: ContainerSpec
    /// All of its pod but the container.
    package var pod: PodSpec
    package var network: PodSpec.Network
    package var hostname: String
    package var restart: RestartPolicy
    package var constraints: [Constraint]
    /// The host ports it really has, one mapping a port.
    package var ports: [PortMapping]
    /// The devices that it has, one entry for each of its claims; empty while no node has been chosen.
    package var grantedDevices: [DeviceGrant]
    /// The processors that its container has alone; empty unless it asks for some.
    package var grantedProcessors: [ProcessorGrant]
    package var labels: [String: String]
    package var removeOnExit: Bool
    /// Why no node fits; nil when one was found.
    package var unschedulable: Condition?
    /// Since when its node is not heard of: its status is as it was then; nil: the node is there.
    package var unreachableSince: Timestamp?
    /// `unreachable`, with what becomes of it.
    package var conditions: [Condition]
    /// Other tasks of the instance that may still be on their nodes.
    package var displaced: [DisplacedView]
    package var createdAt: Timestamp

    /// One word for its state: the phase, `waiting` without a node, or `unreachable`.
    package var state: String {
        if task == nil { return "waiting" }
        return unreachableSince != nil && status.phase != .removed ? "unreachable" : status.phase.rawValue
    }

    package init(
        id: ContainerID, name: String, kind: Workload.Kind, instance: InstanceID, workload: WorkloadID,
        workloadName: String, group: String = Group.root, slot: Int, task: TaskID?, node: NodeID?, nodeName: String,
        revision: Int,
        desired: DesiredState, generation: Int, status: TaskStatus, container: ContainerStatus, spec: ContainerSpec,
        pod: PodSpec, hostname: String, ports: [PortMapping], grantedDevices: [DeviceGrant] = [],
        grantedProcessors: [ProcessorGrant] = [],
        labels: [String: String], removeOnExit: Bool,
        unschedulable: Condition?, unreachableSince: Timestamp? = nil, conditions: [Condition] = [],
        displaced: [DisplacedView] = [],
        createdAt: Timestamp
    ) {
        self.id = id
        self.unreachableSince = unreachableSince
        self.conditions = conditions
        self.displaced = displaced
        self.name = name
        self.kind = kind
        self.instance = instance
        self.workload = workload
        self.workloadName = workloadName
        self.group = group
        self.slot = slot
        self.task = task
        self.node = node
        self.nodeName = nodeName
        self.revision = revision
        self.desired = desired
        self.generation = generation
        self.status = status
        self.container = container
        self.spec = spec
        var frame = pod
        frame.containers = []
        self.pod = frame
        network = pod.network
        self.hostname = hostname
        restart = pod.restart
        constraints = pod.constraints
        self.ports = ports
        self.grantedDevices = grantedDevices
        self.grantedProcessors = grantedProcessors
        self.labels = labels
        self.removeOnExit = removeOnExit
        self.unschedulable = unschedulable
        self.createdAt = createdAt
    }
}

/// A task of an instance that does not count any more, or will not when another serves in its place.
package struct DisplacedView: Sendable, Codable, Hashable {
    package var task: TaskID
    package var node: NodeID
    package var nodeName: String
    package var cause: Displaced.Cause
    package var since: Timestamp
    /// As its node reported it last.
    package var phase: TaskStatus.Phase
    package var desired: DesiredState
    /// nil: its node is there.
    package var unreachableSince: Timestamp?

    package init(
        task: TaskID, node: NodeID, nodeName: String, cause: Displaced.Cause, since: Timestamp,
        phase: TaskStatus.Phase, desired: DesiredState, unreachableSince: Timestamp?
    ) {
        self.task = task
        self.node = node
        self.nodeName = nodeName
        self.cause = cause
        self.since = since
        self.phase = phase
        self.desired = desired
        self.unreachableSince = unreachableSince
    }
}

package struct ServiceView: Sendable, Codable {
    package var service: Workload
    package var pod: PodSpec
    /// Instances that serve now.
    package var serving: Int
    /// Instances that there shall be.
    package var wanted: Int
    /// Instances that already run the newest revision.
    package var updated: Int
    /// Why some wait, one sentence; empty when none does.
    package var waiting: String

    package init(service: Workload, pod: PodSpec, serving: Int, wanted: Int, updated: Int, waiting: String) {
        self.service = service
        self.pod = pod
        self.serving = serving
        self.wanted = wanted
        self.updated = updated
        self.waiting = waiting
    }
}

package struct NodeView: Sendable, Codable {
    package var node: Node
    package var conditions: [Condition]
    /// What its tasks were promised.
    package var allocated: Resources
    package var tasks: Int
    /// Set while the node is drained.
    package var drain: DrainView?
    /// Only of a single node that is asked for.
    package var devices: [DeviceView]?

    package init(
        node: Node, conditions: [Condition], allocated: Resources, tasks: Int, drain: DrainView? = nil,
        devices: [DeviceView]? = nil
    ) {
        self.node = node
        self.devices = devices
        self.drain = drain
        self.conditions = conditions
        self.allocated = allocated
        self.tasks = tasks
    }
}

/// How far the draining of a node is.
package struct DrainView: Sendable, Codable, Hashable {
    package struct Remaining: Sendable, Codable, Hashable {
        /// The container's name.
        package var name: String
        package var kind: Workload.Kind
        /// Why it is still there, in a few words.
        package var reason: String

        package init(name: String, kind: Workload.Kind, reason: String) {
            self.name = name
            self.kind = kind
            self.reason = reason
        }
    }

    package var startedAt: Timestamp
    /// When what is left of services is removed whatever it takes; nil: never.
    package var deadline: Timestamp?
    /// Per cent.
    package var minimumAvailable: Int
    /// Tasks of services that are still there.
    package var remaining: Int
    /// The first 100 containers that are still there, those of services first; only where one node is asked for.
    package var staying: [Remaining]

    package init(
        startedAt: Timestamp, deadline: Timestamp?, minimumAvailable: Int, remaining: Int, staying: [Remaining]
    ) {
        self.startedAt = startedAt
        self.deadline = deadline
        self.minimumAvailable = minimumAvailable
        self.remaining = remaining
        self.staying = staying
    }
}

package struct ImageView: Sendable, Codable, Hashable {
    /// Names with tag, in the familiar form; empty for an image that lost its name.
    package var names: [String]
    /// `sha256:…` of the manifest.
    package var digest: String
    /// `sha256:…` of the configuration: the id that `images` shows.
    package var id: String
    /// Bytes of the unpacked layers.
    package var size: Int64
    package var platform: Platform
    package var createdAt: Timestamp?
    /// Of its configuration; nil: its node is of an older version.
    package var labels: [String: String]?
    /// `sha256:…` of the unpacked layers, the lowest first.
    package var layers: [String]?
    /// `repository@sha256:…` of the registries that it came from, the last one first; nil: its node is of an older
    /// version.
    package var repositoryDigests: [String]?
    /// Bytes of its manifest; only in the answer to a push.
    package var manifestSize: Int64?
    /// When it was given each of its names on the node that tells; the last such time counts where nodes differ.
    package var namedAt: [String: Timestamp]?
    package var nodes: [NodeID]

    package init(
        names: [String], digest: String, id: String, size: Int64, platform: Platform, createdAt: Timestamp?,
        namedAt: [String: Timestamp]? = nil, nodes: [NodeID] = []
    ) {
        self.names = names
        self.namedAt = namedAt
        self.digest = digest
        self.id = id
        self.size = size
        self.platform = platform
        self.createdAt = createdAt
        self.nodes = nodes
    }
}

package struct VolumeView: Sendable, Codable, Hashable {
    package var name: String
    package var node: NodeID
    package var path: String
    package var labels: [String: String]
    /// How it is mounted on its node: `type`, `device`, `o`, see mount(8); empty: a directory.
    package var options: [String: String]?
    package var isAnonymous: Bool?
    /// Whose it is; only the master knows.
    package var group: String?
    /// Its node's; only the master knows.
    package var nodeName: String?
    package var createdAt: Timestamp
    /// Names of the containers that use it.
    package var usedBy: [String]
    /// nil: its node is there.
    package var unreachableSince: Timestamp?

    package init(
        name: String, node: NodeID, path: String, labels: [String: String], group: String? = nil, createdAt: Timestamp,
        usedBy: [String] = [], unreachableSince: Timestamp? = nil
    ) {
        self.name = name
        self.group = group
        self.unreachableSince = unreachableSince
        self.node = node
        self.path = path
        self.labels = labels
        self.createdAt = createdAt
        self.usedBy = usedBy
    }
}

/// Something that happened; the history is bounded and lives in the master's memory.
package struct Event: Sendable, Codable {
    /// Grows by one with each event of this master process.
    package var sequence: Int
    package var time: Timestamp
    /// `container`, `service`, `node`, `image`, `volume`.
    package var kind: String
    /// `create`, `start`, `die`, `oom`, `health_status`, `update`, …
    package var action: String
    package var id: String
    package var name: String
    /// Of a container its name, image, labels and node too.
    package var attributes: [String: String]
    /// Whose it is; nil: nobody's alone.
    package var group: String?

    package init(
        sequence: Int = 0, time: Timestamp, kind: String, action: String, id: String, name: String,
        attributes: [String: String] = [:]
    ) {
        self.sequence = sequence
        self.time = time
        self.kind = kind
        self.action = action
        self.id = id
        self.name = name
        self.attributes = attributes
    }
}

/// What a network device of a container has carried, since it was made.
package struct NetworkInterface: Sendable, Codable, Hashable {
    /// In the container: `eth0`.
    package var name: String
    package var received: Counters
    package var sent: Counters

    package struct Counters: Sendable, Codable, Hashable {
        package var bytes: Int64
        package var packets: Int64
        package var errors: Int64
        package var dropped: Int64

        package init(bytes: Int64, packets: Int64, errors: Int64, dropped: Int64) {
            self.bytes = bytes
            self.packets = packets
            self.errors = errors
            self.dropped = dropped
        }
    }

    package init(name: String, received: Counters, sent: Counters) {
        self.name = name
        self.received = received
        self.sent = sent
    }
}

/// How one of a container's devices is used, as its driver told last.
package struct DeviceStats: Sendable, Codable, Hashable {
    package var id: String
    /// Percent of the last interval in which the device worked, for whomever; nil: not told, as of a part of a GPU.
    package var utilization: Int?
    /// Bytes of the device's memory that the container's processes have; nil: nobody tells, or no container is meant.
    package var memoryUsage: Int64?
    /// Bytes that are in use, by whomever.
    package var memoryUsedByAll: Int64?
    /// Bytes that there are.
    package var memory: Int64?
    package var celsius: Int?
    package var milliwatts: Int64?

    package init(
        id: String, utilization: Int?, memoryUsage: Int64?, memoryUsedByAll: Int64?, memory: Int64?, celsius: Int?,
        milliwatts: Int64?
    ) {
        self.id = id
        self.utilization = utilization
        self.memoryUsage = memoryUsage
        self.memoryUsedByAll = memoryUsedByAll
        self.memory = memory
        self.celsius = celsius
        self.milliwatts = milliwatts
    }
}

/// How a device of a node is used, by all and by tasks. It never enters the store.
package struct DeviceUsage: Sendable, Codable, Hashable {
    /// A task's part of it.
    package struct Share: Sendable, Codable, Hashable {
        package var task: TaskID
        /// Bytes of the device's memory that its processes have.
        package var memoryUsage: Int64

        package init(task: TaskID, memoryUsage: Int64) {
            self.task = task
            self.memoryUsage = memoryUsage
        }
    }

    package var stats: DeviceStats
    /// Of those whose part is told.
    package var tasks: [Share]

    package init(_ stats: DeviceStats, tasks: [Share] = []) {
        self.stats = stats
        self.tasks = tasks
    }

    /// What the master keeps of a node's report: within bounds.
    package static func bounded(_ reported: [DeviceUsage]) -> [DeviceUsage] {
        reported.prefix(NodeDevice.limit).map { usage in
            var usage = usage
            let bound = { (bytes: Int64) in min(max(0, bytes), 1 << 60) }
            usage.stats.utilization = usage.stats.utilization.map { min(max(0, $0), 100) }
            usage.stats.memoryUsedByAll = usage.stats.memoryUsedByAll.map(bound)
            usage.stats.memory = usage.stats.memory.map(bound)
            usage.stats.milliwatts = usage.stats.milliwatts.map(bound)
            usage.stats.celsius = usage.stats.celsius.map { min(max(-273, $0), 10_000) }
            usage.tasks = usage.tasks.prefix(NodeDevice.mostShares).map {
                Share(task: $0.task, memoryUsage: bound($0.memoryUsage))
            }
            return usage
        }
    }
}

/// One sample of what a container uses, from the kernel's counters.
package struct ContainerStats: Sendable, Codable {
    package var id: ContainerID
    package var name: String
    package var time: Timestamp
    /// Nanoseconds of processor time since the start.
    package var cpuTotal: Int64
    package var cpuUser: Int64
    package var cpuSystem: Int64
    /// Periods in which the limit held it back, and for how long (nanoseconds).
    package var throttledPeriods: Int64
    package var throttledTime: Int64
    /// Bytes, page cache that can be dropped not counted.
    package var memoryUsage: Int64
    /// Bytes; nil: unlimited.
    package var memoryLimit: Int64?
    package var pids: Int64
    package var pidsLimit: Int64?
    /// Of all its network devices together, in bytes.
    package var networkReceived: Int64
    package var networkSent: Int64
    /// One by one; nil: of an agent that does not tell, or of a container without a network of its own.
    package var interfaces: [NetworkInterface]?
    package var blockRead: Int64
    package var blockWritten: Int64
    /// One by one; nil: it has none, or nobody tells of them.
    package var devices: [DeviceStats]?

    package init(
        id: ContainerID, name: String, time: Timestamp, cpuTotal: Int64, cpuUser: Int64, cpuSystem: Int64,
        throttledPeriods: Int64, throttledTime: Int64, memoryUsage: Int64, memoryLimit: Int64?, pids: Int64,
        pidsLimit: Int64?, networkReceived: Int64, networkSent: Int64, blockRead: Int64, blockWritten: Int64
    ) {
        self.id = id
        self.name = name
        self.time = time
        self.cpuTotal = cpuTotal
        self.cpuUser = cpuUser
        self.cpuSystem = cpuSystem
        self.throttledPeriods = throttledPeriods
        self.throttledTime = throttledTime
        self.memoryUsage = memoryUsage
        self.memoryLimit = memoryLimit
        self.pids = pids
        self.pidsLimit = pidsLimit
        self.networkReceived = networkReceived
        self.networkSent = networkSent
        self.blockRead = blockRead
        self.blockWritten = blockWritten
    }
}

package struct ProcessList: Sendable, Codable {
    package var titles: [String]
    package var processes: [[String]]

    package init(titles: [String], processes: [[String]]) {
        self.titles = titles
        self.processes = processes
    }
}

package struct WaitResult: Sendable, Codable {
    package var exitCode: Int
    package var outOfMemory: Bool
    package var message: String

    package init(exitCode: Int, outOfMemory: Bool = false, message: String = "") {
        self.exitCode = exitCode
        self.outOfMemory = outOfMemory
        self.message = message
    }
}

package struct VersionInfo: Sendable, Codable {
    package var version: String
    package var api: String
    package var clusterID: String

    package init(version: String, api: String, clusterID: String) {
        self.version = version
        self.api = api
        self.clusterID = clusterID
    }
}

/// A line of a watch (`?watch=true`): first one `put` for every object, then `synced`, then the changes.
package struct WatchLine<Object: Sendable & Codable>: Sendable, Codable {
    package enum Change: String, Sendable, Codable { case put, delete, synced, heartbeat }
    package var change: Change
    package var id: String
    package var object: Object?

    package init(_ change: Change, id: String = "", object: Object? = nil) {
        self.change = change
        self.id = id
        self.object = object
    }
}
