import JSON
import Model
import Wire

/// Containers that come to networks and leave them, and how networks look to users.
extension MasterCore {
    /// Attaches a container, running or not.
    mutating func connect(_ ref: String, _ body: ConnectNetwork, now: Timestamp) throws(APIProblem) -> PendingReply {
        let target = try joinable(ref)
        let (instance, workload, pod) = try member(body.container)
        switch pod.network {
        case .bridge, .attached: break
        case .host, .none, .container:
            throw APIProblem(
                .forbidden,
                "the container \(instance.name) cannot be connected: with the network \(pod.network.rawValue) it can be "
                    + "on no other")
        }
        guard let network = target else {
            guard pod.network == .attached else {
                throw APIProblem(
                    .forbidden, "the container \(instance.name) is on the network \(Network.nodeNetwork) already")
            }
            guard body.aliases.isEmpty, body.address == nil, body.address6 == nil, body.mac == nil,
                body.bandwidth == nil
            else {
                throw APIProblem(
                    .badRequest,
                    "aliases, fixed addresses and limits are of networks that users make, not of \(Network.nodeNetwork)"
                )
            }
            _ = try changeInPlace(instance, now: now) { $0.network = .bridge }
            note("connect", nil, of: instance, now: now)
            return .done
        }
        guard !pod.attachments.contains(where: { $0.network == network.id.text }) else {
            throw APIProblem(
                .forbidden, "endpoint with name \(instance.name) already exists in network \(network.name)")
        }
        guard pod.attachments.count < 32 else {
            throw APIProblem(
                .conflict, "the container \(instance.name) is on 32 networks already, and no more are possible")
        }
        var attachment = NetworkAttachment(
            network: network.id.text, aliases: body.aliases, address: body.address, address6: body.address6,
            mac: body.mac, bandwidth: body.bandwidth)
        try resolve(&attachment, on: network, kind: .container, workload: workload.id, at: "$")
        let node = state.task(of: instance)?.node
        if let node { try require(network, attachment.features, on: node, for: instance) }
        _ = try changeInPlace(instance, now: now) { $0.attachments.append(attachment) }
        if let node, network.isOfOneNode, network.node != node {
            var network = network
            network.node = node
            state.put(.network(network))
        }
        note("connect", network, of: instance, now: now)
        return .done
    }

    mutating func disconnect(
        _ ref: String, _ body: DisconnectNetwork, now: Timestamp
    ) throws(APIProblem) -> PendingReply {
        let target = try joinable(ref)
        let (instance, _, pod) = try member(body.container)
        if let network = target {
            guard pod.attachments.contains(where: { $0.network == network.id.text }) else {
                throw APIProblem(
                    .forbidden, "container \(instance.name) is not connected to network \(network.name)")
            }
            _ = try changeInPlace(instance, now: now) { $0.attachments.removeAll { $0.network == network.id.text } }
        } else {
            guard pod.network == .bridge else {
                throw APIProblem(
                    .forbidden, "container \(instance.name) is not connected to network \(Network.nodeNetwork)")
            }
            _ = try changeInPlace(instance, now: now) { $0.network = .attached }
        }
        note("disconnect", target, of: instance, now: now)
        return .done
    }

    /// A network that containers come to and leave; nil: the node's own.
    private func joinable(_ ref: String) throws(APIProblem) -> Network? {
        switch predefined(ref) {
        case Network.nodeNetwork?: return nil
        case let name?:
            throw APIProblem(
                .forbidden, "a container cannot be connected to the network \(name), or disconnected, while it exists")
        case nil: return try network(ref)
        }
    }

    private func member(_ ref: String) throws(APIProblem) -> (Instance, Workload, PodSpec) {
        let instance = try instance(ref)
        let workload = try changeable(instance, "connected or disconnected")
        guard let pod = state.pod(of: workload) else { throw Self.noContainer(ref) }
        return (instance, workload, pod)
    }

    /// The network may come to the container's node, or is there already.
    ///
    /// - Parameter more: what the node must be able to do besides.
    private func require(
        _ network: Network, _ more: [String], on node: NodeID, for instance: Instance
    ) throws(APIProblem) {
        let wanted = network.features + more
        let has = state.nodes[node]?.features ?? wanted
        if let feature = wanted.first(where: { !has.contains($0) }) {
            let (what, cause) =
                switch feature {
                case Network.bridgeIPv6: (" and IPv6", "update its agent")
                case Network.trafficLimits: (" and limits on traffic", "update its agent")
                case Network.overlayEncryption:
                    (" that are encrypted", "update its agent, and give it a kernel with IPsec (ESP, AES-GCM)")
                default: ("", "update its agent")
                }
            throw APIProblem(
                .conflict,
                "the node \(nodeName(node)) has no networks with the driver \(network.driver)\(what): \(cause), or run "
                    + "the container elsewhere")
        }
        if let home = home(of: network.id), home != node {
            throw APIProblem(
                .conflict,
                "the container \(instance.name) is on the node \(nodeName(node)), and the network \(network.name) is on "
                    + "\(nodeName(home)): a network with the driver bridge is on one node; remove the container, and run it "
                    + "anew on the network")
        }
    }

    // MARK: Views

    /// Without members, and without the text of CNI configurations, which may hold secrets.
    func networkViews() -> [NetworkView] {
        state.networks.values.filter { sees($0) }.sorted { $0.name < $1.name }.map { network in
            let home = home(of: network.id)
            var network = network
            network.node = home
            network.options[Network.Option.cniConfiguration.rawValue] = nil
            return NetworkView(
                network: network, nodeName: home.map { nodeName($0) } ?? "", containers: containerCount(on: network.id))
        }
    }

    /// How many containers of workloads that whoever is served sees are on it, running or not.
    private func containerCount(on network: NetworkID) -> Int {
        workloads(on: network).lazy.filter { sees($0) }
            .reduce(0) { $0 + (state.indexes.instancesByWorkload[$1.id]?.count ?? 0) }
    }

    /// The network with what is on it: the members whose names come after `after`, at most `NetworkView.mostMembers`, and
    /// what each node has of an overlay.
    func networkView(_ network: Network, after: String = "") -> NetworkView {
        let home = home(of: network.id)
        var members: [NetworkView.Member] = []
        for workload in workloads(on: network.id) where sees(workload) {
            for instance in state.instances(of: workload.id) {
                guard instance.name > after else { continue }
                let task = state.shownTask(of: instance)
                let pod = task.flatMap { state.pod(of: $0) } ?? state.pod(of: workload)
                guard let container = instance.containers.first,
                    pod?.attachments.contains(where: { $0.network == network.id.text }) ?? false
                else { continue }
                let endpoint = task.flatMap { task in
                    task.status.isLive ? task.status.endpoints.first { $0.network == network.id.text } : nil
                }
                members.append(
                    NetworkView.Member(container: container, name: instance.name, endpoint: endpoint))
            }
        }
        members.sort { ($0.name, $0.container) < ($1.name, $1.container) }
        let isMore = members.count > NetworkView.mostMembers
        members.removeLast(max(0, members.count - NetworkView.mostMembers))
        var network = network
        network.node = home
        return NetworkView(
            network: network, nodeName: home.map { nodeName($0) } ?? "",
            containers: containerCount(on: network.id), members: members, next: isMore ? members.last?.name : nil,
            nodes: after.isEmpty ? parts(of: network.id) : [])
    }
}
