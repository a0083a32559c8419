import CNISpec
import JSON
import Model
import Wire

/// Which addresses of overlays tasks are given.
///
/// A task has them from its placement until nothing of it is left on its node, and one that it has left until its node has
/// let go of it: nobody else gets an address that somebody may still answer for. Only what its user fixed goes to the newer
/// of an instance's tasks at once when the older's node is not heard of.
extension MasterCore {
    /// What a task is to have, and what others give up for it.
    struct AddressGrant {
        var addresses: [AssignedAddress] = []
        /// Tasks of the same instance, with the addresses that go from them to the new one.
        var losers: [(task: TaskID, network: NetworkID, address: IPAddress)] = []
    }

    /// Why a task cannot have addresses.
    struct AddressShortage: Error, CustomStringConvertible {
        let description: String
        /// When to look again, also if nothing else changes; nil: there is no such time.
        var again: Timestamp?
    }

    /// Networks that a task may have left without its node having let go of them.
    private static let mostLeft = 32

    /// Chooses the addresses of one of the instance's tasks. Nothing changes before `take` and the task are written.
    ///
    /// - Parameters:
    ///   - present: what the task has already: it keeps that on networks that it stays on, and its node that on networks
    ///     that it leaves.
    ///   - task: the task itself, when there is one.
    ///   - revision: of the pod; what the task leaves it leaves with this one.
    func addresses(
        for pod: PodSpec, of instance: Instance, on node: NodeID, present: [AssignedAddress] = [],
        task: TaskID? = nil, revision: Int
    ) throws(AddressShortage) -> AddressGrant {
        var grant = AddressGrant()
        for attachment in pod.attachments {
            try choose(attachment, of: instance, on: node, present: present, task: task, &grant)
        }
        keep(present, revision: revision, &grant)
        guard grant.addresses.count(where: { $0.leftAt != nil }) <= Self.mostLeft else {
            throw AddressShortage(
                description: "the node \(nodeName(node)) has not let go of \(Self.mostLeft) networks that "
                    + "\(instance.name) has left: repeat when it has")
        }
        return grant
    }

    /// The same as far as it is possible now; the task lacks the rest, see `lacking`.
    private func possibleAddresses(
        for pod: PodSpec, of instance: Instance, task: NodeTask
    ) -> AddressGrant {
        var grant = AddressGrant()
        for attachment in pod.attachments {
            let id = NetworkID(attachment.network)
            // Why there is none nobody asks here, and to say it costs most.
            if !attachment.hasFixed, isFull(id), !task.addresses.contains(where: { $0.network == id }) { continue }
            try? choose(attachment, of: instance, on: task.node, present: task.addresses, task: task.id, &grant)
        }
        keep(task.addresses, revision: task.revision, &grant)
        return grant
    }

    private func choose(
        _ attachment: NetworkAttachment, of instance: Instance, on node: NodeID, present: [AssignedAddress],
        task: TaskID?, _ grant: inout AddressGrant
    ) throws(AddressShortage) {
        let id = NetworkID(attachment.network)
        guard let network = state.networks[id], network.isOverlay, let blocks = state.indexes.overlays[id] else {
            return
        }
        let (address, address6) = (attachment.fixed, attachment.fixed6)
        if var kept = present.first(where: { $0.network == id && $0.isWhat(address, address6) }) {
            kept.leftAt = nil
            grant.addresses.append(kept)
            return
        }
        let others = instance.tasks.filter { $0 != task }.compactMap { state.tasks[$0] }
        var losers: [(TaskID, IPAddress)] = []
        for wish in [address, address6].compactMap({ $0 }) where blocks.isUsed(wish) {
            if let holder = others.first(where: { $0.has(wish, of: blocks) }) {
                // A node that is there, or may be since this master has not listened for long, is waited for: what it has
                // may still be in use.
                if let there = memory[holder.node], there.ready || !there.isSilent(at: steady) {
                    throw AddressShortage(
                        description: "the address \(wish) of the network \(network.name) is in use by what is left of "
                            + "\(instance.name) on the node \(nodeName(holder.node))",
                        again: there.ready ? nil : lastStep?.adding(seconds: NodeMemory.patience + 1))
                }
                losers.append((holder.id, wish))
            } else if !present.contains(where: { $0.network == id && blocks.isSame($0, wish) }) {
                throw AddressShortage(description: "the address \(wish) of the network \(network.name) is in use")
            }
        }
        guard let given = blocks.wanted(address, address6, on: node) else { throw exhausted(network, blocks) }
        grant.losers += losers.map { ($0.0, id, $0.1) }
        grant.addresses.append(given)
    }

    /// What a task has and is not to have any more stays its until its node has let go of it.
    private func keep(_ present: [AssignedAddress], revision: Int, _ grant: inout AddressGrant) {
        for var left in present {
            guard state.networks[left.network] != nil,
                !grant.addresses.contains(where: {
                    $0.network == left.network && $0.address == left.address && $0.address6 == left.address6
                })
            else { continue }
            left.leftAt = left.leftAt ?? revision
            grant.addresses.append(left)
        }
    }

    /// Takes over what a node says it has let go of.
    ///
    /// - Returns: whether something is free now that was not.
    func letGo(_ task: inout NodeTask) -> Bool {
        let before = task.addresses.count
        task.addresses.removeAll { given in given.leftAt.map { $0 <= task.status.revision } ?? false }
        return task.addresses.count != before
    }

