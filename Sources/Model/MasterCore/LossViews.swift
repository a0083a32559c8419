import JSON
import Model
import Wire

/// How containers look whose nodes are not heard of.
extension MasterCore {
    /// Since when the node has been silent for too long; nil: it is heard of.
    func silentSince(_ node: NodeID, now: Timestamp) -> Timestamp? {
        guard let memory = memory[node] else { return now }
        return !memory.ready && memory.isSilent(at: steady) ? memory.silentSince(now: now, steady: steady) : nil
    }

    func displacedViews(_ instance: Instance, now: Timestamp) -> [DisplacedView] {
        instance.displaced.compactMap { displaced in
            guard let task = state.tasks[displaced.task] else { return nil }
            return DisplacedView(
                task: task.id, node: task.node, nodeName: nodeName(task.node), cause: displaced.cause,
                since: displaced.since, phase: task.status.phase, desired: task.desired,
                unreachableSince: silentSince(task.node, now: now))
        }
    }

    /// What is wrong with each task's node or its devices: since when, and what becomes of it.
    func conditions(_ instance: Instance, of workload: Workload, now: Timestamp) -> [Condition] {
        instance.tasks.compactMap { state.tasks[$0].flatMap { deviceCondition(of: $0, instance, now: now) } }
            + unreachable(instance, of: workload, now: now)
    }

    private func unreachable(_ instance: Instance, of workload: Workload, now: Timestamp) -> [Condition] {
        instance.tasks.compactMap { id in
            guard let task = state.tasks[id], let since = silentSince(task.node, now: now) else { return nil }
            return Condition(
                .unreachable, true, reason: "NodeUnreachable",
                message: "its node \(nodeName(task.node)) has not been heard of since \(since): "
                    + prospect(of: task, instance, workload, since),
                since: since)
        }
    }

    private func prospect(
        of task: NodeTask, _ instance: Instance, _ workload: Workload, _ since: Timestamp
    ) -> String {
        let loss = (state.pod(of: task) ?? PodSpec(containers: [])).loss(of: workload.kind)
        let end = loss.giveUpAfter.map { ", and given up at \(since.adding(seconds: Int64($0)))" } ?? ""
        if workload.desired == .removed {
            return "it is removed when the node is back\(end), or at once with --force"
        }
        if task.desired == .removed { return "it is removed when the node is back\(end)" }
        if instance.task != task.id {
            return loss.onReturn == .keepOriginal || instance.task == nil
                ? "it goes on when the node is back\(end)" : "it is removed when the node is back\(end)"
        }
        guard let replaceAfter = loss.replaceAfter, instance.node == nil else { return "it waits for the node\(end)" }
        return "it is replaced at \(since.adding(seconds: Int64(replaceAfter)))"
    }
}
