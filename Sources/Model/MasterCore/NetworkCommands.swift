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
        let driver = try driver(body.driver)
        let group = try group(body.group)
        if state.indexes.networkByName[body.name] != nil {
            throw APIProblem(.conflict, "network with name \(body.name) already exists: choose another name")
        }
        guard state.networks.count < Self.mostNetworks else {
            throw APIProblem(.conflict, "there are \(Self.mostNetworks) networks already: remove some first")
        }
        try admit(body, driver)
        var network = Network(
            id: .makeNetwork(&random), name: body.name, group: group, driver: driver.rawValue, subnet: "", gateway: "",
            reserved: body.reserved, isInternal: body.isInternal, isAttachable: body.isAttachable, labels: body.labels,
            options: body.options, createdAt: now)
        if driver != .cni {
            let addresses = try addresses(for: body, driver, random: &random)
            network.subnet = "\(addresses.subnet)"
            network.gateway = "\(addresses.gateway)"
            network.range = addresses.part.map { "\($0)" } ?? ""
            network.subnet6 = addresses.subnet6.map { "\($0)" } ?? ""
            network.gateway6 = addresses.gateway6.map { "\($0)" } ?? ""
        }
        if driver == .overlay {
            network.vni = try vni(for: body)
            guard AddressBlocks(network).map({ $0.capacity > 0 }) ?? false else {
                throw APIProblem(
                    .badRequest,
                    "$.range: gateways and reserved addresses leave none to containers: choose a larger one")
            }
        }
        state.put(.network(network))
        note("create", network, now: now)
        return .network(network.id)
    }

    mutating func removeNetwork(_ ref: String, now: Timestamp) throws(APIProblem) -> PendingReply {
        if let name = predefined(ref) {
            throw APIProblem(.forbidden, "\(name) is a pre-defined network and cannot be removed")
        }
        let network = try network(ref)
        let users = workloads(on: network.id)
        guard users.isEmpty else {
            throw APIProblem(
                .conflict,
                "the network \(network.name) has active endpoints: \(titles(of: users)) "
                    + "\(users.count == 1 ? "is" : "are") attached; disconnect or remove them first")
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
        forgetAddresses(on: network.id)
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
}
