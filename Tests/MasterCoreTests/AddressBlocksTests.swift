import CNISpec
import JSON
import Model
import Testing

@testable import MasterCore

@Suite struct AddressesOfANetwork {
    static func blocks(
        _ subnet: String, _ change: (inout Network) -> Void = { _ in }
    ) throws -> AddressBlocks {
        let gateway = try #require(CIDR(subnet)?.first.advanced(by: 1))
        var network = Network(
            id: NetworkID("net"), name: "net", driver: "overlay", vni: 5000, subnet: subnet, gateway: "\(gateway)",
            createdAt: Timestamp(nanoseconds: 0))
        change(&network)
        return try #require(AddressBlocks(network))
    }

    /// Takes an address; what it is.
    static func take(_ blocks: inout AddressBlocks, _ node: String) -> AssignedAddress? {
        let given = blocks.next(on: NodeID(node))
        if let given { blocks.insert(given, on: NodeID(node)) }
        return given
    }

    static func parts(_ blocks: AddressBlocks, _ node: String) -> [String] {
        blocks.part(of: NodeID(node)).map { blocks.texts(of: $0.blocks) + $0.exceptions.map { "\($0)" } } ?? []
    }

    @Test(
        arguments: [
            ("10.0.0.0/8", 26), ("10.64.0.0/20", 26), ("10.9.0.0/22", 27), ("10.9.0.0/28", 30), ("10.9.0.0/29", 31),
        ])
    func blocksHaveHalfOfTheHostBits(subnet: String, prefix: Int) throws {
        var blocks = try Self.blocks(subnet)
        _ = Self.take(&blocks, "a")
        let first = try #require(CIDR(subnet)?.first)
        // In a /29 a block of two holds nothing but the network's own address and the gateway's.
        let expected = prefix == 31 ? "10.9.0.2/31" : "\(first)/\(prefix)"
        #expect(Self.parts(blocks, "a") == [expected])
    }

    @Test func aNodeTakesFromItsOwnBlocksThenLeasesThenBorrows() throws {
        var blocks = try Self.blocks("10.9.0.0/28")
        #expect(blocks.capacity == 13)
        #expect((0..<2).map { _ in Self.take(&blocks, "a")?.address } == ["10.9.0.2", "10.9.0.3"])
        #expect(Self.take(&blocks, "b")?.address == "10.9.0.4")
        #expect(Self.take(&blocks, "a")?.address == "10.9.0.8")
        #expect(Self.parts(blocks, "a") == ["10.9.0.0/30", "10.9.0.8/30"])
        #expect(Self.take(&blocks, "c")?.address == "10.9.0.12")
        // No block is left: single addresses of others'.
        let lent = (0..<4).compactMap { _ in Self.take(&blocks, "d") }
        #expect(lent.count == 4 && lent.allSatisfy { !$0.isLeased })
        #expect(Self.parts(blocks, "d") == lent.compactMap { IPAddress($0.address) }.sorted().map { "\($0)" })
        var more = 0
        while Self.take(&blocks, "d") != nil { more += 1 }
        #expect(more == 4 && blocks.taken == 13 && blocks.next(on: NodeID("a")) == nil)
        // One comes back, and is a lessee's again.
        let back = AssignedAddress(network: NetworkID("net"), address: "10.9.0.4", isLeased: true)
        blocks.remove(back, on: NodeID("b"))
        #expect(Self.parts(blocks, "b") == [] && !blocks.isPresent(on: NodeID("b")))
        let again = try #require(blocks.next(on: NodeID("e")))
        #expect(again.address == "10.9.0.4" && again.isLeased)
    }

    @Test func whatWasGivenLastComesBackLast() throws {
        var blocks = try Self.blocks("10.64.0.0/20")
        var given: [String] = []
        for _ in 0..<200 {
            let one = try #require(Self.take(&blocks, "a"))
            given.append(one.address)
            blocks.remove(one, on: NodeID("a"))
        }
        // Each time another block, as the last was given back with it.
        #expect(Set(given).count == 64)
        // The same with one that stays in the block.
        blocks = try Self.blocks("10.64.0.0/20")
        let kept = try #require(Self.take(&blocks, "a"))
        given = []
        for _ in 0..<61 {
            let one = try #require(Self.take(&blocks, "a"))
            given.append(one.address)
            blocks.remove(one, on: NodeID("a"))
        }
        #expect(Set(given).count == 61 && !given.contains(kept.address))
        #expect(Self.parts(blocks, "a") == ["10.64.0.0/26"])
    }

    @Test func bothFamiliesHaveTheSameNumber() throws {
        var blocks = try Self.blocks("10.64.0.0/20") {
            $0.subnet6 = "fd00:1::/64"
            $0.gateway6 = "fd00:1::3"
        }
        let first = try #require(Self.take(&blocks, "a"))
        #expect(first.address == "10.64.0.2" && first.address6 == "fd00:1::2")
        // The IPv6 gateway's number is nobody's of IPv4 either.
        #expect(Self.take(&blocks, "a")?.address == "10.64.0.4")
        #expect(Self.parts(blocks, "a") == ["10.64.0.0/26", "fd00:1::/122"])
    }

