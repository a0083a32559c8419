import JSON
import Model
import Wire

/// A container as lists show it: what a `ContainerView` says, less what only an inspection needs.
package struct ContainerSummary: Sendable {
    /// A network that it is on, and where.
    package struct NetworkUse: Sendable {
        /// `bridge`, `host`, `none`, or the name of a network that users made.
        package var name: String
        /// Empty for those that users did not make.
        package var id: String
        package var aliases: [String]
        /// nil: it does not run.
        package var endpoint: NetworkEndpoint?
    }

    package var id: ContainerID
    package var name: String
    package var position: ContainerPosition
    /// nil while no node has been chosen.
    package var task: TaskID?
    package var node: NodeID?
    package var nodeName: String
    /// Where its published ports are reached.
    package var nodeAddress: String
    package var spec: ContainerSpec
    /// `sha256:…` of the image's configuration; the manifest's when the image is not known any more.
    package var imageID: String
    package var labels: [String: String]
    package var state: ContainerState
    package var container: ContainerStatus
    package var network: PodSpec.Network
    /// The container whose network it shares; empty: none.
    package var networkOf: String
    package var networks: [NetworkUse]
    /// The host ports that it really has, one mapping a port.
    package var ports: [PortMapping]
    /// Whether ports that name no address are published at the node's IPv6 addresses too.
    package var publishesIPv6: Bool
    /// Since when its node is not heard of.
    package var unreachableSince: Timestamp?

    package var createdAt: Timestamp { position.createdAt }
}

/// A part of a list.
package struct ContainerPage: Sendable {
    /// The newest first.
    package var containers: [ContainerSummary] = []
    /// Where to go on; nil: there are no more.
    package var next: ContainerPosition?
    /// Nodes of the cluster.
    package var nodes = 0
}

extension MasterCore {
    /// How many containers are looked at for one page at most: others want to be answered too.
    private static let reach = 10_000

    /// The next part of a list, the newest first. What exists all the time while the parts are read is in one of them,
    /// and in no other.
    ///
    /// - Parameter position: the `next` of the part before; nil: the first part.
    func page(
        _ selection: ContainerSelection, after position: ContainerPosition?, limit: Int, now: Timestamp
    ) -> ContainerPage {
        var page = ContainerPage(nodes: state.nodes.count)
        let names = selection.networks.isEmpty ? [:] : state.networks.mapValues(\.name)
        let nodeIDs = Set(selection.nodes.flatMap { [NodeID($0), state.indexes.nodeByName[$0]].compactMap(\.self) })
        var maker = SummaryMaker(core: self, selection, names, now: now)
        let asked = AskedFacts(selection, names)
        var looked = 0
        let start = [position, selection.before].compactMap(\.self).min()
        for entry in state.indexes.containers.older(than: start, newerThan: selection.since) {
            looked += 1
            if asked.mayBeMet(by: entry.facts),
                selection.admits(entry.container, networkNames: names, nodeIDs: nodeIDs), sees(entry.container),
                let found = maker.summary(entry.container)
            {
                page.containers.append(found)
            }
            if page.containers.count == limit || looked == Self.reach {
                page.next = entry.container.position
                break
            }
        }
        return page
    }

    func sees(_ entry: ListedContainer) -> Bool {
        acting.confinement == nil || state.workloads[entry.workload].map { sees($0) } ?? false
    }

    /// Ids that begin so, at most `limit`.
    func containers(beginning: String, limit: Int) -> [ContainerID] {
        let found = state.indexes.containers(beginning: beginning).lazy.filter { id in
            guard let instance = state.indexes.instanceByContainer[id].flatMap({ state.instances[$0] }) else {
                return false
            }
            return sees(instance)
        }
        return Array(found.prefix(limit))
    }
}

/// Makes summaries, and remembers what many of them have in common.
private struct SummaryMaker {
    let core: MasterCore
    let now: Timestamp
    let selection: ContainerSelection
    let names: [NetworkID: String]
    private var imageIDs: [String: String] = [:]
    private var silent: [NodeID: Timestamp?] = [:]
    private var lastPod: (key: RevisionKey, pod: PodSpec)?
    /// Whether instances of a service that are of this revision are meant, by their spec.
    private var lastAdmitted: (key: RevisionKey, isMeant: Bool)?

