import CDI
import CDISpec
import DeviceDiscovery
import Devices
import Kernel
import Logging
import Model
import NVMLReport
import Synchronization
import Wire

/// The GPUs of this machine: kept in view, told to all that read CDI specifications here, and given to containers.
final class NodeDevices: Sendable {
    private let roots: DeviceRoots
    private let helper: NVMLHelper
    private let registry: CDIRegistry
    private let troublesPath: String
    private let bootID: String
    private let logger: Logger
    private let state = Mutex(State())
    /// Held while specifications are published: by the monitor's thread and by whoever saw somebody else's change.
    private let publishing = Mutex<Void>(())

    private struct State {
        var monitor: DeviceMonitor?
        var events: DeviceEvents?
        var cards: CardWatch?
        /// What containers are given; nil: nobody has looked yet.
        var specifications: [VendorSpecification]?
        /// What tasks have by CDI names, by ids.
        var named: [TaskID: Set<String>] = [:]
        /// What an operator was told last, so that it is told once.
        var told: Set<String> = []
    }

    /// In the names of files of ours among CDI's.
    private static let writer = "martlet"

    init(_ configuration: AgentConfiguration, _ registry: CDIRegistry, bootID: String, logger: Logger) {
        roots = configuration.deviceRoots
        helper = NVMLHelper(program: configuration.nvmlProgram, roots: roots)
        troublesPath = configuration.paths.deviceTroubles
        self.bootID = bootID
        self.registry = registry
        self.logger = logger
    }

    /// Begins to look, on a thread of its own, until `stop`.
    ///
    /// - Parameter changed: called when there is something new about the devices, and after the first look. It must not wait.
    /// - Throws: when there is no thread to be had.
    func start(changed: @escaping @Sendable () -> Void) throws(KernelError) {
        let events = DeviceEvents(helper, keptIn: troublesPath, bootID: bootID, logger: logger) { [weak self] in
            self?.judgeAgain()
        }
        let cards = try CardWatch(roots: roots) { [weak self] in self?.judgeAgain() }
        let monitor = try DeviceMonitor(
            roots: roots, helper: helper,
            judge: {
                events.judge(&$0)
                cards.judge(&$0)
            },
            deliver: { [weak self] inventory, changes in
                guard let self else { return }
                let isFirst = take(inventory)
                events.listen()
                do {
                    try cards.follow(inventory.devices)
                } catch {
                    logger.error("AMD's and Intel's devices are not watched", metadata: ["error": "\(error)"])
                }
                publish(inventory.notes)
                for change in changes { tell(change) }
                if isFirst || !changes.isEmpty { changed() }
            })
        state.withLock { ($0.monitor, $0.events, $0.cards) = (monitor, events, cards) }
        if let problem = try monitor.start() {
            logger.warning("changes of devices are seen every five minutes only", metadata: ["error": "\(problem)"])
        }
    }

    /// Ends soon. The specifications stay: containers that other programs start find their devices.
    func stop() {
        let (monitor, events, cards) = state.withLock { state in
            defer { (state.monitor, state.events, state.cards) = (nil, nil, nil) }
            return (state.monitor, state.events, state.cards)
        }
        events?.stop()
        cards?.stop()
        monitor?.stop()
    }

    // MARK: What is known

    /// What there is in the newest inventory, in its order, and what there is and was; nil: nobody has looked yet.
    var known: (inventory: DeviceInventory, table: DeviceTable)? {
        guard let known = state.withLock({ $0.monitor })?.state, let inventory = known.inventory else { return nil }
        return (inventory, known.table)
    }

    /// Whether it is known what can be given to containers.
    var hasLooked: Bool { state.withLock { $0.specifications != nil } }

    /// Whether a CDI name is one that this node's own devices go by.
    func isOwn(_ name: CDIName) -> Bool {
        DeviceVendor.allCases.contains { VendorSpecification.kind(of: $0) == name.kind }
    }

    /// Which devices CDI names are for, by their ids; remembered for a task that starts with them, since numbers change.
    func resolve(_ names: [CDIName], for task: TaskID) -> Set<String> {
        state.withLock { state in
            let ids = Self.ids(of: names, state)
            state.named[task] = ids.isEmpty ? nil : ids
            return ids
        }
    }

