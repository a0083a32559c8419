import JSON
import Model

/// All that the reconciliation of one workload looks at.
package struct WorkloadPicture: Sendable {
    package var workload: Workload
    /// The newest revision's pod.
    package var pod: PodSpec
    package var instances: [Instance]
    package var tasks: [TaskID: NodeTask]
    /// For a global service: the nodes that shall have an instance, with their names.
    package var eligible: [NodeID: String]
    /// Nodes whose tasks of services shall move away.
    package var drained: [NodeID: Node.Drain]
    /// Nodes that keep the instances they have and get no more.
    package var cordoned: Set<NodeID>
    /// Nodes that are not ready, with when they were last heard of.
    package var unreachable: [NodeID: Timestamp]
    /// The pods of older revisions that tasks were made from.
    package var olderPods: [Int: PodSpec]
    /// Since when tasks serve by the master's own clock, where that is known; nodes' clocks may be wrong.
    package var servingSince: [TaskID: Timestamp] = [:]
    /// Networks of its pods that are on all nodes; others keep their pods where they are.
    package var spanning: Set<String> = []
    /// Tasks that have devices which are unusable or gone, as far as their nodes have told.
    package var ailing: [TaskID: Ailment] = [:]

    /// What is wrong with a task's devices.
    package struct Ailment: Sendable, Hashable {
        /// What its claims of them want: the strictest word.
        package var policy: DeviceClaim.HealthPolicy
        /// Which device, and why, in a few words.
        package var words: String
        /// Of what cannot leave its node: there are others for it.
        package var hasOthers: Bool

        package init(_ policy: DeviceClaim.HealthPolicy, _ words: String, hasOthers: Bool = true) {
            self.policy = policy
            self.words = words
            self.hasOthers = hasOthers
        }
    }

    package init(
        workload: Workload, pod: PodSpec, instances: [Instance], tasks: [TaskID: NodeTask],
        eligible: [NodeID: String] = [:], drained: [NodeID: Node.Drain] = [:], cordoned: Set<NodeID> = [],
        unreachable: [NodeID: Timestamp] = [:], olderPods: [Int: PodSpec] = [:]
    ) {
        self.workload = workload
        self.pod = pod
        self.instances = instances
        self.tasks = tasks
        self.eligible = eligible
        self.drained = drained
        self.cordoned = cordoned
        self.unreachable = unreachable
        self.olderPods = olderPods
    }

    func task(of instance: Instance) -> NodeTask? { instance.task.flatMap { tasks[$0] } }

    /// The pod that the task was made from.
    func pod(of task: NodeTask) -> PodSpec {
        task.revision == workload.revision ? pod : olderPods[task.revision] ?? pod
    }

    /// What becomes of a task whose node is lost.
    func loss(of task: NodeTask) -> LossPolicy { pod(of: task).loss(of: workload.kind) }

    /// Whether what is made from the pod must never run beside another of its instance.
    func mustBeAlone(_ pod: PodSpec) -> Bool { pod.loss?.stopAfter != nil }

    /// Whether the task serves, as far as its node is heard of.
    package func serves(_ task: NodeTask) -> Bool {
        task.status.serving && task.desired == .running && unreachable[task.node] == nil
    }

    /// Whether any of the instance's tasks serves.
    package func serves(_ instance: Instance) -> Bool {
        instance.tasks.contains { tasks[$0].map { serves($0) } ?? false }
    }

    /// Whether the displaced task only has to be removed, by a node that is not heard of: nobody waits for that.
    func isLeftBehind(_ displaced: Displaced) -> Bool {
        guard let task = tasks[displaced.task] else { return true }
        return task.desired == .removed && unreachable[task.node] != nil
    }

    /// When a task that serves counts as good: after the service's monitor time; nil: it does not serve.
    package func counts(_ task: NodeTask, now: Timestamp) -> Timestamp? {
        guard serves(task), let since = servingSince[task.id] ?? task.status.servingSince else { return nil }
        let monitor = workload.update.monitor
        return Self.due(since.adding(seconds: Int64(monitor)), length: monitor, now: now)
    }

    /// A clock that was set back must not stretch a deadline beyond its own length.
    static func due(_ deadline: Timestamp, length: Int, now: Timestamp) -> Timestamp {
        min(deadline, now.adding(seconds: Int64(length)))
    }
}

/// One thing to do so that what is comes closer to what shall be.
package enum ReconcileAction: Sendable, Hashable {
    case createInstance(slot: Int, node: NodeID?, name: String)
    /// The instance has no task any more: forget it and its claims.
    case removeInstance(InstanceID)
    /// The instance wants a task: the scheduler finds a node.
    case place(InstanceID)
    case setTask(TaskID, desired: DesiredState, generation: Int, stop: StopOrder?)
    /// Nothing of the task is left on its node: forget it.
    case removeTask(TaskID)
    /// The instance's task does not count any more, and may still be on its node; `place` for the next follows.
    case displace(InstanceID, TaskID, Displaced.Cause)
    /// The displaced task counts again; one that has taken its place goes.
    case restore(InstanceID, TaskID)
    /// The task's node was silent for too long: the task is lost, and forgotten.
    case giveUp(TaskID)
    case setUpdate(UpdateState)
    /// Stop the task since it cannot go on with its devices, for this reason; `again`: to start it with others afterwards.
    case endTask(TaskID, reason: String, again: Bool)
    /// The instance is to get other devices since one of its own is unusable or gone.
    case countDeviceMove(InstanceID)
    /// Make a new revision with the pod of the one before; the message says what failed.
    case rollBack(String)
    /// The container ended for good and was asked to go then.
    case removeWorkload
    /// Everything of the workload is gone: forget it and its revisions.
    case forgetWorkload
    /// Look again at this time, even if nothing happens.
    case wake(Timestamp)
}
