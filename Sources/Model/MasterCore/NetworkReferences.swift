import CNISpec
import Model
import Scheduling
import Wire

/// What names of networks mean, who is on them, and where they are.
extension MasterCore {
    /// Finds a network by name, id or the beginning of its id.
    func network(_ ref: String) throws(APIProblem) -> Network {
        if let network = state.networks[NetworkID(ref)], sees(network) { return network }
        if let network = state.indexes.networkByName[ref].flatMap({ state.networks[$0] }), sees(network) {
            return network
        }
        let found = ref.isEmpty ? [] : state.networks.values.filter { $0.id.text.hasPrefix(ref) && sees($0) }
        guard found.count <= 1 else {
            throw APIProblem(
                .conflict,
                "'\(ref)' may be any of \(found.map(\.name).sorted().joined(separator: ", ")): write more of it")
        }
        guard let network = found.first else {
            throw APIProblem(.notFound, "network \(ref) not found; see `martlet network ls`")
        }
        return network
    }

    func sees(_ network: Network) -> Bool { acting.reaches(group: network.group) }

    /// What a network is called in front of whoever is served: those of groups that they do not reach have no name.
    func title(of network: Network) -> String {
        sees(network) ? "the network \(network.name)" : "a network of another group"
    }

    /// The same of workloads: names of those that are seen, at most five, and how many there are besides.
    func titles(of workloads: [Workload]) -> String {
        let names = workloads.filter { sees($0) }.map(\.name).sorted()
        let others = workloads.count - names.count
        var words = names.prefix(5) + (names.count > 5 ? ["…"] : [])
        if others > 0 { words.append(names.isEmpty ? "\(others) of other groups" : "and \(others) of other groups") }
        return words.joined(separator: ", ")
    }

    /// The name of a network that every node has and nobody makes; nil: the reference is not one's.
    func predefined(_ ref: String) -> String? {
        ref == "default" ? Network.nodeNetwork : [Network.nodeNetwork, "host", "none"].first { $0 == ref }
    }

    /// Workloads that are attached to it: by their newest revision or one that a task of theirs has.
    func workloads(on network: NetworkID) -> [Workload] {
        let revisions = Dictionary(grouping: state.indexes.revisionsByNetwork[network] ?? [], by: \.workload)
        return revisions.compactMap { id, keys in
            guard let workload = state.workloads[id] else { return nil }
            let numbers = Set(keys.map(\.number))
            if numbers.contains(workload.revision) { return workload }
            return numbers.isDisjoint(with: state.usedRevisions(of: id)) ? nil : workload
        }
    }

    // MARK: Attachments of a new pod

    /// Puts ids where the user wrote names, and refuses what cannot be.
    func resolveAttachments(of pod: inout PodSpec, kind: Workload.Kind) throws(APIProblem) {
        try resolveNames(in: &pod, kind: kind)
        try requireWay(of: pod, at: "$.pod")
    }

    /// The first port that is published at an address of IPv6.
    func portOfIPv6(_ pod: PodSpec) -> Int? {
        pod.ports.firstIndex { IPAddress($0.hostAddress)?.family == .v6 }
    }

    /// Ports at addresses of IPv6 are published where the pod's way out has IPv6.
    ///
    /// - Parameter path: the pod's place in what was asked for.
    func requireWay(of pod: PodSpec, at path: String) throws(APIProblem) {
        guard let index = portOfIPv6(pod) else { return }
        // What a list of CNI plugins makes of it they say.
        let way = way(of: pod)
        guard pod.network == .bridge || way.map({ !$0.isCNI && !$0.hasIPv6 }) ?? false else { return }
        let name = way.map { "the network \($0.name)" } ?? "a node's own network"
        throw APIProblem(
            .badRequest,
            "\(path).ports[\(index)].hostAddress: \(pod.ports[index].hostAddress) is IPv6, and \(name), by which the ports "
                + "are published, has none: publish at an IPv4 address, or put the container on a network with IPv6 first "
                + "(`martlet network create --ipv6`)")
    }

    /// The network by which a pod's way out leads and its ports are published: the first that has one; nil: none that
    /// users made.
    func way(of pod: PodSpec) -> Network? {
        guard pod.network == .attached else { return nil }
        return pod.attachments.lazy.compactMap { self.state.networks[NetworkID($0.network)] }.first { !$0.isInternal }
    }

