import JSON
import Model
import Scheduling
import Wire

/// Why a device can be used no more, and since when that is known.
struct DeviceTrouble: Sendable, Hashable {
    var words: String
    var since: Timestamp
}

/// What the master knows of a node beside its record: it is told again after a restart, and never enters the store.
struct NodeMemory: Sendable {
    /// Seconds of silence after which a node counts as unreachable.
    static let patience = Int64(LossPolicy.patience)

    /// When the agent last said anything; nil: not since this master started.
    private(set) var heard: Timestamp?
    /// The same, or else when the memory began, by the core's steady clock.
    private(set) var heardAt: Int64
    /// It told everything since this master started.
    var reported = false
    /// Its watch of tasks is open.
    var connected = false
    var images: [ImageView] = []
    var volumes: [VolumeView] = []
    /// nil: it has not told.
    private(set) var devices: [NodeDevice]?
    /// The same with nobody who has them; made once, since each placement looks at all nodes.
    private(set) var pool = DevicePool()
    /// Of the devices those that the node says are held.
    private(set) var heldDevices: [NodeDevice] = []
    /// Of devices that are unusable, gone, or held and not told of any more: which, why, and since when that is known.
    private(set) var deviceTroubles: [String: DeviceTrouble] = [:]
    /// How devices are used, by id, and since when that is known by the core's steady clock.
    private var lastUsage: (byDevice: [String: DeviceUsage], at: Int64) = ([:], 0)
    /// Ready, not unreachable; and since when that is so.
    private(set) var ready = false
    private(set) var readySince: Timestamp
    /// The same by the core's steady clock.
    private(set) var readyAt: Int64
    private(set) var digests: Set<String> = []

    /// - Parameter steady: the core's steady clock.
    init(now: Timestamp, steady: Int64) {
        readySince = now
        readyAt = steady
        heardAt = steady
    }

    mutating func hear(now: Timestamp, steady: Int64) {
        heard = now
        heardAt = steady
    }

    mutating func set(ready: Bool, now: Timestamp, steady: Int64) {
        self.ready = ready
        readySince = now
        readyAt = steady
    }

    mutating func setImages(_ images: [ImageView]) {
        self.images = images
        digests = Set(images.map(\.digest))
    }

    /// - Parameter held: ids of devices that tasks have.
    mutating func setDevices(_ devices: [NodeDevice], held: some Sequence<String>, now: Timestamp) {
        self.devices = devices
        pool = DevicePool(devices)
        heldDevices = devices.filter { !$0.heldBy.isEmpty }
        var words: [String: String] = [:]
        // Of a report that was cut nobody can say what is not in it.
        if devices.count < NodeDevice.limit { for id in held { words[id] = "is not there any more" } }
        for device in devices { words[device.id] = device.trouble }
        let before = deviceTroubles
        deviceTroubles = words.mapValues { DeviceTrouble(words: $0, since: now) }
        for (id, trouble) in before { deviceTroubles[id]?.since = trouble.since }
    }

    mutating func setUsage(_ reported: [DeviceUsage], steady: Int64) {
        let bounded = DeviceUsage.bounded(reported).map { ($0.stats.id, $0) }
        lastUsage = (Dictionary(bounded, uniquingKeysWith: { first, _ in first }), steady)
    }

    /// How devices are used, by id, as the node told it in the last minute.
    func usage(at steady: Int64) -> [String: DeviceUsage] {
        ready && steady - lastUsage.at < 60_000_000_000 ? lastUsage.byDevice : [:]
    }

    /// Takes a task that is over out of what the node says of its devices.
    mutating func removeHolder(_ task: TaskID) {
        guard heldDevices.contains(where: { $0.heldBy.contains(task) }), var devices else { return }
        for index in devices.indices { devices[index].heldBy.removeAll { $0 == task } }
        self.devices = devices
        pool = DevicePool(devices)
        heldDevices = devices.filter { !$0.heldBy.isEmpty }
    }

    /// Whether the node has been silent for too long; one that was known before this master started has its time too.
    func isSilent(at steady: Int64) -> Bool { steady - heardAt > Self.patience * 1_000_000_000 }

    /// Since when it has been silent, as the present time has it. Whoever waited for it before this master started,
    /// waits anew.
    func silentSince(now: Timestamp, steady: Int64) -> Timestamp { now - (steady - heardAt) }

    func conditions(at steady: Int64) -> [Condition] {
        let silent = isSilent(at: steady)
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
