import Model
import Scheduling
import Testing

@Suite struct Affinities {
    var random = SystemRandomNumberGenerator()
    let nodes = ["a", "b", "c"].map { Placement.node($0) }

    private func demand(
        _ workload: String = "w", constraints: [String] = [], affinities: [String] = [], labels: [String: String] = [:],
        images: [String: String] = [:]
    ) -> PodDemand {
        PodDemand(
            workload: WorkloadID(workload), constraints: constraints.compactMap { Constraint($0) },
            affinities: affinities.compactMap { Constraint($0) }, images: images, labels: labels)
    }

    private func request(_ demand: PodDemand, _ name: String = "x") -> PlacementRequest {
        PlacementRequest(instance: InstanceID("i-" + name), names: [name, "id-of-" + name], demand: demand)
    }

    /// On `b` are the container `db` of `redis:7` with the label `tier=back`, and the image `lan:5000/busybox:1`.
    private mutating func place(_ requests: [PlacementRequest], on nodes: [NodeSnapshot]? = nil) -> [String] {
        var company = Company(for: requests.flatMap(\.demand.affinities))
        company.note(
            names: ["db", "1234567890ab"], images: ["redis:7"], labels: [["tier": "back"]], on: NodeID("id-b"))
        company.note(images: ["lan:5000/busybox:1", "sha256:feed"], on: NodeID("id-b"))
        var scheduler = Scheduler(nodes: nodes ?? self.nodes, company: company)
        return scheduler.place(requests, random: &random).map {
            switch $0 {
            case .placed(let id, _, _, _): String(id.text.dropFirst(3))
            case .refused(let refusal): "\(refusal)"
            }
        }
    }

    @Test(arguments: [
        "container==db", "container==1234567890ab", "container==d*", "container==/^d.$/", "image==redis",
        "image==redis:7",
        "image==lan:5000/busybox", "image==sha256:feed", "image==feed", "tier==back", "tier==/b.ck/",
    ])
    mutating func itGoesWhereItsCompanyIs(affinity: String) {
        #expect(place([request(demand(affinities: [affinity]))]) == ["b"])
    }

    @Test(arguments: ["container!=db", "image!=redis*", "tier!=back"])
    mutating func itGoesWhereWhatItAvoidsIsNot(affinity: String) {
        let placed = place((1...4).map { request(demand(affinities: [affinity]), "x\($0)") })
        #expect(Set(placed) == ["a", "c"])
    }

    @Test mutating func whatIsNowhereIsSaidInWords() {
        #expect(
            place([request(demand(affinities: ["container==nobody"]))]) == [
                "0 of 3 nodes: affinity container==nobody on 3; unable to find a node that satisfies the affinity "
                    + "container==nobody"
            ])
    }

    @Test mutating func aWishIsMetIfItCanBe() {
        #expect(place([request(demand(affinities: ["container==~db"]))]) == ["b"])
        #expect(
            place([request(demand(affinities: ["container==~nobody"]))]).allSatisfy { ["a", "b", "c"].contains($0) })
        #expect(
            place([request(demand(constraints: ["zone==~x"], affinities: ["container==db"]))]) == ["b"])
    }

    @Test mutating func thoseThatAvoidEachOtherAreParted() {
        let lonely = demand(affinities: ["app!=web"], labels: ["app": "web"])
        let placed = place((1...4).map { request(lonely, "x\($0)") })
        #expect(Set(placed.prefix(3)) == ["a", "b", "c"])
        #expect(placed.last?.contains("affinity app!=web on 3") == true)
        // Whoever only wishes it shares a node when there is no other.
        let wishing = demand(affinities: ["app!=~web"], labels: ["app": "web"])
        #expect(Set(place((1...4).map { request(wishing, "x\($0)") })) == ["a", "b", "c"])
    }

    @Test mutating func whatComesAtTheSameTimeIsCompanyToo() {
        let follower = request(demand("follower", affinities: ["container==leader"]), "follower")
        let leader = request(demand("leader", constraints: ["node==c"]), "leader")
        #expect(place([follower, leader]) == ["c", "c"])
    }

    @Test mutating func constraintsKnowSwarmsNames() {
        var known = nodes
        known[1].node.operatingSystem = "Debian GNU/Linux 12"
        known[1].node.kernelVersion = "6.1.0-25"
        known[0].node.labels["ostype"] = "plan9"
        for constraint in [
            "node==b", "node==id-b", "node==/^b$/", "kernelversion==6.1*", "operatingsystem==Debian*",
        ] { #expect(place([request(demand(constraints: [constraint]))], on: known) == ["b"], "\(constraint)") }
        for constraint in ["storagedriver==overlay2", "ostype==linux", "node!=nowhere"] {
            #expect(
                Set(place((1...3).map { request(demand(constraints: [constraint]), "x\($0)") }, on: known)).count == 3,
                "\(constraint)")
        }
    }

    @Test mutating func aNodeHasAsManyContainersAsItHasSlots() {
        var few = [
            Placement.node("a", labels: ["containerslots": "2"]), Placement.node("b", labels: ["containerslots": "no"]),
        ]
        few[0].tasks = 1
        let pinned = demand(constraints: ["node==a"])
        let placed = place([request(pinned, "x"), request(pinned, "y")], on: few)
        #expect(placed.first == "a")
        #expect(placed.last?.contains("container slots on 1") == true)
        #expect(place([request(demand(constraints: ["node==b"]))], on: few) == ["b"])
    }
}
