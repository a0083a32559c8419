import JSON
import Model
import Reconcile
import Wire

/// Networks on which no address is free: what can be freed, and what people are told.
extension MasterCore {
    /// Why no task of the pod could have addresses wherever it went; nil: one could. Frees first what certainly nobody
    /// uses any more.
    ///
    /// - Parameter known: what was found of networks in the same step; what is found now becomes a part of it.
    mutating func shortage(
        for pod: PodSpec, now: Timestamp, known: inout [NetworkID: AddressShortage]
    ) -> AddressShortage? {
        for attachment in pod.attachments where !attachment.hasFixed {
            let id = NetworkID(attachment.network)
            guard isFull(id) else { continue }
            if let known = known[id] { return known }
            let again = releaseEnded(on: id, now: now)
            guard isFull(id), let network = state.networks[id], let blocks = state.indexes.overlays[id] else {
                continue
            }
            var shortage = exhausted(network, blocks)
            shortage.again = again
            known[id] = shortage
            return shortage
        }
        return nil
    }

    /// Whether a network of the pod is full now; nothing is freed for the question.
    func isShort(for pod: PodSpec) -> Bool {
        pod.attachments.contains { !$0.hasFixed && isFull(NetworkID($0.network)) }
    }

    func isFull(_ id: NetworkID) -> Bool {
        state.networks[id]?.isOverlay == true
            && (state.indexes.overlays[id].map { $0.taken >= $0.capacity } ?? false)
    }

    /// What ends by itself without contact has ended by now, and is not started again before its node has asked: its
    /// address is free. Should its node come back it gets another.
    ///
    /// - Returns: when there may be more of these.
    mutating func releaseEnded(on network: NetworkID, now: Timestamp) -> Timestamp? {
        var again: Timestamp?
        for task in tasks(ofSilentNodesOn: network) {
            guard let pod = state.pod(of: task), let stop = pod.loss?.stopAfter,
                let since = notReadySince(task.node, now: now)
            else { continue }
            let grace = pod.containers.map(\.stopGrace).max() ?? 0
            let over = since.adding(seconds: Int64(LossPolicy.leastReplaceAfter(stopAfter: stop, grace: grace)))
            guard over <= now else {
                again = min(over, again ?? over)
                continue
            }
            var task = task
            task.addresses.removeAll { $0.network == network }
            state.put(.task(task))
            lacking.insert(task.instance)
            // Others may wait for one too.
            capacityChanged = true
        }
        return again
    }

    private func silentNodes(on network: NetworkID) -> [NodeID] {
        (state.indexes.overlays[network]?.nodes.filter { memory[$0]?.ready != true } ?? []).sorted()
    }

    private func tasks(ofSilentNodesOn network: NetworkID) -> [NodeTask] {
        silentNodes(on: network).flatMap { state.tasks(on: $0) }.filter { task in
            task.status.phase != .removed && task.addresses.contains { $0.network == network }
        }
    }

    // MARK: In words

    /// How many are in use, by what besides tasks of nodes that are there, and until when.
    func exhausted(_ network: Network, _ blocks: AddressBlocks) -> AddressShortage {
        var words = ["\(blocks.taken) of \(blocks.capacity) in use"]
        let silent = silentNodes(on: network.id)
        let held = silent.reduce(0) { $0 + blocks.tasks(on: $1) }
        if held > 0 {
            let names = silent.prefix(3).map { nodeName($0) }.sorted().joined(separator: ", ")
            words.append(
                "\(held) of them by tasks on nodes that are not heard of (\(names)\(silent.count > 3 ? ", …" : "")), "
                    + end(ofTasksOn: network.id))
        }
        if blocks.left > 0 {
            words.append("\(blocks.left) by containers that have left it, until their nodes have let go of them")
        }
        if blocks.kept > 0 {
            words.append("\(blocks.kept) kept for containers that ask for them by their fixed addresses")
        }
        return AddressShortage(
            description: "the network \(network.name) has no free address: " + words.joined(separator: "; "))
    }

    /// Until when tasks of nodes that are not heard of keep their addresses.
    private func end(ofTasksOn network: NetworkID) -> String {
        guard let now = lastStep else { return "until their nodes are back" }
        let ends = tasks(ofSilentNodesOn: network).compactMap { task -> Timestamp? in
            guard let pod = state.pod(of: task), let workload = state.workloads[task.workload],
                let seconds = pod.loss(of: workload.kind).giveUpAfter, let since = notReadySince(task.node, now: now)
            else { return nil }
            return since.adding(seconds: Int64(seconds))
        }
        let otherwise = "until their nodes are back or removed (`martlet node rm --force`)"
        guard let first = ends.min() else { return otherwise }
        // In whole seconds: who waits is not to be told anew for less.
        let second = Timestamp(nanoseconds: (first.nanoseconds + 999_999_999) / 1_000_000_000 * 1_000_000_000)
        return otherwise + " or they are given up, the first at \(second)"
    }
}
