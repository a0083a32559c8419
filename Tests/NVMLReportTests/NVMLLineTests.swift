import JSON
import NVMLReport
import Testing

@Suite("Lines of martlet-nvml")
struct NVMLLineTests {
    static func inventory() -> NVMLInventory {
        var gpu = NVMLGPU(index: 0)
        gpu.uuid = "GPU-11111111-1111-1111-1111-111111111111"
        gpu.minor = 3
        gpu.instances = [NVMLInstance(uuid: "MIG-1", gpuInstance: 1, computeInstance: 0)]
        gpu.links = [NVMLLink(number: 2, remote: .switch, pciAddress: nil)]
        gpu.condition.slowdowns = [.powerBrake]
        var inventory = NVMLInventory()
        inventory.gpus = [gpu, NVMLGPU(index: 1)]
        inventory.ancestors = [NVMLAncestor(first: 0, second: 1, level: .hostBridge)]
        return inventory
    }

    @Test("each kind of line is read as it was written, and is one line")
    func roundTrip() throws {
        var event = NVMLEvent(.xid, uuid: nil)
        event.xid = 79
        var usage = NVMLUsage(index: 0, uuid: "GPU-1")
        usage.processes = [NVMLProcess(pid: 7)]
        let lines: [NVMLLine] = [
            .inventory(Self.inventory()), .event(event), .sample(NVMLSample([usage])),
            .failure(NVMLFailure(.driverNotLoaded, "line one\nline two")),
        ]
        for line in lines {
            let bytes = try line.encoded()
            #expect(bytes.count { $0 == 10 } == 1)
            #expect(try NVMLLine(bytes) == line)
        }
    }

    @Test("members that a later version adds are passed over, another protocol is refused")
    func versions() throws {
        let known = #"{"protocol":1,"kind":"failure","failure":{"reason":"other","message":"m","more":1},"more":{}}"#
        #expect(try NVMLLine(Array(known.utf8)) == .failure(NVMLFailure(.other, "m")))
        let other = #"{"protocol":2,"kind":"failure","failure":{"reason":"other","message":"m"}}"#
        #expect(throws: JSONError.self) { try NVMLLine(Array(other.utf8)) }
    }

    @Test(
        "what is no line is refused",
        arguments: [
            "", "{}", "[]", "nonsense", #"{"protocol":1}"#, #"{"protocol":1,"kind":"surprise","surprise":{}}"#,
            #"{"protocol":1,"kind":"event"}"#, #"{"protocol":1,"kind":"event","event":{"kind":"unheard of"}}"#,
            #"{"protocol":1,"kind":"inventory","inventory":{"gpus":[{"index":-1e999}]}}"#,
        ])
    func refused(text: String) {
        #expect(throws: (any Error).self) { try NVMLLine(Array(text.utf8)) }
    }

    @Test("more of anything than the protocol has is refused")
    func bounds() throws {
        var many = NVMLInventory()
        many.gpus = (0...NVMLLine.maximumGPUs).map { NVMLGPU(index: $0) }
        #expect(throws: JSONError.self) { try NVMLLine(NVMLLine.inventory(many).encoded()) }
        var usage = NVMLUsage(index: 0, uuid: nil)
        usage.processes = (0...NVMLLine.maximumProcesses).map { NVMLProcess(pid: UInt32($0)) }
        #expect(throws: JSONError.self) { try NVMLLine(NVMLLine.sample(NVMLSample([usage])).encoded()) }
        let long = NVMLFailure(.other, String(repeating: "a", count: NVMLLine.limit))
        #expect(throws: JSONError.self) { try NVMLLine(NVMLLine.failure(long).encoded()) }
    }

    @Test("an inventory whose indexes do not fit together is refused")
    func indexes() {
        var twice = Self.inventory()
        twice.gpus[1].index = 0
        #expect(throws: JSONError.self) { try NVMLLine(NVMLLine.inventory(twice).encoded()) }
        var strange = Self.inventory()
        strange.ancestors[0].second = 9
        #expect(throws: JSONError.self) { try NVMLLine(NVMLLine.inventory(strange).encoded()) }
    }

    @Test("the largest machine that is told of fits into a line")
    func largest() throws {
        let name = String(repeating: "n", count: 95)
        var inventory = NVMLInventory()
        inventory.gpus = (0..<16).map { index in
            var gpu = NVMLGPU(index: index)
            gpu.uuid = name
            gpu.name = name
            gpu.instances = (0..<7).map { (number: UInt32) in
                var instance = NVMLInstance(uuid: name, gpuInstance: number, computeInstance: 0)
                instance.name = name
                return instance
            }
            gpu.links = (0..<36).map { NVMLLink(number: $0, remote: .switch, pciAddress: "00000000:00:00.0") }
            gpu.problems = [String](repeating: name + name, count: 16)
            return gpu
        }
        inventory.ancestors = (0..<16).flatMap { first in
            ((first + 1)..<16).map { NVMLAncestor(first: first, second: $0, level: .singleSwitch) }
        }
        #expect(try NVMLLine.inventory(inventory).encoded().count < NVMLLine.limit / 2)
    }
}
