import CNISpec
import JSON
import Model
import Wire

/// Networks that users make, and remove.
extension MasterCore {
    /// Networks of one cluster.
    private static let mostNetworks = 10_000

    mutating func createNetwork(
        _ body: CreateNetwork, now: Timestamp, random: inout some RandomNumberGenerator
    ) throws(APIProblem) -> PendingReply {
        try admit { () throws(AdmissionError) in
            try admission.name(body.name)
            try admission.labels(body.labels)
        }
        guard !Network.reservedNames.contains(body.name) else {
            throw APIProblem(.forbidden, "the name \(body.name) is that of a predefined network: choose another name")
        }
        guard body.driver.isEmpty || body.driver == "bridge" else {
            throw APIProblem(
                .unsupported,
                "the network driver \(Admission.quoted(body.driver)) is not supported yet: networks have the driver bridge, "
                    + "and are on one node")
        }
        let group = try group(body.group)
        if state.indexes.networkByName[body.name] != nil {
            throw APIProblem(.conflict, "network with name \(body.name) already exists: choose another name")
        }
        guard state.networks.count < Self.mostNetworks else {
            throw APIProblem(.conflict, "there are \(Self.mostNetworks) networks already: remove some first")
        }
        try admit(body.options)
        let range = try addresses(for: body)
        let network = Network(
            id: .makeNetwork(&random), name: body.name, group: group, subnet: "\(range.subnet)",
            gateway: "\(range.gateway)", range: range.part.map { "\($0)" } ?? "", reserved: body.reserved,
            isInternal: body.isInternal, isAttachable: body.isAttachable, labels: body.labels, options: body.options,
            createdAt: now)
        state.put(.network(network))
        note("create", network, now: now)
        return .network(network.id)
    }

    mutating func removeNetwork(_ ref: String, now: Timestamp) throws(APIProblem) -> PendingReply {
        if let name = predefined(ref) {
            throw APIProblem(.forbidden, "\(name) is a pre-defined network and cannot be removed")
        }
        let network = try network(ref)
        let users = workloads(on: network.id).map(\.name).sorted()
        guard users.isEmpty else {
            let shown = users.prefix(5).joined(separator: ", ") + (users.count > 5 ? ", …" : "")
            throw APIProblem(
                .conflict,
                "the network \(network.name) has active endpoints: \(shown) \(users.count == 1 ? "is" : "are") attached; "
                    + "disconnect or remove them first")
        }
        remove(network, now: now)
        return .done
    }

    mutating func pruneNetworks(_ body: PruneNetworks, now: Timestamp) -> PendingReply {
        let (labels, without) = (body.labels.map { LabelSelector($0) }, body.withoutLabels.map { LabelSelector($0) })
        let unused = state.networks.values.filter { network in
            sees(network) && workloads(on: network.id).isEmpty && network.createdAt < body.until ?? now
                && labels.allSatisfy { $0.matches(network.labels) } && !without.contains { $0.matches(network.labels) }
        }.sorted { $0.name < $1.name }
        for network in unused { remove(network, now: now) }
        return .removed(unused.map(\.name))
    }

    private mutating func remove(_ network: Network, now: Timestamp) {
        state.delete(.network(network.id))
        note("destroy", network, now: now)
    }

    private mutating func note(_ action: String, _ network: Network, now: Timestamp) {
        note(
            kind: "network", action: action, id: network.id.text, name: network.name,
            attributes: ["name": network.name, "type": network.driver], now: now)
    }

    /// Tells that a container came to a network or left it.
    mutating func note(
        _ action: String, _ network: Network?, of instance: Instance, now: Timestamp
    ) {
        let name = network?.name ?? Network.nodeNetwork
        note(
            kind: "network", action: action, id: network?.id.text ?? name, name: name,
            attributes: [
                "container": instance.containers.first?.text ?? "", "name": name, "type": network?.driver ?? "bridge",
            ], now: now)
    }

    /// Refuses options that are not known or cannot be honoured.
    private func admit(_ options: [String: String]) throws(APIProblem) {
        for (key, value) in options.sorted(by: { $0.key < $1.key }) {
            func refusal(_ why: String) -> APIProblem {
                APIProblem(.badRequest, "$.options: \(Admission.quoted(key)) \(why)")
            }
            switch Network.Option(rawValue: key) {
            case nil, .vni?, .cniConfiguration?: throw refusal("is no option of the driver bridge that is supported")
            case .device?:
                guard acting.confinement == nil else {
                    throw APIProblem(.forbidden, "\(acting.title) may not name devices of nodes: leave \(key) out")
                }
                guard CNINames.isInterface(value) else {
                    throw refusal("is a device's name of at most 15 characters, not \(Admission.quoted(value))")
                }
                if let other = state.networks.values.first(where: { $0[.device] == value }) {
                    throw APIProblem(
                        .conflict, "the device \(value) is that of the network \(other.name): choose another name")
                }
            case .communication?:
                guard Self.truth(value) != nil else { throw refusal("is true or false") }
                guard Self.truth(value) == true else {
                    throw refusal("is not supported with the value false: members of a network reach each other")
                }
            case .masquerade?: if Self.truth(value) == nil { throw refusal("is true or false") }
            case .hostAddress?:
                guard let address = IPAddress(value), address.family == .v4 else {
                    throw refusal("is an IPv4 address of the node, not \(Admission.quoted(value))")
                }
            case .mtu?:
                guard let mtu = Int(value), (576...65535).contains(mtu) else {
                    throw refusal("is between 576 and 65535, not \(Admission.quoted(value))")
                }
            }
        }
    }

    private static func truth(_ text: String) -> Bool? {
        switch text.lowercased() {
        case "true", "1", "t": true
        case "false", "0", "f": false
        default: nil
        }
    }
}
