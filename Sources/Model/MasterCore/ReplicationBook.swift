import JSON
import Model
import Wire

/// Keeps the content of named images on two nodes, so that it is not gone with one of them.
///
/// What is under way and what failed is known to this process only: another one finds out by looking.
struct ReplicationBook: Sendable {
    /// Copies that are kept, as far as there are nodes.
    static let copies = 2
    /// Transfers at a time.
    static let mostTransfers = 2
    /// Nanoseconds after the first failure; doubles with each.
    private static let firstDelay: Int64 = 10_000_000_000
    private static let longestDelay: Int64 = 600_000_000_000

    struct Transfer: Sendable, Hashable {
        var digest: String
        /// With the times at which it was given them.
        var names: [String: Timestamp]
        var from: NodeID
        var to: NodeID
    }

    /// Names that a node has for other content than they mean by now.
    struct StaleNames: Sendable, Hashable {
        var node: NodeID
        var digest: String
        var names: [String]
    }

    /// Something changed that may call for a transfer.
    var isDue = false
    private var transfers: [String: NodeID] = [:]
    private var failures: [String: (count: Int, retryAt: Int64)] = [:]
    private var removing: Set<String> = []

    /// Whether it is worth looking, by the core's steady clock.
    func wants(at steady: Int64) -> Bool { isDue || failures.values.contains { $0.retryAt <= steady } }

    mutating func ended(_ digest: String, to node: NodeID, failed: Bool, at steady: Int64) {
        guard transfers[digest] == node else { return }
        transfers[digest] = nil
        isDue = true
        guard failed else {
            failures[digest] = nil
            return
        }
        let count = (failures[digest]?.count ?? 0) + 1
        let delay = count > 6 ? Self.longestDelay : min(Self.longestDelay, Self.firstDelay << Int64(count - 1))
        failures[digest] = (count, steady + delay)
    }

    mutating func setRemoving(_ digest: String, _ isRemoving: Bool) {
        if isRemoving { removing.insert(digest) } else { removing.remove(digest) }
        isDue = true
    }

    /// The transfers to begin now.
    ///
    /// - Parameter nodes: those that are ready, in the order of their ids, with what they have; `isTarget`: they may get
    ///   more.
    mutating func next(
        _ nodes: [(id: NodeID, isTarget: Bool, images: [ImageView])], at steady: Int64
    ) -> [Transfer] {
        isDue = false
        let present = Set(nodes.map(\.id))
        for (digest, node) in transfers where !present.contains(node) {
            transfers[digest] = nil
            failures[digest]?.retryAt = steady
        }
        var names: [String: [String: Timestamp]] = [:]
        var digests: [String: Set<String>] = [:]
        var holders: [String: [NodeID]] = [:]
        for node in nodes {
            for image in node.images {
                holders[image.digest, default: []].append(node.id)
                for name in image.names {
                    names[image.digest, default: [:]].merge([name: image.time(of: name)], uniquingKeysWith: max)
                    digests[name, default: []].insert(image.digest)
                }
            }
        }
        failures = failures.filter { holders[$0.key] != nil }
        let wanted = min(Self.copies, nodes.count)
        var begun: [Transfer] = []
        for (digest, holders) in holders.sorted(by: { $0.key < $1.key }) {
            guard transfers.count < Self.mostTransfers else { break }
            // A name that means different content on different nodes is nobody's business but its user's.
            let clear = (names[digest] ?? [:]).filter { digests[$0.key]?.count == 1 }
            guard holders.count < wanted, !clear.isEmpty, transfers[digest] == nil, !removing.contains(digest),
                failures[digest].map({ $0.retryAt <= steady }) ?? true, let from = holders.first
            else { continue }
            let targets = nodes.filter { $0.isTarget && !holders.contains($0.id) }
            guard let target = targets.min(by: { ($0.images.count, $0.id) < ($1.images.count, $1.id) }) else {
                continue
            }
            transfers[digest] = target.id
            // Until it has ended, nothing is due for it.
            failures[digest]?.retryAt = .max
            begun.append(Transfer(digest: digest, names: clear, from: from, to: target.id))
        }
        return begun
    }
}

extension ReplicationBook {
    /// Names that nodes have kept while they were away: the others have given them to other content later.
    static func staleNames(_ nodes: [(id: NodeID, images: [ImageView])]) -> [StaleNames] {
        var latest: [String: (at: Timestamp, digest: String)] = [:]
        for node in nodes {
            for image in node.images {
                for (name, at) in image.namedAt ?? [:] where latest[name].map({ $0.at < at }) ?? true {
                    latest[name] = (at, image.digest)
                }
            }
        }
        return nodes.flatMap { node in
            node.images.compactMap { image in
                let stale = image.names.filter { name in
                    latest[name].map { $0.digest != image.digest && $0.at > image.time(of: name) } ?? false
                }
                return stale.isEmpty ? nil : StaleNames(node: node.id, digest: image.digest, names: stale)
            }
        }
    }
}

extension ImageView {
    /// When it was given a name; long ago when it is not known.
    func time(of name: String) -> Timestamp { namedAt?[name] ?? Timestamp(nanoseconds: 0) }
}

extension MasterCore {
    /// Looks which images have too few copies, and asks for transfers.
    mutating func replicateImages() {
        guard replication.wants(at: steady) else { return }
        let nodes = memory.filter { $0.value.ready }.sorted { $0.key < $1.key }.compactMap { id, memory in
            state.nodes[id].map { (id: id, isTarget: $0.availability == .active, images: memory.images) }
        }
        outbox.staleNames += ReplicationBook.staleNames(nodes.map { ($0.id, $0.images) })
        outbox.transfers += replication.next(nodes, at: steady)
    }
}
