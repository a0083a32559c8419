import JSON
import Model
import Scheduling
import Testing

@Suite struct Placement {
    var random = SystemRandomNumberGenerator()

    static func node(
        _ name: String, cpu: Int64 = 4_000_000_000, memory: Int64 = 4 << 30, labels: [String: String] = [:]
    ) -> NodeSnapshot {
        NodeSnapshot(
            node: Node(
                id: NodeID("id-" + name), name: name, labels: labels,
                platform: Platform(os: "linux", architecture: "amd64"),
                capacity: Resources(cpu: cpu, memory: memory), address: "127.0.0.1", streamEndpoint: "unix:/a",
                agentVersion: "1", kernelVersion: "6", bootID: "b", createdAt: Timestamp(nanoseconds: 0)),
            images: ["sha256:1"])
    }

    static func requests(_ count: Int, _ demand: PodDemand) -> [PlacementRequest] {
        (0..<count).map { PlacementRequest(instance: InstanceID("i\($0)"), demand: demand) }
    }

    mutating func place(_ count: Int, _ demand: PodDemand, on nodes: [NodeSnapshot]) -> [PlacementResult] {
        var scheduler = Scheduler(nodes: nodes)
        return scheduler.place(Self.requests(count, demand), random: &random)
    }

    func nodes(_ results: [PlacementResult]) -> [String] {
        results.map {
            switch $0 {
            case .placed(let id, _, _, _): String(id.text.dropFirst(3))
            case .refused(let refusal): "\(refusal)"
            }
        }
    }

    @Test mutating func spreadGivesEachNodeOneBeforeAnyHasTwo() {
        let demand = PodDemand(workload: WorkloadID("w"))
        let placed = nodes(place(6, demand, on: [Self.node("a"), Self.node("b"), Self.node("c")]))
        #expect(Set(placed.prefix(3)) == ["a", "b", "c"])
        #expect(Set(placed.suffix(3)) == ["a", "b", "c"])
    }

    @Test mutating func binpackFillsOneNodeFirst() {
        let demand = PodDemand(workload: WorkloadID("w"), resources: Resources(memory: 1 << 30), strategy: .binpack)
        let placed = nodes(place(5, demand, on: [Self.node("a"), Self.node("b")]))
        #expect(placed == ["a", "a", "a", "a", "b"])
    }

    @Test mutating func randomUsesMoreThanOneNode() {
        let demand = PodDemand(workload: WorkloadID("w"), strategy: .random)
        #expect(Set(nodes(place(64, demand, on: [Self.node("a"), Self.node("b")]))) == ["a", "b"])
    }