    private func resolveNames(in pod: inout PodSpec, kind: Workload.Kind) throws(APIProblem) {
        guard !pod.attachments.isEmpty else {
            guard pod.network != .attached else {
                throw APIProblem(.badRequest, "$.pod.attachments: a pod with the network attached names a network here")
            }
            return
        }
        guard pod.network == .attached || pod.network == .bridge else {
            throw APIProblem(
                .badRequest, "$.pod.attachments: a pod with the network \(pod.network.rawValue) can be on no other")
        }
        guard pod.attachments.count <= 32 else {
            throw APIProblem(.badRequest, "$.pod.attachments: \(pod.attachments.count) networks are more than 32")
        }
        for index in pod.attachments.indices {
            let network = try network(pod.attachments[index].network)
            guard !pod.attachments[..<index].contains(where: { $0.network == network.id.text }) else {
                throw APIProblem(.badRequest, "$.pod.attachments: the network \(network.name) is named twice")
            }
            try resolve(
                &pod.attachments[index], on: network, kind: kind, workload: nil, at: "$.pod.attachments[\(index)]")
        }
    }

    /// The same for one of its networks.
    ///
    /// - Parameter workload: the one that the pod is of; nil: a new one.
    func resolve(
        _ attachment: inout NetworkAttachment, on network: Network, kind: Workload.Kind, workload: WorkloadID?,
        at path: String
    ) throws(APIProblem) {
        attachment.network = network.id.text
        var aliases: [String] = []
        for alias in attachment.aliases where !aliases.contains(alias) {
            guard Self.isHostName(alias) else {
                throw APIProblem(
                    .badRequest,
                    "\(path).aliases: \(Admission.quoted(alias)) is no host name: at most 253 letters, digits, '_', '.' and '-'"
                )
            }
            aliases.append(alias)
        }
        guard aliases.count <= 64 else {
            throw APIProblem(.badRequest, "\(path).aliases: \(aliases.count) names are more than 64")
        }
        attachment.aliases = aliases
        guard attachment.links.count <= 64 else {
            throw APIProblem(.badRequest, "\(path).links: \(attachment.links.count) names are more than 64")
        }
        for (name, ref) in attachment.links {
            guard Self.isHostName(name) else {
                throw APIProblem(.badRequest, "\(path).links: \(Admission.quoted(name)) is no host name")
            }
            attachment.links[name] = try instance(ref).containers.first?.text
        }
        if attachment.address?.isEmpty == true { attachment.address = nil }
        if attachment.address6?.isEmpty == true { attachment.address6 = nil }
        if attachment.mac?.isEmpty == true { attachment.mac = nil }
        let isFixed = attachment.address != nil || attachment.address6 != nil || attachment.mac != nil
        guard kind == .container || !isFixed else {
            throw APIProblem(.badRequest, "\(path): instances of a service cannot have a fixed address")
        }
        if let bandwidth = attachment.bandwidth {
            guard network.isCNI else {
                throw APIProblem(
                    .badRequest,
                    "\(path).bandwidth: limits on traffic are kept by plugins of networks with the driver cni, and "
                        + "\(network.name) has the driver \(network.driver)")
            }
            do throws(TrafficLimits.Problem) {
                attachment.bandwidth = try bandwidth.completed()
            } catch {
                throw APIProblem(.badRequest, "\(path).bandwidth.\(error)")
            }
        }
        try requireAddress(attachment, on: network, workload: workload, at: path)
        try requireAddress6(&attachment, on: network, workload: workload, at: path)
        guard let mac = attachment.mac else { return }
        guard let address = MACAddress(mac), address.bytes.count == 6, address.bytes.contains(where: { $0 != 0 }),
            address.bytes[0] & 1 == 0
        else {
            throw APIProblem(
                .badRequest, "\(path).mac: \(Admission.quoted(mac)) is no hardware address such as 02:42:ac:12:00:02")
        }
        attachment.mac = "\(address)"
    }

    /// A fixed address is of the subnet, and no other workload's.
    private func requireAddress(
        _ attachment: NetworkAttachment, on network: Network, workload: WorkloadID?, at path: String
    ) throws(APIProblem) {
        guard let text = attachment.address else { return }
        try requireSubnet(of: network, at: "\(path).address")
        guard let address = IPAddress(text), CIDR(network.subnet)?.hosts(address) ?? false else {
            throw APIProblem(
                .badRequest,
                "\(path).address: \(Admission.quoted(text)) is no address of a host in \(network.subnet), the subnet of the "
                    + "network \(network.name)")
        }
        guard address != IPAddress(network.gateway),
            !network.reserved.values.contains(where: { IPAddress($0) == address })
        else {
            throw APIProblem(.conflict, "\(path).address: \(text) is the gateway's or reserved: choose another")
        }
        if let blocks = state.indexes.overlays[network.id], blocks.isReserved(address) {
            throw APIProblem(.conflict, "\(path).address: \(text) is the gateway's or reserved: choose another")
        }
        try requireNoOwner(of: address, on: network, workload: workload)
    }

