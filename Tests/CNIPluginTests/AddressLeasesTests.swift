import CNISpec
import Glibc
import JSON
import Kernel
import Testing

@testable import CNIPlugin

@Suite final class AddressLeasesTests {
    private let folder: String
    private let leases: AddressLeases

    init() throws {
        var template = Array("/tmp/martlet-leases-XXXXXX".utf8CString)
        folder = String(cString: try #require(mkdtemp(&template)))
        leases = AddressLeases(dataDirectory: folder, network: "net", patienceMilliseconds: 50)
    }

    deinit { _ = try? Tree.remove(folder) }

    private func pool(_ subnet: String, gateway: String? = nil, _ ranges: [(String, String)] = []) throws -> AddressPool
    {
        var object: JSONObject = ["subnet": .string(subnet)]
        if let gateway { object["gateway"] = .string(gateway) }
        if !ranges.isEmpty { object["ranges"] = .array(ranges.map { [.string($0.0), .string($0.1)] }) }
        return try AddressPool(JSONReader(.object(object)))
    }

    private func holder(_ id: String, _ interface: String = "eth0") -> PluginAttachment {
        PluginAttachment(containerID: id, interface: interface)
    }

    private func take(_ id: String, _ pool: AddressPool, _ wanted: String? = nil) throws -> String {
        try leases.take(wanted.flatMap { IPAddress($0) }, of: pool, for: holder(id)).description
    }

    private func give(_ id: String, _ expected: String? = nil) throws {
        try leases.giveBack(holder(id), expected: [expected].compactMap { $0.flatMap { IPAddress($0) } })
    }

    @Test func `a lease whose maker was killed in the middle stays its own`() throws {
        let pool = try pool("10.1.0.0/24")
        let first = try take("one", pool)
        // The name under which it was written, which the maker would have removed next.
        try #require(link("\(folder)/net/\(first)", "\(folder)/net/.new") == 0)
        let second = try take("two", pool)
        #expect(second != first)
        #expect(try leases.all().values.map(\.containerID).sorted() == ["one", "two"])
    }

    @Test func `addresses are given in turn, and come back after the last`() throws {
        let pool = try pool("10.9.0.0/29", gateway: "10.9.0.3")
        #expect(try ["a", "b", "c"].map { try take($0, pool) } == ["10.9.0.1", "10.9.0.2", "10.9.0.4"])
        try give("b")
        #expect(
            try ["d", "e"].map { try take($0, pool) } == ["10.9.0.5", "10.9.0.6"], "not the one that was just free")
        #expect(try take("f", pool) == "10.9.0.2")
        let error = #expect(throws: CNIError.self) { try take("g", pool) }
        #expect(error?.code == CNIError.noAddress)
        #expect(error?.message == "the network net has no free address: 5 of 5 in use")
        try give("f", "10.9.0.2")
        #expect(try take("g", pool) == "10.9.0.2")
    }

    @Test func `several ranges are gone through in order, from the one that was last`() throws {
        let pool = try pool("10.9.0.0/24", gateway: "10.9.0.1", [("10.9.0.5", "10.9.0.6"), ("10.9.0.9", "10.9.0.9")])
        #expect(pool.count == 3)
        #expect(try ["a", "b", "c"].map { try take($0, pool) } == ["10.9.0.5", "10.9.0.6", "10.9.0.9"])
        #expect(throws: CNIError.self) { try take("d", pool) }
        try give("a")
        #expect(try take("d", pool) == "10.9.0.5")
        try give("b")
        #expect(try take("e", pool) == "10.9.0.6")
    }

    @Test func `the only address that will do is refused with the name of who has it`() throws {
        let pool = try pool("10.9.0.0/24", gateway: "10.9.0.1")
        #expect(try take("a", pool, "10.9.0.77") == "10.9.0.77")
        let error = #expect(throws: CNIError.self) { try take("b", pool, "10.9.0.77") }
        #expect(error?.code == CNIError.addressTaken)
        #expect(error?.message.contains("10.9.0.77 of the network net belongs to container a") == true)
        #expect(try take("b", pool) == "10.9.0.2", "an address that was asked for is no measure for the next")
    }