    @Test mutating func aRefusalCountsNodesByTheFilterTheyFailed() {
        var cordoned = Self.node("c", labels: ["zone": "b"])
        cordoned.node.availability = .cordoned
        let small = (1...3).map { Self.node("s\($0)", memory: 1 << 20, labels: ["zone": "b"]) }
        let other = (1...2).map { Self.node("o\($0)", labels: ["zone": "a"]) }
        let demand = PodDemand(
            workload: WorkloadID("w"), resources: Resources(memory: 1 << 30),
            constraints: [Constraint(label: "zone", relation: .equal, value: "b")])
        #expect(
            nodes(place(1, demand, on: [cordoned] + small + other)) == [
                "0 of 6 nodes: memory on 3, constraint zone==b on 2, cordoned or drained on 1"
            ])
    }

    @Test mutating func noNodeAtAllIsSaid() {
        #expect(nodes(place(1, PodDemand(workload: WorkloadID("w")), on: []))[0].contains("no node yet"))
    }

    @Test mutating func constraintsReadLabelsAndTheNodesOwnFacts() {
        let all = [Self.node("a", labels: ["disk": "ssd"]), Self.node("b"), Self.node("c", labels: ["disk": "slow"])]
        func eligible(_ constraint: String) -> [String] {
            let demand = PodDemand(workload: WorkloadID("w"), constraints: [Constraint(constraint)].compactMap { $0 })
            return all.filter { $0.isEligible(for: demand) }.map(\.node.name)
        }
        #expect(eligible("disk==ssd") == ["a"])
        #expect(eligible("disk!=ssd") == ["b", "c"])
        #expect(eligible("node.name==b") == ["b"])
        #expect(eligible("node.arch==arm64") == [])
    }

    @Test mutating func resourcesAreNeverPromisedTwice() {
        let demand = PodDemand(
            workload: WorkloadID("w"), resources: Resources(cpu: 1_500_000_000, memory: 1 << 30))
        let placed = nodes(place(6, demand, on: [Self.node("a"), Self.node("b")]))
        #expect(placed.filter { $0 == "a" }.count == 2)
        #expect(placed.filter { $0 == "b" }.count == 2)
        #expect(placed.filter { $0.contains("cpu on 2") }.count == 2)
    }

    @Test mutating func theImageMustBeOnSomeNodeThatCanBeReached() {
        let demand = PodDemand(workload: WorkloadID("w"), images: ["sha256:2": "web:latest"])
        var other = Self.node("b")
        #expect(
            nodes(place(1, demand, on: [Self.node("a"), other]))
                == ["0 of 2 nodes: image web:latest (on no node that can be reached) on 2"])
        other.images = ["sha256:2"]
        // Of equals, the one that need not fetch it.
        #expect(nodes(place(1, demand, on: [Self.node("a"), other])) == ["b"])
        other.node.availability = .cordoned
        #expect(nodes(place(1, demand, on: [Self.node("a"), other])) == ["a"])
        other.ready = false
        #expect(nodes(place(1, demand, on: [Self.node("a"), other]))[0].contains("on no node that can be reached"))
    }

    @Test mutating func whoeverMountsAVolumeRunsWhereItLives() {
        let demand = PodDemand(workload: WorkloadID("w"), anchors: [.volume("data")])
        var scheduler = Scheduler(nodes: [Self.node("a"), Self.node("b")], homes: [.volume("data"): NodeID("id-b")])
        #expect(nodes(scheduler.place(Self.requests(3, demand), random: &random)) == ["b", "b", "b"])
        var away = Self.node("b")
        away.ready = false
        scheduler = Scheduler(nodes: [Self.node("a"), away], homes: [.volume("data"): NodeID("id-b")])
        #expect(
            nodes(scheduler.place(Self.requests(1, demand), random: &random)) == [
                "0 of 2 nodes: not ready on 1, volume data (its data is on b, which is unreachable) on 1"
            ])
    }

    @Test mutating func theFirstPlacementDecidesWhereANewVolumeLives() {
        let first = PodDemand(workload: WorkloadID("v"), anchors: [.volume("data")])
        let second = PodDemand(workload: WorkloadID("w"), anchors: [.volume("data"), .volume("more")])
        var scheduler = Scheduler(nodes: [Self.node("a"), Self.node("b")])
        let requests = Self.requests(3, first) + Self.requests(3, second)
        #expect(Set(nodes(scheduler.place(requests, random: &random))).count == 1)
        #expect(scheduler.homes.count == 2)
        // Volumes on different nodes have no node in common.
        var parted = Scheduler(
            nodes: [Self.node("a"), Self.node("b")],
            homes: [.volume("data"): NodeID("id-a"), .volume("more"): NodeID("id-b")])
        #expect(nodes(parted.place(Self.requests(1, second), random: &random))[0].hasPrefix("0 of 2 nodes: volume"))
    }

    @Test mutating func whoeverIsOnANetworkRunsWhereItIs() {
        let network = Anchor.network(NetworkID("1234"))
        let demand = PodDemand(workload: WorkloadID("w"), anchors: [network])
        var scheduler = Scheduler(nodes: [Self.node("a"), Self.node("b")])
        #expect(Set(nodes(scheduler.place(Self.requests(4, demand), random: &random))).count == 1)
        var drained = Self.node("b")
        drained.node.availability = .drained
        scheduler = Scheduler(
            nodes: [Self.node("a"), drained], homes: [network: NodeID("id-b")], names: [network: "web"])
        #expect(
            nodes(scheduler.place(Self.requests(1, demand), random: &random)) == [
                "0 of 2 nodes: cordoned or drained on 1, network web (it is on b) on 1"
            ])
    }

    @Test mutating func whoeverSharesNamespacesRunsBesideTheirOwner() {
        let owner = Anchor.container(ContainerID("1234"))
        let demand = PodDemand(workload: WorkloadID("w"), anchors: [owner])
        var scheduler = Scheduler(
            nodes: [Self.node("a"), Self.node("b")], homes: [owner: NodeID("id-b")], names: [owner: "db"])
        #expect(nodes(scheduler.place(Self.requests(2, demand), random: &random)) == ["b", "b"])
        // Nobody decides for it where it will be.
        scheduler = Scheduler(nodes: [Self.node("a"), Self.node("b")], names: [owner: "db"])
        #expect(
            nodes(scheduler.place(Self.requests(1, demand), random: &random)) == [
                "0 of 2 nodes: container db (it is on no node yet) on 2"
            ])
        scheduler = Scheduler(nodes: [Self.node("a")])
        #expect(
            nodes(scheduler.place(Self.requests(1, demand), random: &random)) == [
                "0 of 1 node: container 1234 (it has been removed) on 1"
            ])
    }

    @Test mutating func aPinnedInstanceGoesToItsNodeOrWaits() {
        var scheduler = Scheduler(nodes: [Self.node("a"), Self.node("b")])
        let demand = PodDemand(workload: WorkloadID("w"))
        let request = PlacementRequest(instance: InstanceID("i"), demand: demand, pinned: NodeID("id-b"))
        let gone = PlacementRequest(instance: InstanceID("j"), demand: demand, pinned: NodeID("id-z"))
        let results = nodes(scheduler.place([request, gone], random: &random))
        #expect(results[0] == "b")
        #expect(results[1].hasPrefix("0 of 1 node"))
    }

    @Test mutating func eachInstanceTakesTheNextFreePortOfTheRange() {
        let demand = PodDemand(
            workload: WorkloadID("w"), ports: [PortMapping(hostPort: 8080, hostPortEnd: 8081, containerPort: 80)])
        let results = place(3, demand, on: [Self.node("a")])
        let ports = results.compactMap { result -> Int? in
            guard case .placed(_, let ports, _, _) = result else { return nil }
            return ports[0].hostPort
        }
        #expect(ports == [8080, 8081])
        #expect(nodes(results)[2] == "0 of 1 node: port 8080-8081/tcp taken on 1")
    }

    @Test func manyInstancesOnManyNodesCostLittleMoreThanTheirNumber() {
        var scheduler = Scheduler(nodes: (0..<2000).map { Self.node("n\($0)") })
        var random = SystemRandomNumberGenerator()
        let demand = PodDemand(workload: WorkloadID("w"), resources: Resources(memory: 64 << 20))
        let results = scheduler.place(Self.requests(10_000, demand), random: &random)
        let counts = Dictionary(grouping: results) { result -> NodeID? in
            guard case .placed(let node, _, _, _) = result else { return nil }
            return node
        }.mapValues(\.count)
        #expect(counts.count == 2000)
        #expect(counts.values.allSatisfy { $0 == 5 })
    }
}