    /// The same of IPv6, which is put into its canonical form.
    private func requireAddress6(
        _ attachment: inout NetworkAttachment, on network: Network, workload: WorkloadID?, at path: String
    ) throws(APIProblem) {
        guard let text = attachment.address6 else { return }
        try requireSubnet(of: network, at: "\(path).address6")
        guard let subnet = CIDR(network.subnet6) else {
            throw APIProblem(
                .badRequest,
                "\(path).address6: the network \(network.name) has no IPv6: leave it out, or make the network with IPv6 "
                    + "(--ipv6)")
        }
        guard let address = IPAddress(text), subnet.contains(address), address != subnet.first else {
            throw APIProblem(
                .badRequest,
                "\(path).address6: \(Admission.quoted(text)) is no address of a host in \(subnet), the IPv6 subnet of the "
                    + "network \(network.name)")
        }
        guard address != IPAddress(network.gateway6), address != subnet.last,
            state.indexes.overlays[network.id].map({ !$0.isReserved(address) }) ?? true
        else {
            throw APIProblem(.conflict, "\(path).address6: \(text) is the gateway's or reserved: choose another")
        }
        try requireNoOwner(of: address, on: network, workload: workload)
        attachment.address6 = "\(address)"
    }

    private func requireSubnet(of network: Network, at path: String) throws(APIProblem) {
        guard network.isCNI else { return }
        throw APIProblem(
            .badRequest,
            "\(path): the addresses of the network \(network.name) are given by its CNI plugins: leave it out")
    }

    private func requireNoOwner(
        of address: IPAddress, on network: Network, workload: WorkloadID?
    ) throws(APIProblem) {
        guard let owner = owner(of: address, on: network, besides: workload) else { return }
        throw APIProblem(
            .conflict, "Address already in use: \(address) on the network \(network.name) is \(owner)'s")
    }

    private static func isHostName(_ name: String) -> Bool {
        (1...253).contains(name.utf8.count)
            && name.utf8.allSatisfy {
                Admission.isAlphanumeric($0) || $0 == UInt8(ascii: "-") || $0 == UInt8(ascii: "_")
                    || $0 == UInt8(ascii: ".")
            }
    }

    // MARK: Where they are

    /// The node of what ties pods together; nil: it is on none.
    func home(of anchor: Anchor) -> NodeID? {
        switch anchor {
        case .volume(let name): home(of: name)
        case .network(let id): home(of: id)
        case .container(let id):
            state.indexes.instanceByContainer[id].flatMap { state.instances[$0] }.flatMap { state.task(of: $0)?.node }
        }
    }

    /// What people call it; nil: its own name says it.
    func name(of anchor: Anchor) -> String? {
        switch anchor {
        case .volume: nil
        case .network(let id): state.networks[id]?.name
        case .container(let id): state.indexes.instanceByContainer[id].flatMap { state.instances[$0]?.name }
        }
    }

    /// The node of a network, as long as a task there is on it. One whose node was lost is wherever its containers are
    /// replaced to, once none of them is meant to be there any more.
    func home(of id: NetworkID) -> NodeID? {
        guard let home = state.networks[id]?.node else { return nil }
        let isUsed = workloads(on: id).contains { workload in
            state.instances(of: workload.id).contains { instance in
                instance.tasks.contains { task in
                    guard let task = state.tasks[task], task.node == home, task.desired != .removed else {
                        return false
                    }
                    let entry = instance.displaced.first { $0.task == task.id }
                    return entry?.cause != .lost
                        && state.pod(of: task)?.attachments.contains { $0.network == id.text } ?? false
                }
            }
        }
        return isUsed ? home : nil
    }

    /// Notes, with the task's placement, that the networks of its pod are on its node.
    mutating func claimNetworks(of pod: PodSpec, for task: NodeTask) {
        for attachment in pod.attachments {
            guard var network = state.networks[NetworkID(attachment.network)], network.isOfOneNode,
                network.node != task.node, home(of: network.id) == nil
            else { continue }
            network.node = task.node
            state.put(.network(network))
            // Whoever waited for it knows now where to go.
            if !waiting.isEmpty { capacityChanged = true }
        }
        // The same of those who share namespaces of what was replaced.
        if !waiting.isEmpty, state.instances[task.instance]?.displaced.isEmpty == false { capacityChanged = true }
    }

    /// The node is no more: its networks are on none.
    mutating func leaveNetworks(on node: NodeID) {
        for var network in state.networks.values where network.node == node {
            network.node = nil
            state.put(.network(network))
        }
    }
}
