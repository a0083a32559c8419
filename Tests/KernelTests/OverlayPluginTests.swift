import CNISpec
import Glibc
import JSON
import Kernel
import Networking
import Reactor
import Testing

/// martlet-overlay as any CNI host calls it: environment, standard input, standard output.
struct OverlayProgram: Sendable {
    let machine: PrivateMachine
    let path: String
    var directory: String { "\(machine.run)/leases" }

    /// On a bridge that is there.
    init(_ machine: PrivateMachine, path: String) {
        self.machine = machine
        self.path = path
    }

    init(_ machine: PrivateMachine) throws {
        self.machine = machine
        path = try ShimFixture.program("martlet-overlay")
        try machine.ip("link add br0 type bridge")
        try machine.ip("addr add 10.9.0.1/24 dev br0")
        try machine.ip("link set br0 up")
    }

    struct Answer {
        let status: Kernel.ExitStatus
        let json: JSONValue
        var code: JSONValue? { json["code"] }
        var message: String { json["msg"]?.stringValue ?? "" }
        /// The container's, with its prefix.
        var address: String? { json["ips"]?.arrayValue?.first?["address"]?.stringValue }
        var isGood: Bool { status == .exited(0) }
    }

    func configuration(_ change: (inout JSONObject) -> Void = { _ in }) -> [UInt8] {
        var configuration: JSONObject = [
            "cniVersion": "1.1.0", "name": "net", "type": "martlet-overlay", "bridge": "br0", "mode": "shared",
            "hairpin": true, "addresses": [["subnet": "10.9.0.0/24", "gateway": "10.9.0.1"]], "defaultRoute": true,
            "dataDir": .string(directory),
        ]
        change(&configuration)
        return JSONValue.object(configuration).serialized()
    }

    func call(
        _ verb: String, _ id: String, in namespace: String, interface: String = "eth0", more: [String] = [],
        input: [UInt8]
    ) throws -> Answer {
        try Self.call(path, verb, id, in: namespace, interface: interface, more: more, input: input)
    }

    /// Calls any plugin.
    static func call(
        _ path: String, _ verb: String, _ id: String, in namespace: String, interface: String, more: [String],
        input: [UInt8]
    ) throws -> Answer {
        let environment = [
            "CNI_COMMAND=\(verb)", "CNI_CONTAINERID=\(id)", "CNI_NETNS=\(namespace)", "CNI_IFNAME=\(interface)",
            "CNI_PATH=/nowhere",
        ]
        let result = try Program(path, environment: environment + more, input: input).run()
        let json = result.output.isEmpty ? JSONValue.null : try JSONValue.parse(result.output)
        return Answer(status: result.status, json: json)
    }

    func call(
        _ verb: String, _ id: String, in namespace: String, interface: String = "eth0", more: [String] = [],
        _ change: (inout JSONObject) -> Void = { _ in }
    ) throws -> Answer {
        try call(verb, id, in: namespace, interface: interface, more: more, input: configuration(change))
    }

    func leases() throws -> [String] {
        File.exists("\(directory)/net")
            ? try File.list("\(directory)/net").filter { IPAddress($0) != nil }.sorted() : []
    }

    /// Nothing of any container is here any more.
    func expectNothing() throws {
        #expect(try machine.devices() == ["br0", "lo", "up0"])
        #expect(try leases() == [])
    }
}

/// The forms of answers, which differ between versions of CNI: until 1.0.0 each address names its family, and only
/// 1.1.0 knows a device's MTU. A host refuses an answer of another version than it asked in.
extension OverlayProgram {
    static let versions = ["0.3.1", "0.4.0", "1.0.0", "1.1.0"]

    /// Addresses of a result as a version writes them.
    ///
    /// - Parameter addresses: as the last version does.
    static func written(_ addresses: [JSONObject], in version: String) -> JSONValue {
        .array(
            addresses.map { address in
                guard version.hasPrefix("0.") else { return .object(address) }
                var old = address
                let isV6 = address["address"]?.stringValue?.contains(":") ?? false
                old["version"] = .string(isV6 ? "6" : "4")
                return .object(old)
            })
    }

