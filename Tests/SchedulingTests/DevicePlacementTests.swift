import JSON
import Model
import Scheduling
import Testing

/// Numbers that are the same in every run: splitmix64.
struct SeededNumbers: RandomNumberGenerator {
    private var state: UInt64

    init(_ seed: UInt64) { state = seed }

    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var word = state
        word = (word ^ (word >> 30)) &* 0xBF58_476D_1CE4_E5B9
        word = (word ^ (word >> 27)) &* 0x94D0_49BB_1331_11EB
        return word ^ (word >> 31)
    }
}

/// Nodes with GPUs, and what is wanted of them.
enum Machines {
    static func gpu(_ id: String, _ change: (inout NodeDevice) -> Void = { _ in }) -> NodeDevice {
        var device = NodeDevice(
            id: id, vendor: "nvidia", model: "NVIDIA A100", memoryBytes: 40 << 30, driverVersion: "550.54",
            runtimeVersion: "12.4", computeCapability: "8.0")
        change(&device)
        return device
    }

    static func demanded(_ claims: [DeviceClaim]) -> [DemandedDevices] {
        claims.enumerated().map { DemandedDevices(container: "main", index: $0.offset, claim: $0.element) }
    }

    static func node(
        _ name: String, _ devices: [NodeDevice], labels: [String: String] = [:],
        holders: [String: [DeviceClaim.Sharing]] = [:]
    ) -> NodeSnapshot {
        var node = Placement.node(name, labels: labels)
        node.devices = DevicePool(devices, holders: holders)
        return node
    }

    /// Eight GPUs in two islands of four with NVLinks, on two NUMA nodes.
    static var islands: [NodeDevice] {
        (0..<8).map { number in
            gpu("g\(number)") { device in
                device.numaNode = number / 4
                device.links = (number / 4 * 4..<number / 4 * 4 + 4).filter { $0 != number }.map {
                    NodeDevice.Link(to: "g\($0)", .nvlink, amount: 4)
                }
            }
        }
    }
}

extension DevicePool {
    /// The ids that one claim gets; else why not.
    fileprivate func ids(_ claim: DeviceClaim, avoiding avoided: Set<String> = []) -> [String] {
        switch choose(Machines.demanded([claim]), avoiding: avoided) {
        case .grants(let grants): grants.flatMap(\.devices)
        case .lacks(let words): [words]
        }
    }
}

@Suite struct DeviceChoices {
    @Test func theBestConnectedSetIsChosen() {
        let taken = DevicePool(Machines.islands, holders: ["g0": [.whole], "g1": [.whole]])
        #expect(taken.ids(DeviceClaim(count: 4)) == ["g4", "g5", "g6", "g7"])
        #expect(taken.ids(DeviceClaim(count: 2)) == ["g2", "g3"])
    }

    @Test func whatIsLeftIsWorthMost() {
        let taken = DevicePool(Machines.islands, holders: ["g0": [.whole]])
        // One of the broken island: the other stays whole.
        #expect(taken.ids(DeviceClaim()) == ["g1"])
    }

    @Test func linksGoBeforePCIAndPCIBeforeNUMA() {
        let devices = ["a", "b", "c", "d"].map { id in
            Machines.gpu(id) { $0.numaNode = id == "c" || id == "d" ? 1 : 0 }
        }
        #expect(DevicePool(devices).ids(DeviceClaim(count: 2)) == ["a", "b"])
        var near = devices
        near[1].links = [NodeDevice.Link(to: "c", .singleSwitch)]
        #expect(DevicePool(near).ids(DeviceClaim(count: 2)) == ["b", "c"])
        near[0].links = [NodeDevice.Link(to: "d", .xgmi, amount: 15)]
        #expect(DevicePool(near).ids(DeviceClaim(count: 2)) == ["a", "d"])
    }

    @Test func noMoreMemoryThanNeededIsGiven() {
        let pool = DevicePool([
            Machines.gpu("large") { $0.memoryBytes = 80 << 30 }, Machines.gpu("small") { $0.memoryBytes = 16 << 30 },
        ])
        #expect(pool.ids(DeviceClaim(memory: 10 << 30)) == ["small"])
        #expect(pool.ids(DeviceClaim(memory: 20 << 30)) == ["large"])
    }

