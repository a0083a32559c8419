import DeviceDiscovery
import Devices
import NVMLReport
import Testing

@Suite("What the driver tells of devices' troubles")
struct DeviceTroublesTests {
    private let first = NVIDIAMachine.uuid(0)
    private let second = NVIDIAMachine.uuid(1)

    private func xid(_ number: UInt64, _ uuid: String?, instance: UInt32? = nil, compute: UInt32? = nil)
        -> NVMLWatchReport
    {
        var event = NVMLEvent(.xid, uuid: uuid)
        event.xid = number
        event.gpuInstance = instance
        event.computeInstance = compute
        return .event(event)
    }

    private func take(_ report: NVMLWatchReport, _ troubles: inout DeviceTroubles, divided: Bool = false) -> Bool {
        troubles.take(report, machine(divided: divided).inventory.devices)
    }

    /// The ids of devices that get no work after this, of a machine whose first GPU is in two parts.
    private func unusable(_ troubles: inout DeviceTroubles, divided: Bool = false) -> [String] {
        var inventory = machine(divided: divided).inventory
        troubles.apply(to: &inventory)
        return inventory.devices.filter { $0.health.state == .unusable }.map(\.id)
    }

    private func machine(divided: Bool = false) -> NVIDIAMachine {
        var machine = NVIDIAMachine(2)
        if divided { machine.divide(0, into: 2) }
        return machine
    }

    @Test("an XID of the hardware makes its device unusable, whatever the next inventory says")
    func hardware() {
        var troubles = DeviceTroubles()
        #expect(take(xid(79, second), &troubles) == true)
        #expect(unusable(&troubles) == [second])
        #expect(troubles.reasons == [second: ["its driver told of XID 79"]])
        #expect(take(.began(machine().nvml), &troubles) == false)
        #expect(unusable(&troubles) == [second])
        // An agent that starts again has them from the one before.
        var kept = DeviceTroubles(troubles.reasons)
        #expect(unusable(&kept) == [second])
        let (first, again) = (kept.clear(second), kept.clear(second))
        #expect(first && !again)
        #expect(unusable(&kept) == [])
    }

    @Test(
        "an XID that a program causes, or that tells of what was dealt with, harms nobody else",
        arguments: [13, 31, 43, 45, 68, 109, 63, 92, 94, 154] as [UInt64])
    func programs(number: UInt64) {
        var troubles = DeviceTroubles()
        #expect(take(xid(number, first), &troubles) == false)
        #expect(unusable(&troubles) == [])
    }

    @Test("an error of memory that could not be corrected makes its device unusable, one that was corrected does not")
    func memory() {
        var troubles = DeviceTroubles()
        #expect(take(.event(NVMLEvent(.singleBitECC, uuid: second)), &troubles) == false)
        #expect(unusable(&troubles) == [])
        #expect(take(.event(NVMLEvent(.doubleBitECC, uuid: second)), &troubles) == true)
        #expect(unusable(&troubles) == [second])
        #expect(troubles.reasons == [second: ["its memory had an error that could not be corrected"]])
        #expect(take(.event(NVMLEvent(.singleBitECC, uuid: second)), &troubles) == false)
        #expect(unusable(&troubles) == [second], "a corrected one afterwards changes nothing")
        // One that names no device may be any's: the next look says whose.
        var unnamed = DeviceTroubles()
        #expect(take(.event(NVMLEvent(.doubleBitECC, uuid: nil)), &unnamed) == true)
        #expect(unusable(&unnamed) == [])
    }

    @Test("of a divided GPU it is the instance that is named, and all of them where none is")
    func instances() {
        let (one, two) = ("MIG-01aaaaaa-1111-1111-1111-111111111111", "MIG-02aaaaaa-1111-1111-1111-111111111111")
        var troubles = DeviceTroubles()
        #expect(take(xid(74, first, instance: 2, compute: 0), &troubles, divided: true) == true)
        var sick = Set(unusable(&troubles, divided: true))
        #expect(sick.contains(two) && !sick.contains(one))
        #expect(troubles.reasons.keys.sorted() == [two], "the whole is not sick by it")
        #expect(take(xid(79, first), &troubles, divided: true) == true)
        sick = Set(unusable(&troubles, divided: true))
        #expect(sick.isSuperset(of: [one, two]) && !sick.contains(second))
        // Nor does dividing it in another way help.
        var other = NVIDIAMachine(2)
        other.divide(0, into: 3)
        var inventory = other.inventory
        troubles.apply(to: &inventory)
        #expect(inventory.devices.filter { $0.partition != nil }.allSatisfy { $0.health.state == .unusable })
    }

    @Test("a device that was away has been seen to; one of which nothing is known has not")
    func away() {
        var troubles = DeviceTroubles()
        _ = troubles.take(xid(79, second), machine().inventory.devices)
        var silent = DeviceInventory(machine().host, nvml: .trouble(NVMLTrouble(.hung, "no answer")))
        troubles.apply(to: &silent)
        #expect(troubles.reasons[second] != nil)
        // Nor has one whose uuid cannot be read, which may be the one that is missing.
        var nameless = machine()
        nameless.host.nvidia.gpus[1].uuid = nil
        nameless.nvml.gpus[1].uuid = nil
        var unnamed = nameless.inventory
        troubles.apply(to: &unnamed)
        #expect(troubles.reasons[second] != nil)
        var without = NVIDIAMachine(1).inventory
        troubles.apply(to: &without)
        #expect(troubles.reasons.isEmpty)
        #expect(unusable(&troubles) == [])
    }

    @Test("an error that names no device asks for a look, and a watch that broke takes no device from anybody")
    func unnamed() {
        var troubles = DeviceTroubles()
        #expect(take(xid(79, nil), &troubles) == true)
        #expect(unusable(&troubles) == [])
        #expect(take(.broken(NVMLTrouble(.crashed, "it crashed")), &troubles) == true)
        var inventory = machine().inventory
        troubles.apply(to: &inventory)
        #expect(inventory.devices.map(\.health.state) == [.unknown, .unknown])
        #expect(inventory.devices.filter(\.isGrantable).count == 2)
        #expect(take(.began(machine().nvml), &troubles) == true)
        inventory = machine().inventory
        troubles.apply(to: &inventory)
        #expect(inventory.devices.map(\.health.state) == [.healthy, .healthy])
    }
}
