import CDI
import CDISpec
import DeviceDiscovery
import Devices
import JSON
import Kernel
import Logging
import NVMLReport
import Synchronization
import Wire

/// The GPUs of this machine: kept in view, told to all that read CDI specifications here, and given to containers.
final class NodeDevices: Sendable {
    private let roots: DeviceRoots
    private let helper: NVMLHelper
    private let registry: CDIRegistry
    private let logger: Logger
    /// Where the troubles of this boot are, for an agent that starts again.
    private let keptTroubles: String
    private let bootID: String
    private let state = Mutex(State())

    private struct State {
        var monitor: DeviceMonitor?
        /// Of NVIDIA's devices, once there is one.
        var watch: NVMLWatch?
        var troubles = DeviceTroubles()
        /// The newest, with the moment in milliseconds of CLOCK_BOOTTIME at which it came.
        var sample: (usage: NVMLSample, at: Int64)?
        /// What containers are given; nil: nobody has looked yet.
        var specifications: [VendorSpecification]?
        /// What an operator was told last, so that it is told once.
        var told: Set<String> = []
    }

    /// In the names of files of ours among CDI's.
    private static let writer = "martlet"
    /// From one look at how devices are used to the next, in milliseconds.
    private static let sampleInterval = 10_000

    private struct KeptTroubles: Codable {
        let bootID: String
        let reasons: [String: [String]]
    }

    init(_ configuration: AgentConfiguration, _ registry: CDIRegistry, bootID: String, logger: Logger) {
        roots = configuration.deviceRoots
        keptTroubles = configuration.paths.deviceTroubles
        self.bootID = bootID
        helper = NVMLHelper(program: configuration.nvmlProgram, roots: roots)
        self.registry = registry
        self.logger = logger
    }

    /// Begins to look, on a thread of its own.
    ///
    /// - Parameter changed: called on that thread when there is something new about the devices.
    /// - Throws: when the kernel's events cannot be had.
    func start(changed: @escaping @Sendable () -> Void) throws(KernelError) {
        takeOverTroubles()
        let monitor = try DeviceMonitor(
            roots: roots, helper: helper,
            judge: { inventory in self.state.withLock { $0.troubles.apply(to: &inventory) } },
            deliver: { inventory, changes in
                self.take(inventory, changes)
                changed()
            })
        state.withLock { $0.monitor = monitor }
        try monitor.start()
    }

    /// Ends soon. The specification stays: what it says is true without an agent.
    func stop() {
        let (monitor, watch) = state.withLock { ($0.monitor, $0.watch) }
        monitor?.stop()
        watch?.stop()
    }

    /// What there is in the newest inventory, in its order, and what there is and was; nil: nobody has looked yet.
    var known: (inventory: DeviceInventory, table: DeviceTable)? {
        guard let known = state.withLock({ $0.monitor })?.state, let inventory = known.inventory else { return nil }
        return (inventory, known.table)
    }

    /// Whether it is known what can be given to containers.
    var hasLooked: Bool { state.withLock { $0.specifications != nil } }

    /// What a container that was granted devices gets. Blocks no longer than a lock.
    ///
    /// - Throws: `CDIError` naming one that is not there or cannot be granted.
    func edits(of ids: [String]) throws(CDIError) -> CDIEdits {
        let known = state.withLock { $0.specifications } ?? []
        var edits = CDIEdits()
        var rest = ids
        for specification in known {
            let own = rest.filter { specification.ids.contains($0) }
            if own.isEmpty { continue }
            rest.removeAll { own.contains($0) }
            edits.append(try specification.edits(of: own))
        }
        if let missing = rest.first {
            throw CDIError("the device \(missing) is not on this node, or cannot be used now")
        }
        return edits
    }

    /// How devices are used, as far as somebody has told lately.
    ///
    /// - Parameters:
    ///   - ids: which.
    ///   - pids: of the processes whose memory is counted.
    func usage(of ids: [String], by pids: Set<UInt32>) -> [DeviceStats] {
        let (devices, sample) = state.withLock { ($0.monitor?.state.inventory?.devices ?? [], $0.sample) }
        guard let sample, LeaseKeeper.now() - sample.at < 3 * Int64(Self.sampleInterval) else { return [] }
        return ids.compactMap { id in
            guard let device = devices.first(where: { $0.id == id }) else { return nil }
            let whole = device.partition?.parent ?? id
            guard let usage = sample.usage.gpus.first(where: { $0.uuid == whole }) else { return nil }
            let instance = usage.instances.first { $0.uuid == id }
            let processes = usage.processes.filter { process in
                pids.contains(process.pid)
                    && (device.partition == nil || process.gpuInstance == device.partition?.number)
            }
            return DeviceStats(
                id: id, utilization: device.partition == nil ? usage.utilization.map { Int($0) } : nil,
                memoryUsage: processes.reduce(0) { $0 &+ Int64(clamping: $1.memoryBytes ?? 0) },
                memoryUsedByAll: (device.partition == nil ? usage.memoryUsedBytes : instance?.memoryUsedBytes)
                    .map { Int64(clamping: $0) },
                memory: device.memoryBytes.map { Int64(clamping: $0) }, celsius: usage.celsius,
                milliwatts: usage.milliwatts.map { Int64($0) })
        }
    }

