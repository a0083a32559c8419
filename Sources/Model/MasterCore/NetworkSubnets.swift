import CNISpec
import Model
import Wire

/// Which addresses a network has.
extension MasterCore {
    struct NetworkAddresses {
        var subnet: CIDR
        var gateway: IPAddress
        /// What containers get addresses from; nil: all of it.
        var part: CIDR?
        /// nil: no IPv6.
        var subnet6: CIDR?
        var gateway6: IPAddress?
    }

    /// Subnets that are tried in turn when a bridge names none.
    private static let subnets: [CIDR] =
        (18...31).compactMap { CIDR("172.\($0).0.0/16") }
        + stride(from: 0, to: 256, by: 16).compactMap { CIDR("192.168.\($0).0/20") }

    /// The addresses of a new bridge or overlay, as asked for or chosen.
    func addresses(
        for body: CreateNetwork, _ driver: Network.Driver, random: inout some RandomNumberGenerator
    ) throws(APIProblem) -> NetworkAddresses {
        var addresses = try addresses4(for: body, driver)
        guard body.wantsIPv6 else { return addresses }
        let subnet = try subnet6(for: body, beside: addresses.subnet, random: &random)
        addresses.subnet6 = subnet
        let gateway = subnet.first.advanced(by: 1)
        if let text = body.gateway6, !text.isEmpty {
            guard let given = IPAddress(text), subnet.contains(given), given != subnet.first else {
                throw APIProblem(
                    .badRequest, "$.gateway6: \(Admission.quoted(text)) is no address of a host in \(subnet)")
            }
            addresses.gateway6 = given
        } else {
            addresses.gateway6 = gateway
        }
        return addresses
    }

    // MARK: IPv4

    private func addresses4(
        for body: CreateNetwork, _ driver: Network.Driver
    ) throws(APIProblem) -> NetworkAddresses {
        guard let text = body.subnet, !text.isEmpty else {
            if body.gateway != nil || body.range != nil || !body.reserved.isEmpty {
                throw APIProblem(
                    .badRequest, "$.subnet: a gateway, a range or reserved addresses are of a subnet: name it")
            }
            return try freeAddresses(driver)
        }
        if text.contains(":") {
            throw APIProblem(.badRequest, "$.subnet: \(Admission.quoted(text)) is IPv6: name it as subnet6")
        }
        guard let subnet = CIDR(text), subnet.address.family == .v4, (8...29).contains(subnet.prefixLength),
            subnet.isNetwork
        else {
            throw APIProblem(
                .badRequest,
                "$.subnet: \(Admission.quoted(text)) is no IPv4 network between /8 and /29, such as 172.30.0.0/16")
        }
        if subnet.first.isLoopback || subnet.first.isMulticast || subnet.first.isLinkLocal
            || subnet.first.value >> 24 == 0
        {
            throw APIProblem(.badRequest, "$.subnet: \(subnet) cannot be routed: choose a private network")
        }
        try requirePrivate(subnet, at: "$.subnet")
        try requireFree(subnet)
        func address(_ text: String, _ field: String) throws(APIProblem) -> IPAddress {
            guard let address = IPAddress(text), subnet.hosts(address) else {
                throw APIProblem(
                    .badRequest, "$.\(field): \(Admission.quoted(text)) is no address of a host in \(subnet)")
            }
            return address
        }
        guard let first = subnet.first.advanced(by: 1) else {
            throw APIProblem(.badRequest, "$.subnet: \(subnet) has no address for a gateway: choose another")
        }
        let gateway =
            if let given = body.gateway, !given.isEmpty { try address(given, "gateway") } else { first }
        guard body.reserved.count <= 256 else {
            throw APIProblem(.badRequest, "$.reserved: \(body.reserved.count) addresses are more than 256")
        }
        for (_, text) in body.reserved.sorted(by: { $0.key < $1.key }) { _ = try address(text, "reserved") }
        return NetworkAddresses(subnet: subnet, gateway: gateway, part: try part(body.range, of: subnet))
    }

    /// Who is confined to groups takes no addresses from the nodes that are others' on the Internet (RFC 1918, 6598, 4193).
    private func requirePrivate(_ subnet: CIDR, at path: String) throws(APIProblem) {
        guard acting.confinement != nil else { return }
        let own = ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7"].compactMap { CIDR($0) }
        guard own.contains(where: { $0.contains(subnet) }) else {
            throw APIProblem(
                .forbidden,
                "\(path): \(subnet) is no private network, and \(acting.title) may take no other: choose one of "
                    + "10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16, 100.64.0.0/10 or fc00::/7")
        }
    }

