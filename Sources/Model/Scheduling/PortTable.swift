import Model

/// Who owns which host port of one node.
package struct PortTable: Sendable {
    private struct Key: Hashable {
        let transport: PortMapping.Transport
        let number: Int
    }
    private struct Owner {
        let address: String
        let instance: InstanceID
    }

    private var owners: [Key: [Owner]] = [:]

    package init() {}

    /// Notes that `instance` owns the port at `address`, see `PortMapping.hostAddress`.
    package mutating func insert(
        _ transport: PortMapping.Transport, address: String, number: Int, instance: InstanceID
    ) {
        owners[Key(transport: transport, number: number), default: []].append(
            Owner(address: address, instance: instance))
    }

    package mutating func remove(
        _ transport: PortMapping.Transport, address: String, number: Int, instance: InstanceID
    ) {
        let key = Key(transport: transport, number: number)
        owners[key]?.removeAll { $0.address == address && $0.instance == instance }
        if owners[key]?.isEmpty == true { owners[key] = nil }
    }

    /// Whether `instance` may have the port: nobody else has it at this address, or at all of them of its family.
    package func isFree(
        _ transport: PortMapping.Transport, address: String, number: Int, for instance: InstanceID
    ) -> Bool {
        guard let present = owners[Key(transport: transport, number: number)] else { return true }
        return present.allSatisfy {
            $0.instance == instance || !PortMapping.meet($0.address, address)
        }
    }

    private func owns(_ transport: PortMapping.Transport, address: String, number: Int, _ instance: InstanceID) -> Bool
    {
        owners[Key(transport: transport, number: number)]?.contains { $0.instance == instance && $0.address == address }
            ?? false
    }

    /// Chooses one port for each mapping: one that the instance has already, else the lowest free one of the range.
    ///
    /// - Returns: the mappings with single ports, in the same order; nil when one finds no port.
    package func choose(for wanted: [PortMapping], instance: InstanceID) -> [PortMapping]? {
        var chosen: [PortMapping] = []
        for mapping in wanted {
            let range =
                mapping.hostPort == 0 ? 30000...65535 : mapping.hostPort...max(mapping.hostPort, mapping.hostPortEnd)
            func fits(_ number: Int) -> Bool {
                isFree(mapping.transport, address: mapping.hostAddress, number: number, for: instance)
                    && !chosen.contains {
                        $0.hostPort == number && $0.transport == mapping.transport
                            && PortMapping.meet($0.hostAddress, mapping.hostAddress)
                    }
            }
            let number =
                range.first {
                    owns(mapping.transport, address: mapping.hostAddress, number: $0, instance) && fits($0)
                } ?? range.first(where: fits)
            guard let number else { return nil }
            var single = mapping
            single.hostPort = number
            single.hostPortEnd = number
            chosen.append(single)
        }
        return chosen
    }
}
