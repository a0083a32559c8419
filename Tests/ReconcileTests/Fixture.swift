import JSON
import Model
import Reconcile

/// A service in the making: instances with tasks in given states.
struct Fixture {
    var now = Timestamp(nanoseconds: 1_000_000_000_000)
    var picture: WorkloadPicture

    init(_ scale: Workload.Scale, kind: Workload.Kind = .service) {
        let workload = Workload(
            id: WorkloadID("w"), kind: kind, name: "web", scale: scale, desired: .running,
            createdAt: Timestamp(nanoseconds: 0))
        picture = WorkloadPicture(
            workload: workload, pod: PodSpec(containers: [ContainerSpec(image: "a")]), instances: [], tasks: [:])
    }

    /// Adds an instance; `revision` nil: without a task.
    mutating func add(
        _ slot: Int, revision: Int? = 1, phase: TaskStatus.Phase = .running, serving: Bool? = nil,
        servingFor seconds: Int64 = 3600, desired: DesiredState = .running, node: String = "n1",
        change: (inout NodeTask) -> Void = { _ in }
    ) {
        let id = InstanceID("i\(slot)")
        var instance = Instance(
            id: id, workload: WorkloadID("w"), slot: slot, name: "web.\(slot)", containers: [ContainerID("c\(slot)")],
            createdAt: now)
        if let revision {
            instance.epoch = 1
            instance.task = TaskID("t\(slot)")
            let serves = serving ?? (phase == .running)
            var task = NodeTask(
                id: TaskID("t\(slot)"), instance: id, workload: WorkloadID("w"), revision: revision, node: NodeID(node),
                epoch: 1, desired: desired, generation: 1,
                status: TaskStatus(
                    phase: phase, generation: 1, serving: serves,
                    servingSince: serves ? now.adding(seconds: -seconds) : nil), createdAt: now)
            change(&task)
            picture.tasks[task.id] = task
        }
        picture.instances.append(instance)
    }

    var actions: [ReconcileAction] { Reconciler.actions(for: picture, now: now) }
}

func removal(_ slot: Int) -> ReconcileAction {
    .setTask(TaskID("t\(slot)"), desired: .removed, generation: 1, stop: nil)
}