    @Test func suspectAndAvoidedOnesComeLast() {
        let pool = DevicePool([
            Machines.gpu("a") { $0.health = .init(.degraded, reasons: ["slow link"]) }, Machines.gpu("b"),
            Machines.gpu("c"),
        ])
        #expect(pool.ids(DeviceClaim()) == ["b"])
        #expect(pool.ids(DeviceClaim(), avoiding: ["b"]) == ["c"])
        #expect(pool.ids(DeviceClaim(), avoiding: ["b", "c"]) == ["a"])
        #expect(pool.ids(DeviceClaim(count: 3), avoiding: ["b"]) == ["a", "b", "c"])
    }

    @Test func allMeansAllThatAreInOrderAndFree() {
        let devices = [
            Machines.gpu("a"), Machines.gpu("b") { $0.health = .init(.unusable) },
            Machines.gpu("c") { $0.isGone = true },
            Machines.gpu("d"),
        ]
        #expect(DevicePool(devices).ids(DeviceClaim(all: true)) == ["a", "d"])
        #expect(DevicePool(devices, holders: ["a": [.whole]]).ids(DeviceClaim(all: true)) == ["gpus taken"])
    }

    @Test func sharesAreGivenOfWhatIsSharedAlready() {
        let devices = [Machines.gpu("a") { $0.shares = 2 }, Machines.gpu("b") { $0.shares = 2 }, Machines.gpu("c")]
        let share = DeviceClaim(sharing: .share)
        #expect(DevicePool(devices, holders: ["b": [.share]]).ids(share) == ["b"])
        #expect(DevicePool(devices, holders: ["b": [.share, .share]]).ids(share) == ["a"])
        #expect(DevicePool(devices, holders: ["b": [.share, .share], "a": [.whole]]).ids(share) == ["gpus taken"])
        // Whole: what is not shared first, and never beside a share.
        #expect(DevicePool(devices).ids(DeviceClaim()) == ["c"])
        let wholes = DevicePool(devices, holders: ["b": [.share], "c": [.whole]])
        #expect(wholes.ids(DeviceClaim(count: 2)) == ["too few free gpus (2 wanted)"])
        #expect(wholes.ids(DeviceClaim()) == ["a"])
        // Two shares of one task are of two devices.
        #expect(DevicePool(devices).ids(DeviceClaim(count: 2, sharing: .share)) == ["a", "b"])
        #expect(DevicePool(devices).ids(DeviceClaim(count: 3, sharing: .share)) == ["gpu with shares (3 wanted)"])
    }

    @Test func dividedDevicesAreGivenByTheirPartitions() {
        var parent = Machines.gpu("GPU-1")
        parent.isDivided = true
        parent.aliases = ["0"]
        let parts = (0..<2).map { number in
            Machines.gpu("MIG-\(number)") {
                $0.parent = "GPU-1"
                $0.profile = number == 0 ? "1g.10gb" : "3g.40gb"
                $0.aliases = ["0:\(number)"]
            }
        }
        let pool = DevicePool([parent] + parts)
        #expect(pool.ids(DeviceClaim()) == ["gpu undivided"])
        #expect(pool.ids(DeviceClaim(ids: ["0"])) == ["gpu undivided"])
        #expect(pool.ids(DeviceClaim(profile: "3g.*")) == ["MIG-1"])
        #expect(pool.ids(DeviceClaim(ids: ["0:0"])) == ["MIG-0"])
        #expect(pool.ids(DeviceClaim(profile: "7g.80gb")) == ["gpu profile 7g.80gb"])
        #expect(DevicePool(parts).ids(DeviceClaim()) == ["gpu that is whole"])
    }

    @Test func namesMeanOneDeviceEach() {
        let pool = DevicePool([
            Machines.gpu("GPU-a") { $0.aliases = ["0"] }, Machines.gpu("GPU-b") { $0.aliases = ["1"] },
        ])
        #expect(pool.ids(DeviceClaim(ids: ["1", "GPU-a"])) == ["GPU-a", "GPU-b"])
        #expect(pool.ids(DeviceClaim(ids: ["0", "GPU-a"])) == ["gpu GPU-a named twice"])
        #expect(pool.ids(DeviceClaim(ids: ["7"])) == ["no gpu 7"])
    }

    /// What only one claim can use is not taken by another that has a choice.
    @Test func claimsOfOnePodLeaveEachOtherWhatTheyNeed() {
        let pool = DevicePool([
            Machines.gpu("old") { $0.memoryBytes = 16 << 30 }, Machines.gpu("new") { $0.model = "NVIDIA H100" },
        ])
        let any = DeviceClaim()
        let new = DeviceClaim(model: "*H100")
        guard case .grants(let grants) = pool.choose(Machines.demanded([any, new])) else {
            Issue.record("refused")
            return
        }
        #expect(grants.map(\.devices) == [["old"], ["new"]])
        #expect(grants.map(\.claim) == [0, 1])
        #expect(pool.choose(Machines.demanded([new, new])) == .lacks("fewer gpus than all claims want"))
    }

