import CNISpec
import Glibc
import JSON
import Kernel
import Testing

/// martlet-overlay in the mode "routed", on the machine of `PortmapProgram`, which has a rule for the table of overlays and
/// the gateways' addresses on `lo`, where a node has them on its VXLAN device.
struct RoutedProgram: Sendable {
    let machine: PrivateMachine
    let portmap: PortmapProgram
    private let path: String
    var directory: String { "\(machine.run)/leases" }

    static let table = 28020
    static let group: Int64 = 0x6d00_0001

    init(_ machine: PrivateMachine) throws {
        self.machine = machine
        portmap = try PortmapProgram(machine)
        path = try ShimFixture.program("martlet-overlay")
        try machine.command(
            """
            ip rule add priority \(Self.table) table \(Self.table) && ip -6 rule add priority \(Self.table) table \(Self.table)
            ip addr add 10.64.0.1/32 dev lo && ip addr add fd64::1/128 dev lo nodad
            """)
    }

    struct Pod: Sendable {
        let id: String
        let namespace: String
        /// What ADD answered.
        let result: JSONValue
        /// The device's end on the host.
        let hostEnd: String
        /// Of IPv4, then of IPv6, each with its prefix.
        let addresses: [String]
    }

    /// - Parameter v6: a subnet of IPv6 too.
    func configuration(v6: Bool = true, _ change: (inout JSONObject) -> Void = { _ in }) -> [UInt8] {
        var addresses: [JSONValue] = [["subnet": "10.64.0.0/24", "gateway": "10.64.0.1"]]
        if v6 { addresses.append(["subnet": "fd64::/64", "gateway": "fd64::1"]) }
        var configuration: JSONObject = [
            "cniVersion": "1.1.0", "name": "over", "type": "martlet-overlay", "mode": "routed",
            "group": .integer(Self.group), "table": .integer(Int64(Self.table)), "mtu": 1450,
            "addresses": .array(addresses), "defaultRoute": true, "dataDir": .string(directory),
        ]
        change(&configuration)
        return JSONValue.object(configuration).serialized()
    }

    func call(
        _ verb: String, _ id: String, in namespace: String, v6: Bool = true, more: [String] = [],
        _ change: (inout JSONObject) -> Void = { _ in }
    ) throws -> OverlayProgram.Answer {
        try OverlayProgram.call(
            path, verb, id, in: namespace, interface: "eth0", more: more, input: configuration(v6: v6, change))
    }

    func pod(
        _ id: String, v6: Bool = true, _ change: (inout JSONObject) -> Void = { _ in }
    ) throws -> Pod {
        let namespace = try machine.pin(id)
        let answer = try call("ADD", id, in: namespace, v6: v6, change)
        try #require(answer.isGood, "\(answer.message)")
        let result = try CNIResult(JSONReader(answer.json), version: nil)
        return Pod(
            id: id, namespace: namespace, result: answer.json, hostEnd: try #require(result.interfaces.first).name,
            addresses: result.addresses.map(\.address.description))
    }

    func leases() throws -> [String] {
        File.exists("\(directory)/over")
            ? try File.list("\(directory)/over").filter { IPAddress($0) != nil }.sorted() : []
    }

    /// Of the table of overlays, both families.
    func routes() throws -> [String] {
        // A table in which there never was a route is an error to ip.
        try machine.command(
            "ip route show table \(Self.table) 2>/dev/null || true; ip -6 route show table \(Self.table) 2>/dev/null || true"
        ).split(separator: "\n").map { String($0) }
    }

    func setting(_ name: String, in namespace: String? = nil) throws -> String {
        String(try machine.command("cat /proc/sys/net/\(name)", in: namespace).prefix { $0 != "\n" })
    }

    /// Nothing of any container is here any more.
    func expectNothing() throws {
        #expect(try machine.devices() == ["br0", "lo", "up0"])
        #expect(try leases() == [])
        #expect(try routes() == [])
        #expect(try !machine.command("ip neigh show nud permanent; ip -6 neigh show nud permanent").contains("dev mv"))
    }
}
