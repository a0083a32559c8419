import DeviceDiscovery
import Devices
import NVMLReport
import Testing

@Suite("An inventory of NVIDIA's GPUs")
struct NVIDIAInventoryTests {
    @Test("a GPU has its uuid as its name, and its nodes by minor, not by index")
    func whole() throws {
        let inventory = NVIDIAMachine(3).inventory
        #expect(inventory.devices.map(\.id) == (0..<3).map { NVIDIAMachine.uuid($0) })
        #expect(inventory.notes.isEmpty)
        let first = inventory.devices[0]
        #expect(first.minor == 2)
        #expect(
            first.nodes == [
                DeviceFile("/dev/nvidia2", 195, 2, .device), DeviceFile("/dev/nvidiactl", 195, 255, .control),
                DeviceFile("/dev/nvidia-uvm", 234, 0, .control), DeviceFile("/dev/nvidia-uvm-tools", 234, 1, .control),
            ])
        #expect((first.model, first.driver, first.driverVersion) == ("NVIDIA H200", "nvidia", "550.54.15"))
        #expect((first.cudaVersion, first.computeCapability) == ("12.4", "9.0"))
        #expect((first.memoryBytes, first.numaNode) == (150_754_820_096, 0))
        #expect(first.health == DeviceHealth())
        #expect(first.sources == [.nvml, .procfs, .pci])
        #expect(first.isGrantable)
    }

    @Test("a divided GPU is granted by its instances, each with its capability devices")
    func divided() throws {
        var machine = NVIDIAMachine(2)
        machine.divide(0, into: 2)
        let inventory = machine.inventory
        #expect(inventory.devices.count == 4)
        let whole = inventory.devices[0]
        #expect(whole.isDivided)
        #expect(!whole.isGrantable)
        #expect(whole.nodes.isEmpty)
        let second = inventory.devices[2]
        #expect(second.id == "MIG-02aaaaaa-1111-1111-1111-111111111111")
        #expect(
            second.partition
                == DevicePartition(parent: whole.id, profile: "1g.18gb", number: 2, computeInstance: 0))
        #expect(
            second.nodes.prefix(3) == [
                DeviceFile("/dev/nvidia1", 195, 1, .device),
                DeviceFile("/dev/nvidia-caps/nvidia-cap20", 235, 20, .capability),
                DeviceFile("/dev/nvidia-caps/nvidia-cap21", 235, 21, .capability),
            ])
        #expect(second.isGrantable)
    }

    @Test("an instance whose capability devices are not known is granted to nobody")
    func unknownCapabilities() throws {
        var machine = NVIDIAMachine(1)
        machine.divide(0, into: 1)
        machine.host.nvidia.capabilities[.computeInstance(minor: 0, 1, 0)] = nil
        let instance = try #require(machine.inventory.devices.last)
        #expect(instance.nodes.isEmpty)
        #expect(!instance.isGrantable)
    }

    @Test("without a library there are GPUs all the same, of unknown health")
    func noLibrary() throws {
        let machine = NVIDIAMachine(1)
        let inventory = DeviceInventory(machine.host, nvml: .absent("there is no libnvidia-ml.so.1"))
        let device = try #require(inventory.devices.first)
        #expect(device.id == NVIDIAMachine.uuid(0))
        #expect(device.nodes.first == DeviceFile("/dev/nvidia0", 195, 0, .device))
        #expect(device.health.state == .unknown)
        #expect(device.isGrantable)
        // A library that is missing for a moment takes nothing from anybody.
        #expect(inventory.uncertain == [.nvidia])
        #expect(inventory.notes.isEmpty)
    }

    @Test("no library and no GPU is nothing to speak of")
    func nothing() {
        #expect(DeviceInventory(HostDevices(), nvml: .absent("none")) == DeviceInventory())
    }

    @Test("a driver that does not answer leaves its GPUs unusable, and nobody says that others are gone")
    func hung() throws {
        let machine = NVIDIAMachine(1)
        let inventory = DeviceInventory(machine.host, nvml: .trouble(NVMLTrouble(.hung, "it hung")))
        let device = try #require(inventory.devices.first)
        #expect(device.health.state == .unusable)
        #expect(device.health.reasons.joined().contains("it hung"))
        #expect(!device.isGrantable)
        #expect(inventory.uncertain == [.nvidia])
        #expect(inventory.notes == ["NVML tells nothing: it hung"])
    }

    /// What is done to the machine of two GPUs, and what is said of the first then.
    struct Case: Sendable, CustomTestStringConvertible {
        let testDescription: String
        let state: DeviceHealth.State
        let words: String
        let change: @Sendable (inout NVIDIAMachine) -> Void
    }

    static let cases: [Case] = [
        Case(testDescription: "minors that differ", state: .unusable, words: "minor is 1 and the driver's files say 7")
        {
            $0.host.nvidia.gpus[0].minor = 7
        },
        Case(testDescription: "uuids that differ", state: .unusable, words: "uuid") {
            $0.host.nvidia.gpus[0].uuid = NVIDIAMachine.uuid(9)
        },
        Case(testDescription: "one minor for two", state: .unusable, words: "another device claims /dev/nvidia0") {
            $0.nvml.gpus[0].minor = 0
            $0.host.nvidia.gpus[0].minor = 0
        },
        Case(testDescription: "not in NVML's list", state: .unusable, words: "fallen off the bus") {
            $0.nvml.gpus.removeFirst()
        },
        Case(testDescription: "lost", state: .unusable, words: "GPU is lost") {
            $0.nvml.gpus[0].isLost = true
            $0.nvml.gpus[0].problems = ["nvmlDeviceGetUUID: GPU is lost (15)"]
        },
        Case(testDescription: "excluded", state: .unusable, words: "leave it alone") {
            $0.host.nvidia.gpus[0].isExcluded = true
            $0.nvml.gpus.removeFirst()
        },
        Case(testDescription: "given to a virtual machine", state: .unusable, words: "vfio-pci") {
            $0.host.pci[0].driver = "vfio-pci"
            $0.nvml.gpus.removeFirst()
            $0.host.nvidia.gpus.removeFirst()
        },
        Case(testDescription: "without a driver", state: .unusable, words: "load nvidia") {
            $0.host.pci[0].driver = nil
            $0.nvml.gpus.removeFirst()
            $0.host.nvidia.gpus.removeFirst()
        },
        Case(testDescription: "a minor that nobody knows", state: .unusable, words: "minor cannot be read") {
            $0.nvml.gpus[0].minor = nil
            $0.host.nvidia.gpus[0].minor = nil
        },
        Case(testDescription: "rows not replaced", state: .unusable, words: "exchanged") {
            $0.nvml.gpus[0].condition.remapFailed = true
        },
        Case(testDescription: "rows to be replaced", state: .degraded, words: "when it is reset") {
            $0.nvml.gpus[0].condition.remapPending = true
        },
        Case(testDescription: "uncorrectable errors", state: .degraded, words: "2 uncorrectable") {
            $0.nvml.gpus[0].condition.uncorrectedErrors = 2
        },
        Case(testDescription: "corrected errors", state: .healthy, words: "") {
            $0.nvml.gpus[0].condition.correctedErrors = 100
        },
        Case(testDescription: "heat", state: .degraded, words: "heat") {
            $0.nvml.gpus[0].condition.slowdowns = [.hardwareThermal]
        },
        Case(testDescription: "fewer lanes", state: .degraded, words: "8 of 16 lanes") {
            $0.host.pci[0].linkWidth = 8
            $0.host.pci[0].maximumLinkWidth = 16
        },
        Case(testDescription: "a call that fails", state: .degraded, words: "Unknown Error") {
            $0.nvml.gpus[0].problems = ["nvmlDeviceGetName: Unknown Error (999)"]
        },
    ]

    @Test("each sign of trouble makes one GPU as bad as it is, in words", arguments: cases)
    func health(trial: Case) throws {
        var machine = NVIDIAMachine(2)
        trial.change(&machine)
        let devices = machine.inventory.devices
        let first = try #require(devices.first)
        #expect(first.health.state == trial.state)
        #expect(first.health.reasons.joined(separator: "; ").contains(trial.words))
        #expect(first.isGrantable == (trial.state != .unusable))
        #expect(Set(devices.map(\.id)).count == devices.count)
        let claimsAnothers = trial.testDescription == "one minor for two"
        #expect(devices.last?.health.state == (claimsAnothers ? .unusable : .healthy))
    }

    @Test("links are NVLinks straight or by switches, and distances on PCI")
    func links() throws {
        var machine = NVIDIAMachine(3)
        let second = NVIDIAMachine.address(1).description
        machine.nvml.gpus[0].links = (0..<4).map { NVMLLink(number: $0, remote: .gpu, pciAddress: second) }
        machine.nvml.gpus[0].links += (4..<10).map { NVMLLink(number: $0, remote: .switch, pciAddress: nil) }
        machine.nvml.gpus[2].links = (0..<5).map { NVMLLink(number: $0, remote: .switch, pciAddress: nil) }
        machine.nvml.ancestors = [
            NVMLAncestor(first: 0, second: 1, level: .singleSwitch), NVMLAncestor(first: 1, second: 2, level: .system),
        ]
        let devices = machine.inventory.devices
        #expect(
            devices[0].links == [
                DeviceLink(to: NVIDIAMachine.uuid(1), .nvlink(4)),
                DeviceLink(to: NVIDIAMachine.uuid(1), .pci(.singleSwitch)),
                DeviceLink(to: NVIDIAMachine.uuid(2), .nvswitch(5)),
            ])
        #expect(
            devices[1].links == [
                DeviceLink(to: NVIDIAMachine.uuid(0), .pci(.singleSwitch)),
                DeviceLink(to: NVIDIAMachine.uuid(2), .pci(.system)),
            ])
    }

    @Test("an NVML so old that it knows no addresses is joined by uuid")
    func oldLibrary() throws {
        var machine = NVIDIAMachine(2)
        for index in 0..<2 {
            machine.nvml.gpus[index].pciAddress = nil
            machine.nvml.gpus[index].minor = nil
        }
        let devices = machine.inventory.devices
        #expect(devices.map(\.minor) == [1, 0])
        #expect(devices.allSatisfy { $0.health.state == .healthy && $0.sources == [.nvml, .procfs, .pci] })
    }

    @Test("a driver of before 550 has another name for its major")
    func oldDriver() throws {
        var machine = NVIDIAMachine(1)
        machine.host.majors = DeviceMajors("Character devices:\n195 nvidia-frontend\n")
        #expect(machine.inventory.devices.first?.nodes.map(\.path) == ["/dev/nvidia0", "/dev/nvidiactl"])
    }

    @Test("two GPUs of one uuid are both unusable, and still told apart")
    func twins() throws {
        var machine = NVIDIAMachine(2)
        machine.nvml.gpus[1].uuid = NVIDIAMachine.uuid(0)
        machine.host.nvidia.gpus[1].uuid = NVIDIAMachine.uuid(0)
        let devices = machine.inventory.devices
        #expect(Set(devices.map(\.id)).count == 2)
        #expect(devices.allSatisfy { $0.health.state == .unusable })
    }

    @Test("names fit into CDI, whatever form the uuid has")
    func names() throws {
        var machine = NVIDIAMachine(1)
        machine.divide(0, into: 1)
        machine.nvml.gpus[0].instances[0].uuid = "MIG-GPU-01111111-1111-1111-1111-111111111111/1/0"
        #expect(machine.inventory.devices.last?.id == "MIG-GPU-01111111-1111-1111-1111-111111111111:1:0")
    }
}
