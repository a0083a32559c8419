import DeviceDiscovery
import NVMLReport

/// Joins NVML, the driver's files and PCI to NVIDIA's devices.
struct NVIDIAJoin {
    private let host: HostDevices
    private let report: NVMLInventory?
    /// Why there is no report.
    private let silence: String?
    private let isAbsent: Bool
    private(set) var devices: [Device] = []
    private(set) var notes: [String] = []
    /// Devices may exist that are not told of.
    private(set) var isUncertain = false

    /// The driver's documented major, where /proc/devices does not say it.
    private static let usualMajor: UInt32 = 195

    init(_ host: HostDevices, _ nvml: NVMLOutcome) {
        self.host = host
        switch nvml {
        case .inventory(let inventory): (report, silence, isAbsent) = (inventory, nil, false)
        case .absent(let words): (report, silence, isAbsent) = (nil, words, true)
        case .trouble(let trouble): (report, silence, isAbsent) = (nil, trouble.description, false)
        }
    }

    mutating func run() {
        let pci = host.pci.filter { DeviceVendor(pci: $0.vendor) == .nvidia }
        let files = Dictionary(host.nvidia.gpus.map { ($0.address, $0) }) { first, _ in first }
        var reports: [PCIAddress: NVMLGPU] = [:]
        var placeless: [NVMLGPU] = []
        for gpu in report?.gpus ?? [] {
            let byUUID = host.nvidia.gpus.first { $0.uuid != nil && $0.uuid == gpu.uuid }?.address
            guard let address = gpu.pciAddress.flatMap({ PCIAddress($0) }) ?? byUUID, reports[address] == nil else {
                placeless.append(gpu)
                continue
            }
            reports[address] = gpu
        }
        let places = Set(pci.map(\.address)).union(files.keys).union(reports.keys)
        for address in places.sorted() {
            let device = pci.first { $0.address == address }
            add(address, device, files[address], reports[address])
        }
        for gpu in placeless { add(nil, nil, nil, gpu) }
        if let report {
            notes += report.problems
            joinLinks(report)
        } else if let silence {
            // A driver that is not there yet, or a library that is being replaced, says nothing against what there was.
            isUncertain = !isAbsent || !pci.isEmpty
            if !isAbsent { notes.append("NVML tells nothing: \(silence)") }
        }
    }

    private mutating func add(_ address: PCIAddress?, _ pci: PCIDevice?, _ file: NVIDIAFileGPU?, _ gpu: NVMLGPU?) {
        var health = DeviceHealth()
        let uuid = agreed(gpu?.uuid.flatMap { DeviceUUID.isValid($0) ? $0 : nil }, file?.uuid, "uuid", &health)
        let minor = agreed(gpu?.minor, file?.minor, "minor", &health)
        let name = uuid ?? address.map { "nvidia-\($0)" } ?? "nvidia-index-\(gpu?.index ?? 0)"
        var device = Device(id: Self.name(name), vendor: .nvidia)
        device.health = health
        device.uuid = uuid
        device.minor = minor
        device.pciAddress = address
        device.numaNode = gpu?.numaNode
        device.memoryBytes = gpu?.memoryBytes
        device.model = gpu?.name ?? file?.model
        device.cudaVersion = report?.cudaVersion
        device.computeCapability = gpu?.computeCapability
        if file != nil { device.sources.insert(.procfs) }
        if gpu != nil { device.sources.insert(.nvml) }
        if let pci { device.read(pci) }
        if device.driver == nil, file != nil || gpu != nil { device.driver = "nvidia" }
        device.driverVersion = device.driver == "nvidia" ? host.nvidia.version ?? report?.driverVersion : nil
        judge(&device, file, gpu)
        guard let minor else { return devices.append(device) }
        device.isDivided = gpu?.isDivided == true
        let node = DeviceFile(
            "/dev/nvidia\(minor)", host.majors.major(of: "nvidia", "nvidia-frontend") ?? Self.usualMajor, minor, .device
        )
        let whole = device
        device.nodes = device.isDivided ? [] : [node] + controlNodes()
        devices.append(device)
        for instance in gpu?.instances ?? [] where device.isDivided {
            devices.append(partition(instance, of: whole, node))
        }
    }