    /// A network is removed: what nodes may still have of it is nobody's.
    mutating func forgetAddresses(on network: NetworkID) {
        guard let blocks = state.indexes.overlays[network], !blocks.isUnused else { return }
        for task in blocks.nodes.sorted().flatMap({ state.tasks(on: $0) }) {
            guard task.addresses.contains(where: { $0.network == network }) else { continue }
            var task = task
            task.addresses.removeAll { $0.network == network }
            state.put(.task(task))
        }
    }

    // MARK: Tasks that count again

    /// Gives a task that counts again what its pod has on overlays now, as far as nobody else has it still. Without an
    /// address its node says that it waits for one.
    mutating func setAddresses(of task: inout NodeTask, for pod: PodSpec, _ instance: Instance) {
        let grant = possibleAddresses(for: pod, of: instance, task: task)
        take(grant)
        task.addresses = grant.addresses
        if lacksAddress(task, pod) { lacking.insert(instance.id) }
    }

    /// Whether the task is on an overlay without an address of its own there.
    func lacksAddress(_ task: NodeTask, _ pod: PodSpec) -> Bool {
        pod.attachments.contains { attachment in
            let id = NetworkID(attachment.network)
            return state.networks[id]?.isOverlay == true
                && !task.addresses.contains { $0.network == id && $0.leftAt == nil }
        }
    }

    /// Gives tasks the addresses that they lack, as soon as these are free.
    mutating func completeAddresses(now: Timestamp) {
        var looked: Set<NetworkID> = []
        for id in lacking.sorted() {
            guard let instance = state.instances[id], var task = state.task(of: instance), task.desired != .removed,
                task.status.phase != .removed, let pod = state.pod(of: task), lacksAddress(task, pod)
            else {
                lacking.remove(id)
                continue
            }
            // One that is not heard of has no use for it.
            guard memory[task.node]?.ready == true else { continue }
            for attachment in pod.attachments where !attachment.hasFixed {
                let network = NetworkID(attachment.network)
                guard isFull(network), looked.insert(network).inserted else { continue }
                guard let again = releaseEnded(on: network, now: now) else { continue }
                wakes[instance.workload] = min(again, wakes[instance.workload] ?? again)
            }
            let grant = possibleAddresses(for: pod, of: instance, task: task)
            guard grant.addresses != task.addresses else { continue }
            take(grant)
            task.addresses = grant.addresses
            state.put(.task(task))
        }
    }

    /// Who lacks addresses, at the start.
    mutating func noteLacking() {
        lacking = []
        for instance in state.instances.values {
            guard let task = state.task(of: instance), let pod = state.pod(of: task), lacksAddress(task, pod) else {
                continue
            }
            lacking.insert(instance.id)
        }
    }

    /// Takes addresses from tasks that give them up for another.
    mutating func take(_ grant: AddressGrant) {
        for (id, network, address) in grant.losers {
            guard var task = state.tasks[id], let blocks = state.indexes.overlays[network] else { continue }
            task.addresses.removeAll { $0.network == network && blocks.isSame($0, address) }
            state.put(.task(task))
        }
    }

    /// Somebody other than the workload who has the address on the network, or asks for it; nil: nobody.
    func owner(of address: IPAddress, on network: Network, besides workload: WorkloadID?) -> String? {
        var wished: Set<RevisionKey> = []
        for form in forms(of: address, on: network) {
            wished.formUnion(state.indexes.overlays.revisions(fixing: form, on: network.id))
        }
        for key in wished.sorted(by: { ($0.workload, $0.number) < ($1.workload, $1.number) })
        where key.workload != workload {
            guard let other = state.workloads[key.workload] else { continue }
            if other.revision == key.number || state.usedRevisions(of: other.id).contains(key.number) {
                return sees(other) ? other.name : "a container of another group"
            }
        }
        guard let blocks = state.indexes.overlays[network.id], blocks.isUsed(address) else { return nil }
        // One that it has left, say, and comes to again.
        if let workload, state.tasks(of: workload).contains(where: { $0.has(address, of: blocks) }) { return nil }
        for other in workloads(on: network.id) {
            for task in state.tasks(of: other.id) where task.has(address, of: blocks) {
                guard sees(other) else { return "a container of another group" }
                return state.instances[task.instance]?.name ?? other.name
            }
        }
        return "another container"
    }

    /// The address, and that of the other family with the same number.
    private func forms(of address: IPAddress, on network: Network) -> [IPAddress] {
        guard let blocks = state.indexes.overlays[network.id], let subnet6 = blocks.subnet6,
            let number = blocks.number(of: address)
        else { return [address] }
        return [blocks.subnet, subnet6].compactMap { subnet in
            let (other, isBeyond) = subnet.first.value.addingReportingOverflow(number)
            return isBeyond || other > subnet.last.value ? nil : IPAddress(subnet.address.family, other)
        }
    }
}

extension NetworkAttachment {
    /// Whether its user has fixed an address: those are kept for who asks for them.
    var hasFixed: Bool { address != nil || address6 != nil }
    fileprivate var fixed: IPAddress? { address.flatMap { IPAddress($0) } }
    fileprivate var fixed6: IPAddress? { address6.flatMap { IPAddress($0) } }
}

extension AssignedAddress {
    /// Whether it is what a user has fixed, as far as they have.
    fileprivate func isWhat(_ address: IPAddress?, _ address6: IPAddress?) -> Bool {
        (address.map { "\($0)" == self.address } ?? true) && (address6.map { "\($0)" == self.address6 } ?? true)
    }
}

extension NodeTask {
    /// Whether it has the address on the network, or another of the same number.
    fileprivate func has(_ address: IPAddress, of blocks: AddressBlocks) -> Bool {
        status.phase != .removed
            && addresses.contains { $0.network == blocks.network && blocks.isSame($0, address) }
    }
}
