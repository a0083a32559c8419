import CNVML
import Glibc
import Kernel
import NVMLReport

/// Tells of events as they come, and how the GPUs are used at an interval.
struct GPUWatch: ~Copyable {
    private let library: NVMLLibrary
    private let gpus: [FoundGPU]
    private let events: cn_event_set?
    /// Milliseconds from one sample to the next.
    private let interval: Int64

    /// Errors of the library's wait in a row after which the watch ends.
    private static let patience = 5

    /// - Parameter gpus: as `library.inventory()` found them.
    init(_ library: consuming NVMLLibrary, _ gpus: [FoundGPU], intervalMilliseconds: Int) {
        var events: cn_event_set?
        if let create = library.functions.events_create, library.functions.events_wait != nil,
            library.functions.events_register != nil, create(&events) != CN_SUCCESS
        {
            events = nil
        }
        self.events = events
        self.library = library
        self.gpus = gpus
        interval = Int64(max(100, intervalMilliseconds))
    }

    deinit { if let events { _ = library.functions.events_free?(events) } }

    /// Goes on until `write` fails or the library does.
    ///
    /// - Returns: why it ended.
    borrowing func run(_ write: (NVMLLine) throws -> Void) throws -> NVMLFailure {
        for line in register() { try write(line) }
        var next = Self.now()
        var errors = 0
        while true {
            let left = next - Self.now()
            if left <= 0 {
                try write(.sample(sample()))
                next = Self.now() + interval
                continue
            }
            guard let events, let wait = library.functions.events_wait else {
                usleep(useconds_t(left * 1000))
                continue
            }
            var event = cn_event(
                device: nil, type: 0, data: 0, gpu_instance: UInt32(CN_NO_INSTANCE),
                compute_instance: UInt32(CN_NO_INSTANCE))
            let code = wait(events, &event, UInt32(left))
            switch code {
            case Int32(CN_SUCCESS):
                errors = 0
                if let line = line(event) { try write(.event(line)) }
            case Int32(CN_TIMEOUT): errors = 0
            default:
                errors += 1
                guard errors < Self.patience else {
                    return NVMLFailure(.other, "waiting for events of the GPUs failed: \(library.words(code))")
                }
                usleep(200_000)
            }
        }
    }

    /// Asks for the events of each GPU; what comes back are those GPUs whose events cannot be had.
    private borrowing func register() -> [NVMLLine] {
        gpus.compactMap { gpu in
            guard let message = refusal(gpu) else { return nil }
            var event = NVMLEvent(.unwatched, uuid: gpu.report.uuid)
            event.message = message
            return .event(event)
        }
    }

    private borrowing func refusal(_ gpu: FoundGPU) -> String? {
        let f = library.functions
        guard let events, let register = f.events_register else { return "this NVML has no events" }
        var kinds = CUnsignedLongLong(CN_EVENT_XID | CN_EVENT_SINGLE_BIT_ECC | CN_EVENT_DOUBLE_BIT_ECC)
        if let supported = f.events_supported {
            var all: CUnsignedLongLong = 0
            let code = supported(gpu.handle, &all)
            guard code == CN_SUCCESS else { return "nvmlDeviceGetSupportedEventTypes: \(library.words(code))" }
            kinds &= all
        }
        guard kinds & CUnsignedLongLong(CN_EVENT_XID) != 0 else { return "this GPU tells of no XID errors" }
        let code = register(gpu.handle, kinds, events)
        return code == CN_SUCCESS ? nil : "nvmlDeviceRegisterEvents: \(library.words(code))"
    }

