import DeviceDiscovery
import Devices
import NVMLReport
import Testing

@Suite("Devices that come, change, go and return")
struct DeviceTableTests {
    let first = NVIDIAMachine.uuid(0)

    @Test("the first inventory makes all appear, the same again says nothing")
    func appear() {
        var table = DeviceTable()
        let inventory = NVIDIAMachine(2).inventory
        #expect(table.update(inventory) == inventory.devices.map { .appeared($0) })
        #expect(table.update(inventory).isEmpty)
        #expect(table.present.count == 2)
    }

    @Test("one that was pulled out is gone, and is the same when it returns at another place with another minor")
    func pulledOut() throws {
        var table = DeviceTable()
        let machine = NVIDIAMachine(2)
        _ = table.update(machine.inventory)
        var pulled = machine
        pulled.host.pci.removeFirst()
        pulled.host.nvidia.gpus.removeFirst()
        pulled.nvml.gpus.removeFirst()
        let device = try #require(machine.inventory.device(first))
        #expect(table.update(pulled.inventory) == [.gone(device)])
        #expect(table.entries[first]?.isPresent == false)
        var moved = machine
        let place = try #require(PCIAddress("0000:99:00.0"))
        let pci = moved.host.pci[0]
        moved.host.pci[0] = PCIDevice(
            address: place, vendor: pci.vendor, device: pci.device, deviceClass: pci.deviceClass)
        moved.host.pci[0].driver = "nvidia"
        moved.host.nvidia.gpus.removeFirst()
        moved.nvml.gpus[0].pciAddress = "\(place)"
        moved.nvml.gpus[0].minor = 5
        let returned = try #require(moved.inventory.device(first))
        #expect(table.update(moved.inventory) == [.returned(returned)])
    }

    @Test("a change of health is a change")
    func health() throws {
        var table = DeviceTable()
        var machine = NVIDIAMachine(1)
        let before = machine.inventory.devices[0]
        _ = table.update(machine.inventory)
        machine.nvml.gpus[0].condition.remapFailed = true
        #expect(table.update(machine.inventory) == [.changed(from: before, to: machine.inventory.devices[0])])
    }

    @Test("while NVML does not answer nothing is said to be gone, instances of a divided GPU neither")
    func uncertain() throws {
        var table = DeviceTable()
        var machine = NVIDIAMachine(1)
        machine.divide(0, into: 2)
        _ = table.update(machine.inventory)
        let hung = DeviceInventory(machine.host, nvml: .trouble(NVMLTrouble(.hung, "it hung")))
        let changes = table.update(hung)
        #expect(changes.count == 3)
        #expect(table.present.count == 3)
        #expect(table.present.allSatisfy { !$0.isGrantable })
        #expect(table.update(hung).isEmpty)
        // Nobody knows that anything is wrong with them.
        #expect(table.present.allSatisfy { $0.health.isUnconfirmed })
        // It answers again: all are as they were, and none has come or gone.
        #expect(
            table.update(machine.inventory).allSatisfy { if case .changed = $0 { true } else { false } })
        #expect(table.present.count { $0.isGrantable } == 2)
    }

    @Test("a GPU that cannot tell its uuid while NVML does not answer keeps its name")
    func keepsItsName() throws {
        var table = DeviceTable()
        var machine = NVIDIAMachine(1)
        _ = table.update(machine.inventory)
        machine.host.nvidia.gpus[0].uuid = nil
        _ = table.update(DeviceInventory(machine.host, nvml: .trouble(NVMLTrouble(.crashed, "it crashed"))))
        #expect(table.entries.keys.sorted() == [first])
        #expect(table.entries[first]?.device.isGrantable == false)
        #expect(table.entries[first]?.device.health.isUnconfirmed == true)
    }

    @Test("what is known to be wrong is not taken back by a silence of NVML's")
    func knownTrouble() throws {
        var health = DeviceHealth()
        health.worsen(.degraded, "hot")
        #expect(!health.isUnconfirmed)
        health.worsen(.unusable, "NVML tells nothing", isKnown: false)
        #expect(health.isUnconfirmed)
        health.worsen(.unusable, "its driver told of XID 79")
        #expect(!health.isUnconfirmed)
        // A look that does not find it, while others answer, is knowledge.
        var machine = NVIDIAMachine(2)
        machine.nvml.gpus.removeFirst()
        let lost = try #require(machine.inventory.devices.first { $0.id == first })
        #expect(lost.health.state == .unusable && !lost.health.isUnconfirmed)
    }

    @Test("what is gone can be forgotten, what is there cannot")
    func forget() {
        var table = DeviceTable()
        _ = table.update(NVIDIAMachine(1).inventory)
        table.forget(first)
        #expect(table.entries.count == 1)
        _ = table.update(DeviceInventory())
        table.forget(first)
        #expect(table.entries.isEmpty)
    }

    @Test("what is gone is remembered up to a bound, the longest gone forgotten first")
    func bound() throws {
        var table = DeviceTable()
        for round in 0..<(DeviceTable.goneLimit + 50) {
            var host = HostDevices()
            var file = NVIDIAFileGPU(address: NVIDIAMachine.address(0))
            file.uuid = "GPU-round-\(round)"
            file.minor = 0
            host.nvidia.gpus = [file]
            _ = table.update(DeviceInventory(host, nvml: .absent("none")))
        }
        #expect(table.entries.count == DeviceTable.goneLimit + 1)
        #expect(table.entries["GPU-round-0"] == nil)
        #expect(table.entries["GPU-round-\(DeviceTable.goneLimit)"] != nil)
    }
}