    /// Asks for ADD, CHECK and DEL in a version, and expects answers in its form.
    ///
    /// - Parameters:
    ///   - addresses: the result's, as the last version writes them.
    ///   - call: asks for a verb, with a configuration that was changed.
    static func expectForms(
        of version: String, _ addresses: [JSONObject], _ call: (String, (inout JSONObject) -> Void) throws -> Answer
    ) throws {
        let added = try call("ADD") { $0["cniVersion"] = .string(version) }
        #expect(added.isGood, "\(added.message)")
        #expect(added.json["cniVersion"] == .string(version))
        #expect(added.json["ips"] == written(addresses, in: version))
        let interfaces = added.json["interfaces"]?.arrayValue ?? []
        #expect(interfaces.contains { $0["name"] == "eth0" })
        let hasMTU = interfaces.contains { $0.objectValue?.keys.contains("mtu") == true }
        #expect(hasMTU == (version == "1.1.0"))
        let result = try CNIResult(JSONReader(added.json), version: CNIVersion(rawValue: version))
        #expect(result.addresses.count == addresses.count)

        // It came with 0.4.0, and with it the result to DEL.
        let isOld = version == "0.3.1"
        let check = try call("CHECK") {
            $0["cniVersion"] = .string(version)
            $0["prevResult"] = added.json
        }
        if isOld {
            #expect(check.code == 1 && check.message.contains("CHECK came with version 0.4.0"), "\(check.message)")
        } else {
            #expect(check.isGood && check.json == .null, "\(check.message)")
        }
        let deleted = try call("DEL") {
            $0["cniVersion"] = .string(version)
            if isOld { $0["prevResult"] = nil } else { $0["prevResult"] = added.json }
        }
        #expect(deleted.isGood && deleted.json == .null, "\(deleted.message)")
    }
}

extension KernelSuite {
    @Suite(.serialized) struct OverlayPluginByHand {
        @Test func `DEL detaches whatever became of the configuration, as long as it says where the leases are`()
            async throws
        {
            try await PrivateMachine.run { machine in
                let plugin = try OverlayProgram(machine)
                let namespace = try machine.pin("one")
                #expect(try plugin.call("ADD", "c1", in: namespace).isGood)
                #expect(try plugin.leases() == ["10.9.0.2"])
                let worse = try plugin.call("DEL", "c1", in: namespace) { configuration in
                    configuration["bridge"] = "no/bridge"
                    configuration["addresses"] = "gone"
                    configuration["mtu"] = 1
                    configuration["later"] = ["a": 1]
                    configuration["prevResult"] = 3
                }
                #expect(worse.isGood, "\(worse.message)")
                try plugin.expectNothing()
                let blind = try plugin.call("DEL", "c1", in: namespace) { $0["dataDir"] = "leases" }
                #expect(!blind.isGood && blind.message.contains("dataDir"), "\(blind.message)")
            }
        }

        @Test(arguments: OverlayProgram.versions)
        func `on a bridge each version of CNI is answered in its own form`(version: String) async throws {
            try await PrivateMachine.run { machine in
                let plugin = try OverlayProgram(machine)
                let one = try machine.pin("one")
                try OverlayProgram.expectForms(
                    of: version, [["interface": 2, "address": "10.9.0.2/24", "gateway": "10.9.0.1"]]
                ) { verb, change in
                    try plugin.call(verb, "one", in: one, change)
                }
                try plugin.expectNothing()
            }
        }

        @Test(arguments: OverlayProgram.versions)
        func `in the mode routed each version of CNI is answered in its own form`(version: String) async throws {
            try await PrivateMachine.run { machine in
                let plugin = try RoutedProgram(machine)
                let one = try machine.pin("one")
                let addresses: [JSONObject] = [
                    ["interface": 1, "address": "10.64.0.2/32", "gateway": "10.64.0.1"],
                    ["interface": 1, "address": "fd64::2/128", "gateway": "fd64::1"],
                ]
                try OverlayProgram.expectForms(of: version, addresses) { verb, change in
                    try plugin.call(verb, "one", in: one, change)
                }
                try plugin.expectNothing()
            }
        }

