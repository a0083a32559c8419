import CNISpec

/// The peers of one network, and who has what. No change costs more than what it is about.
struct OverlayPeers: Sendable {
    private(set) var peers: [String: OverlayPeer] = [:]
    /// Who has a block or exception.
    private var owners: [CIDR: String] = [:]
    /// Who else says to have it: when an address goes from one node to another, both may for a while. The last one comes
    /// first when the owner goes.
    private var others: [CIDR: [String]] = [:]
    /// How many peers are at an address; more than one while a node gets a new id.
    private var users: [IPAddress: Int] = [:]

    /// What a change is about.
    struct Change: Equatable {
        /// By which address a block was reached before and is now; nil: it was or is nobody's.
        var routes: [CIDR: Way] = [:]
        /// Addresses with their first peer, and without their last.
        var appeared: Set<IPAddress> = []
        var gone: Set<IPAddress> = []
        /// Addresses whose peers have another public key.
        var keyed: Set<IPAddress> = []

        struct Way: Equatable {
            let before: IPAddress?
            let after: IPAddress?
        }

        /// Takes over what came after.
        mutating func merge(_ next: Change) {
            for (block, way) in next.routes {
                let before = routes[block].map(\.before) ?? way.before
                routes[block] = before == way.after ? nil : Way(before: before, after: way.after)
            }
            for address in next.appeared where gone.remove(address) == nil { appeared.insert(address) }
            for address in next.gone where appeared.remove(address) == nil { gone.insert(address) }
            keyed.formUnion(next.keyed)
        }

        var isEmpty: Bool { routes.isEmpty && appeared.isEmpty && gone.isEmpty && keyed.isEmpty }
    }

    /// All addresses of peers.
    var underlays: Dictionary<IPAddress, Int>.Keys { users.keys }
    /// All that peers have.
    var blocks: Dictionary<CIDR, String>.Keys { owners.keys }

    /// The address of the peer that has a block; nil: nobody has.
    func way(to block: CIDR) -> IPAddress? { owners[block].flatMap { peers[$0]?.underlay } }

    /// Adds a peer, or takes over what has changed of one.
    mutating func update(_ peer: OverlayPeer) -> Change { replace(peer.key, with: peer) }

    /// Forgets a peer.
    mutating func remove(_ key: String) -> Change { replace(key, with: nil) }

    private mutating func replace(_ key: String, with new: OverlayPeer?) -> Change {
        let old = peers[key]
        if old == new { return Change() }
        let (had, has) = (Set(old?.blocks ?? []), Set(new?.blocks ?? []))
        // With another address all of its blocks are reached by another way.
        let touched = old?.underlay == new?.underlay ? had.symmetricDifference(has) : had.union(has)
        var before: [CIDR: IPAddress] = [:]
        for block in touched { before[block] = way(to: block) }
        var change = Change()
        peers[key] = new
        for block in had.subtracting(has) { release(block, key) }
        for block in has.subtracting(had) { claim(block, key) }
        for block in touched {
            let after = way(to: block)
            if before[block] != after { change.routes[block] = Change.Way(before: before[block], after: after) }
        }
        if let new, old?.publicKey ?? [] != new.publicKey { change.keyed.insert(new.underlay) }
        if old?.underlay != new?.underlay {
            if let address = new?.underlay, enter(address) { change.appeared.insert(address) }
            if let address = old?.underlay, leave(address) { change.gone.insert(address) }
        }
        return change
    }

    private mutating func claim(_ block: CIDR, _ key: String) {
        if let owner = owners.updateValue(key, forKey: block) { others[block, default: []].append(owner) }
    }

    private mutating func release(_ block: CIDR, _ key: String) {
        guard var waiting = others[block] else {
            owners[block] = nil
            return
        }
        if owners[block] == key { owners[block] = waiting.removeLast() } else { waiting.removeAll { $0 == key } }
        others[block] = waiting.isEmpty ? nil : waiting
    }

    /// Whether it is the first there.
    private mutating func enter(_ address: IPAddress) -> Bool {
        users[address, default: 0] += 1
        return users[address] == 1
    }

    /// Whether it was the last there.
    private mutating func leave(_ address: IPAddress) -> Bool {
        let left = (users[address] ?? 1) - 1
        users[address] = left > 0 ? left : nil
        return left <= 0
    }
}
