import JSON
import Model
import Wire

/// What the master knows of a node beside its record: it is told again after a restart, and never enters the store.
struct NodeMemory: Sendable {
    /// Seconds of silence after which a node counts as unreachable.
    static let patience: Int64 = 15

    /// When the agent last said anything; nil: not since this master started.
    var heard: Timestamp?
    /// It told everything since this master started.
    var reported = false
    /// Its watch of tasks is open.
    var connected = false
    var images: [ImageView] = []
    var volumes: [VolumeView] = []
    /// Ready, not unreachable; and since when that is so.
    var ready = false
    var readySince: Timestamp
    private(set) var digests: Set<String> = []

    init(now: Timestamp) { readySince = now }

    mutating func setImages(_ images: [ImageView]) {
        self.images = images
        digests = Set(images.map(\.digest))
    }

    /// Whether the node has been silent for too long. A clock that was set back does not make it so.
    func isSilent(now: Timestamp) -> Bool {
        guard let heard else { return true }
        return now - heard > Self.patience * 1_000_000_000
    }

    func conditions(now: Timestamp) -> [Condition] {
        let silent = isSilent(now: now)
        return [
            Condition(
                .ready, ready, reason: ready ? "" : silent ? "Silent" : "NotReported",
                message: ready
                    ? "" : silent ? "the agent has not been heard of for 15 s" : "the agent has yet to report",
                since: readySince),
            Condition(
                .unreachable, silent, reason: silent ? "Silent" : "",
                message: heard.map { silent ? "last heard of at \($0)" : "" }
                    ?? "not heard of since the master started",
                since: silent ? heard ?? readySince : readySince),
        ]
    }
}
