import CNVML
import Kernel
import NVMLReport

/// A GPU that was found, with the library's handle of it.
struct FoundGPU {
    let handle: cn_device
    var report: NVMLGPU
    /// Handles of its MIG instances, in the order of `report.instances`.
    var instances: [cn_device] = []
}

extension NVMLLibrary {
    /// All GPUs, those that cannot be read included.
    ///
    /// - Throws: `NVMLFailure` when not even their number is known.
    borrowing func inventory() throws(NVMLFailure) -> (NVMLInventory, [FoundGPU]) {
        var inventory = NVMLInventory()
        var reader = NVMLReader()
        inventory.driverVersion = reader.text("nvmlSystemGetDriverVersion", self, functions.driver_version)
        inventory.libraryVersion = reader.text("nvmlSystemGetNVMLVersion", self, functions.library_version)
        let cuda = reader.value(
            "nvmlSystemGetCudaDriverVersion", Int32(0), self, functions.cuda_version.map { f in { f(&$0) } })
        // 12040 is 12.4.
        inventory.cudaVersion = cuda.flatMap { $0 > 0 ? "\($0 / 1000).\($0 % 1000 / 10)" : nil }
        inventory.missingFunctions = missingFunctions
        var count: UInt32 = 0
        let code = functions.count?(&count) ?? Int32(CN_FUNCTION_NOT_FOUND)
        guard code == CN_SUCCESS else { throw Self.failure(of: code, words: words(code)) }
        if count > NVMLLine.maximumGPUs {
            inventory.problems.append("NVML tells of \(count) GPUs; those after \(NVMLLine.maximumGPUs) are left out")
        }
        var found: [FoundGPU] = []
        for index in 0..<min(Int(count), NVMLLine.maximumGPUs) {
            var handle: cn_device?
            let code = functions.by_index?(UInt32(index), &handle) ?? Int32(CN_FUNCTION_NOT_FOUND)
            if code == CN_SUCCESS, let handle {
                found.append(gpu(index, handle))
                inventory.gpus.append(found[found.count - 1].report)
            } else {
                // It is there, and all that can be said of it is that it cannot be reached.
                var report = NVMLGPU(index: index)
                report.isLost = code == CN_GPU_IS_LOST || code == CN_RESET_REQUIRED
                report.problems = ["nvmlDeviceGetHandleByIndex: \(words(code))"]
                inventory.gpus.append(report)
            }
        }
        inventory.ancestors = ancestors(of: found, &reader)
        inventory.problems += reader.problems
        return (inventory, found)
    }

    private borrowing func gpu(_ index: Int, _ handle: cn_device) -> FoundGPU {
        var gpu = FoundGPU(handle: handle, report: NVMLGPU(index: index))
        var reader = NVMLReader()
        let f = functions
        gpu.report.uuid = reader.text("nvmlDeviceGetUUID", self, f.uuid.map { f in { f(handle, $0, $1) } })
        gpu.report.name = reader.text("nvmlDeviceGetName", self, f.name.map { f in { f(handle, $0, $1) } })
        gpu.report.minor = reader.value("nvmlDeviceGetMinorNumber", 0, self, f.minor.map { f in { f(handle, &$0) } })
        let pci = pci(of: handle, &reader)
        gpu.report.pciAddress = pci?.address
        gpu.report.pciDevice = pci?.device
        let memory = memory(of: handle, &reader)
        gpu.report.memoryBytes = memory?.total
        gpu.report.reservedBytes = memory?.reserved
        let capability = reader.value(
            "nvmlDeviceGetCudaComputeCapability", (Int32(0), Int32(0)), self,
            f.compute_capability.map { f in { f(handle, &$0.0, &$0.1) } })
        gpu.report.computeCapability = capability.map { "\($0.0).\($0.1)" }
        let node = reader.value("nvmlDeviceGetNumaNodeId", UInt32(0), self, f.numa_node.map { f in { f(handle, &$0) } })
        // -1 where the GPU's own memory is no node of the machine's.
        gpu.report.numaNode = node.flatMap { $0 < 1024 ? Int($0) : nil }
        gpu.report.condition = condition(of: handle, &reader)
        gpu.report.links = links(of: handle, &reader)
        readInstances(&gpu, &reader)
        gpu.report.isLost = reader.isLost
        gpu.report.problems = reader.problems
        return gpu
    }

