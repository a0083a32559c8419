import CNISpec
import Glibc
import Kernel
import Testing

@testable import Networking

/// Who has which addresses of an overlay network; no kernel is asked.
@Suite struct OverlayPeersTests {
    private func peer(_ key: String, _ underlay: String, _ blocks: String...) throws -> OverlayPeer {
        OverlayPeer(
            key: key, underlay: try #require(IPAddress(underlay)), blocks: try blocks.map { try #require(CIDR($0)) })
    }

    private func block(_ text: String) throws -> CIDR { try #require(CIDR(text)) }

    @Test func `a change names what has changed and nothing else`() throws {
        var peers = OverlayPeers()
        for number in 1...50 {
            _ = peers.update(try peer("n\(number)", "192.0.2.\(number)", "10.64.\(number).0/26"))
        }
        #expect(peers.update(try peer("n7", "192.0.2.7", "10.64.7.0/26")).isEmpty)
        let more = peers.update(try peer("n7", "192.0.2.7", "10.64.7.0/26", "10.64.99.1/32"))
        let seven = try #require(IPAddress("192.0.2.7"))
        let exception = try block("10.64.99.1/32")
        #expect(more.routes == [exception: .init(before: nil, after: seven)])
        #expect(more.appeared.isEmpty && more.gone.isEmpty)
        let moved = peers.update(try peer("n7", "198.51.100.7", "10.64.7.0/26"))
        let there = try #require(IPAddress("198.51.100.7"))
        #expect(moved.routes[try block("10.64.7.0/26")] == .init(before: seven, after: there))
        #expect(moved.routes[try block("10.64.99.1/32")] == .init(before: seven, after: nil))
        #expect(moved.appeared == [there] && moved.gone == [seven])
        #expect(peers.remove("nobody").isEmpty)
    }

    @Test func `the one heard of last has an address, and when it goes the one before`() throws {
        var peers = OverlayPeers()
        let address = try block("10.64.1.5/32")
        _ = peers.update(try peer("old", "192.0.2.1", "10.64.1.5/32"))
        _ = peers.update(try peer("new", "192.0.2.2", "10.64.1.5/32"))
        _ = peers.update(try peer("newest", "192.0.2.3", "10.64.1.5/32"))
        #expect(peers.way(to: address) == IPAddress("192.0.2.3"))
        #expect(peers.remove("new").routes.isEmpty)
        #expect(
            peers.remove("newest").routes
                == [address: .init(before: IPAddress("192.0.2.3"), after: IPAddress("192.0.2.1"))])
        #expect(peers.remove("old").routes == [address: .init(before: IPAddress("192.0.2.1"), after: nil)])
        #expect(peers.blocks.isEmpty && peers.underlays.isEmpty)
    }

    @Test func `a node with a new id at its old address stays a neighbour`() throws {
        var peers = OverlayPeers()
        var change = peers.update(try peer("old", "192.0.2.1", "10.64.1.0/26"))
        change.merge(peers.update(try peer("new", "192.0.2.1", "10.64.1.0/26")))
        change.merge(peers.remove("old"))
        let address = try #require(IPAddress("192.0.2.1"))
        #expect(change.appeared == [address] && change.gone.isEmpty)
        #expect(change.routes.values.map(\.after) == [IPAddress("192.0.2.1")])
        change.merge(peers.remove("new"))
        #expect(change.isEmpty)
    }

    @Test func `what is written down of peers is read again, up to a line that was cut off`() throws {
        let text = """
            + a 192.0.2.1 10.64.1.0/26 fd64::100/122
            + b 2001:db8::2 10.64.2.0/26
            - a
            + c 192.0.2.3
            + b 192.0.2.2 10.64.2.0/26
            nonsense
            + d 192.0.2.4 10.64.2.1/26
            + e 192.0.2.5 10.64.5
            """
        let found = OverlayStore.peers(Array(text.utf8))
        let wanted = try [peer("b", "192.0.2.2", "10.64.2.0/26"), peer("c", "192.0.2.3")]
        #expect(found == wanted)
        #expect(OverlayStore.peers([]) == [])
        for length in 0..<text.utf8.count { _ = OverlayStore.peers(Array(text.utf8.prefix(length))) }
    }

    @Test func `a file of peers that was cut off is made whole, and one that cannot be read is set aside`() throws {
        var template = Array("/tmp/martlet-peers-XXXXXX".utf8CString)
        let directory = String(cString: try #require(mkdtemp(&template)))
        defer { _ = try? Tree.remove(directory) }
        let store = OverlayStore(parent: directory)
        let peers = "\(store.directory)/peers"
        try File.makeDirectories("\(peers)/mt-directory")
        let one = try peer("one", "192.0.2.1", "10.64.1.0/26")
        let two = try peer("two", "192.0.2.2", "10.64.2.0/26")
        try File.replace("\(peers)/mt-torn", with: Array("+ one 192.0.2.1 10.64.1.0/26\n+ x 192.0.2.9 10.6".utf8))
        #expect(try store.peers() == ["mt-torn": [one]])
        try store.append(.update(two), of: "mt-torn")
        try store.append(.update(two), of: "mt-directory")
        #expect(try store.peers() == ["mt-torn": [one, two], "mt-directory": [two]])
        #expect(try File.list(peers).sorted() == ["mt-directory", "mt-directory.corrupt", "mt-torn"])
    }

    @Test func `a peer's public key is written down with it, and its change is told`() throws {
        var keyed = try peer("a", "192.0.2.1", "10.64.1.0/26")
        keyed.publicKey = (0..<32).map { UInt8($0) }
        let text = "+ a 192.0.2.1 key=\(Hexadecimal.text(keyed.publicKey)) 10.64.1.0/26\n"
        #expect(OverlayStore.peers(Array(text.utf8)) == [keyed])
        for bad in ["key=00", "key=0", "key=" + String(repeating: "x", count: 64)] {
            #expect(OverlayStore.peers(Array("+ a 192.0.2.1 \(bad) 10.64.1.0/26\n".utf8)) == [])
        }
        var peers = OverlayPeers()
        let address = keyed.underlay
        #expect(peers.update(try peer("a", "192.0.2.1", "10.64.1.0/26")).keyed == [])
        let change = peers.update(keyed)
        #expect(change.keyed == [address] && change.routes.isEmpty && !change.isEmpty)
        #expect(peers.update(keyed).isEmpty)
        keyed.publicKey = [1]
        #expect(throws: NetworkError.self) { try keyed.validate() }
    }

    @Test func `what a key was used for is read as it was written, and a damaged record is none`() throws {
        let key = [UInt8](repeating: 7, count: 32)
        var record = TunnelRecord(key: key, boot: "this")
        for (own, other) in [("192.0.2.1", "192.0.2.2"), ("2001:db8::1", "2001:db8::2")] {
            record.insert(
                TunnelUse(
                    own: try #require(IPAddress(own)), peer: try #require(IPAddress(other)),
                    key: [UInt8](repeating: 9, count: 32)))
        }
        let bytes = record.bytes
        let read = try #require(TunnelRecord(bytes))
        #expect(read.key == key && read.boot == "this" && read.uses == record.uses && read.uses.count == 2)
        let ends = Set(bytes.indices.filter { bytes[$0] == UInt8(ascii: "\n") }.map { $0 + 1 })
        for length in 0..<bytes.count where !ends.contains(length) {
            #expect(TunnelRecord(Array(bytes.prefix(length))) == nil, "\(length)")
        }
        #expect(TunnelRecord(bytes + Array("peer 192.0.2.1 x\n".utf8)) == nil)
    }

    private func use(_ number: Int, own: String = "192.0.2.1", peer: String = "192.0.2.2") throws -> TunnelUse {
        let bytes = withUnsafeBytes(of: UInt64(number)) { Array($0) } + [UInt8](repeating: 0, count: 24)
        return TunnelUse(
            own: try #require(IPAddress(own)), peer: try #require(IPAddress(peer)), key: bytes)
    }

    @Test func `a use is new once, and one that was replaced is no reason for another key`() throws {
        var record = TunnelRecord(key: [1], boot: "this")
        #expect(try record.standing(of: use(1)) == .new)
        record.insert(try use(1))
        #expect(try record.standing(of: use(1)) == .current)
        record.insert(try use(2))
        #expect(try record.standing(of: use(1)) == .superseded)
        #expect(try record.standing(of: use(2)) == .current)
        // Of other addresses it is another use, and leaves the first as it was.
        #expect(try record.standing(of: use(1, own: "192.0.2.9")) == .new)
        record.insert(try use(1, own: "192.0.2.9"))
        #expect(try record.standing(of: use(2)) == .current)
        let again = try #require(TunnelRecord(record.bytes))
        #expect(try again.standing(of: use(1)) == .superseded && again.standing(of: use(2)) == .current)
        #expect(try TunnelRecord(key: [2], boot: "this").standing(of: use(1)) == .new)
    }

    @Test func `one peer gets so many keys and no more, and others get theirs`() throws {
        var record = TunnelRecord(key: [1], boot: "this")
        for number in 0..<TunnelRecord.mostOfPeer { record.insert(try use(number)) }
        let last = TunnelRecord.mostOfPeer
        #expect(try record.standing(of: use(last)) == .worn)
        #expect(try record.standing(of: use(last - 1)) == .current)
        #expect(try record.standing(of: use(last, peer: "192.0.2.3")) == .new)
        for peer in 3...66 {
            for number in 0..<TunnelRecord.mostOfPeer { record.insert(try use(number, peer: "192.0.2.\(peer)")) }
        }
        #expect(try record.standing(of: use(0, peer: "192.0.2.99")) == .full)
    }

    @Test func `keys are not made one behind the other, and ever more rarely while that goes on`() {
        let minute: Int64 = 60_000_000_000
        var renewal = TunnelRenewal()
        var (now, made): (Int64, [Int64]) = (0, [])
        while now < 10 * 60 * minute {
            if renewal.isDue(at: now) {
                renewal.begin(at: now)
                made.append(now / minute)
            }
            now += minute / 2
        }
        #expect(made == [0, 1, 3, 7, 15, 31, 63, 123, 183, 243, 303, 363, 423, 483, 543])
        // After a quiet time it is as in the beginning.
        now += 120 * minute
        #expect(renewal.isDue(at: now))
        renewal.begin(at: now)
        #expect(!renewal.isDue(at: now + minute - 1) && renewal.isDue(at: now + minute))
    }

    @Test func `the keys at an address are those of all who are there, and each change of them is told`() throws {
        func keyed(_ key: String, _ underlay: String, _ byte: UInt8) throws -> OverlayPeer {
            var peer = try peer(key, underlay)
            peer.publicKey = [UInt8](repeating: byte, count: 32)
            return peer
        }
        func keys(_ bytes: UInt8...) -> Set<[UInt8]> { Set(bytes.map { [UInt8](repeating: $0, count: 32) }) }
        var peers = OverlayPeers()
        let (one, two) = (try #require(IPAddress("192.0.2.1")), try #require(IPAddress("192.0.2.2")))
        #expect(peers.update(try keyed("a", "192.0.2.1", 1)).keyed == [one])
        // Another node says to be there, whatever was heard first.
        #expect(peers.update(try keyed("b", "192.0.2.1", 2)).keyed == [one])
        #expect(peers.publicKeys(at: one) == keys(1, 2))
        #expect(peers.update(try peer("c", "192.0.2.1")).keyed == [])
        #expect(peers.remove("a").keyed == [one] && peers.publicKeys(at: one) == keys(2))
        #expect(peers.update(try keyed("b", "192.0.2.2", 2)).keyed == [one, two])
        #expect(peers.publicKeys(at: one) == [] && peers.publicKeys(at: two) == keys(2))
        #expect(peers.update(try keyed("d", "192.0.2.2", 2)).keyed == [])
        #expect(peers.remove("d").keyed == [] && peers.remove("b").keyed == [two])
    }

    @Test func `a record of another boot, or of networks that are encrypted, is not taken for what it is not`() throws {
        var template = Array("/tmp/martlet-peers-XXXXXX".utf8CString)
        let directory = String(cString: try #require(mkdtemp(&template)))
        defer { _ = try? Tree.remove(directory) }
        let store = OverlayStore(parent: directory)
        #expect(store.tunnels() == nil)
        try store.write(TunnelRecord(key: [1], boot: try Proc.bootID()))
        try store.append([use(1), use(2)])
        #expect(try store.tunnels()?.uses == [use(1), use(2)])
        try store.write(TunnelRecord(key: [1], boot: "another"))
        #expect(store.tunnels() == nil)
        var network = OverlayNetworkConfiguration(
            name: "mt-000000000001", device: "mx-000000000001", vni: 1, subnet: try block("10.64.0.0/20"),
            gateway: try #require(IPAddress("10.64.0.1")), isEncrypted: true)
        try store.write(network)
        // An agent that knows nothing of encryption looks for `.json`.
        #expect(try File.list("\(store.directory)/networks") == ["mt-000000000001.encrypted"])
        #expect(try store.networks() == [network])
        try store.remove(network: network.name)
        network.isEncrypted = false
        try store.write(network)
        let plain = try File.read("\(store.directory)/networks/mt-000000000001.json")
        try File.replace("\(store.directory)/networks/mt-000000000001.encrypted", with: plain)
        #expect(try store.networks() == [network])
    }

    @Test(arguments: [UInt16(4788), 4789])
    func `the ports of the tunnels are published for nobody`(_ port: UInt16) throws {
        let ports = PublishedPorts()
        let error = #expect(throws: NetworkError.self) {
            try ports.reserve([PortMapping(hostPort: port, containerPort: 80, transport: .udp)], for: "a", hasV6: false)
            {
                () throws(KernelError) in []
            }
        }
        #expect(error?.description.contains("\(port)/udp") == true)
    }

    @Test func `what cannot be is refused with its name`() throws {
        let good = OverlayNetworkConfiguration(
            name: "mt-000000000001", device: "mx-000000000001", vni: 1, subnet: try block("10.64.0.0/20"),
            gateway: try #require(IPAddress("10.64.0.1")))
        try good.validate()
        func refused(_ change: (inout OverlayNetworkConfiguration) -> Void) -> Bool {
            var configuration = good
            change(&configuration)
            do {
                try configuration.validate()
                return false
            } catch {
                return error.kind == .configuration
            }
        }
        #expect(refused { $0.vni = 0 } && refused { $0.vni = 1 << 24 })
        #expect(refused { $0.device = "eth0" } && refused { $0.name = "../x" })
        #expect(refused { $0.gateway = IPAddress(.v4, 1) } && refused { $0.mtu = 575 })
        #expect(!refused { $0.mtu = 576 } && refused { $0.mtu = 65_536 })
        #expect(refused { $0.subnet6 = CIDR("fd64::/64") } && refused { $0.gateway6 = IPAddress("fd64::1") })
        #expect(throws: NetworkError.self) { try self.peer("a b", "192.0.2.1").validate() }
        #expect(throws: NetworkError.self) { try self.peer("a", "0.0.0.0").validate() }
        #expect(throws: NetworkError.self) { try self.peer("a", "192.0.2.1", "10.64.0.1/26").validate() }
    }
}
