import CNISpec
import JSON

/// The addresses of a network that containers can have, in one family.
package struct AddressPool: Sendable, Equatable {
    package let subnet: CIDR
    /// Nobody's but the host's; nil: there is none.
    package let gateway: IPAddress?
    /// What is given to those who ask for none in particular, in order.
    package let ranges: [ClosedRange<IPAddress>]

    /// Reads `{"subnet", "ranges": [[first, last], …], "gateway"}`; without ranges all of the subnet is given.
    package init(_ reader: JSONReader) throws(JSONError) {
        let subnet = try reader.required("subnet").cidr()
        guard subnet.isNetwork else {
            throw reader.error(.type, "subnet", "\(subnet) has bits after its prefix: \(subnet.network) is a network")
        }
        let family = subnet.address.family
        guard subnet.prefixLength <= family.bits - 2 else {
            throw reader.error(.type, "subnet", "\(subnet) has no address for a container")
        }
        self.subnet = subnet
        gateway = try reader.optional("gateway")?.address()
        let hosts = IPAddress(family, subnet.first.value + 1)...IPAddress(family, subnet.last.value - 1)
        if let gateway, !hosts.contains(gateway) {
            throw reader.error(.type, "gateway", "\(gateway) is no address of \(subnet)")
        }
        var ranges: [ClosedRange<IPAddress>] = []
        for element in try reader.elements("ranges", atMost: Self.rangeLimit) {
            let bounds = try element.elements()
            guard bounds.count == 2 else { throw element.error(.type, "a range is its first and its last address") }
            let (first, last) = (try bounds[0].address(), try bounds[1].address())
            guard hosts.contains(first), hosts.contains(last), first <= last else {
                throw element.error(.type, "\(first) to \(last) is no range of addresses of \(subnet)")
            }
            ranges.append(first...last)
        }
        self.ranges = ranges.isEmpty ? [hosts] : ranges
    }

    /// Most ranges: a network of Docker's may keep single addresses back, each of which cuts one in two.
    private static let rangeLimit = 4096

    /// Whether a container may have it that asks for it: anywhere in the subnet, also outside of the ranges.
    package func serves(_ address: IPAddress) -> Bool {
        subnet.contains(address) && address != subnet.first && address != subnet.last && address != gateway
    }

    /// How many addresses the ranges have.
    package var count: UInt128 {
        ranges.reduce(0) { count, range in
            count + range.upperBound.value - range.lowerBound.value + 1
                - (gateway.map { range.contains($0) } ?? false ? 1 : 0)
        }
    }

    /// Calls `body` with each address of the ranges, from the one after `last` on, until it returns true.
    func forEach<Failure: Error>(
        after last: IPAddress?, _ body: (IPAddress) throws(Failure) -> Bool
    ) throws(Failure) {
        let start = last.flatMap { last in ranges.firstIndex { $0.contains(last) } }
        for turn in 0...ranges.count {
            let index = ((start ?? 0) + turn) % ranges.count
            var bounds = ranges[index]
            if let last, start != nil {
                // The range of the last one comes twice: behind it first, up to it in the end.
                if turn == 0 {
                    guard last < bounds.upperBound else { continue }
                    bounds = IPAddress(last.family, last.value + 1)...bounds.upperBound
                } else if turn == ranges.count {
                    bounds = bounds.lowerBound...last
                }
            } else if turn == ranges.count {
                return
            }
            for value in bounds.lowerBound.value...bounds.upperBound.value {
                let address = IPAddress(subnet.address.family, value)
                if address != gateway, try body(address) { return }
            }
        }
    }
}
