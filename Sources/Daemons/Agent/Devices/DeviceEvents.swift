import Devices
import JSON
import Kernel
import Logging
import NVMLReport
import Synchronization

/// What NVIDIA's driver tells of its devices while they work: errors, which are remembered for as long as the machine runs,
/// and how they are used.
final class DeviceEvents: Sendable {
    private let helper: NVMLHelper
    /// Where the troubles of this boot are, for an agent that starts again.
    private let path: String
    private let bootID: String
    private let logger: Logger
    /// Called when a device may be in another state by what was told.
    private let news: @Sendable () -> Void
    private let state: Mutex<State>
    /// What is in the file. Held while it is written.
    private let kept: Mutex<[String: [String]]>

    private struct State {
        var troubles: DeviceTroubles
        /// Those of the newest inventory.
        var devices: [Device] = []
        var watch: NVMLWatch?
        /// Of what is watched, by id.
        var watched: Set<String> = []
        /// The newest, with the moment in milliseconds of CLOCK_BOOTTIME at which it came.
        var sample: (usage: NVMLSample, at: Int64)?
        var isStopped = false
    }

    private struct KeptTroubles: Codable {
        let bootID: String
        let reasons: [String: [String]]
    }

    /// From one look at how devices are used to the next, in milliseconds.
    private static let sampleInterval = 10_000

    init(
        _ helper: NVMLHelper, keptIn path: String, bootID: String, logger: Logger, news: @escaping @Sendable () -> Void
    ) {
        self.helper = helper
        self.path = path
        self.bootID = bootID
        self.logger = logger
        self.news = news
        var reasons: [String: [String]] = [:]
        if File.exists(path) {
            do {
                let kept = try JSONCoding.decode(KeptTroubles.self, from: File.readRegular(path, limit: 1 << 20))
                if kept.bootID == bootID { reasons = kept.reasons }
            } catch {
                logger.warning("what was known of devices' troubles is lost", metadata: ["error": "\(error)"])
            }
        }
        kept = Mutex(reasons)
        state = Mutex(State(troubles: DeviceTroubles(reasons)))
    }

    /// Makes an inventory worse by what was told of its devices.
    func judge(_ inventory: inout DeviceInventory) {
        inventory = state.withLock { state in
            var inventory = inventory
            state.troubles.apply(to: &inventory)
            state.devices = inventory.devices
            return inventory
        }
        keep()
    }

    /// Listens to the devices that there are now: the driver tells only of those that there were when one began to.
    func listen() {
        let old = state.withLock { state -> NVMLWatch? in
            let own = Set(state.devices.filter { $0.sources.contains(.nvml) }.map(\.id))
            guard own != state.watched else { return nil }
            defer { (state.watch, state.watched) = (nil, own) }
            return state.watch
        }
        old?.stop()
        guard state.withLock({ !$0.isStopped && $0.watch == nil && !$0.watched.isEmpty }) else { return }
        do {
            let watch = try NVMLWatch(helper, intervalMilliseconds: Self.sampleInterval) { [weak self] in self?.take($0)
            }
            try watch.start()
            let isStopped = state.withLock { state in
                if !state.isStopped { state.watch = watch }
                return state.isStopped
            }
            if isStopped { watch.stop() }
        } catch {
            logger.error("errors of devices are not listened to", metadata: ["error": "\(error)"])
        }
    }

    /// Somebody has seen to these devices: what the driver told of them before counts no more.
    ///
    /// - Returns: what that was, in words.
    func clear(_ ids: [String]) -> [String] {
        let forgotten = state.withLock { state in
            ids.flatMap { id in
                defer { _ = state.troubles.clear(id) }
                return state.troubles.reasons[id] ?? []
            }
        }
        keep()
        return forgotten
    }

    func stop() {
        let watch = state.withLock { state in
            state.isStopped = true
            defer { state.watch = nil }
            return state.watch
        }
        watch?.stop()
    }

    /// On a watch's thread.
    private func take(_ report: NVMLWatchReport) {
        if case .sample(let usage) = report { return state.withLock { $0.sample = (usage, LeaseKeeper.now()) } }
        let (isNews, isTrouble) = state.withLock { state in
            // The library went: it is listened to again when a look has found it.
            if case .absent = report { (state.watch, state.watched) = (nil, []) }
            let before = state.troubles.reasons
            let isNews = state.troubles.take(report, state.devices)
            return (isNews, before != state.troubles.reasons)
        }
        // Programs cause some of them at will.
        if case .event(let event) = report {
            logger.log(level: isTrouble ? .warning : .debug, "an event of a device", metadata: ["event": "\(event)"])
        }
        keep()
        if isNews { news() }
    }

    private func keep() {
        kept.withLock { kept in
            let reasons = state.withLock { $0.troubles.reasons }
            guard reasons != kept else { return }
            do {
                try File.replace(path, with: JSONCoding.encode(KeptTroubles(bootID: bootID, reasons: reasons)))
                kept = reasons
            } catch {
                logger.warning("devices' troubles are forgotten with the agent", metadata: ["error": "\(error)"])
            }
        }
    }

    /// How devices are used; nil: nobody has told lately.
    var usage: NVMLSample? {
        guard let sample = state.withLock({ $0.sample }) else { return nil }
        return LeaseKeeper.now() - sample.at < 3 * Int64(Self.sampleInterval) ? sample.usage : nil
    }
}
