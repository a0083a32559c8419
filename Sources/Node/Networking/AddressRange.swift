import CNISpec

/// Which addresses of a subnet pods get.
struct AddressRange: Sendable {
    /// The first and the last of each part; nil: the whole subnet.
    let bounds: [ClosedRange<IPAddress>]?

    /// - Throws: `NetworkError` of kind configuration when none is left.
    init(
        _ configuration: BridgeNetworkConfiguration, _ subnet: CIDR, gateway: IPAddress
    ) throws(NetworkError) {
        guard configuration.range != nil || !configuration.reserved.isEmpty else {
            bounds = nil
            return
        }
        guard let part = configuration.range.map({ CIDR($0) }) ?? subnet, subnet.contains(part) else {
            throw NetworkError(
                .configuration, "'\(configuration.range ?? "")' is no network within \(subnet)")
        }
        // The subnet's own address, and the one for all of it, are nobody's.
        let first = max(part.first.value, subnet.first.value + 1)
        let last = min(part.last.value, subnet.last.value - 1)
        guard first <= last else {
            throw NetworkError(
                .configuration,
                "no address of \(part) is left for containers in \(subnet): give the network a larger range")
        }
        var next = first
        var bounds: [ClosedRange<IPAddress>] = []
        let reserved = configuration.reserved.compactMap { IPAddress($0)?.value }.filter { (first...last).contains($0) }
        for address in Set(reserved).sorted() {
            if address > next { bounds.append(IPAddress(.v4, next)...IPAddress(.v4, address - 1)) }
            next = address + 1
        }
        if next <= last { bounds.append(IPAddress(.v4, next)...IPAddress(.v4, last)) }
        guard !bounds.isEmpty else {
            throw NetworkError(.configuration, "no address of \(part) is left for containers")
        }
        self.bounds = bounds
    }
}
