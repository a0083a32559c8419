import JSON

/// A task: one placement of an instance on one node at one epoch. (`Task` alone is taken by the language.)
///
/// It owns its writable layer and logs until it is removed. At most 1 KiB in the store, and 50 bytes for each device:
/// the spec is named by its revision.
package struct NodeTask: Sendable, Hashable, Codable {
    package var id: TaskID
    package var instance: InstanceID
    package var workload: WorkloadID
    package var revision: Int
    package var node: NodeID
    package var epoch: Int
    package var desired: DesiredState
    package var generation: Int
    package var stop: StopOrder?
    /// The host ports claimed for it, in the order of the spec's mappings (each a single port now).
    package var ports: [PortMapping]
    /// What it was given on overlays, in the order of the spec's attachments; behind it what its node has not let go of
    /// yet, see `AssignedAddress.leftAt`.
    package var addresses: [AssignedAddress]
    /// The devices of its node that its containers have, one for each claim. They are its own until it rests; they change
    /// only together with `generation`, while nothing of it runs.
    package var grantedDevices: [DeviceGrant]
    /// The processors of its node that its containers have alone, one entry for each that wants some; the same holds for
    /// them.
    package var grantedProcessors: [ProcessorGrant]
    /// The last report of the node.
    package var status: TaskStatus
    package var createdAt: Timestamp

    package init(
        id: TaskID, instance: InstanceID, workload: WorkloadID, revision: Int, node: NodeID, epoch: Int,
        desired: DesiredState, generation: Int, stop: StopOrder? = nil, ports: [PortMapping] = [],
        addresses: [AssignedAddress] = [], grantedDevices: [DeviceGrant] = [], grantedProcessors: [ProcessorGrant] = [],
        status: TaskStatus = TaskStatus(), createdAt: Timestamp
    ) {
        self.grantedProcessors = grantedProcessors
        self.grantedDevices = grantedDevices
        self.id = id
        self.instance = instance
        self.workload = workload
        self.revision = revision
        self.node = node
        self.epoch = epoch
        self.desired = desired
        self.generation = generation
        self.stop = stop
        self.ports = ports
        self.addresses = addresses
        self.status = status
        self.createdAt = createdAt
    }

    /// Whether its containers ended and nothing will start them again without the user: no restart is due, and the
    /// node has acted on the newest start that is still wanted.
    package var endedForGood: Bool {
        switch status.phase {
        case .exited, .failed:
            status.restartAt == nil && (status.generation >= generation || desired == .stopped || desired == .removed)
        case .removed: true
        default: false
        }
    }
}

extension NodeTask {
    package init(from decoder: any Decoder) throws {
        let values = try decoder.container(keyedBy: CodingKeys.self)
        id = try values.decode(TaskID.self, forKey: .id)
        instance = try values.decode(InstanceID.self, forKey: .instance)
        workload = try values.decode(WorkloadID.self, forKey: .workload)
        revision = try values.decode(Int.self, forKey: .revision)
        node = try values.decode(NodeID.self, forKey: .node)
        epoch = try values.decode(Int.self, forKey: .epoch)
        desired = try values.decode(DesiredState.self, forKey: .desired)
        generation = try values.decode(Int.self, forKey: .generation)
        stop = try values.decodeIfPresent(StopOrder.self, forKey: .stop)
        ports = try values.decode([PortMapping].self, forKey: .ports)
        addresses = try values.decode(.addresses, or: [])
        grantedDevices = try values.decode(.grantedDevices, or: [])
        grantedProcessors = try values.decode(.grantedProcessors, or: [])
        status = try values.decode(TaskStatus.self, forKey: .status)
        createdAt = try values.decode(Timestamp.self, forKey: .createdAt)
    }

    /// Whether the cluster has stopped it by itself, since it cannot go on with the devices that it has.
    package var isEndedForDevices: Bool { desired == .stopped && stop?.reason != nil }

    /// Whether it holds nothing of what it was promised: it ended, no restart is due, and its node has acted on the
    /// newest wish to start it, so that it runs again only after a further one.
    package var rests: Bool {
        switch status.phase {
        case .exited, .failed: status.restartAt == nil && status.generation >= generation
        case .removed: true
        default: false
        }
    }
}