    /// What both say; when they differ, neither can be trusted.
    private func agreed<Value: Equatable>(
        _ first: Value?, _ second: Value?, _ what: String, _ health: inout DeviceHealth
    ) -> Value? {
        if let first, let second, first != second {
            health.worsen(
                .unusable,
                "NVML says that its \(what) is \(first) and the driver's files say \(second): look again later",
                isKnown: false)
        }
        return first ?? second
    }

    /// CDI's names of devices have no slashes, which the oldest names of MIG instances have.
    private static func name(_ text: String) -> String {
        String(decoding: text.utf8.map { $0 == UInt8(ascii: "/") ? UInt8(ascii: ":") : $0 }, as: UTF8.self)
    }

    private func judge(_ device: inout Device, _ file: NVIDIAFileGPU?, _ gpu: NVMLGPU?) {
        device.requireDriver(["nvidia"])
        if file?.isExcluded == true {
            device.health.worsen(.unusable, "the driver was told to leave it alone (NVreg_ExcludedGpus)")
        }
        guard let gpu else {
            if report != nil, device.driver == "nvidia", file?.isExcluded != true {
                device.health.worsen(.unusable, "NVML does not list it: has it fallen off the bus? See dmesg")
            } else if let silence, device.driver == "nvidia" {
                device.health.worsen(
                    isAbsent ? .unknown : .unusable,
                    isAbsent ? "its health is not known: \(silence)" : "NVML tells nothing: \(silence)", isKnown: false)
            }
            if device.uuid == nil, device.driver == "nvidia" {
                device.health.worsen(.unusable, "its uuid is not known yet", isKnown: false)
            }
            return
        }
        if gpu.isLost {
            device.health.worsen(
                .unusable, "the driver cannot reach it, or wants it reset: \(gpu.problems.first ?? "")")
        } else if let problem = gpu.problems.first {
            device.health.worsen(.degraded, "NVML fails to read it: \(problem)")
        }
        if device.uuid == nil { device.health.worsen(.unusable, "its uuid cannot be read") }
        if device.minor == nil { device.health.worsen(.unusable, "its minor cannot be read: this NVML is too old") }
        if host.majors.major(of: "nvidia-uvm") == nil {
            device.health.worsen(
                .degraded, "the module nvidia-uvm is not loaded, without which CUDA fails: run nvidia-modprobe -u -c=0")
        }
        device.health.judge(gpu.condition)
    }

    private func controlNodes() -> [DeviceFile] {
        let major = host.majors.major(of: "nvidiactl", "nvidia", "nvidia-frontend") ?? Self.usualMajor
        var nodes = [DeviceFile("/dev/nvidiactl", major, 255, .control)]
        // The driver gets a number for it when its module is loaded, which nvidia-modprobe does on demand.
        if let uvm = host.majors.major(of: "nvidia-uvm") {
            nodes.append(DeviceFile("/dev/nvidia-uvm", uvm, 0, .control))
            nodes.append(DeviceFile("/dev/nvidia-uvm-tools", uvm, 1, .control))
        }
        if let modeset = host.majors.major(of: "nvidia-modeset") {
            nodes.append(DeviceFile("/dev/nvidia-modeset", modeset, 254, .control))
        }
        return nodes
    }

    private func partition(_ instance: NVMLInstance, of whole: Device, _ node: DeviceFile) -> Device {
        var device = Device(id: Self.name(instance.uuid), vendor: .nvidia)
        device.uuid = instance.uuid
        device.partition = DevicePartition(
            parent: whole.id, profile: Self.profile(instance), number: instance.gpuInstance,
            computeInstance: instance.computeInstance)
        device.minor = whole.minor
        device.pciAddress = whole.pciAddress
        device.numaNode = whole.numaNode
        device.memoryBytes = instance.memoryBytes
        device.model = instance.name ?? whole.model
        device.driver = whole.driver
        device.driverVersion = whole.driverVersion
        device.cudaVersion = whole.cudaVersion
        device.computeCapability = whole.computeCapability
        device.health = whole.health
        device.sources = .nvml
        if !DeviceUUID.isValid(instance.uuid) { device.health.worsen(.unusable, "its uuid is none") }
        let capabilities: [NVIDIACapability] = [
            .gpuInstance(minor: node.minor, instance.gpuInstance),
            .computeInstance(minor: node.minor, instance.gpuInstance, instance.computeInstance),
        ]
        let minors = capabilities.compactMap { host.nvidia.capabilities[$0] }
        guard let major = host.majors.major(of: "nvidia-caps"), minors.count == capabilities.count else {
            device.health.worsen(
                .unusable, "the driver does not say by which devices its instance is used (nvidia-caps)")
            return device
        }
        device.nodes = [node] + minors.map { DeviceFile("/dev/nvidia-caps/nvidia-cap\($0)", major, $0, .capability) }
        device.nodes += controlNodes()
        return device
    }