    /// The same for a task that has started with them, as far as this process remembers.
    func ids(of names: [CDIName], for task: TaskID) -> Set<String> {
        state.withLock { $0.named[task] ?? Self.ids(of: names, $0) }
    }

    private static func ids(of names: [CDIName], _ state: State) -> Set<String> {
        let known = state.specifications ?? []
        return Set(
            names.flatMap { name in known.filter { $0.kind == name.kind }.flatMap { $0.ids(named: name.device) } })
    }

    /// A task is no more.
    func forget(_ task: TaskID) { state.withLock { _ = $0.named.removeValue(forKey: task) } }

    /// What a container that was granted devices gets. Blocks no longer than a lock.
    ///
    /// - Parameter had: what it has already stays its own when it cannot be granted any more, as far as it is there.
    /// - Throws: `CDIError` naming one that is not there or cannot be granted.
    func edits(of ids: [String], had: Set<String> = []) throws(CDIError) -> CDIEdits {
        let (known, inventory) = state.withLock { ($0.specifications ?? [], $0.monitor?.state.inventory) }
        var edits = CDIEdits()
        var rest = ids
        for specification in known {
            let own = rest.filter { specification.ids.contains($0) }
            if own.isEmpty { continue }
            rest.removeAll { own.contains($0) }
            edits.append(try specification.edits(of: own))
        }
        for id in rest where had.contains(id) {
            guard let device = inventory?.devices.first(where: { $0.id == id }) else { continue }
            edits.append(VendorSpecification.edits(of: device))
        }
        if let missing = rest.first(where: { !had.contains($0) }) {
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
        let (monitor, events, cards) = state.withLock { ($0.monitor, $0.events, $0.cards) }
        guard let devices = monitor?.state.inventory?.devices else { return [] }
        let (sample, figures) = (events?.usage, cards?.usage ?? [:])
        return ids.compactMap { id in
            guard let device = devices.first(where: { $0.id == id }) else { return nil }
            if device.vendor == .nvidia {
                let usage = sample?.gpus.first { $0.uuid == device.partition?.parent ?? id }
                return usage.map { DeviceStats(device, $0, pids) }
            }
            return device.pciAddress.flatMap { figures[$0] }.map { DeviceStats(device, $0) }
        }
    }

    // MARK: What an operator says

    /// Why nothing can be cleared of a device.
    enum ClearingProblem: Error, Equatable {
        case unknown
        /// In words.
        case refused(String)
    }

    /// Milliseconds that whoever clears a device waits for the look: longer than one with a driver that initialises.
    private static let longestLook = 90_000

    /// Somebody has seen to a device: forgets what its driver told of it and of its parts, and looks at it anew.
    ///
    /// - Returns: when the look has come to its end.
    /// - Throws: `ClearingProblem`.
    func clear(_ id: String) async throws -> ClearedDevice {
        let (monitor, events) = state.withLock { ($0.monitor, $0.events) }
        guard let monitor, let events, let entry = monitor.state.table.entries[id] else {
            throw ClearingProblem.unknown
        }
        guard entry.isPresent else {
            throw ClearingProblem.refused("it is gone: what its driver told of it is forgotten when it returns")
        }
        let parts = (monitor.state.inventory?.devices ?? []).filter { $0.partition?.parent == id }.map(\.id)
        let forgotten = events.clear([id] + parts)
        guard !forgotten.isEmpty else {
            let reasons = entry.device.health.reasons.joined(separator: "; ")
            throw ClearingProblem.refused(
                "its driver has told of no error of it"
                    + (entry.device.partition.map { ", and of its whole \($0.parent) it may have" } ?? "")
                    + (reasons.isEmpty ? "" : "; what a look finds goes with its cause: \(reasons)"))
        }
        logger.notice(
            "an operator cleared a device",
            metadata: ["device": "\(id)", "forgotten": "\(forgotten.joined(separator: "; "))"])
        // One that is under way began before.
        let before = monitor.state
        let wanted = before.looks + (before.lookingSince == nil ? 1 : 2)
        monitor.lookAgain()
        for _ in 0..<(Self.longestLook / 50) where monitor.state.looks < wanted {
            try await Task.sleep(for: .milliseconds(50))
        }
        let now = monitor.state
        guard now.looks >= wanted, let found = now.table.entries[id] else {
            return ClearedDevice(
                id: id, forgotten: forgotten,
                health: NodeDevice.Health(.unknown, reasons: ["the look at it has not come to its end"]))
        }
        return ClearedDevice(id: id, forgotten: forgotten, health: NodeDevice.Health(found.device))
    }

    // MARK: What is new

    /// - Returns: whether it is the first that is known.
    private func take(_ inventory: DeviceInventory) -> Bool {
        let specifications = VendorSpecification.all(inventory, roots: roots)
        return state.withLock { state in
            defer { state.specifications = specifications }
            return state.specifications == nil
        }
    }

    /// What the driver has told counts at once; a look at a device that has an error may take a minute.
    private func judgeAgain() {
        let (monitor, events, cards) = state.withLock { ($0.monitor, $0.events, $0.cards) }
        if var inventory = monitor?.state.inventory {
            events?.judge(&inventory)
            cards?.judge(&inventory)
            _ = take(inventory)
        }
        monitor?.lookAgain()
    }

    /// Has other programs find the devices, unless somebody else tells them already.
    ///
    /// - Parameter notes: what else an operator should know.
    func publish(_ notes: [String] = []) {
        guard let specifications = state.withLock({ $0.specifications }) else { return }
        var words = notes
        publishing.withLock { _ in
            for vendor in DeviceVendor.allCases {
                let specification = specifications.first { $0.vendor == vendor }
                if let word = publish(vendor, specification) { words.append(word) }
                if let lack = specification?.lack { words.append(lack) }
            }
        }
        let told = state.withLock { state in
            let told = state.told
            // Notes are told by each look.
            state.told = notes.isEmpty ? told.union(words) : Set(words)
            return told
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

    /// Takes the specifications away. Blocks.
    ///
    /// - Throws: `CDIError` when one cannot be.
    static func withdraw(_ configuration: AgentConfiguration) throws(CDIError) {
        let registry = CDIRegistry(configuration.cdiDirectories)
        for vendor in DeviceVendor.allCases {
            _ = try registry.publish(
                VendorSpecification.kind(of: vendor), writer: writer, devices: [], edits: CDIEdits())
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

extension DeviceStats {
    /// What drivers tell by sysfs, which is of the whole GPU, and of no process.
    ///
    /// - Parameter usage: of the device, or of the whole that it is a part of.
    fileprivate init(_ device: Device, _ usage: CardWatch.Usage) {
        let (figures, isPart) = (usage.figures, device.partition != nil)
        self.init(
            id: device.id, utilization: isPart ? nil : figures.busyPercent.map { Int($0) }, memoryUsage: nil,
            memoryUsedByAll: isPart ? nil : figures.memoryUsedBytes.map { Int64(clamping: $0) },
            memory: (isPart ? device.memoryBytes : figures.memoryBytes ?? device.memoryBytes).map {
                Int64(clamping: $0)
            },
            celsius: figures.millicelsius.map { $0 / 1000 }, milliwatts: usage.milliwatts.map { Int64(clamping: $0) })
    }

    /// - Parameters:
    ///   - usage: of the device, or of the whole that it is a part of.
    ///   - pids: of the processes whose memory is counted.
    fileprivate init(_ device: Device, _ usage: NVMLUsage, _ pids: Set<UInt32>) {
        let part = device.partition
        let processes = usage.processes.filter { process in
            pids.contains(process.pid)
                && (part == nil
                    || process.gpuInstance == part?.number && process.computeInstance == part?.computeInstance)
        }
        let used =
            part == nil ? usage.memoryUsedBytes : usage.instances.first { $0.uuid == device.uuid }?.memoryUsedBytes
        self.init(
            id: device.id, utilization: part == nil ? usage.utilization.map { Int($0) } : nil,
            memoryUsage: processes.reduce(0) { $0 &+ Int64(clamping: $1.memoryBytes ?? 0) },
            memoryUsedByAll: used.map { Int64(clamping: $0) }, memory: device.memoryBytes.map { Int64(clamping: $0) },
            celsius: usage.celsius, milliwatts: usage.milliwatts.map { Int64($0) })
    }
}
