import CNISpec

/// How a pod can be reached.
package struct EndpointAddresses: Sendable, Equatable {
    package let interface: String
    /// With the subnet's prefix.
    package let address: CIDR
    package let gateway: IPAddress?
    /// With the IPv6 subnet's prefix; nil: it has none.
    package var address6: CIDR?
    package var gateway6: IPAddress?
    package let mac: MACAddress?
    package let ports: [PortMapping]
}

extension CNIResult {
    /// The addresses of the container's own device, those of the host's devices left out.
    var inside: [Address] {
        let inside = addresses.filter { address in
            address.interface.map { interfaces[$0].sandbox != nil } ?? false
        }
        return inside.isEmpty ? addresses : inside
    }
}
