import DeviceDiscovery
import Devices
import NVMLReport

/// What a machine with NVIDIA's GPUs says, to be joined.
struct NVIDIAMachine {
    var host = HostDevices()
    var nvml = NVMLInventory()

    static func uuid(_ index: Int) -> String { "GPU-\(index)1111111-1111-1111-1111-111111111111" }

    static func address(_ index: Int) -> PCIAddress {
        // Within range by construction.
        PCIAddress(domain: 0, bus: UInt8(0x10 + index), device: 0, function: 0)
            ?? PCIAddress("0000:00:00.0").unsafelyUnwrapped  // a constant that is one
    }

    /// GPUs whose minors are not their indexes: the highest comes first.
    init(_ count: Int) {
        host.majors = DeviceMajors(
            "Character devices:\n195 nvidia\n195 nvidiactl\n234 nvidia-uvm\n235 nvidia-caps\n")
        host.nvidia.version = "550.54.15"
        nvml.driverVersion = "550.54.15"
        nvml.cudaVersion = "12.4"
        for index in 0..<count {
            var pci = PCIDevice(address: Self.address(index), vendor: 0x10de, device: 0x2335, deviceClass: 0x030200)
            pci.driver = "nvidia"
            pci.numaNode = index % 2
            host.pci.append(pci)
            var file = NVIDIAFileGPU(address: Self.address(index))
            file.uuid = Self.uuid(index)
            file.minor = UInt32(count - 1 - index)
            file.model = "NVIDIA H200"
            host.nvidia.gpus.append(file)
            var gpu = NVMLGPU(index: index)
            gpu.uuid = Self.uuid(index)
            gpu.minor = UInt32(count - 1 - index)
            gpu.pciAddress = Self.address(index).description
            gpu.name = "NVIDIA H200"
            gpu.memoryBytes = 150_754_820_096
            gpu.computeCapability = "9.0"
            nvml.gpus.append(gpu)
        }
    }

    var inventory: DeviceInventory { DeviceInventory(host, nvml: .inventory(nvml)) }

    /// Divides a GPU into instances 1, 2, … with the capability devices that belong to them.
    mutating func divide(_ index: Int, into count: UInt32) {
        nvml.gpus[index].isDivided = true
        guard let minor = nvml.gpus[index].minor else { return }
        for number in 1...count {
            var instance = NVMLInstance(
                uuid: "MIG-\(index)\(number)aaaaaa-1111-1111-1111-111111111111", gpuInstance: number, computeInstance: 0
            )
            instance.name = "NVIDIA H200 MIG 1g.18gb"
            instance.memoryBytes = 17_179_869_184
            nvml.gpus[index].instances.append(instance)
            host.nvidia.capabilities[.gpuInstance(minor: minor, number)] = number * 10
            host.nvidia.capabilities[.computeInstance(minor: minor, number, 0)] = number * 10 + 1
        }
    }
}

extension DeviceInventory {
    func device(_ id: String) -> Device? { devices.first { $0.id == id } }
}
