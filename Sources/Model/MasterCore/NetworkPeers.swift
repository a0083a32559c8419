import JSON
import Model
import Wire

/// What a network's nodes were told of each other. The list is handed out as it is: whoever is told of it has the same
/// one in memory as all others.
struct PeerBook: Sendable {
    /// In no order.
    private(set) var peers: [NetworkPeer] = []
    private var places: [NodeID: Int] = [:]

    var isEmpty: Bool { peers.isEmpty }

    subscript(node: NodeID) -> NetworkPeer? {
        get { places[node].map { peers[$0] } }
        set {
            switch (places[node], newValue) {
            case (let place?, let peer?): peers[place] = peer
            case (nil, let peer?):
                places[node] = peers.count
                peers.append(peer)
            case (let place?, nil):
                places[node] = nil
                let last = peers.removeLast()
                guard place < peers.count else { return }
                peers[place] = last
                places[last.node] = place
            case (nil, nil): break
            }
        }
    }
}

/// What nodes are told of each other's overlays.
///
/// Each node of a network hears of every other one. Within a step, lines are made once and named once for all who hear
/// them: the work of a step grows with what has changed and with the networks' nodes, never with their product.
extension MasterCore {
    /// What is so now; nil: the node is not on the network.
    private func peer(_ node: NodeID, on network: NetworkID) -> NetworkPeer? {
        guard let blocks = state.indexes.overlays[network], let part = blocks.part(of: node),
            let facts = state.nodes[node]
        else { return nil }
        return NetworkPeer(
            network: network, node: node, underlay: facts.address, blocks: blocks.texts(of: part.blocks),
            addresses: part.exceptions.map { "\($0)" }, overlayKey: facts.overlayKey)
    }

    /// Knows what is, at the start: whoever watches from now on is told all of it first.
    mutating func notePeers() {
        told = [:]
        for blocks in state.indexes.overlays.all {
            var book = PeerBook()
            for node in blocks.nodes.sorted() { book[node] = peer(node, on: blocks.network) }
            if !book.isEmpty { told[blocks.network] = book }
        }
    }

    /// All that a node has to know of others. Nothing is copied: as many nodes as there are may ask at once.
    func peers(of node: NodeID) -> PeerList {
        let networks = (state.indexes.overlays.networksByNode[node] ?? []).sorted()
        return PeerList(node: node, networks: networks.compactMap { told[$0]?.peers })
    }

    /// Notes, with what the draft has changed of a task or node, whose part of which network may be another.
    mutating func collectPeers(_ before: OverlayAddresses.Holding?, _ after: OverlayAddresses.Holding?) {
        guard before != after else { return }
        for holding in [before, after].compactMap({ $0 }) {
            for address in holding.addresses { outbox.peers[address.network, default: []].insert(holding.node) }
        }
    }

    mutating func collectPeers(_ id: NodeID, before: Node?) {
        let after = state.nodes[id]
        guard before?.address != after?.address || before?.overlayKey != after?.overlayKey else { return }
        for network in state.indexes.overlays.networksByNode[id] ?? [] {
            outbox.peers[network, default: []].insert(id)
        }
    }

    /// Lines for those who are on networks: what is different of the others, all of them for nodes that come, and their
    /// end for those that leave.
    mutating func tellPeers(_ touched: [NetworkID: Set<NodeID>]) -> [MasterEffect] {
        var effects: [MasterEffect] = []
        for (network, nodes) in touched.sorted(by: { $0.key < $1.key }) {
            var book = told.removeValue(forKey: network) ?? PeerBook()
            var lines: [WatchLine<NetworkPeer>] = []
            var (come, left): (Set<NodeID>, Set<NodeID>) = ([], [])
            // Before anything changes: who leaves has heard of these.
            let all = book.peers
            for node in nodes.sorted() {
                let (before, after) = (book[node], peer(node, on: network))
                guard before != after else { continue }
                book[node] = after
                if before == nil { come.insert(node) }
                if after == nil { left.insert(node) }
                lines.append(Self.line(after, NetworkPeer.id(network, node)))
            }
            guard !lines.isEmpty else {
                if !book.isEmpty { told[network] = book }
                continue
            }
            let stayed = book.peers.map(\.node).filter { !come.contains($0) }
            if !stayed.isEmpty { effects.append(.peers(stayed, lines)) }
            if !come.isEmpty { effects.append(.peers(come.sorted(), book.peers.map { Self.line($0, $0.id) })) }
            if !left.isEmpty { effects.append(.peers(left.sorted(), all.map { Self.line(nil, $0.id) })) }
            if !book.isEmpty { told[network] = book }
        }
        return effects
    }

    private static func line(_ peer: NetworkPeer?, _ id: String) -> WatchLine<NetworkPeer> {
        peer.map { WatchLine(.put, id: id, object: $0) } ?? WatchLine(.delete, id: id)
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
