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
    }

    /// Subnets that are tried in turn when a network names none.
    private static let subnets: [CIDR] =
        (18...31).compactMap { CIDR("172.\($0).0.0/16") }
        + stride(from: 0, to: 256, by: 16).compactMap { CIDR("192.168.\($0).0/20") }

    /// The addresses of a new network, as asked for or chosen.
    func addresses(for body: CreateNetwork) throws(APIProblem) -> NetworkAddresses {
        guard let text = body.subnet, !text.isEmpty else {
            if body.gateway != nil || body.range != nil || !body.reserved.isEmpty {
                throw APIProblem(
                    .badRequest, "$.subnet: a gateway, a range or reserved addresses are of a subnet: name it")
            }
            return try freeAddresses()
        }
        if text.contains(":") {
            throw APIProblem(.badRequest, "$.subnet: \(Admission.quoted(text)): IPv6 is not supported yet")
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
        if let other = overlap(with: subnet) {
            throw APIProblem(
                .conflict,
                "Pool overlaps with other one on this address space: \(subnet) shares addresses with \(other.subnet) of the "
                    + "network \(other.name); choose another subnet")
        }
        func address(_ text: String, _ field: String) throws(APIProblem) -> IPAddress {
            guard let address = IPAddress(text), subnet.hosts(address) else {
                throw APIProblem(
                    .badRequest, "$.\(field): \(Admission.quoted(text)) is no address of a host in \(subnet)")
            }
            return address
        }
        guard let first = subnet.first.advanced(by: 1) else { throw APIProblem.exhausted }
        let gateway =
            if let given = body.gateway, !given.isEmpty { try address(given, "gateway") } else { first }
        guard body.reserved.count <= 256 else {
            throw APIProblem(.badRequest, "$.reserved: \(body.reserved.count) addresses are more than 256")
        }
        for (_, text) in body.reserved.sorted(by: { $0.key < $1.key }) { _ = try address(text, "reserved") }
        return NetworkAddresses(subnet: subnet, gateway: gateway, part: try part(body.range, of: subnet))
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

    private func freeAddresses() throws(APIProblem) -> NetworkAddresses {
        let hosts = state.nodes.values.compactMap { IPAddress($0.address) }
        for subnet in Self.subnets where overlap(with: subnet) == nil {
            guard !hosts.contains(where: { subnet.contains($0) }), let gateway = subnet.first.advanced(by: 1) else {
                continue
            }
            return NetworkAddresses(subnet: subnet, gateway: gateway)
        }
        throw APIProblem.exhausted
    }

    private func overlap(with subnet: CIDR) -> Network? {
        state.networks.values.sorted { $0.name < $1.name }.first { CIDR($0.subnet)?.overlaps(subnet) ?? false }
    }
}

extension APIProblem {
    fileprivate static let exhausted = APIProblem(
        .conflict, "no subnet is free for another network: name one yourself, or remove networks that nothing uses")
}

extension CIDR {
    /// Whether a host may have the address: it is neither the network's own nor that for all of them.
    func hosts(_ address: IPAddress) -> Bool { contains(address) && address != first && address != last }
}
