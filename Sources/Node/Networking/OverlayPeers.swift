import CNISpec

/// The peers of one network, and who has what. No change costs more than what it is about.
struct OverlayPeers: Sendable {
    private(set) var peers: [String: OverlayPeer] = [:]
    /// Who has a block or exception.
    private var owners: [CIDR: String] = [:]
    /// Who else says to have it: when an address goes from one node to another, both may for a while. The last one comes
    /// first when the owner goes.
    private var others: [CIDR: [String]] = [:]
    /// The peers at an address; more than one while a node gets a new id.
    private var users: [IPAddress: [String]] = [:]

    /// What a change is about.
    struct Change: Equatable {
        /// By which address a block was reached before and is now; nil: it was or is nobody's.
        var routes: [CIDR: Way] = [:]
        /// Addresses with their first peer, and without their last.
        var appeared: Set<IPAddress> = []
        var gone: Set<IPAddress> = []
        /// Addresses whose peers have other public keys.
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
    var underlays: Dictionary<IPAddress, [String]>.Keys { users.keys }
    /// All that peers have.
    var blocks: Dictionary<CIDR, String>.Keys { owners.keys }

    /// The address of the peer that has a block; nil: nobody has.
    func way(to block: CIDR) -> IPAddress? { owners[block].flatMap { peers[$0]?.underlay } }

    /// The public keys that the peers at an address have; more than one when not all of them can be who they say.
    func publicKeys(at address: IPAddress) -> Set<[UInt8]> {
        Set((users[address] ?? []).compactMap { peers[$0]?.publicKey }.filter { !$0.isEmpty })
    }

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
        let places = Set([old?.underlay, new?.underlay].compactMap { $0 })
        let keys = places.map { publicKeys(at: $0) }
        var change = Change()
        peers[key] = new
        for block in had.subtracting(has) { release(block, key) }
        for block in has.subtracting(had) { claim(block, key) }
        for block in touched {
            let after = way(to: block)
            if before[block] != after { change.routes[block] = Change.Way(before: before[block], after: after) }
        }
        if old?.underlay != new?.underlay {
            if let address = new?.underlay, enter(key, address) { change.appeared.insert(address) }
            if let address = old?.underlay, leave(key, address) { change.gone.insert(address) }
        }
        for (place, before) in zip(places, keys) where publicKeys(at: place) != before { change.keyed.insert(place) }
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
    private mutating func enter(_ key: String, _ address: IPAddress) -> Bool {
        users[address, default: []].append(key)
        return users[address]?.count == 1
    }

    /// Whether it was the last there.
    private mutating func leave(_ key: String, _ address: IPAddress) -> Bool {
        let left = (users[address] ?? []).filter { $0 != key }
        users[address] = left.isEmpty ? nil : left
        return left.isEmpty
    }
}
