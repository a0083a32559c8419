import JSON

/// What a user asked for. Its spec lives in immutable revisions; the scale stands outside them.
package struct Workload: Sendable, Hashable, Codable {
    package enum Kind: String, Sendable, Hashable, Codable {
        /// One instance, as `martlet run` makes it.
        case container
        /// Kept running: a number of instances, or one on every node.
        case service
    }

    /// In JSON `{"replicated": 3}` or `{"global": {}}`.
    package enum Scale: Sendable, Hashable, Codable {
        case replicated(Int)
        case global
    }

    package var id: WorkloadID
    package var kind: Kind
    /// Unique in the cluster.
    package var name: String
    /// The path that the workload lives under; `/` for now.
    package var group: String
    package var labels: [String: String]
    package var scale: Scale
    /// The number of the newest revision, from 1 on.
    package var revision: Int
    /// What all instances shall be: prepared (created, not started), running, paused, stopped or removed.
    package var desired: DesiredState
    /// Counts the user's starts and restarts: a task whose generation is behind is started again.
    package var generation: Int
    /// How the next stop is done, when the user said so.
    package var stop: StopOrder?
    /// Remove the workload once its container has ended for good.
    package var removeOnExit: Bool
    /// Volumes that belong to its containers alone go with them.
    package var removeVolumes: Bool
    package var update: UpdatePolicy
    package var updateState: UpdateState
    package var createdAt: Timestamp

    package init(
        id: WorkloadID, kind: Kind, name: String, group: String = "/", labels: [String: String] = [:], scale: Scale,
        revision: Int = 1, desired: DesiredState, generation: Int = 1, stop: StopOrder? = nil,
        removeOnExit: Bool = false, removeVolumes: Bool = false, update: UpdatePolicy = UpdatePolicy(),
        updateState: UpdateState = UpdateState(),
        createdAt: Timestamp
    ) {
        self.id = id
        self.kind = kind
        self.name = name
        self.group = group
        self.labels = labels
        self.scale = scale
        self.revision = revision
        self.desired = desired
        self.generation = generation
        self.stop = stop
        self.removeOnExit = removeOnExit
        self.removeVolumes = removeVolumes
        self.update = update
        self.updateState = updateState
        self.createdAt = createdAt
    }
}

extension Workload {
    package init(from decoder: any Decoder) throws {
        let values = try decoder.container(keyedBy: CodingKeys.self)
        id = try values.decode(WorkloadID.self, forKey: .id)
        kind = try values.decode(Kind.self, forKey: .kind)
        name = try values.decode(String.self, forKey: .name)
        group = try values.decode(String.self, forKey: .group)
        labels = try values.decode([String: String].self, forKey: .labels)
        scale = try values.decode(Scale.self, forKey: .scale)
        revision = try values.decode(Int.self, forKey: .revision)
        desired = try values.decode(DesiredState.self, forKey: .desired)
        generation = try values.decode(Int.self, forKey: .generation)
        stop = try values.decodeIfPresent(StopOrder.self, forKey: .stop)
        removeOnExit = try values.decode(Bool.self, forKey: .removeOnExit)
        removeVolumes = try values.decode(.removeVolumes, or: false)
        update = try values.decode(UpdatePolicy.self, forKey: .update)
        updateState = try values.decode(UpdateState.self, forKey: .updateState)
        createdAt = try values.decode(Timestamp.self, forKey: .createdAt)
    }
}

extension Workload {
    /// The labels of its containers: those of their spec and its own, which come first.
    package func labels(of spec: ContainerSpec?) -> [String: String] {
        guard let spec, !spec.labels.isEmpty else { return labels }
        return labels.isEmpty ? spec.labels : spec.labels.merging(labels) { $1 }
    }
}

/// What a task shall be. Desired state is data; the observed state moves towards it.
package enum DesiredState: String, Sendable, Hashable, Codable { case prepared, running, paused, stopped, removed }

/// How to stop: instead of the spec's signal and grace.
package struct StopOrder: Sendable, Hashable, Codable {
    /// Name or number; nil: the spec's.
    package var signal: String?
    /// Seconds until SIGKILL; nil: the spec's.
    package var grace: Int?
    /// A signal was sent that ends it, nobody asked for a stop: what is told of it differs, nothing else.
    package var isKill: Bool?
    /// Why the cluster stops it by itself, in a few words; nil: somebody wants it stopped.
    package var reason: String?

    package init(signal: String? = nil, grace: Int? = nil, reason: String? = nil) {
        self.signal = signal
        self.grace = grace
        self.reason = reason
    }
}

/// How instances are replaced when the revision changes.
package struct UpdatePolicy: Sendable, Hashable, Codable {
    package enum FailureAction: String, Sendable, Hashable, Codable { case pause, `continue`, rollback }

    /// Instances replaced at the same time.
    package var parallelism: Int
    /// Seconds between one batch and the next.
    package var delay: Int
    /// Seconds a new instance must serve before it counts.
    package var monitor: Int
    package var onFailure: FailureAction

    package init(parallelism: Int = 1, delay: Int = 0, monitor: Int = 1, onFailure: FailureAction = .pause) {
        self.parallelism = parallelism
        self.delay = delay
        self.monitor = monitor
        self.onFailure = onFailure
    }

    package init(from decoder: any Decoder) throws {
        let values = try decoder.container(keyedBy: CodingKeys.self)
        parallelism = try values.decode(.parallelism, or: 1)
        delay = try values.decode(.delay, or: 0)
        monitor = try values.decode(.monitor, or: 1)
        onFailure = try values.decode(.onFailure, or: .pause)
    }
}