        @Test func `a bridge that somebody switched off is told by CHECK and STATUS, and switched on by ADD`()
            async throws
        {
            try await PrivateMachine.run { machine in
                let plugin = try OverlayProgram(machine)
                let one = try machine.pin("one")
                let added = try plugin.call("ADD", "one", in: one)
                try machine.ip("link set br0 down")
                let check = try plugin.call("CHECK", "one", in: one) { $0["prevResult"] = added.json }
                #expect(check.message.hasPrefix("the bridge br0 is down"))
                #expect(try plugin.call("STATUS", "", in: "").message.contains("br0"))
                #expect(try plugin.call("ADD", "two", in: machine.pin("two")).isGood)
                #expect(try plugin.call("CHECK", "one", in: one) { $0["prevResult"] = added.json }.isGood)
                #expect(try plugin.call("STATUS", "", in: "").isGood)
            }
        }

        @Test func `DEL of one network leaves what another made under the same id and device`() async throws {
            try await PrivateMachine.run { machine in
                let plugin = try OverlayProgram(machine)
                let one = try machine.pin("one")
                #expect(try plugin.call("ADD", "one", in: one).isGood)
                let devices = try machine.devices()
                #expect(try plugin.call("DEL", "one", in: one) { $0["name"] = "other" }.isGood)
                #expect(try machine.devices() == devices)
                #expect(try plugin.leases() == ["10.9.0.2"])
            }
        }

        @Test func `a way out that the container made for itself stays`() async throws {
            try await PrivateMachine.run { machine in
                let plugin = try OverlayProgram(machine)
                let one = try machine.pin("one")
                try machine.ip("link set lo up", in: one)
                try machine.ip("route add default dev lo", in: one)
                #expect(try plugin.call("ADD", "one", in: one).isGood)
                #expect(try machine.ip("route show default", in: one).contains("dev lo"))
            }
        }

        @Test func `ADD wires, CHECK sees what is missing, DEL takes it away, as often as it likes`() async throws {
            try await PrivateMachine.run { machine in
                let plugin = try OverlayProgram(machine)
                let (one, two) = (try machine.pin("one"), try machine.pin("two"))
                let added = try plugin.call("ADD", "one", in: one)
                #expect(added.isGood)
                #expect(added.json["ips"] == [["interface": 2, "address": "10.9.0.2/24", "gateway": "10.9.0.1"]])
                #expect(added.json["routes"] == [["dst": "0.0.0.0/0", "gw": "10.9.0.1"]])
                let result = try CNIResult(JSONReader(added.json), version: .v1_1_0)
                #expect(result.interfaces.map(\.name).first == "br0")
                #expect(result.interfaces[2].sandbox == one && result.interfaces[2].mtu == 1500)
                #expect(
                    try machine.ip("link show eth0", in: one).contains(result.interfaces[2].mac?.description ?? "-"))
                #expect(try plugin.call("ADD", "two", in: two).isGood)
                let service = try machine.listen(80, in: one)
                #expect(try machine.talk(to: "10.9.0.2", 80, from: two, listener: service) == "10.9.0.3")
                #expect(try machine.talk(to: "10.9.0.2", 80, listener: service) == "10.9.0.1")

                func check() throws -> String {
                    try plugin.call("CHECK", "one", in: one) { $0["prevResult"] = added.json }.message
                }
                #expect(try check() == "")
                try machine.ip("route del default", in: one)
                #expect(try check().hasPrefix("the default route is gone"))
                try machine.ip("addr flush dev eth0", in: one)
                #expect(try check().hasPrefix("the address 10.9.0.2 is not on eth0"))
                try machine.ip("link set \(result.interfaces[1].name) nomaster")
                #expect(try check().contains("hangs off br0 no more"))
                rename("\(plugin.directory)/net/10.9.0.2", "\(plugin.directory)/net/10.9.0.9")
                #expect(try check().hasPrefix("the lease of 10.9.0.2 is gone"))

                for _ in 0..<2 {
                    #expect(try plugin.call("DEL", "one", in: one) { $0["prevResult"] = added.json }.isGood)
                }
                #expect(try machine.ip("-o link show", in: one).split(separator: "\n").count == 1)
                try NetworkNamespace.remove(at: two)
                #expect(try plugin.call("DEL", "two", in: two).isGood)
                try plugin.expectNothing()
                #expect(try plugin.call("DEL", "never", in: "").isGood)
            }
        }

