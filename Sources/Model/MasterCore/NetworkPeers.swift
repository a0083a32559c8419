import JSON
import Model
import Wire

/// What nodes are told of each other's overlays.
extension MasterCore {
    /// What a node has of an overlay, as it was told to the others.
    struct ToldPeer: Sendable, Hashable {
        var underlay: String
        var blocks: [String]
        var addresses: [String]

        func peer(_ node: NodeID, on network: NetworkID) -> NetworkPeer {
            NetworkPeer(network: network, node: node, underlay: underlay, blocks: blocks, addresses: addresses)
        }
    }

    /// What is so now; nil: the node is not on the network.
    private func peer(_ node: NodeID, on network: NetworkID) -> ToldPeer? {
        guard let blocks = state.indexes.overlays[network], let part = blocks.part(of: node),
            let underlay = state.nodes[node]?.address
        else { return nil }
        return ToldPeer(
            underlay: underlay, blocks: blocks.texts(of: part.blocks), addresses: part.exceptions.map { "\($0)" })
    }

    /// Knows what is, at the start: whoever watches from now on is told all of it first.
    mutating func notePeers() {
        told = [:]
        for blocks in state.indexes.overlays.all {
            for node in blocks.nodes { told[blocks.network, default: [:]][node] = peer(node, on: blocks.network) }
        }
    }

    /// All that a node has to know of others.
    func peers(of node: NodeID) -> [NetworkPeer] {
        (state.indexes.overlays.networksByNode[node] ?? []).sorted().flatMap { network in
            (told[network] ?? [:]).filter { $0.key != node }.sorted { $0.key < $1.key }
                .map { $0.value.peer($0.key, on: network) }
        }
    }

    /// Notes, with what the draft has changed of a task or node, whose part of which network may be another.
    mutating func collectPeers(_ before: OverlayAddresses.Holding?, _ after: OverlayAddresses.Holding?) {
        guard before != after else { return }
        for holding in [before, after].compactMap({ $0 }) {
            for address in holding.addresses { outbox.peers[address.network, default: []].insert(holding.node) }
        }
    }

    mutating func collectPeers(_ id: NodeID, before: Node?) {
        guard before?.address != state.nodes[id]?.address else { return }
        for network in state.indexes.overlays.networksByNode[id] ?? [] {
            outbox.peers[network, default: []].insert(id)
        }
    }

    /// Lines for those who are on networks: what is different of the others, all of them for a node that comes, and their
    /// end for one that leaves.
    mutating func tellPeers(_ touched: [NetworkID: Set<NodeID>]) -> [MasterEffect] {
        var lines: [NodeID: [WatchLine<NetworkPeer>]] = [:]
        for (network, nodes) in touched.sorted(by: { $0.key < $1.key }) {
            var known = told.removeValue(forKey: network) ?? [:]
            for node in nodes.sorted() {
                let (before, after) = (known[node], peer(node, on: network))
                guard before != after else { continue }
                known[node] = after
                let line = Self.line(after, node, on: network)
                for other in known.keys where other != node { lines[other, default: []].append(line) }
                guard before == nil || after == nil else { continue }
                for (other, peer) in known.sorted(by: { $0.key < $1.key }) where other != node {
                    lines[node, default: []].append(Self.line(after == nil ? nil : peer, other, on: network))
                }
            }
            if !known.isEmpty { told[network] = known }
        }
        return lines.sorted { $0.key < $1.key }.map { .peers($0.key, $0.value) }
    }

    private static func line(
        _ peer: ToldPeer?, _ node: NodeID, on network: NetworkID
    ) -> WatchLine<NetworkPeer> {
        let id = NetworkPeer.id(network, node)
        return peer.map { WatchLine(.put, id: id, object: $0.peer(node, on: network)) } ?? WatchLine(.delete, id: id)
    }

    // MARK: For people

    /// Where an overlay is.
    func parts(of network: NetworkID) -> [NetworkView.Part] {
        guard let blocks = state.indexes.overlays[network] else { return [] }
        let parts = blocks.nodes.compactMap { node in
            peer(node, on: network).map { peer in
                NetworkView.Part(
                    node: node, nodeName: nodeName(node), underlay: peer.underlay, blocks: peer.blocks,
                    addresses: peer.addresses, tasks: blocks.tasks(on: node))
            }
        }
        return parts.sorted { ($0.nodeName, $0.node) < ($1.nodeName, $1.node) }
    }
}
