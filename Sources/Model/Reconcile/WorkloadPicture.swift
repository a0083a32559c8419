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
    package var drained: Set<NodeID>
    /// Nodes that keep the instances they have and get no more.
    package var cordoned: Set<NodeID>

    package init(
        workload: Workload, pod: PodSpec, instances: [Instance], tasks: [TaskID: NodeTask],
        eligible: [NodeID: String] = [:], drained: Set<NodeID> = [], cordoned: Set<NodeID> = []
    ) {
        self.workload = workload
        self.pod = pod
        self.instances = instances
        self.tasks = tasks
        self.eligible = eligible
        self.drained = drained
        self.cordoned = cordoned
    }

    func task(of instance: Instance) -> NodeTask? { instance.task.flatMap { tasks[$0] } }
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
    case setUpdate(UpdateState)
    /// Make a new revision with the pod of the one before; the message says what failed.
    case rollBack(String)
    /// The container ended for good and was asked to go then.
    case removeWorkload
    /// Everything of the workload is gone: forget it and its revisions.
    case forgetWorkload
    /// Look again at this time, even if nothing happens.
    case wake(Timestamp)
}