        @Test func `IPv6 on a bridge goes by the host, CHECK sees what is missing, and DEL or GC takes it away`()
            async throws
        {
            try await PrivateMachine.run { machine in
                let plugin = try OverlayProgram(machine)
                // One that is given stays, whatever its ports have.
                try machine.command(
                    "ip link set br0 address 02:00:00:00:09:01 && ip addr add fd09::1/64 dev br0 nodad")
                let one = try machine.pin("one")
                func call(_ verb: String, _ id: String = "one", _ change: (inout JSONObject) -> Void = { _ in }) throws
                    -> OverlayProgram.Answer
                {
                    try plugin.call(verb, id, in: "\(machine.run)/netns/\(id)") { configuration in
                        configuration["addresses"] = [
                            ["subnet": "10.9.0.0/24", "gateway": "10.9.0.1"],
                            ["subnet": "fd09::/64", "gateway": "fd09::1"],
                        ]
                        change(&configuration)
                    }
                }
                #expect(try call("STATUS").message.contains("/proc/sys/net/ipv6/conf/all/forwarding"))
                try machine.command("echo 1 >/proc/sys/net/ipv6/conf/all/forwarding")
                #expect(try call("STATUS").isGood)
                let added = try call("ADD")
                let addresses = added.json["ips"]?.arrayValue?.map { $0["address"]?.stringValue ?? "" }
                #expect(addresses == ["10.9.0.2/24", "fd09::2/128"], "\(added.message)")
                func check() throws -> String { try call("CHECK") { $0["prevResult"] = added.json }.message }
                func neighbours() throws -> String { try machine.ip("-6 neigh show dev br0 nud permanent") }
                #expect(try check() == "")
                for (undo, redo, namespace, words) in [
                    (
                        "ip -6 neigh del fd09::2 dev br0",
                        "ip -6 neigh add fd09::2 lladdr 02:42:0a:09:00:02 dev br0 nud permanent", nil,
                        "the neighbour fd09::2 of br0 is gone"
                    ),
                    (
                        "ip -6 neigh del fd09::1 dev eth0",
                        "ip -6 neigh add fd09::1 lladdr 02:00:00:00:09:01 dev eth0 nud permanent", one,
                        "the neighbour fd09::1 of eth0 is gone"
                    ),
                    (
                        "ip -6 route del fd09::/64", "ip -6 route add fd09::/64 via fd09::1", one,
                        "the route to fd09::/64 by eth0 is gone"
                    ),
                    (
                        "echo 1 >/proc/sys/net/ipv6/conf/eth0/accept_ra",
                        "echo 0 >/proc/sys/net/ipv6/conf/eth0/accept_ra", one, "accept_ra is 1, not 0"
                    ),
                    ("ip -6 addr del fd09::2/128 dev eth0", "true", one, "the address fd09::2 is not on eth0"),
                ] as [(String, String, String?, String)] {
                    try machine.command(undo, in: namespace)
                    #expect(try check().contains(words), "\(undo)")
                    try machine.command(redo, in: namespace)
                }
                // Without its result the leases say which.
                #expect(try call("DEL").isGood)
                #expect(try neighbours() == "")
                _ = try machine.pin("two")
                #expect(try call("ADD", "two").isGood)
                #expect(try call("GC") { $0["cni.dev/valid-attachments"] = [] }.isGood)
                #expect(try neighbours() == "")
                try plugin.expectNothing()
            }
        }

