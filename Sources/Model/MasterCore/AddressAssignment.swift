import CNISpec
import Model
import Wire

/// Which addresses of overlays tasks are given.
///
/// A task has them from its placement until nothing of it is left; only what its user fixed goes to the newer of an
/// instance's tasks at once.
extension MasterCore {
    /// What a task is to have, and what others give up for it.
    struct AddressGrant {
        var addresses: [AssignedAddress] = []
        /// Tasks of the same instance, with the networks on which their address goes to the new one.
        var losers: [(task: TaskID, network: NetworkID)] = []
    }

    /// Why a task cannot have addresses.
    struct AddressShortage: Error, CustomStringConvertible {
        let description: String
    }

    /// Chooses the addresses of one of the instance's tasks. Nothing changes before `take` and the task are written.
    ///
    /// - Parameters:
    ///   - present: what the task has already: it keeps that on networks that it stays on.
    ///   - task: the task itself, when there is one.
    ///   - isReplacing: on networks without a free address it may take that of another task of the instance.
    func addresses(
        for pod: PodSpec, of instance: Instance, on node: NodeID, present: [AssignedAddress] = [],
        task: TaskID? = nil, isReplacing: Bool = false
    ) throws(AddressShortage) -> AddressGrant {
        var grant = AddressGrant()
        for attachment in pod.attachments {
            let id = NetworkID(attachment.network)
            guard let network = state.networks[id], network.isOverlay, let blocks = state.indexes.overlays[id] else {
                continue
            }
            let (address, address6) = (attachment.fixed, attachment.fixed6)
            if let kept = present.first(where: { $0.network == id }), kept.isWhat(address, address6) {
                grant.addresses.append(kept)
                continue
            }
            let others = instance.tasks.filter { $0 != task }.compactMap { state.tasks[$0] }
            let wished = [address, address6].compactMap { $0 }.filter { blocks.isUsed($0) }
            for wish in wished {
                let holder = others.first { $0.has(wish, of: blocks) }
                if let holder {
                    grant.losers.append((holder.id, id))
                } else if !(present.contains { $0.network == id && blocks.isSame($0, wish) }) {
                    throw AddressShortage(
                        description: "the address \(wish) of the network \(network.name) is in use")
                }
            }
            if let given = blocks.wanted(address, address6, on: node) {
                grant.addresses.append(given)
            } else if isReplacing, let (holder, theirs) = Self.address(of: others, on: id) {
                grant.losers.append((holder, id))
                var taken = theirs
                taken.isLeased = state.tasks[holder]?.node == node && theirs.isLeased
                grant.addresses.append(taken)
            } else {
                throw Self.exhausted(network, blocks)
            }
        }
        return grant
    }

    private static func address(of tasks: [NodeTask], on network: NetworkID) -> (TaskID, AssignedAddress)? {
        for task in tasks {
            if let address = task.addresses.first(where: { $0.network == network }) { return (task.id, address) }
        }
        return nil
    }

    private static func exhausted(_ network: Network, _ blocks: AddressBlocks) -> AddressShortage {
        let use = "\(blocks.taken) of \(blocks.capacity) in use"
        return AddressShortage(description: "the network \(network.name) has no free address: \(use)")
    }

    /// Takes addresses from tasks that give them up for another.
    mutating func take(_ grant: AddressGrant) {
        for (id, network) in grant.losers {
            guard var task = state.tasks[id] else { continue }
            task.addresses.removeAll { $0.network == network }
            state.put(.task(task))
        }
    }

    /// Why no task of the pod could have addresses wherever it went; nil: one could.
    func shortage(for pod: PodSpec) -> AddressShortage? {
        // What a user has fixed is kept for them.
        for attachment in pod.attachments where attachment.address == nil && attachment.address6 == nil {
            let id = NetworkID(attachment.network)
            guard let network = state.networks[id], network.isOverlay, let blocks = state.indexes.overlays[id],
                blocks.taken >= blocks.capacity
            else { continue }
            return Self.exhausted(network, blocks)
        }
        return nil
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
                return other.name
            }
        }
        guard let blocks = state.indexes.overlays[network.id], blocks.isUsed(address) else { return nil }
        for other in workloads(on: network.id) {
            for task in state.tasks(of: other.id) where task.has(address, of: blocks) {
                if other.id == workload { return nil }
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