    @Test func gatewaysReservedAddressesAndWhatIsOutOfRangeAreNeverGiven() throws {
        var blocks = try Self.blocks("10.9.0.0/24") {
            $0.range = "10.9.0.32/28"
            $0.gateway = "10.9.0.33"
            $0.reserved = ["router": "10.9.0.40", "other": "10.9.0.200"]
        }
        var given: [String] = []
        while let one = Self.take(&blocks, given.count.isMultiple(of: 2) ? "a" : "b") { given.append(one.address) }
        #expect(blocks.capacity == 14 && given.count == 14)
        let expected = (32..<48).filter { $0 != 33 && $0 != 40 }.map { "10.9.0.\($0)" }
        #expect(Set(given) == Set(expected))
        let all = try Self.blocks("10.9.0.0/29")
        #expect(all.capacity == 5)
    }

    @Test func anAddressThatSomebodyAsksForIsNobodysByChance() throws {
        var blocks = try Self.blocks("10.9.0.0/28")
        let wish = try #require(IPAddress("10.9.0.9"))
        blocks.setFixed(wish, true)
        var given: [AssignedAddress] = []
        while let one = Self.take(&blocks, "a") { given.append(one) }
        #expect(given.count == 12 && !given.contains { $0.address == "10.9.0.9" })
        #expect(!blocks.isUsed(wish) && blocks.taken == 13)
        let fixed = try #require(blocks.wanted(wish, nil, on: NodeID("b")))
        #expect(!fixed.isLeased)
        blocks.insert(fixed, on: NodeID("b"))
        #expect(blocks.isUsed(wish) && Self.parts(blocks, "b") == ["10.9.0.9"])
        #expect(try #require(blocks.wanted(wish, nil, on: NodeID("a"))).isLeased)
        blocks.remove(fixed, on: NodeID("b"))
        #expect(blocks.next(on: NodeID("b")) == nil)
        blocks.setFixed(wish, false)
        #expect(blocks.next(on: NodeID("b"))?.address == "10.9.0.9")
    }

    @Test func anIPv6AddressMayBeFixedBeyondTheNumbersOfIPv4() throws {
        var blocks = try Self.blocks("10.9.0.0/24") {
            $0.subnet6 = "fd00:1::/64"
            $0.gateway6 = "fd00:1::1"
        }
        let far = try #require(IPAddress("fd00:1::abcd:1"))
        let given = try #require(blocks.wanted(nil, far, on: NodeID("a")))
        #expect(given.address == "10.9.0.2" && given.address6 == "fd00:1::abcd:1" && given.isLeased)
        blocks.insert(given, on: NodeID("a"))
        #expect(blocks.isUsed(far))
        #expect(Self.parts(blocks, "a") == ["10.9.0.0/28", "fd00:1::/124", "fd00:1::abcd:1"])
        // One within them takes its number of IPv4 too.
        let near = try #require(IPAddress("fd00:1::20"))
        #expect(blocks.wanted(nil, near, on: NodeID("a"))?.address == "10.9.0.32")
        blocks.remove(given, on: NodeID("a"))
        #expect(!blocks.isUsed(far) && blocks.isUnused)
    }

    /// Drafts are undone in no order: for a moment two tasks may have one address, and a block two lessees.
    @Test func anyOrderOfComingAndGoingLeadsToTheSame() throws {
        var random = Cluster.Generator(state: 3)
        var blocks = try Self.blocks("10.9.0.0/26")
        var given: [(AssignedAddress, String)] = []
        for number in 0..<40 {
            let node = "n\(number % 5)"
            if let one = Self.take(&blocks, node) { given.append((one, node)) }
        }
        func shape(_ blocks: AddressBlocks) -> [[String]] { (0..<5).map { Self.parts(blocks, "n\($0)") } }
        let before = (shape(blocks), blocks.taken)
        for _ in 0..<20 {
            // The same addresses at other nodes, before they are gone from the first.
            let elsewhere = given.map { ($0.0, "n\(Int.random(in: 0..<5, using: &random))") }
            for (address, node) in elsewhere { blocks.insert(address, on: NodeID(node)) }
            for (address, node) in elsewhere.shuffled(using: &random) { blocks.remove(address, on: NodeID(node)) }
            #expect(shape(blocks) == before.0 && blocks.taken == before.1)
        }
        for (address, node) in given.shuffled(using: &random) { blocks.remove(address, on: NodeID(node)) }
        #expect(blocks.isUnused && blocks.taken == 0)
    }

    @Test func aLargeNetworkIsGivenOutToTheLast() throws {
        var blocks = try Self.blocks("10.128.0.0/17")
        var seen: Set<String> = []
        while let one = Self.take(&blocks, "n\(seen.count % 300)") { seen.insert(one.address) }
        #expect(seen.count == 32_765 && blocks.capacity == 32_765)
    }
}