    @Test func manyDevicesAreChosenAmongQuickly() {
        let devices = (0..<256).map { number in
            Machines.gpu("g\(number)") { device in
                device.links = (number / 8 * 8..<number / 8 * 8 + 8).filter { $0 != number }.map {
                    NodeDevice.Link(to: "g\($0)", .nvlink, amount: 1)
                }
            }
        }
        let chosen = DevicePool(devices).ids(DeviceClaim(count: 8))
        #expect(Set(chosen.compactMap { Int($0.dropFirst()).map { $0 / 8 } }).count == 1, "one board: \(chosen)")
        #expect(DevicePool(devices).ids(DeviceClaim(count: 64)).count == 64)
    }
}

@Suite struct DeviceRefusals {
    var random = SeededNumbers(7)

    /// The scheduler's words for one instance with these claims.
    mutating func refusal(_ claims: [DeviceClaim], on nodes: [NodeSnapshot]) -> String {
        let demand = PodDemand(workload: WorkloadID("w"), devices: Machines.demanded(claims))
        var scheduler = Scheduler(nodes: nodes)
        switch scheduler.place(Placement.requests(1, demand), random: &random).first {
        case .refused(let refusal): return "\(refusal)"
        default: return "placed"
        }
    }

    @Test mutating func nodesAreCountedByWhatTheyLack() {
        let nodes =
            (1...3).map { Machines.node("t\($0)", [Machines.gpu("x") { $0.model = "Tesla T4" }]) }
            + (1...2).map { Machines.node("m\($0)", [Machines.gpu("x") { $0.memoryBytes = 20 << 30 }]) }
            + [Machines.node("u", [Machines.gpu("x")], holders: ["x": [.whole]]), Machines.node("n", [])]
        #expect(
            refusal([DeviceClaim(model: "*A100*", memory: 40 << 30)], on: nodes)
                == "0 of 7 nodes: gpu model *A100* on 3, gpu memory>=40g on 2, gpus taken on 1, no gpu on 1")
    }

    @Test(arguments: [
        (DeviceClaim(vendor: "amd"), "gpu vendor amd"), (DeviceClaim(driver: "560"), "gpu driver>=560"),
        (DeviceClaim(runtime: "12.5"), "gpu cuda>=12.5"), (DeviceClaim(capability: "9.0"), "gpu capability>=9.0"),
        (DeviceClaim(capability: "gfx942"), "gpu capability>=gfx942"),
        (DeviceClaim(count: 3), "gpu that is whole (3 wanted)"),
        (DeviceClaim(count: 2, memory: 41 << 30), "gpu memory>=41g (2 wanted)"),
        (DeviceClaim(ids: ["GPU-9"]), "no gpu GPU-9"), (DeviceClaim(sharing: .share), "gpu with shares"),
    ])
    mutating func eachDemandIsNamed(claim: DeviceClaim, words: String) {
        let nodes = [Machines.node("a", [Machines.gpu("x"), Machines.gpu("y")])]
        #expect(refusal([claim], on: nodes) == "0 of 1 node: \(words) on 1")
    }

    @Test mutating func sickAndAbsentDevicesAreNamed() {
        let sick = Machines.node("a", [Machines.gpu("x") { $0.health = .init(.unusable, reasons: ["XID 79"]) }])
        #expect(refusal([DeviceClaim()], on: [sick]) == "0 of 1 node: gpu in order on 1")
        let gone = Machines.node("a", [Machines.gpu("x") { $0.isGone = true }])
        #expect(refusal([DeviceClaim()], on: [gone]) == "0 of 1 node: gpu that is there on 1")
    }
}

@Suite struct ScarceNodes {
    var random = SeededNumbers(3)

    mutating func names(_ count: Int, _ demand: PodDemand, on nodes: [NodeSnapshot]) -> [String] {
        var scheduler = Scheduler(nodes: nodes)
        return scheduler.place(Placement.requests(count, demand), random: &random).map {
            switch $0 {
            case .placed(let id, _, _, _): String(id.text.dropFirst(3))
            case .refused(let refusal): "\(refusal)"
            }
        }
    }

    @Test(arguments: [PlacementStrategy.spread, .binpack, .random])
    mutating func workWithoutClaimsComesOnlyWhenNothingElseIsLeft(strategy: PlacementStrategy) {
        let nodes = [Machines.node("gpu", [Machines.gpu("x")]), Placement.node("cpu", memory: 2 << 30)]
        let demand = PodDemand(
            workload: WorkloadID("w"), resources: Resources(memory: 1 << 30), strategy: strategy)
        #expect(names(3, demand, on: nodes) == ["cpu", "cpu", "gpu"])
    }