    /// Total, used, and what the driver keeps for itself where the library tells it.
    borrowing func memory(
        of handle: cn_device, _ reader: inout NVMLReader
    ) -> (total: UInt64, used: UInt64, reserved: UInt64?)? {
        var versioned = cn_memory_2()
        versioned.version = UInt32(CN_MEMORY_2)
        let second = reader.value(
            "nvmlDeviceGetMemoryInfo_v2", versioned, self, functions.memory_2.map { f in { f(handle, &$0) } })
        if let second { return (second.total, second.used, second.reserved) }
        let first = reader.value(
            "nvmlDeviceGetMemoryInfo", cn_memory(), self, functions.memory.map { f in { f(handle, &$0) } })
        return first.map { ($0.total, $0.used, nil) }
    }

    /// What bears on the health of a GPU.
    borrowing func condition(of handle: cn_device, _ reader: inout NVMLReader) -> NVMLCondition {
        var condition = NVMLCondition()
        let f = functions
        for (kind, path) in [
            (CN_ERRORS_CORRECTED, \NVMLCondition.correctedErrors),
            (CN_ERRORS_UNCORRECTED, \NVMLCondition.uncorrectedErrors),
        ] {
            condition[keyPath: path] = reader.value(
                "nvmlDeviceGetTotalEccErrors", UInt64(0), self,
                f.ecc_errors.map { f in
                    { count in
                        var number: CUnsignedLongLong = 0
                        let code = f(handle, UInt32(kind), UInt32(CN_COUNTED_SINCE_LOAD), &number)
                        count = UInt64(number)
                        return code
                    }
                })
        }
        let rows = reader.value(
            "nvmlDeviceGetRemappedRows", (UInt32(0), UInt32(0), UInt32(0), UInt32(0)), self,
            f.remapped_rows.map { f in { f(handle, &$0.0, &$0.1, &$0.2, &$0.3) } })
        condition.remapPending = rows.map { $0.2 != 0 }
        condition.remapFailed = rows.map { $0.3 != 0 }
        condition.pagesPending = reader.value(
            "nvmlDeviceGetRetiredPagesPendingStatus", UInt32(0), self, f.pages_pending.map { f in { f(handle, &$0) } }
        ).map { $0 != 0 }
        let reasons = reader.value(
            "nvmlDeviceGetCurrentClocksEventReasons", CUnsignedLongLong(0), self,
            f.slowdown_reasons.map { f in { f(handle, &$0) } })
        condition.slowdowns = reasons.map { bits in NVMLSlowdown.allCases.filter { UInt64(bits) & $0.bit != 0 } }
        return condition
    }

    private borrowing func pci(
        of handle: cn_device, _ reader: inout NVMLReader
    ) -> (address: String, device: UInt32)? {
        // Older versions have other fields where the long address is: only the first ones are looked at.
        let info = reader.value(
            "nvmlDeviceGetPciInfo", cn_pci(), self, (functions.pci_3 ?? functions.pci_1).map { f in { f(handle, &$0) } }
        )
        return info.flatMap { info in Self.address(info).map { ($0, info.device_id) } }
    }

    /// As sysfs writes it. NVML has one function of a device only, 0, and writes domains with eight digits.
    private static func address(_ info: cn_pci) -> String? {
        guard info.bus <= 0xff, info.device <= 0x1f else { return nil }
        return "\(hexadecimal(info.domain, 4)):\(hexadecimal(info.bus, 2)):\(hexadecimal(info.device, 2)).0"
    }

    private static func hexadecimal(_ number: UInt32, _ digits: Int) -> String {
        let text = String(number, radix: 16)
        return String(repeating: "0", count: max(0, digits - text.count)) + text
    }