    // MARK: On the monitor's thread

    private func take(_ inventory: DeviceInventory, _ changes: [DeviceChange]) {
        let specifications = VendorSpecification.all(inventory, roots: roots)
        state.withLock { $0.specifications = specifications }
        if inventory.devices.contains(where: { $0.vendor == .nvidia }) { watch() }
        for change in changes { tell(change) }
        var words = inventory.notes
        for vendor in DeviceVendor.allCases {
            guard let word = publish(vendor, specifications.first { $0.vendor == vendor }) else { continue }
            words.append(word)
        }
        let told = state.withLock { state in
            defer { state.told = Set(words) }
            return state.told
        }
        for word in words where !told.contains(word) { logger.warning("devices", metadata: ["what": "\(word)"]) }
    }

    /// - Returns: what an operator should know of it.
    private func publish(_ vendor: DeviceVendor, _ specification: VendorSpecification?) -> String? {
        let kind = VendorSpecification.kind(of: vendor)
        do throws(CDIError) {
            let other = try registry.publish(
                kind, writer: Self.writer, devices: specification?.devices ?? [],
                edits: specification?.edits ?? CDIEdits())
            guard let other, specification != nil else { return nil }
            return "\(other) has devices of \(kind), so that there is no specification of ours for other programs"
        } catch {
            return error.description
        }
    }

    // MARK: Troubles

    private func takeOverTroubles() {
        guard File.exists(keptTroubles) else { return }
        do {
            let kept = try JSONCoding.decode(KeptTroubles.self, from: File.readRegular(keptTroubles, limit: 1 << 20))
            if kept.bootID == bootID { state.withLock { $0.troubles = DeviceTroubles(kept.reasons) } }
        } catch {
            logger.warning("what was known of devices' troubles is lost", metadata: ["error": "\(error)"])
        }
    }

    /// Begins to listen to what NVIDIA's driver tells of errors, once.
    private func watch() {
        guard state.withLock({ $0.watch == nil }) else { return }
        do {
            let watch = try NVMLWatch(helper, intervalMilliseconds: Self.sampleInterval) { self.heard($0) }
            state.withLock { $0.watch = watch }
            try watch.start()
        } catch {
            logger.error("errors of devices are not listened to", metadata: ["error": "\(error)"])
        }
    }

    /// On the watch's thread.
    private func heard(_ report: NVMLWatchReport) {
        switch report {
        case .event(let event): logger.warning("an event of a device", metadata: ["event": "\(event)"])
        case .sample(let usage): return state.withLock { $0.sample = (usage, LeaseKeeper.now()) }
        default: break
        }
        let (monitor, before, after, isNews) = state.withLock { state in
            let before = state.troubles.reasons
            let devices = state.monitor?.state.inventory?.devices ?? []
            let isNews = state.troubles.take(report, devices)
            return (state.monitor, before, state.troubles.reasons, isNews)
        }
        if before != after { keep(after) }
        if isNews { monitor?.lookAgain() }
    }

    private func keep(_ reasons: [String: [String]]) {
        do {
            try File.replace(keptTroubles, with: JSONCoding.encode(KeptTroubles(bootID: bootID, reasons: reasons)))
        } catch {
            logger.warning("devices' troubles are forgotten with the agent", metadata: ["error": "\(error)"])
        }
    }

    private func tell(_ change: DeviceChange) {
        switch change {
        case .appeared(let device): log("a device", device)
        case .returned(let device): log("a device is back", device)
        case .gone(let device): log("a device is gone", device)
        case .changed(let before, let device):
            if before.health != device.health { log("a device's health", device) }
        }
    }

    private func log(_ what: Logger.Message, _ device: Device) {
        logger.log(
            level: device.health.state == .unusable ? .warning : .info, what,
            metadata: [
                "device": "\(device.id)", "model": "\(device.model ?? "unknown")",
                "health": "\(device.health.state)", "reasons": "\(device.health.reasons.joined(separator: "; "))",
            ])
    }
}