    init(core: MasterCore, _ selection: ContainerSelection, _ names: [NetworkID: String], now: Timestamp) {
        self.core = core
        self.selection = selection
        self.names = names
        self.now = now
    }

    /// The container; nil when its spec, which its entry does not know, shows that it is not meant.
    mutating func summary(_ entry: ListedContainer) -> ContainerSummary? {
        guard entry.own != nil || admits(entry) else { return nil }
        let task = entry.task.flatMap { core.state.tasks[$0] }
        guard let workload = core.state.workloads[entry.workload],
            let pod = pod(entry.workload, entry.revision ?? workload.revision), let spec = pod.containers.first
        else { return nil }
        let status = task?.status
        let node = entry.node.flatMap { core.state.nodes[$0] }
        return ContainerSummary(
            id: entry.id, name: entry.name, position: entry.position, task: task?.id, node: task?.node,
            nodeName: node?.name ?? "", nodeAddress: node?.address ?? "", spec: spec,
            imageID: imageID(of: spec.imageDigest), labels: entry.own?.labels ?? workload.labels(of: spec),
            state: entry.state,
            container: status?.containers.first { $0.id == entry.id } ?? ContainerStatus(name: spec.name, id: entry.id),
            network: pod.network, networkOf: pod.namespaces.network.container, networks: networks(of: pod, status),
            ports: task?.ports ?? [], publishesIPv6: core.way(of: pod)?.publishesIPv6 ?? false,
            unreachableSince: task.flatMap { silentSince($0.node) })
    }

    private mutating func admits(_ entry: ListedContainer) -> Bool {
        if let lastAdmitted, lastAdmitted.key.workload == entry.workload, lastAdmitted.key.number == entry.revision {
            return lastAdmitted.isMeant
        }
        guard let workload = core.state.workloads[entry.workload] else { return false }
        let number = entry.revision ?? workload.revision
        guard let pod = pod(entry.workload, number) else { return false }
        let isMeant = selection.admits(ListedContainer.Own(workload, pod), names)
        lastAdmitted = (RevisionKey(workload: workload.id, number: number), isMeant)
        return isMeant
    }

    private mutating func pod(_ workload: WorkloadID, _ number: Int) -> PodSpec? {
        let key = RevisionKey(workload: workload, number: number)
        if let lastPod, lastPod.key == key { return lastPod.pod }
        guard let pod = core.state.revisions[key]?.pod else { return nil }
        lastPod = (key, pod)
        return pod
    }

    private mutating func imageID(of digest: String) -> String {
        if let known = imageIDs[digest] { return known }
        var id = digest
        for memory in core.memory.values {
            guard let image = memory.images.first(where: { $0.digest == digest }) else { continue }
            id = image.id
            break
        }
        imageIDs[digest] = id
        return id
    }

    private mutating func silentSince(_ node: NodeID) -> Timestamp? {
        if let known = silent[node] { return known }
        let since = core.silentSince(node, now: now)
        silent[node] = .some(since)
        return since
    }

    private func networks(of pod: PodSpec, _ status: TaskStatus?) -> [ContainerSummary.NetworkUse] {
        func endpoint(_ network: String) -> NetworkEndpoint? { status?.endpoints.first { $0.network == network } }
        var uses: [ContainerSummary.NetworkUse] = []
        switch pod.network {
        case .bridge, .host, .none:
            let name = pod.network.rawValue
            var place = endpoint(name)
            if pod.network == .bridge, place == nil, let address = status?.addresses.first {
                place = NetworkEndpoint(network: name, address: address, gateway: "", mac: "")
            }
            uses.append(.init(name: name, id: "", aliases: [], endpoint: place))
        case .attached, .container: break
        }
        for attachment in pod.attachments {
            let name = core.state.networks[NetworkID(attachment.network)]?.name ?? attachment.network
            uses.append(
                .init(
                    name: name, id: attachment.network, aliases: attachment.aliases,
                    endpoint: endpoint(attachment.network)))
        }
        return uses
    }
}

extension Namespaces.Source {
    /// The container that is meant; empty: none.
    fileprivate var container: String { if case .container(let ref) = self { ref } else { "" } }
}