    private borrowing func links(of handle: cn_device, _ reader: inout NVMLReader) -> [NVMLLink] {
        guard let state = functions.link_state else { return [] }
        var links: [NVMLLink] = []
        for number in 0..<UInt32(CN_NVLINK_LIMIT) {
            var active: UInt32 = 0
            let code = state(handle, number, &active)
            // What comes after the last link of a model is an invalid argument.
            if code == CN_INVALID_ARGUMENT || code == CN_NOT_SUPPORTED { break }
            guard code == CN_SUCCESS, active != 0 else { continue }
            let type = reader.value(
                "nvmlDeviceGetNvLinkRemoteDeviceType", UInt32.max, self,
                functions.link_remote_type.map { f in { f(handle, number, &$0) } })
            let remote: NVMLLink.Remote =
                switch type {
                case UInt32(CN_NVLINK_TO_GPU): .gpu
                case UInt32(CN_NVLINK_TO_NPU): .bridge
                case UInt32(CN_NVLINK_TO_SWITCH): .switch
                default: .unknown
                }
            let pci = reader.value(
                "nvmlDeviceGetNvLinkRemotePciInfo_v2", cn_pci(), self,
                functions.link_remote_pci.map { f in { f(handle, number, &$0) } })
            links.append(NVMLLink(number: Int(number), remote: remote, pciAddress: pci.flatMap { Self.address($0) }))
        }
        return links
    }

    private borrowing func readInstances(_ gpu: inout FoundGPU, _ reader: inout NVMLReader) {
        let handle = gpu.handle
        let mode = reader.value(
            "nvmlDeviceGetMigMode", (UInt32(0), UInt32(0)), self,
            functions.mig_mode.map { f in { f(handle, &$0.0, &$0.1) } })
        gpu.report.isDivided = mode.map { $0.0 == CN_MIG_ENABLED }
        guard gpu.report.isDivided == true, let byIndex = functions.mig_by_index else { return }
        let limit = reader.value(
            "nvmlDeviceGetMaxMigDeviceCount", UInt32(0), self, functions.mig_limit.map { f in { f(handle, &$0) } })
        for index in 0..<min(limit ?? 0, UInt32(NVMLLine.maximumInstances)) {
            var instance: cn_device?
            // Places without an instance answer that nothing was found; numbers may have gaps.
            guard byIndex(handle, index, &instance) == CN_SUCCESS, let instance,
                let report = self.instance(instance, &reader)
            else { continue }
            gpu.report.instances.append(report)
            gpu.instances.append(instance)
        }
    }

    private borrowing func instance(_ handle: cn_device, _ reader: inout NVMLReader) -> NVMLInstance? {
        let f = functions
        let uuid = reader.text("nvmlDeviceGetUUID (MIG)", self, f.uuid.map { f in { f(handle, $0, $1) } })
        let gpuInstance = reader.value(
            "nvmlDeviceGetGpuInstanceId", UInt32(0), self, f.gpu_instance.map { f in { f(handle, &$0) } })
        let computeInstance = reader.value(
            "nvmlDeviceGetComputeInstanceId", UInt32(0), self, f.compute_instance.map { f in { f(handle, &$0) } })
        // Without these three nothing could be granted of it.
        guard let uuid, let gpuInstance, let computeInstance else { return nil }
        var instance = NVMLInstance(uuid: uuid, gpuInstance: gpuInstance, computeInstance: computeInstance)
        instance.name = reader.text("nvmlDeviceGetName (MIG)", self, f.name.map { f in { f(handle, $0, $1) } })
        let attributes = reader.value(
            "nvmlDeviceGetAttributes_v2", cn_attributes(), self, f.attributes.map { f in { f(handle, &$0) } })
        instance.memoryBytes = memory(of: handle, &reader)?.total ?? attributes.map { $0.memory_mib << 20 }
        instance.multiprocessors = attributes?.multiprocessors
        instance.gpuSlices = attributes?.gpu_slices
        instance.computeSlices = attributes?.compute_slices
        return instance
    }

    private borrowing func ancestors(of gpus: [FoundGPU], _ reader: inout NVMLReader) -> [NVMLAncestor] {
        var result: [NVMLAncestor] = []
        for (position, first) in gpus.enumerated() {
            for second in gpus[(position + 1)...] {
                let level = reader.value(
                    "nvmlDeviceGetTopologyCommonAncestor", UInt32(0), self,
                    functions.common_ancestor.map { f in { f(first.handle, second.handle, &$0) } })
                guard let level = level.flatMap({ NVMLAncestor.Level(nvml: $0) }) else { continue }
                result.append(NVMLAncestor(first: first.report.index, second: second.report.index, level: level))
            }
        }
        return result
    }
}