    private func part(_ text: String?, of subnet: CIDR) throws(APIProblem) -> CIDR? {
        guard let text, !text.isEmpty else { return nil }
        guard let part = CIDR(text), part.isNetwork, subnet.contains(part) else {
            throw APIProblem(.badRequest, "$.range: \(Admission.quoted(text)) is no network within \(subnet)")
        }
        guard part.prefixLength < 32 || subnet.hosts(part.first) else {
            throw APIProblem(
                .badRequest, "$.range: no host in \(subnet) has the address \(part.first): choose a larger range")
        }
        return part
    }

    private func freeAddresses(_ driver: Network.Driver) throws(APIProblem) -> NetworkAddresses {
        let pools = state.indexes.pools
        let subnet = driver == .overlay ? pools.freeSubnet() : Self.subnets.first { pools.isFree($0) }
        guard let subnet, let gateway = subnet.first.advanced(by: 1) else {
            let pool =
                driver == .overlay
                ? AddressPools.poolTitle
                : "the \(Self.subnets.count) subnets of 172.18.0.0 to 172.31.255.255 and 192.168.0.0/16"
            throw APIProblem(
                .conflict,
                "\(pool) that networks with the driver \(driver.rawValue) get unless they name one are all taken, by other "
                    + "networks or nodes: name a free one as subnet (`--subnet 10.200.0.0/20`, say), or remove networks that "
                    + "nothing uses (`martlet network prune`)")
        }
        return NetworkAddresses(subnet: subnet, gateway: gateway)
    }

    // MARK: IPv6

    private func subnet6(
        for body: CreateNetwork, beside other: CIDR, random: inout some RandomNumberGenerator
    ) throws(APIProblem) -> CIDR {
        guard let text = body.subnet6, !text.isEmpty else {
            if let gateway = body.gateway6, !gateway.isEmpty {
                throw APIProblem(.badRequest, "$.subnet6: a gateway is of a subnet: name it")
            }
            guard let subnet = state.indexes.pools.freeSubnet6(&random) else {
                throw APIProblem(
                    .conflict,
                    "no IPv6 subnet was found that is free: name one as subnet6 (`--subnet fd00:1::/64`, say)")
            }
            return subnet
        }
        guard let subnet = CIDR(text), subnet.address.family == .v6, (48...112).contains(subnet.prefixLength),
            subnet.isNetwork
        else {
            throw APIProblem(
                .badRequest,
                "$.subnet6: \(Admission.quoted(text)) is no IPv6 network between /48 and /112, such as fd00:1::/64")
        }
        // 2000::/3 and fc00::/7, see RFC 4291 and RFC 4193.
        guard subnet.first.value >> 125 == 1 || subnet.first.value >> 121 == 0x7e else {
            throw APIProblem(
                .badRequest, "$.subnet6: \(subnet) cannot be routed: choose a unique local one, such as fd00:1::/64")
        }
        try requirePrivate(subnet, at: "$.subnet6")
        guard 128 - subnet.prefixLength >= 32 - other.prefixLength else {
            throw APIProblem(
                .badRequest,
                "$.subnet6: \(subnet) has fewer addresses than \(other), and a container has the same one of each: choose "
                    + "at most /\(96 + other.prefixLength)")
        }
        try requireFree(subnet)
        return subnet
    }

    // MARK: Both

    private func requireFree(_ subnet: CIDR) throws(APIProblem) {
        let pools = state.indexes.pools
        if let other = pools.network(overlapping: subnet).flatMap({ state.networks[$0] }) {
            let taken = subnet.address.family == .v4 ? other.subnet : other.subnet6
            throw APIProblem(
                .conflict,
                "Pool overlaps with other one on this address space: \(subnet) shares addresses with \(taken) of "
                    + "\(title(of: other)); choose another subnet")
        }
        guard let node = pools.node(in: subnet).flatMap({ state.nodes[$0] }) else { return }
        throw APIProblem(
            .conflict,
            "Pool overlaps with other one on this address space: \(subnet) has \(node.address), the address of the node "
                + "\(node.name); choose another subnet")
    }

    /// A node's address is none of an overlay's: nobody on the overlay could send packets to the node. One that the node
    /// has had all along is not looked at: its subnet was given to nobody since.
    func requireOutside(_ node: Node) throws(APIProblem) {
        guard state.nodes[node.id]?.address != node.address, let address = IPAddress(node.address),
            let single = CIDR(address, prefixLength: address.family.bits),
            let network = state.indexes.pools.network(overlapping: single).flatMap({ state.networks[$0] }),
            network.isOverlay
        else { return }
        let subnet = address.family == .v4 ? network.subnet : network.subnet6
        throw APIProblem(
            .conflict,
            "$.node.address: the address \(address) of the node \(node.name) is in \(subnet), the subnet of the overlay "
                + "\(network.name), whose traffic could not reach it: give the agent another with --node-address, or "
                + "remove the network")
    }
}

extension CIDR {
    /// Whether a host may have the address: it is neither the network's own nor that for all of them.
    func hosts(_ address: IPAddress) -> Bool { contains(address) && address != first && address != last }
}
