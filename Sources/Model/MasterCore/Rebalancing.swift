import JSON
import Model
import Reconcile
import Scheduling

/// Spreads instances evenly again after nodes have come back or joined, or a service was scaled down.
extension MasterCore {
    /// Nanoseconds between two looks.
    private static let pause: Int64 = 5_000_000_000
    /// Nanoseconds until a move that failed is tried again.
    static let retryDelay: Int64 = 600_000_000_000
    /// Nanoseconds for which a node has been ready before anything moves to it or away from it.
    private static let settling: Int64 = 10_000_000_000

    /// When to look next.
    struct Balance: Sendable {
        /// Tasks or nodes have changed since the last look, or the last look found something unfinished.
        var isDue = true
        /// When time alone lets something move that may not yet; nil: nothing waits for that.
        var againAt: Int64?
        var lookedAt: Int64 = 0
        /// Services whose last move failed, with when they may move again.
        var retryAt: [WorkloadID: Int64] = [:]
    }

    /// Moves a few instances from the fullest nodes to the emptiest.
    mutating func rebalance(now: Timestamp, random: inout some RandomNumberGenerator) {
        guard balance.isDue || balance.againAt.map({ $0 <= steady }) ?? false,
            steady - balance.lookedAt >= Self.pause
        else { return }
        balance.isDue = false
        balance.lookedAt = steady
        balance.retryAt = balance.retryAt.filter { $0.value > steady && state.workloads[$0.key] != nil }
        balance.againAt = balance.retryAt.values.min()
        let ready = memory.filter { $0.value.ready }
        guard ready.count > 1 else { return }
        if ready.contains(where: { steady - $0.value.readyAt < Self.settling }) { balance.isDue = true }
        var moving = 0
        var services: [SpreadService] = []
        for workload in state.workloads.values.sorted(by: { $0.id < $1.id }) where workload.kind == .service {
            let instances = state.instances(of: workload.id)
            let own = instances.count { $0.displaced.contains { $0.cause == .rebalanced && !isLeftBehind($0) } }
            moving += own
            if own == 0, let service = spread(workload, instances, now: now) { services.append(service) }
        }
        if moving > 0 { balance.isDue = true }
        guard moving < Rebalancer.mostMoves, !services.isEmpty else { return }
        var nodes = snapshots()
        for index in nodes.indices {
            guard let memory = memory[nodes[index].node.id], steady - memory.readyAt >= Self.settling else {
                nodes[index].ready = false
                continue
            }
        }
        for move in Rebalancer.moves(services, nodes: nodes, limit: Rebalancer.mostMoves - moving) {
            guard let task = state.instances[move.instance]?.task else { continue }
            displace(task, of: move.instance, .rebalanced, now: now)
            place([move.instance], pinned: move.to, now: now, random: &random)
            balance.isDue = true
        }
    }

    /// Whether the displaced task only has to be removed, by a node that is not heard of: nobody waits for that.
    private func isLeftBehind(_ displaced: Displaced) -> Bool {
        guard let task = state.tasks[displaced.task] else { return true }
        return task.desired == .removed && memory[task.node]?.ready != true
    }

    /// What may move of a service; nil: nothing, now.
    private mutating func spread(_ workload: Workload, _ instances: [Instance], now: Timestamp) -> SpreadService? {
        guard case .replicated(let number) = workload.scale, number > 1, instances.count == number,
            workload.desired == .running, workload.updateState.phase == .settled, balance.retryAt[workload.id] == nil,
            let pod = state.pod(of: workload), pod.affinities.isEmpty, pod.strategy ?? .spread == .spread,
            !state.isAnchored(pod), !isShort(for: pod),
            !pod.wantsOwn,
            pod.loss?.stopAfter == nil
        else { return nil }
        let tasks = instances.compactMap { instance in
            instance.displaced.allSatisfy { isLeftBehind($0) } ? state.task(of: instance) : nil
        }
        // With one on each node at most, nothing can be more even.
        guard tasks.count == instances.count, Set(tasks.map(\.node)).count < tasks.count,
            let picture = picture(of: workload, now: now)
        else { return nil }
        let moments = tasks.compactMap { picture.counts($0, now: now) }
        guard moments.count == tasks.count, let last = moments.max() else { return nil }
        guard last <= now else {
            let again = steady + (last - now)
            balance.againAt = min(again, balance.againAt ?? again)
            return nil
        }
        let placed = tasks.map { SpreadService.Placed(instance: $0.instance, node: $0.node) }
        return SpreadService(demand: demand(of: workload, pod), instances: placed)
    }
}
