import CNISpec

/// The IPv6 part of a bridge network.
struct Network6: Sendable, Equatable {
    let subnet: CIDR
    /// The bridge's own address.
    let gateway: IPAddress

    /// The smallest MTU with which there is IPv6, in bytes (RFC 8200, section 5).
    static let leastMTU = 1280

    /// The gateway's address as the bridge bears it.
    var address: CIDR? { CIDR(gateway, prefixLength: subnet.prefixLength) }

    /// Nil when the configuration has no IPv6.
    ///
    /// - Throws: `NetworkError` of kind configuration, with what cannot be.
    init?(_ configuration: BridgeNetworkConfiguration) throws(NetworkError) {
        guard let text = configuration.subnet6 else {
            guard configuration.gateway6 == nil else {
                throw NetworkError(.configuration, "an IPv6 gateway is of an IPv6 subnet, and there is none")
            }
            return nil
        }
        guard let subnet = CIDR(text), subnet.isNetwork, subnet.address.family == .v6,
            (48...112).contains(subnet.prefixLength), let first = subnet.first.advanced(by: 1)
        else {
            throw NetworkError(
                .configuration, "'\(text)' is no IPv6 network between /48 and /112, such as fd00:1::/64")
        }
        // ::/8 has no hosts (RFC 4291, section 2.4), and the other two are nobody's to route.
        if subnet.first.isMulticast || subnet.first.isLinkLocal || subnet.first.value >> 120 == 0 {
            throw NetworkError(.configuration, "\(subnet) cannot be routed; choose a unique local network")
        }
        guard let gateway = configuration.gateway6.map({ IPAddress($0) }) ?? first, subnet.contains(gateway),
            gateway != subnet.first
        else {
            throw NetworkError(
                .configuration, "the gateway '\(configuration.gateway6 ?? "")' is no address of \(subnet)")
        }
        self.subnet = subnet
        self.gateway = gateway
    }
}
