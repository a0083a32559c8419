import Model

/// The newest epoch that this node has seen of each instance, also of those whose tasks are gone: what is older must not
/// come to life, wherever it was under way for so long.
struct EpochMemory: Sendable {
    /// Instances that are remembered; those that were seen last.
    static let limit = 4096

    private var epochs: [InstanceID: (epoch: Int, seen: Int)] = [:]
    private var count = 0

    subscript(instance: InstanceID) -> Int? { epochs[instance]?.epoch }

    mutating func note(_ instance: InstanceID, _ epoch: Int) {
        count += 1
        epochs[instance] = (max(epoch, epochs[instance]?.epoch ?? epoch), count)
        // In blocks, so that a full memory costs little.
        guard epochs.count > Self.limit + Self.limit / 4 else { return }
        let old = epochs.sorted { $0.value.seen < $1.value.seen }.prefix(epochs.count - Self.limit)
        for (instance, _) in old { epochs[instance] = nil }
    }
}