    @Test mutating func theNodesLabelSaysOtherwise() {
        let plain = PodDemand(workload: WorkloadID("w"))
        let claiming = PodDemand(workload: WorkloadID("v"), devices: Machines.demanded([DeviceClaim()]))
        let open = Machines.node("gpu", [Machines.gpu("x")], labels: ["device-placement": "unrestricted"])
        #expect(Set(names(2, plain, on: [open, Placement.node("cpu")])) == ["gpu", "cpu"])
        let kept = Machines.node("gpu", [Machines.gpu("x")], labels: ["device-placement": "exclusive"])
        #expect(names(1, plain, on: [kept]) == ["0 of 1 node: kept for claims of devices on 1"])
        #expect(names(1, claiming, on: [kept]) == ["gpu"])
    }

    private static let onGPU = Constraint(label: "node.name", relation: .equal, value: "gpu")

    @Test(arguments: [[:], ["device-placement": "restricted"]] as [[String: String]])
    mutating func restrictedIsTheSameAsNoLabel(labels: [String: String]) {
        let node = Machines.node("gpu", [Machines.gpu("x")], labels: labels)
        let plain = PodDemand(workload: WorkloadID("w"))
        #expect(names(3, plain, on: [node, Placement.node("cpu")]) == ["cpu", "cpu", "cpu"])
        #expect(names(1, plain, on: [node]) == ["gpu"], "it comes when no other node will do")
        let bound = PodDemand(workload: WorkloadID("w"), constraints: [Self.onGPU])
        #expect(names(1, bound, on: [node, Placement.node("cpu")]) == ["gpu"], "or when it must be this one")
        let claiming = PodDemand(workload: WorkloadID("v"), devices: Machines.demanded([DeviceClaim()]))
        #expect(names(1, claiming, on: [node, Placement.node("cpu")]) == ["gpu"])
    }

    @Test mutating func anExclusiveNodeIsForClaimsAndForServicesThatAreOnEveryNode() {
        let labels = ["device-placement": "exclusive"]
        let nodes = [Machines.node("gpu", [Machines.gpu("x")], labels: labels), Placement.node("cpu")]
        let plain = PodDemand(workload: WorkloadID("w"))
        #expect(names(3, plain, on: nodes) == ["cpu", "cpu", "cpu"])
        let bound = PodDemand(workload: WorkloadID("w"), constraints: [Self.onGPU])
        #expect(
            names(1, bound, on: nodes)
                == ["0 of 2 nodes: constraint node.name==gpu on 1, kept for claims of devices on 1"])
        // Evening out moves nothing onto it.
        let instances = (0..<4).map { SpreadService.Placed(instance: InstanceID("i\($0)"), node: NodeID("id-cpu")) }
        let service = SpreadService(demand: plain, instances: instances)
        #expect(Rebalancer.moves([service], nodes: nodes, limit: 5).isEmpty)
        // Of what is on every node it has one too.
        #expect(nodes.filter { $0.isEligible(for: plain) }.map(\.node.name) == ["gpu", "cpu"])
        let pinned = PlacementRequest(instance: InstanceID("i0"), demand: plain, pinned: NodeID("id-gpu"))
        var scheduler = Scheduler(nodes: nodes)
        let results = scheduler.place([pinned], random: &random)
        #expect(results == [.placed(NodeID("id-gpu"), ports: [], devices: [], processors: [])])
    }

    @Test mutating func aNodeWithItsProcessorsGraphicsIsAsAnyOther() {
        let nodes = [
            Machines.node("a", [NodeDevice(id: "intel-0000:00:02.0", vendor: "intel")]), Placement.node("b"),
        ]
        #expect(Set(names(2, PodDemand(workload: WorkloadID("w")), on: nodes)) == ["a", "b"])
    }

    @Test func evennessMovesNothingOntoScarceNodes() {
        let nodes = [Machines.node("gpu", [Machines.gpu("x")]), Placement.node("b"), Placement.node("c")]
        let instances = (0..<4).map {
            SpreadService.Placed(instance: InstanceID("i\($0)"), node: NodeID($0 < 2 ? "id-b" : "id-c"))
        }
        let service = SpreadService(demand: PodDemand(workload: WorkloadID("w")), instances: instances)
        #expect(Rebalancer.moves([service], nodes: nodes, limit: 5).isEmpty)
    }
}