        @Test func `what cannot be leaves nothing half-made, and says why in one sentence`() async throws {
            try await PrivateMachine.run { machine in
                let plugin = try OverlayProgram(machine)
                let (one, two) = (try machine.pin("one"), try machine.pin("two"))
                func refused(_ answer: OverlayProgram.Answer, _ code: Int64, _ word: String) throws {
                    #expect(answer.status == .exited(1) && answer.code == .integer(code))
                    #expect(answer.message.contains(word) && !answer.message.contains("\n"), "\(answer.message)")
                }
                try machine.ip("link add eth7 type veth peer name other", in: one)
                try refused(
                    plugin.call("ADD", "one", in: one, interface: "eth7"), 102, "a device eth7 is in \(one) already")
                try plugin.expectNothing()
                try refused(plugin.call("ADD", "one", in: "/nowhere"), 102, "/nowhere")
                try refused(plugin.call("ADD", "one", in: "/etc/passwd"), 102, "it is no network namespace")
                try refused(plugin.call("ADD", "one", in: one) { $0["bridge"] = "br9" }, 102, "br9")
                try refused(plugin.call("STATUS", "", in: "") { $0["bridge"] = "br9" }, 50, "br9")
                try refused(plugin.call("ADD", "one", in: one) { $0["bridge"] = "up0" }, 102, "it is no bridge")
                try refused(
                    plugin.call("ADD", "one", in: one) { $0["encrypted"] = true }, 2, "$.encrypted, which is true")
                try refused(plugin.call("ADD", "one", in: one, input: Array("garbage".utf8)), 6, "not JSON")
                try refused(
                    plugin.call("ADD", "one", in: one, input: [UInt8](repeating: 32, count: 2 << 20)), 6, "1048576")
                try plugin.expectNothing()
                // The last of a ring of addresses, and one that was asked for.
                let small: (inout JSONObject) -> Void = {
                    $0["addresses"] = [["subnet": "10.9.0.0/30", "gateway": "10.9.0.1"]]
                }
                #expect(try plugin.call("ADD", "one", in: one, small).isGood)
                try refused(plugin.call("ADD", "two", in: two, small), 100, "1 of 1 in use")
                try refused(
                    plugin.call("ADD", "two", in: two) { $0["runtimeConfig"] = ["ips": ["10.9.0.2"]] }, 101,
                    "belongs to container one")
                try refused(plugin.call("ADD", "one", in: one), 102, "attached already")
                #expect(try plugin.leases() == ["10.9.0.2"], "the first ADD's stays")
                #expect(try machine.devices().count == 4)
            }
        }