    @Test func `it is given back by whom it belongs to, wherever it is, and only so`() throws {
        let pool = try pool("10.9.0.0/24")
        #expect(try take("a", pool) == "10.9.0.1")
        #expect(try take("b", pool) == "10.9.0.2")
        try give("a", "10.9.0.2")
        #expect(try leases.all() == [IPAddress(.v4, 0x0a09_0002): holder("b")])
        try give("a")
        try leases.giveBack(holder("b", "eth1"), expected: [IPAddress(.v4, 0x0a09_0002)])
        #expect(try leases.all().count == 1)
        try leases.giveBack(IPAddress(.v4, 0x0a09_0002), of: holder("b"))
        #expect(try leases.all() == [:])
        let other = AddressLeases(dataDirectory: folder, network: "none")
        try other.giveBack(holder("a"), expected: [])
        #expect(!File.exists(other.directory))
    }

    @Test func `the addresses of both families go together, and one alone where a crash took the other`() throws {
        let (four, six) = (try pool("10.9.0.0/24", gateway: "10.9.0.1"), try pool("fd09::/64", gateway: "fd09::1"))
        func takeBoth(_ id: String) throws -> [IPAddress] {
            [
                try leases.take(nil, of: four, number: 0, for: holder(id)),
                try leases.take(nil, of: six, number: 1, for: holder(id)),
            ]
        }
        let (a, b) = (try takeBoth("a"), try takeBoth("b"))
        #expect((a + b).map(\.description) == ["10.9.0.2", "fd09::2", "10.9.0.3", "fd09::3"])
        #expect(try File.read("\(leases.directory)/last_reserved_ip.1") == Array("fd09::3".utf8))
        try leases.giveBack(holder("a"), expected: a)
        #expect(try leases.all().count == 2)
        try leases.giveBack(b[0], of: holder("b"))
        try leases.giveBack(holder("b"), expected: b)
        #expect(try leases.all() == [:])
        #expect(six.count == UInt128(1) << 64 - 3)
    }

    @Test func `files are those of host-local, which may have been here before`() throws {
        let pool = try pool("10.9.0.0/24")
        try File.makeDirectories(leases.directory)
        try File.replace("\(leases.directory)/10.9.0.4", with: Array("old\r\neth0".utf8))
        try File.replace("\(leases.directory)/last_reserved_ip.0", with: Array("10.9.0.3".utf8))
        #expect(try take("new", pool) == "10.9.0.5")
        #expect(try File.read("\(leases.directory)/10.9.0.5") == Array("new\r\neth0".utf8))
        #expect(try File.read("\(leases.directory)/last_reserved_ip.0") == Array("10.9.0.5".utf8))
        try give("old")
        #expect(
            try File.list(leases.directory).sorted() == ["10.9.0.5", "last_reserved_ip.0", "lock"])
    }

    @Test(arguments: ["", "\r\n", "a b", "\u{0}\u{0}\u{0}"])
    func `what a crash tore is nobody's`(text: String) throws {
        let pool = try pool("10.9.0.0/30")
        try File.makeDirectories(leases.directory)
        for name in ["10.9.0.1", "last_reserved_ip.0", ".new"] {
            try File.replace("\(leases.directory)/\(name)", with: Array(text.utf8))
        }
        #expect(try take("a", pool) == "10.9.0.1")
        #expect(try leases.all().count == 1)
    }

    @Test func `who waits too long for the lock is told to try again`() throws {
        let pool = try pool("10.9.0.0/24")
        try File.makeDirectories(leases.directory)
        let lock = try #require(try FileLock("\(leases.directory)/lock"))
        let error = #expect(throws: CNIError.self) { try take("a", pool) }
        #expect(error?.code == CNIError.tryAgainLater)
        withExtendedLifetime(lock) {}
    }
}