/// What a node observed of a task. It moves forward; a new start counts up `start`.
package struct TaskStatus: Sendable, Hashable, Codable {
    package enum Phase: String, Sendable, Hashable, Codable {
        /// The node has not said anything yet.
        case assigned
        /// Image, root file system, network and volumes are being made.
        case preparing
        /// Everything is there; no container has been started in this generation.
        case prepared
        case running
        case paused
        /// The stop signal was sent; the grace is running.
        case stopping
        /// The container ended. Whether it starts again is said by `restartAt`.
        case exited
        /// It could not be prepared or started; the message says why. Retried when `restartAt` is set.
        case failed
        /// Nothing of it is left on the node.
        case removed
    }

    package var phase: Phase
    /// The newest user generation that the node acted on.
    package var generation: Int
    package var containers: [ContainerStatus]
    /// The pod's addresses, IPv4 first.
    package var addresses: [String]
    /// Where it is on each of its networks.
    package var endpoints: [NetworkEndpoint]
    /// When a restart with back-off is due.
    package var restartAt: Timestamp?
    /// A sentence on the last failure; empty when there is none.
    package var message: String
    /// Whether it serves: running and, where a health check is given, healthy.
    package var serving: Bool
    /// Since when it serves without a break.
    package var servingSince: Timestamp?
    /// The newest revision of the pod whose limits and networks are in force; 0: its node is of an older version.
    package var revision: Int

    package init(
        phase: Phase = .assigned, generation: Int = 0, containers: [ContainerStatus] = [], addresses: [String] = [],
        endpoints: [NetworkEndpoint] = [], restartAt: Timestamp? = nil, message: String = "", serving: Bool = false,
        servingSince: Timestamp? = nil, revision: Int = 0
    ) {
        self.revision = revision
        self.phase = phase
        self.generation = generation
        self.containers = containers
        self.addresses = addresses
        self.endpoints = endpoints
        self.restartAt = restartAt
        self.message = message
        self.serving = serving
        self.servingSince = servingSince
    }

    /// Whether a process of the task may exist on the node.
    package var isLive: Bool {
        switch phase {
        case .running, .paused, .stopping, .preparing, .prepared: true
        case .assigned, .exited, .failed, .removed: false
        }
    }
}

extension TaskStatus {
    /// How the message begins while limits or networks of what is there cannot be changed.
    package static let updateFailure = "cannot update container "

    package init(from decoder: any Decoder) throws {
        let values = try decoder.container(keyedBy: CodingKeys.self)
        phase = try values.decode(Phase.self, forKey: .phase)
        generation = try values.decode(Int.self, forKey: .generation)
        containers = try values.decode([ContainerStatus].self, forKey: .containers)
        addresses = try values.decode([String].self, forKey: .addresses)
        endpoints = try values.decode(.endpoints, or: [])
        restartAt = try values.decodeIfPresent(Timestamp.self, forKey: .restartAt)
        message = try values.decode(String.self, forKey: .message)
        serving = try values.decode(Bool.self, forKey: .serving)
        servingSince = try values.decodeIfPresent(Timestamp.self, forKey: .servingSince)
        revision = try values.decode(.revision, or: 0)
    }
}

package struct ContainerStatus: Sendable, Hashable, Codable {
    package enum State: String, Sendable, Hashable, Codable { case waiting, created, running, paused, exited }
    package enum Health: String, Sendable, Hashable, Codable { case none, starting, healthy, unhealthy }

    /// The reason of an end that was none, since it could not be started.
    package static let startFailed = "start failed"

    package var name: String
    package var id: ContainerID
    package var state: State
    /// Counts the starts in this task, from 1 on.
    package var start: Int
    /// Process id in the node's namespace; 0 when none runs.
    package var pid: Int
    package var startedAt: Timestamp?
    package var finishedAt: Timestamp?
    /// 128 and the signal's number when a signal ended it.
    package var exitCode: Int?
    package var outOfMemory: Bool
    /// Why it ended, when it was not its own doing: `unhealthy`, `shim lost`, `node rebooted`, `lease`, `startFailed`, or
    /// what its stop gave as the reason.
    package var reason: String
    /// Automatic restarts since the user's last start.
    package var restarts: Int
    package var health: Health
    package var failingStreak: Int

    package init(
        name: String, id: ContainerID, state: State = .waiting, start: Int = 0, pid: Int = 0,
        startedAt: Timestamp? = nil, finishedAt: Timestamp? = nil, exitCode: Int? = nil, outOfMemory: Bool = false,
        reason: String = "", restarts: Int = 0, health: Health = .none, failingStreak: Int = 0
    ) {
        self.name = name
        self.id = id
        self.state = state
        self.start = start
        self.pid = pid
        self.startedAt = startedAt
        self.finishedAt = finishedAt
        self.exitCode = exitCode
        self.outOfMemory = outOfMemory
        self.reason = reason
        self.restarts = restarts
        self.health = health
        self.failingStreak = failingStreak
    }
}

/// The sole owner of something that may exist once: set by compare-and-write in the store.
package struct Claim: Sendable, Hashable, Codable {
    package enum Resource: Sendable, Hashable, Codable {
        case port(node: NodeID, transport: PortMapping.Transport, address: String, number: Int)
    }

    package var resource: Resource
    package var instance: InstanceID
    package var epoch: Int

    package init(_ resource: Resource, instance: InstanceID, epoch: Int) {
        self.resource = resource
        self.instance = instance
        self.epoch = epoch
    }
}