@Suite struct Ports {
    let web = InstanceID("web")
    let other = InstanceID("other")

    @Test func anInstanceKeepsThePortItHas() {
        var table = PortTable()
        table.insert(.tcp, address: "", number: 8081, instance: web)
        let range = PortMapping(hostPort: 8080, hostPortEnd: 8082, containerPort: 80)
        #expect(table.choose(for: [range], instance: web)?[0].hostPort == 8081)
        #expect(table.choose(for: [range], instance: other)?[0].hostPort == 8080)
    }

    @Test func allAddressesExcludeEachOneAndTheReverse() {
        var table = PortTable()
        table.insert(.tcp, address: "127.0.0.1", number: 80, instance: web)
        #expect(!table.isFree(.tcp, address: "", number: 80, for: other))
        #expect(!table.isFree(.tcp, address: "127.0.0.1", number: 80, for: other))
        #expect(table.isFree(.tcp, address: "10.0.0.1", number: 80, for: other))
        #expect(table.isFree(.udp, address: "", number: 80, for: other))
        table.remove(.tcp, address: "127.0.0.1", number: 80, instance: web)
        #expect(table.isFree(.tcp, address: "", number: 80, for: other))
    }

    @Test func portZeroIsAnyFromThirtyThousandOn() {
        var table = PortTable()
        table.insert(.tcp, address: "", number: 30000, instance: other)
        #expect(table.choose(for: [PortMapping(hostPort: 0, containerPort: 80)], instance: web)?[0].hostPort == 30001)
    }

    @Test func oneInstancesMappingsDoNotCollide() {
        let range = PortMapping(hostPort: 8080, hostPortEnd: 8081, containerPort: 80)
        #expect(PortTable().choose(for: [range, range], instance: web)?.map(\.hostPort) == [8080, 8081])
        #expect(PortTable().choose(for: [range, range, range], instance: web) == nil)
    }
}
