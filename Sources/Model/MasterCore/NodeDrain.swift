import JSON
import Model
import Reconcile
import Wire

extension MasterCore {
    /// Cordons, drains or activates a node; a drain that is under way gets new terms.
    func setAvailability(of node: inout Node, _ body: UpdateNode, now: Timestamp) throws(APIProblem) {
        if let order = body.drain {
            guard body.availability ?? .drained == .drained else {
                throw APIProblem(.badRequest, "$.drain: goes only with the availability drained")
            }
            guard (0...100).contains(order.minimumAvailable) else {
                throw APIProblem(
                    .badRequest, "$.drain.minimumAvailable: \(order.minimumAvailable) is not between 0 and 100 per cent"
                )
            }
            if let deadline = order.deadline, !(0...31_622_400).contains(deadline) {
                throw APIProblem(.badRequest, "$.drain.deadline: \(deadline) is not between 0 and 31622400 seconds")
            }
            node.availability = .drained
            node.drain = Node.Drain(
                startedAt: node.drain?.startedAt ?? now,
                deadline: order.deadline.map { now.adding(seconds: Int64($0)) },
                minimumAvailable: order.minimumAvailable)
        } else if let availability = body.availability {
            node.availability = availability
            switch availability {
            case .drained: node.drain = node.drain ?? Node.Drain(startedAt: now)
            case .active, .cordoned: node.drain = nil
            }
        }
    }

    /// How far the draining of a node is; nil: it is not drained.
    ///
    /// - Parameter explained: with what stays and why, which takes a look at whole workloads; else with the numbers.
    func drainView(_ node: Node, explained: Bool, now: Timestamp) -> DrainView? {
        guard node.availability == .drained else { return nil }
        let drain = node.drain ?? Node.Drain(startedAt: node.createdAt)
        var pictures: [WorkloadID: WorkloadPicture] = [:]
        var remaining = 0
        var staying: [DrainView.Remaining] = []
        let tasks = state.tasks(on: node.id).filter { $0.status.phase != .removed }
        guard explained else {
            remaining = tasks.count { state.workloads[$0.workload]?.kind == .service }
            return DrainView(
                startedAt: drain.startedAt, deadline: drain.deadline, minimumAvailable: drain.minimumAvailable,
                remaining: remaining, staying: [])
        }
        func rank(_ task: NodeTask) -> (Int, String) {
            (
                state.workloads[task.workload]?.kind == .service ? 0 : 1,
                state.instances[task.instance]?.name ?? ""
            )
        }
        for task in tasks.sorted(by: { rank($0) < rank($1) }) {
            guard let workload = state.workloads[task.workload], let instance = state.instances[task.instance]
            else { continue }
            if workload.kind == .service { remaining += 1 }
            guard staying.count < Self.listedStaying else { continue }
            if pictures[workload.id] == nil { pictures[workload.id] = picture(of: workload, now: now) }
            staying.append(
                DrainView.Remaining(
                    name: instance.name, kind: workload.kind,
                    reason: pictures[workload.id]?.explanation(of: task, drain) ?? ""))
        }
        return DrainView(
            startedAt: drain.startedAt, deadline: drain.deadline, minimumAvailable: drain.minimumAvailable,
            remaining: remaining, staying: staying)
    }

    /// What a view names of a node that is being drained.
    private static let listedStaying = 100
}