    /// `1g.18gb`, from the name `NVIDIA H200 MIG 1g.18gb` or by the slices.
    private static func profile(_ instance: NVMLInstance) -> String? {
        let words = instance.name?.split(separator: " ") ?? []
        if words.count > 1, words[words.count - 2] == "MIG" { return String(words[words.count - 1]) }
        return instance.gpuSlices.map { "\($0)g" }
    }

    /// NVLinks and distances on PCI, from each GPU to the others.
    private mutating func joinLinks(_ report: NVMLInventory) {
        let byIndex = Dictionary(report.gpus.map { ($0.index, $0) }) { first, _ in first }
        var places: [Int: Int] = [:]
        for (place, device) in devices.enumerated() where device.partition == nil {
            let gpu = report.gpus.first { gpu in
                gpu.uuid != nil && gpu.uuid == device.uuid
                    || gpu.pciAddress.flatMap { PCIAddress($0) } == device.pciAddress && device.pciAddress != nil
            }
            if let gpu { places[gpu.index] = place }
        }
        for (index, place) in places {
            guard let gpu = byIndex[index] else { continue }
            var links: [DeviceLink] = []
            for (other, otherPlace) in places.sorted(by: { $0.key < $1.key }) where other != index {
                guard let peer = byIndex[other] else { continue }
                let id = devices[otherPlace].id
                if let kind = Self.nvlinks(gpu, peer) { links.append(DeviceLink(to: id, kind)) }
                let level = report.ancestors.first {
                    ($0.first, $0.second) == (min(index, other), max(index, other))
                }?.level
                if let level { links.append(DeviceLink(to: id, .pci(PCIDistance(level)))) }
            }
            devices[place].links = links
        }
    }

    private static func nvlinks(_ gpu: NVMLGPU, _ peer: NVMLGPU) -> DeviceLink.Kind? {
        let straight = gpu.links.filter {
            $0.remote == .gpu && $0.pciAddress != nil && $0.pciAddress == peer.pciAddress
        }
        if !straight.isEmpty { return .nvlink(straight.count) }
        let counts = [gpu, peer].map { $0.links.filter { $0.remote == .switch }.count }
        return counts.allSatisfy { $0 > 0 } ? .nvswitch(counts.min() ?? 0) : nil
    }
}

extension PCIDistance {
    init(_ level: NVMLAncestor.Level) {
        switch level {
        case .board: self = .board
        case .singleSwitch: self = .singleSwitch
        case .switches: self = .switches
        case .hostBridge: self = .hostBridge
        case .node: self = .node
        case .system: self = .system
        }
    }
}

extension DeviceHealth {
    /// What a GPU's counters and flags mean.
    package mutating func judge(_ condition: NVMLCondition) {
        if condition.remapFailed == true {
            worsen(.unusable, "defective rows of its memory could not be replaced: it has to be exchanged")
        }
        if condition.remapPending == true || condition.pagesPending == true {
            worsen(.degraded, "defective memory is replaced when it is reset")
        }
        if let errors = condition.uncorrectedErrors, errors > 0 {
            worsen(.degraded, "\(errors) uncorrectable memory errors since its driver was loaded")
        }
        for slowdown in condition.slowdowns ?? [] {
            switch slowdown {
            case .hardware: worsen(.degraded, "its hardware slows it down: heat or power")
            case .softwareThermal: worsen(.degraded, "its driver slows it down because of heat")
            case .hardwareThermal: worsen(.degraded, "its hardware slows it down because of heat")
            case .powerBrake: worsen(.degraded, "the power supply slows it down")
            }
        }
    }
}