        @Test func `a hardware address and an address are what was asked for`() async throws {
            try await PrivateMachine.run { machine in
                let plugin = try OverlayProgram(machine)
                let one = try machine.pin("one")
                let answer = try plugin.call("ADD", "one", in: one) {
                    $0["runtimeConfig"] = ["mac": "02:00:00:00:00:77", "ips": ["10.9.0.77/24"]]
                    $0["defaultRoute"] = false
                    $0["mtu"] = 1300
                }
                #expect(answer.address == "10.9.0.77/24")
                let link = try machine.ip("addr show eth0", in: one)
                #expect(
                    link.contains("02:00:00:00:00:77") && link.contains("10.9.0.77/24") && link.contains("mtu 1300"))
                #expect(try machine.ip("route show default", in: one) == "")
            }
        }

        @Test func `a container that ends lets go of its device, and the next of that name is not in its way`()
            async throws
        {
            try await PrivateMachine.run { machine in
                let plugin = try OverlayProgram(machine)
                let (one, two) = (try machine.pin("one"), try machine.pin("two"))
                #expect(try plugin.call("ADD", "a", in: one).isGood)
                for _ in 0..<2 {
                    #expect(
                        try plugin.call("DEL", "a", in: one, more: ["CNI_ARGS=IgnoreUnknown=1;MARTLET_END=1"]).isGood)
                }
                #expect(try plugin.leases() == [])
                #expect(try machine.ip("link show br0").contains("br0"))
                #expect(try machine.command("ls /sys/class/net/br0/brif") == "")
                #expect(try plugin.call("ADD", "a", in: two).isGood, "while the old one's namespace is still there")
                #expect(try machine.ip("-o link show", in: one).split(separator: "\n").count == 1)
                #expect(try plugin.call("DEL", "a", in: two, more: ["CNI_ARGS=MARTLET_END=1"]).isGood)
                try NetworkNamespace.remove(at: two)
                for _ in 0..<500 where try machine.devices().count > 3 { usleep(10_000) }
                try plugin.expectNothing()
            }
        }

        @Test(arguments: ["after_lease", "after_veth", "after_pod", "before_result"])
        func `what a plugin leaves that is killed is found by DEL or GC`(point: String) async throws {
            try await PrivateMachine.run { machine in
                let plugin = try OverlayProgram(machine)
                let pin = try machine.pin("one")
                for verb in ["DEL", "GC"] {
                    let killed = try plugin.call("ADD", "one", in: pin, more: ["MARTLET_FAILPOINT=plugin.\(point)"])
                    #expect(killed.status == .signaled(SIGKILL))
                    #expect(try plugin.leases().count == 1)
                    #expect(try plugin.call("ADD", "kept", in: machine.pin("kept-\(verb)")).isGood)
                    let cleaned = try plugin.call(verb, "one", in: pin) {
                        if verb == "GC" {
                            $0["cni.dev/valid-attachments"] = [["containerID": "kept", "ifname": "eth0"]]
                        }
                    }
                    #expect(cleaned.isGood)
                    #expect(try machine.devices().count == 4, "the other's device stays")
                    #expect(try plugin.leases().count == 1)
                    #expect(try plugin.call("DEL", "kept", in: "").isGood)
                    try plugin.expectNothing()
                }
            }
        }

        @Test func `200 containers from 8 sides at once get an address each, and all go again`() async throws {
            try await PrivateMachine.run { machine in
                let plugin = try OverlayProgram(machine)
                let pool = try BlockingPool(threads: 8)
                let ids = (0..<200).map { "pod\($0)" }
                let addresses = try await withThrowingTaskGroup(of: String.self) { group in
                    for id in ids {
                        group.addTask {
                            try await pool.run {
                                let answer = try plugin.call("ADD", id, in: machine.pin(id))
                                return answer.address ?? answer.message
                            }
                        }
                    }
                    return try await group.reduce(into: Set<String>()) { $0.insert($1) }
                }
                #expect(addresses.count == 200 && addresses.allSatisfy { CIDR($0) != nil })
                #expect(try plugin.leases().count == 200)
                try await withThrowingTaskGroup(of: Bool.self) { group in
                    for (index, id) in ids.enumerated() {
                        group.addTask {
                            try await pool.run {
                                let pin = "\(machine.run)/netns/\(id)"
                                let end = index % 2 == 0
                                let done = try plugin.call(
                                    "DEL", id, in: pin, more: end ? ["CNI_ARGS=MARTLET_END=1"] : [])
                                try NetworkNamespace.remove(at: pin)
                                return done.isGood
                            }
                        }
                    }
                    for try await isGood in group { #expect(isGood) }
                }
                for _ in 0..<500 where try machine.devices().count > 3 { usleep(10_000) }
                try plugin.expectNothing()
            }
        }
    }

    @Suite(.serialized) struct PodNetworkAfterUpgrade {
        /// Attached by the list that was ours before: Debian's plugins bridge and host-local.
        @Test func `what the reference plugins attached stays reachable, and goes by the list on record`() async throws
        {
            try await PrivateMachine.run { machine in
                let network = try machine.network()
                try network.prepare()
                let devices = try machine.devices()
                let (old, new) = (try machine.pin("old"), try machine.pin("new"))
                let list = try NetworkConfigurationList.parse(
                    Array(
                        """
                        {"cniVersion": "1.0.0", "name": "martlet", "plugins": [{"type": "bridge", "bridge": "martlet0",
                         "isGateway": true, "hairpinMode": true, "ipam": {"type": "host-local",
                         "dataDir": "\(machine.run)/cni/ipam", "routes": [{"dst": "0.0.0.0/0"}],
                         "ranges": [[{"subnet": "10.213.0.0/16", "gateway": "10.213.0.1"}]]}}]}
                        """.utf8))
                let before = CNIHost(list: list, cacheDirectory: "\(machine.data)/cni/cache")
                let found = try before.add(NetworkAttachment(containerID: "old", namespacePath: old))
                #expect(found.addresses.first?.address.description == "10.213.0.2/16")
                let second = try network.attach("new", namespacePath: new)
                #expect(second.address.description == "10.213.0.3/16")
                let service = try machine.listen(80, in: old)
                #expect(try machine.talk(to: "10.213.0.2", 80, from: new, listener: service) == "10.213.0.3")
                for id in ["old", "new"] { try network.detach(id) }
                #expect(machine.leases() == [])
                #expect(try machine.devices() == devices)
            }
        }
    }
}