    private borrowing func line(_ event: cn_event) -> NVMLEvent? {
        let kind: NVMLEvent.Kind
        switch event.type {
        case UInt64(CN_EVENT_XID): kind = .xid
        case UInt64(CN_EVENT_SINGLE_BIT_ECC): kind = .singleBitECC
        case UInt64(CN_EVENT_DOUBLE_BIT_ECC): kind = .doubleBitECC
        default: return nil
        }
        // The handle of a known GPU says whose it is also when the GPU does not answer any more.
        var uuid = gpus.first { $0.handle == event.device }?.report.uuid
        if uuid == nil, let device = event.device {
            var reader = NVMLReader()
            uuid = reader.text(
                "nvmlDeviceGetUUID", library, library.functions.uuid.map { f in { f(device, $0, $1) } })
        }
        var line = NVMLEvent(kind, uuid: uuid)
        if kind == .xid { line.xid = event.data }
        if event.gpu_instance != UInt32(CN_NO_INSTANCE) { line.gpuInstance = event.gpu_instance }
        if event.compute_instance != UInt32(CN_NO_INSTANCE) { line.computeInstance = event.compute_instance }
        return line
    }

    private borrowing func sample() -> NVMLSample {
        NVMLSample(gpus.map { usage($0) })
    }

    private borrowing func usage(_ gpu: FoundGPU) -> NVMLUsage {
        var usage = NVMLUsage(index: gpu.report.index, uuid: gpu.report.uuid)
        var reader = NVMLReader()
        let (f, handle) = (library.functions, gpu.handle)
        let utilization = reader.value(
            "nvmlDeviceGetUtilizationRates", cn_utilization(), library, f.utilization.map { f in { f(handle, &$0) } })
        usage.utilization = utilization?.gpu
        usage.memoryUtilization = utilization?.memory
        let memory = library.memory(of: handle, &reader)
        usage.memoryUsedBytes = memory?.used
        usage.memoryBytes = memory?.total
        usage.celsius = temperature(of: handle, &reader)
        usage.milliwatts = reader.value(
            "nvmlDeviceGetPowerUsage", UInt32(0), library, f.power.map { f in { f(handle, &$0) } })
        usage.condition = library.condition(of: handle, &reader)
        for (report, instance) in zip(gpu.report.instances, gpu.instances) {
            var used = NVMLInstanceUsage(uuid: report.uuid)
            let memory = library.memory(of: instance, &reader)
            used.memoryUsedBytes = memory?.used
            used.memoryBytes = memory?.total
            usage.instances.append(used)
        }
        usage.processes = processes(of: handle)
        usage.isLost = reader.isLost
        return usage
    }

    private borrowing func temperature(of handle: cn_device, _ reader: inout NVMLReader) -> Int? {
        var request = cn_temperature()
        request.version = UInt32(CN_TEMPERATURE_1)
        request.sensor = UInt32(CN_TEMPERATURE_GPU)
        let newer = reader.value(
            "nvmlDeviceGetTemperatureV", request, library,
            library.functions.temperature_v.map { f in { f(handle, &$0) } })
        if let newer { return Int(newer.celsius) }
        let older = reader.value(
            "nvmlDeviceGetTemperature", UInt32(0), library,
            library.functions.temperature.map { f in { f(handle, UInt32(CN_TEMPERATURE_GPU), &$0) } })
        return older.map { Int($0) }
    }

    private borrowing func processes(of handle: cn_device) -> [NVMLProcess] {
        guard let ask = library.functions.processes else { return [] }
        var list = [cn_process](repeating: cn_process(), count: NVMLLine.maximumProcesses)
        var count = UInt32(list.count)
        // With more of them than there is room for, none are told; so many share a GPU in no setting known.
        guard ask(handle, &count, &list) == CN_SUCCESS else { return [] }
        return list.prefix(Int(min(count, UInt32(list.count)))).map { process in
            var result = NVMLProcess(pid: process.pid)
            // All bits set: not known.
            if process.memory != UInt64.max { result.memoryBytes = process.memory }
            if process.gpu_instance != UInt32(CN_NO_INSTANCE) { result.gpuInstance = process.gpu_instance }
            if process.compute_instance != UInt32(CN_NO_INSTANCE) {
                result.computeInstance = process.compute_instance
            }
            return result
        }
    }

    /// Milliseconds of a clock that only runs forward.
    private static func now() -> Int64 {
        var time = timespec()
        clock_gettime(CLOCK_MONOTONIC, &time)
        return Int64(time.tv_sec) * 1000 + Int64(time.tv_nsec) / 1_000_000
    }
}
