import CNISpec
import Model

/// The addresses of all overlays, as they follow from networks, tasks and what pods ask for.
struct OverlayAddresses: Sendable {
    private var networks: [NetworkID: Entry] = [:]
    private(set) var networksByNode: [NodeID: Set<NetworkID>] = [:]
    /// Which revisions of workloads ask for which address, on networks of any driver.
    private var fixed: [NetworkID: [IPAddress: Set<RevisionKey>]] = [:]

    private struct Entry {
        var blocks: AddressBlocks
        /// A draft has removed the network, and may be undone.
        var isGone = false
    }

    /// What a task has of overlays, as long as something of it may be on its node.
    struct Holding: Equatable {
        let node: NodeID
        let addresses: [AssignedAddress]

        /// nil: nothing.
        init?(_ task: NodeTask) {
            guard !task.addresses.isEmpty, task.status.phase != .removed else { return nil }
            node = task.node
            addresses = task.addresses
        }
    }

    /// nil: there is no such overlay.
    subscript(network: NetworkID) -> AddressBlocks? { networks[network].flatMap { $0.isGone ? nil : $0.blocks } }

    var all: some Collection<AddressBlocks> { networks.values.lazy.map(\.blocks) }

    /// Revisions that ask for the address.
    func revisions(fixing address: IPAddress, on network: NetworkID) -> Set<RevisionKey> {
        fixed[network]?[address] ?? []
    }

    // MARK: Following the objects

    mutating func insert(_ network: Network) {
        guard networks[network.id] == nil else {
            networks[network.id]?.isGone = false
            return
        }
        guard var blocks = AddressBlocks(network) else { return }
        for address in (fixed[network.id] ?? [:]).keys { blocks.setFixed(address, true) }
        networks[network.id] = Entry(blocks: blocks)
    }

    mutating func remove(_ network: Network) {
        networks[network.id]?.isGone = true
        forgetIfUnused(network.id)
    }

    private mutating func forgetIfUnused(_ network: NetworkID) {
        if let entry = networks[network], entry.isGone, entry.blocks.isUnused { networks[network] = nil }
    }

    mutating func insert(_ holding: Holding) {
        for assigned in holding.addresses where networks[assigned.network] != nil {
            networks[assigned.network]?.blocks.insert(assigned, on: holding.node)
            networksByNode[holding.node, default: []].insert(assigned.network)
        }
    }

    mutating func remove(_ holding: Holding) {
        for assigned in holding.addresses {
            networks[assigned.network]?.blocks.remove(assigned, on: holding.node)
            if networks[assigned.network]?.blocks.isPresent(on: holding.node) != true {
                networksByNode[holding.node]?.remove(assigned.network)
                if networksByNode[holding.node]?.isEmpty == true { networksByNode[holding.node] = nil }
            }
            forgetIfUnused(assigned.network)
        }
    }

    mutating func insert(_ revision: Revision) {
        for (network, address) in revision.pod.fixedAddresses {
            let isFirst = fixed[network]?[address] == nil
            fixed[network, default: [:]][address, default: []].insert(revision.key)
            if isFirst { networks[network]?.blocks.setFixed(address, true) }
        }
    }

    mutating func remove(_ revision: Revision) {
        for (network, address) in revision.pod.fixedAddresses {
            guard fixed[network]?[address]?.remove(revision.key) != nil else { continue }
            guard fixed[network]?[address]?.isEmpty == true else { continue }
            fixed[network]?[address] = nil
            if fixed[network]?.isEmpty == true { fixed[network] = nil }
            networks[network]?.blocks.setFixed(address, false)
        }
    }
}

extension PodSpec {
    fileprivate var fixedAddresses: [(NetworkID, IPAddress)] {
        attachments.flatMap { attachment in
            [attachment.address, attachment.address6].compactMap { $0.flatMap { IPAddress($0) } }
                .map { (NetworkID(attachment.network), $0) }
        }
    }
}