package struct UpdateState: Sendable, Hashable, Codable {
    package enum Phase: String, Sendable, Hashable, Codable { case settled, updating, paused }
    package var phase: Phase
    /// Why it is paused; empty otherwise.
    package var message: String
    package var since: Timestamp?
    /// The revision whose failure made this update a rollback; nil: it is none. A rollback that fails pauses.
    package var rolledBackFrom: Int?

    package init(
        _ phase: Phase = .settled, message: String = "", since: Timestamp? = nil, rolledBackFrom: Int? = nil
    ) {
        self.phase = phase
        self.message = message
        self.since = since
        self.rolledBackFrom = rolledBackFrom
    }
}

/// The immutable spec of a workload at one point in its history.
package struct Revision: Sendable, Hashable, Codable {
    package var workload: WorkloadID
    package var number: Int
    package var pod: PodSpec
    package var createdAt: Timestamp

    package init(workload: WorkloadID, number: Int, pod: PodSpec, createdAt: Timestamp) {
        self.workload = workload
        self.number = number
        self.pod = pod
        self.createdAt = createdAt
    }
}

/// One slot of a workload. It keeps its id, name and container ids when it moves to another node.
package struct Instance: Sendable, Hashable, Codable {
    package var id: InstanceID
    package var workload: WorkloadID
    /// 1, 2, … for replicated workloads; 0 for global ones.
    package var slot: Int
    /// The node of a global workload's instance.
    package var node: NodeID?
    /// The workload's name for a container, `web.1` for a service, `web.node-1` for a global one.
    package var name: String
    /// One for each container of the pod.
    package var containers: [ContainerID]
    /// Grows with every new task; an agent refuses an older one.
    package var epoch: Int
    /// The one task that counts.
    package var task: TaskID?
    /// Tasks that `task` has taken the place of, or is to take it, and that may still be on their nodes; the first has
    /// been so for longest.
    package var displaced: [Displaced]
    /// Moves to other devices, not long ago; nil: none.
    package var deviceMoves: DeviceMoves?
    /// When and why the last placement attempt failed.
    package var unschedulable: Condition?
    package var createdAt: Timestamp

    package init(
        id: InstanceID, workload: WorkloadID, slot: Int, node: NodeID? = nil, name: String, containers: [ContainerID],
        epoch: Int = 0, task: TaskID? = nil, displaced: [Displaced] = [], unschedulable: Condition? = nil,
        createdAt: Timestamp
    ) {
        self.id = id
        self.workload = workload
        self.displaced = displaced
        self.slot = slot
        self.node = node
        self.name = name
        self.containers = containers
        self.epoch = epoch
        self.task = task
        self.unschedulable = unschedulable
        self.createdAt = createdAt
    }
}

extension Instance {
    package init(from decoder: any Decoder) throws {
        let values = try decoder.container(keyedBy: CodingKeys.self)
        id = try values.decode(InstanceID.self, forKey: .id)
        workload = try values.decode(WorkloadID.self, forKey: .workload)
        slot = try values.decode(Int.self, forKey: .slot)
        node = try values.decodeIfPresent(NodeID.self, forKey: .node)
        name = try values.decode(String.self, forKey: .name)
        containers = try values.decode([ContainerID].self, forKey: .containers)
        epoch = try values.decode(Int.self, forKey: .epoch)
        task = try values.decodeIfPresent(TaskID.self, forKey: .task)
        displaced = try values.decode(.displaced, or: [])
        deviceMoves = try values.decodeIfPresent(DeviceMoves.self, forKey: .deviceMoves)
        unschedulable = try values.decodeIfPresent(Condition.self, forKey: .unschedulable)
        createdAt = try values.decode(Timestamp.self, forKey: .createdAt)
    }

    /// All its tasks: the one that counts, then those that it took the place of.
    package var tasks: [TaskID] { [task].compactMap(\.self) + displaced.map(\.task) }
}

/// How often in a row an instance got other devices since its own had become unusable. Each further move waits twice as long
/// as the one before: a program that ruins its devices does not get through all that there are.
package struct DeviceMoves: Sendable, Hashable, Codable {
    /// 1 or more.
    package private(set) var count: Int
    package private(set) var last: Timestamp

    /// The wait after the first move, and the longest one, in seconds.
    private static let firstWait: Int64 = 30
    private static let longestWait: Int64 = 3600
    /// Who has had no need of others for so long, in seconds, or for twice the wait, begins anew.
    private static let quiet: Int64 = 600

    package init(at moment: Timestamp) {
        count = 1
        last = moment
    }

    private var wait: Int64 { count > 7 ? Self.longestWait : min(Self.firstWait << Int64(count - 1), Self.longestWait) }

    /// The earliest moment of the next move.
    package var next: Timestamp { last.adding(seconds: wait) }

    package mutating func add(at moment: Timestamp) {
        count = last.adding(seconds: max(Self.quiet, 2 * wait)) <= moment ? 1 : count + 1
        last = moment
    }

    /// Without the last one, which came to nothing.
    package var withoutLast: DeviceMoves? {
        guard count > 1 else { return nil }
        var moves = self
        moves.count -= 1
        return moves
    }
}

/// A task that does not count any more, or will not once another serves in its place. When it is wanted removed, it is
/// on its way out for good.
package struct Displaced: Sendable, Hashable, Codable {
    package enum Cause: String, Sendable, Hashable, Codable {
        /// Its node is not heard of.
        case lost
        /// It moves away from a node that is being drained, and serves until its replacement does.
        case drained
        /// The same, to have instances spread evenly again.
        case rebalanced
        /// The same, since a device that it has is unusable or gone.
        case unhealthy
    }

    package var task: TaskID
    package var cause: Cause
    package var since: Timestamp

    package init(_ task: TaskID, _ cause: Cause, since: Timestamp) {
        self.task = task
        self.cause = cause
        self.since = since
    }
}
