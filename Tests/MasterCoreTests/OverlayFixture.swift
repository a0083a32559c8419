import CNISpec
import JSON
import Model
import Testing
import Wire

@testable import MasterCore

/// Overlays and what is on them, for tests of several subjects.
extension Cluster {
    @discardableResult
    mutating func makeNetwork(
        _ name: String, _ driver: String = "overlay", _ change: (inout CreateNetwork) -> Void = { _ in }
    ) throws -> NetworkView {
        var body = CreateNetwork(name: name, driver: driver)
        change(&body)
        guard case .network(let view) = try perform(.createNetwork(body)) else { throw Unexpected() }
        return view
    }

    /// What is said when it cannot be made; empty: it was.
    mutating func refusal(
        _ name: String, _ driver: String = "overlay", _ change: (inout CreateNetwork) -> Void
    ) -> String {
        var body = CreateNetwork(name: name, driver: driver)
        change(&body)
        return problem(.createNetwork(body))?.message ?? ""
    }

    mutating func networkView(_ ref: String) throws -> NetworkView {
        guard case .network(let view) = try query(.network(ref)) else { throw Unexpected() }
        return view
    }

    /// A container on networks, on one node when that is named.
    func wish(_ name: String, on networks: [NetworkAttachment], node: String? = nil) -> CreateContainer {
        let pod = pod {
            $0.network = .attached
            $0.attachments = networks
            if let node { $0.constraints = [Constraint(label: "node.name", relation: .equal, value: node)] }
        }
        return CreateContainer(name: name, pod: pod, start: true)
    }

    mutating func run(_ name: String, on networks: [NetworkAttachment], node: String? = nil) throws {
        try perform(.createContainer(wish(name, on: networks, node: node)))
        obey()
    }

    mutating func run(_ name: String, on network: String, node: String? = nil) throws {
        try run(name, on: [NetworkAttachment(network: network)], node: node)
    }

    mutating func remove(_ name: String) throws {
        try perform(.removeContainer(name, force: true))
        obey()
    }

    /// What the store says of all tasks.
    var tasks: [NodeTask] {
        struct Envelope: Decodable { var object: NodeTask }
        return keys("tasks/").compactMap { key in
            store[key].flatMap { try? JSONCoding.decode(Envelope.self, from: $0.value).object }
        }
    }

    /// The addresses of a container's task: of the one that counts.
    mutating func given(_ name: String) throws -> [AssignedAddress] {
        let view = try container(name)
        return tasks.first { $0.id == view.task }?.addresses.filter { $0.leftAt == nil } ?? []
    }

    mutating func address(_ name: String) throws -> String { try given(name).first?.address ?? "" }

    // MARK: What must always hold

    /// No address is given twice, none to be kept free is given, no block has two lessees, and nodes know of each other
    /// what is so.
    mutating func checkAddresses() {
        var owners: [String: TaskID] = [:]
        var lessees: [String: NodeID] = [:]
        var parts: [String: (blocks: Set<String>, addresses: Set<String>)] = [:]
        let live = tasks.filter { $0.status.phase != .removed }
        for task in live {
            for given in task.addresses {
                guard let network = core.state.networks[given.network], let layout = Layout(network) else {
                    Issue.record("\(task.id) has \(given) of a network that is not there")
                    continue
                }
                for text in [given.address, given.address6] where !text.isEmpty {
                    if let other = owners.updateValue(task.id, forKey: text), other != task.id {
                        Issue.record("\(text) is given to \(task.id) and to \(other)")
                    }
                    #expect(!layout.kept.contains(text), "\(text)")
                }
                #expect(given.address6.isEmpty == network.subnet6.isEmpty)
                guard given.isLeased else { continue }
                let block = layout.blocks(of: given)
                #expect(lessees[block[0], default: task.node] == task.node, "\(block[0]) is leased twice")
                lessees[block[0]] = task.node
                parts[NetworkPeer.id(network.id, task.node), default: ([], [])].blocks.formUnion(block)
            }
        }
        for task in live {
            for given in task.addresses {
                let id = NetworkPeer.id(given.network, task.node)
                var part = parts[id] ?? ([], [])
                for text in [given.address, given.address6] {
                    guard let address = IPAddress(text) else { continue }
                    if !part.blocks.contains(where: { CIDR($0)?.contains(address) ?? false }) {
                        part.addresses.insert(text)
                    }
                }
                parts[id] = part
            }
        }
        checkPeers(parts)
    }

    private func checkPeers(_ parts: [String: (blocks: Set<String>, addresses: Set<String>)]) {
        for node in core.state.nodes.keys where !away.contains(node.text) {
            let own = parts.keys.filter { $0.hasSuffix("/\(node)") }.map { $0.prefix { $0 != "/" } }
            let expected = parts.filter { id, _ in
                !id.hasSuffix("/\(node)") && own.contains { id.hasPrefix($0) }
            }
            let heard = peers[node] ?? [:]
            #expect(Set(heard.keys) == Set(expected.keys), "\(node)")
            for (id, part) in expected {
                #expect(Set(heard[id]?.blocks ?? []) == part.blocks, "\(node) of \(id)")
                #expect(Set(heard[id]?.addresses ?? []) == part.addresses, "\(node) of \(id)")
                #expect(heard[id]?.underlay == heard[id].flatMap { core.state.nodes[$0.node]?.address })
            }
        }
    }

    /// A network's blocks, reckoned in another way than by the master.
    private struct Layout {
        let subnets: [CIDR]
        let bits: Int
        let kept: Set<String>

        init?(_ network: Network) {
            guard let subnet = CIDR(network.subnet) else { return nil }
            subnets = [subnet] + [CIDR(network.subnet6)].compactMap { $0 }
            bits = min(6, (32 - subnet.prefixLength) / 2)
            kept = Set(
                ["\(subnet.first)", "\(subnet.last)", network.gateway, network.gateway6] + network.reserved.values)
        }

        func blocks(of given: AssignedAddress) -> [String] {
            guard let address = IPAddress(given.address), let first = subnets.first?.first else { return [] }
            let block = ((address.value - first.value) >> UInt128(bits)) << UInt128(bits)
            return subnets.map {
                let family = $0.address.family
                return "\(IPAddress(family, $0.first.value + block))/\(family.bits - bits)"
            }
        }
    }
}
