import CNISpec
import JSON
import Testing

@testable import CNIPlugin
@testable import OverlayPlugin

/// A call of martlet-overlay with its configuration changed.
func call(
    _ verb: String = "ADD", _ environment: [String: String] = [:], _ change: (inout JSONObject) -> Void = { _ in }
) throws(CNIError) -> PluginCall {
    var configuration: JSONObject = [
        "cniVersion": "1.1.0", "name": "net", "type": "martlet-overlay", "bridge": "br0", "mode": "shared",
        "hairpin": true, "addresses": [["subnet": "10.9.0.0/24", "gateway": "10.9.0.1"]], "defaultRoute": true,
        "dataDir": "/run/leases",
    ]
    change(&configuration)
    let words = [
        "CNI_COMMAND": verb, "CNI_CONTAINERID": "c1", "CNI_NETNS": "/run/netns/c1", "CNI_IFNAME": "eth0",
    ].merging(environment) { $1 }
    return try PluginCall(environment: { words[$0] }, input: JSONValue.object(configuration).serialized())
}

@Suite struct PluginCallTests {
    @Test func `environment and configuration make a call`() throws {
        let call = try call("ADD", ["CNI_ARGS": "A=1;B=x=y"])
        #expect(call.verb == .add && call.version == .v1_1_0 && call.network == "net")
        #expect(call.containerID == "c1" && call.interface == "eth0" && call.namespacePath == "/run/netns/c1")
        #expect(call.arguments == ["A": "1", "B": "x=y"])
    }

    @Test(arguments: [
        ("ADD", "CNI_COMMAND", ""), ("ADD", "CNI_COMMAND", "add"), ("ADD", "CNI_CONTAINERID", ""),
        ("ADD", "CNI_CONTAINERID", "../c1"), ("ADD", "CNI_IFNAME", "a/b"), ("DEL", "CNI_IFNAME", "0123456789abcdef"),
        ("ADD", "CNI_NETNS", ""), ("CHECK", "CNI_NETNS", "netns"), ("ADD", "CNI_ARGS", "a"),
        ("DEL", "CNI_ARGS", "a b=1"),
    ])
    func `what the environment may not say is refused by name`(verb: String, name: String, value: String) {
        let error = #expect(throws: CNIError.self) { _ = try call(verb, [name: value]) }
        #expect(error?.code == CNIError.invalidEnvironment)
        #expect(error?.message.contains(name) == true)
    }

    @Test func `DEL needs no namespace, VERSION neither a container nor a name`() throws {
        #expect(try call("DEL", ["CNI_NETNS": ""]).namespacePath == "")
        #expect(try call("VERSION", ["CNI_CONTAINERID": ""]) { $0["name"] = nil }.verb == .version)
    }

    @Test func `verbs are refused in versions that had none, and so are unknown versions`() {
        for (verb, version) in [
            ("CHECK", "0.3.1"), ("STATUS", "1.0.0"), ("GC", "1.0.0"), ("ADD", "0.2.0"), ("ADD", "2.0.0"),
        ] {
            let error = #expect(throws: CNIError.self) { _ = try call(verb) { $0["cniVersion"] = .string(version) } }
            #expect(error?.code == CNIError.incompatibleVersion)
            #expect(error?.message.contains(version) == true)
        }
    }

    @Test(arguments: ["", "x", "[]", "{", #"{"a":1,"a":2}"#])
    func `what is no JSON object is refused`(text: String) {
        let error = #expect(throws: CNIError.self) {
            _ = try PluginCall(environment: { _ in "ADD" }, input: Array(text.utf8))
        }
        #expect(error?.code == CNIError.failedDecoding)
    }
}

@Suite struct OverlayConfigurationTests {
    @Test func `all of it is read`() throws {
        let configuration = try OverlayConfiguration(
            call {
                $0["mtu"] = 1400
                $0["dns"] = ["nameservers": ["10.9.0.1"]]
                $0["addresses"] = [
                    ["subnet": "10.9.0.0/24", "gateway": "10.9.0.1", "ranges": [["10.9.0.8", "10.9.0.15"]]]
                ]
                $0["runtimeConfig"] = ["mac": "02:00:00:00:00:01", "ips": ["10.9.0.77"]]
            })
        #expect(configuration.mode == .shared(.init(bridge: "br0", hairpin: true)) && configuration.mtu == 1400)
        let fixed = try OverlayConfiguration(
            call {
                $0["learning"] = false
                $0["group"] = 1_845_493_761
            })
        #expect(
            fixed.mode == .shared(.init(bridge: "br0", hairpin: true, learning: false, group: 1_845_493_761)))
        #expect(configuration.isDefaultRoute && configuration.pools.map(\.count) == [8])
        #expect(configuration.mac?.description == "02:00:00:00:00:01")
        #expect(configuration.wanted.map(\.description) == ["10.9.0.77"], "of the subnet, whatever the ranges are")
        #expect(configuration.dns.nameservers == ["10.9.0.1"])
        #expect(configuration.leases.directory == "/run/leases/net")
    }

    /// What martlet-overlay is told for an overlay network.
    private func routed(_ change: (inout JSONObject) -> Void = { _ in }) throws(CNIError) -> OverlayConfiguration {
        try OverlayConfiguration(
            call {
                for key in ["bridge", "hairpin"] { $0[key] = nil }
                $0["mode"] = "routed"
                $0["group"] = 1_828_716_545
                $0["table"] = 28020
                $0["addresses"] = [
                    ["subnet": "10.64.0.0/20", "gateway": "10.64.0.1"],
                    ["subnet": "fd00:1::/64", "gateway": "fd00:1::1"],
                ]
                change(&$0)
            })
    }

    @Test func `the mode routed takes a subnet of each family, and an address of each`() throws {
        let both = try routed { $0["runtimeConfig"] = ["ips": ["fd00:1::7/64", "10.64.0.7/20"]] }
        #expect(both.mode == .routed(group: 1_828_716_545, table: 28020) && both.isDefaultRoute)
        #expect(both.pools.map(\.subnet.description) == ["10.64.0.0/20", "fd00:1::/64"])
        #expect(Set(both.wanted.map(\.description)) == ["10.64.0.7", "fd00:1::7"])
        let least = try routed {
            $0["group"] = nil
            $0["table"] = nil
            $0["addresses"] = [["subnet": "fd00:1::/64", "gateway": "fd00:1::1"]]
        }
        #expect(least.mode == .routed(group: 0, table: 254))
    }

    /// Member, value as JSON, code and what the refusal names.
    @Test(arguments: [
        ("bridge", #""br0""#, CNIError.unsupportedField, "bridge"), ("hairpin", "true", 2, "hairpin"),
        ("table", "0", 7, "0 is no routing table"), ("table", "255", 7, "255"), ("table", "-1", 7, "table"),
        ("group", "4294967296", 7, "group"), ("mtu", "1279", 7, "1280"), ("addresses", "[]", 7, "addresses"),
        ("addresses", #"[{"subnet":"10.64.0.0/20"}]"#, 7, "gateway"),
        (
            "addresses",
            #"[{"subnet":"10.1.0.0/24","gateway":"10.1.0.1"},{"subnet":"10.2.0.0/24","gateway":"10.2.0.1"}]"#, 7,
            "addresses"
        ),
        ("addresses", #"[{"subnet":"fd00::/127","gateway":"fd00::1"}]"#, 7, "/127"),
        ("addresses", #"[{"subnet":"fd00::/64","gateway":"10.64.0.1"}]"#, 7, "10.64.0.1"),
        ("runtimeConfig", #"{"ips":["10.64.0.7","10.64.0.8"]}"#, 7, "one address of a family"),
        ("runtimeConfig", #"{"ips":["fd00:1::1"]}"#, 7, "fd00:1::1"),
        ("runtimeConfig", #"{"ips":["fd00:2::7"]}"#, 7, "fd00:2::7"),
    ])
    func `what the mode routed cannot be told is refused`(
        key: String, json: String, code: UInt32, word: String
    ) throws {
        let value = try JSONValue.parse(json)
        let error = #expect(throws: CNIError.self) { _ = try routed { $0[key] = value } }
        #expect(error?.code == code)
        #expect(error?.message.contains(word) == true, "\(error?.message ?? "")")
    }

    @Test func `a field that is not known is refused with its value`() {
        let places: [(String, (inout JSONObject) -> Void)] = [
            (#"$.vxlan, which is {"id":3},"#, { $0["vxlan"] = ["id": 3] }), ("$.ipam,", { $0["ipam"] = [:] }),
            ("$.ipMasq, which is true,", { $0["ipMasq"] = true }),
            (
                "$.addresses[0].routes,",
                { $0["addresses"] = [["subnet": "10.9.0.0/24", "gateway": "10.9.0.1", "routes": []]] }
            ),
            ("$.runtimeConfig.bandwidth,", { $0["runtimeConfig"] = ["bandwidth": [:]] }),
        ]
        for (words, change) in places {
            let error = #expect(throws: CNIError.self) { _ = try OverlayConfiguration(call("ADD", [:], change)) }
            #expect(error?.code == CNIError.unsupportedField)
            #expect(error?.message.hasPrefix(words) == true, "\(error?.message ?? "")")
        }
    }

    /// Member, value as JSON, and what the refusal names.
    @Test(arguments: [
        ("mode", #""bridged""#, "bridged"), ("mode", #""vxlan""#, "vxlan"), ("mode", "null", "mode"),
        ("bridge", #""a/b""#, "a/b"), ("mtu", "67", "67"), ("mtu", "70000", "70000"), ("mtu", #""big""#, "mtu"),
        ("hairpin", "1", "hairpin"), ("dataDir", #""leases""#, "leases"), ("addresses", "[]", "addresses"),
        ("addresses", #"[{"subnet":"10.0.0.0/24","gateway":"10.0.0.1"},{"subnet":"fd00::/64"}]"#, "IPv6 needs one"),
        ("addresses", #"[{"subnet":"fd00::/64","gateway":"fd00::1"},{"subnet":"10.0.0.0/24"}]"#, "behind it"),
        ("addresses", #"[{"subnet":"10.0.0.0/24"},{"subnet":"10.0.1.0/24"}]"#, "behind it"),
        ("addresses", #"[{"subnet":"fd00::/64"}]"#, "IPv6"),
        ("addresses", #"[{"subnet":"10.0.0.1/24"}]"#, "10.0.0.0/24"),
        ("addresses", #"[{"subnet":"10.0.0.0/33"}]"#, "10.0.0.0/33"),
        ("addresses", #"[{"subnet":"10.0.0.0/31"}]"#, "/31"),
        ("addresses", #"[{"subnet":"10.0.0.0/24"}]"#, "gateway"),
        ("addresses", #"[{"subnet":"10.0.0.0/24","gateway":"10.1.0.1"}]"#, "10.1.0.1"),
        ("addresses", #"[{"subnet":"10.0.0.0/24","gateway":"10.0.0.255"}]"#, "10.0.0.255"),
        (
            "addresses", #"[{"subnet":"10.0.0.0/24","gateway":"10.0.0.1","ranges":[["10.0.0.9","10.0.0.2"]]}]"#,
            "ranges[0]"
        ),
        ("addresses", #"[{"subnet":"10.0.0.0/24","gateway":"10.0.0.1","ranges":[["10.0.0.9"]]}]"#, "ranges[0]"),
        (
            "addresses", #"[{"subnet":"10.0.0.0/24","gateway":"10.0.0.1","ranges":[["10.0.0.9","10.0.1.2"]]}]"#,
            "10.0.1.2"
        ),
        ("runtimeConfig", #"{"mac":"01:00:00:00:00:00"}"#, "01:00"),
        ("runtimeConfig", #"{"ips":["10.9.0.1"]}"#, "10.9.0.1"),
        ("runtimeConfig", #"{"ips":["10.9.0.255/24"]}"#, "10.9.0.255"), ("runtimeConfig", #"{"ips":["x"]}"#, "x"),
        ("runtimeConfig", #"{"ips":["10.9.0.5","10.9.0.6"]}"#, "ips"), ("prevResult", "3", "prevResult"),
    ])
    func `what cannot be is refused in one sentence`(key: String, json: String, word: String) throws {
        let value = try JSONValue.parse(json)
        let error = #expect(throws: CNIError.self) { _ = try OverlayConfiguration(call { $0[key] = value }) }
        #expect(error?.code == CNIError.invalidConfiguration)
        #expect(error?.message.contains(word) == true, "\(error?.message ?? "")")
    }

    @Test func `arguments that are not known are refused unless they may be ignored`() throws {
        let error = #expect(throws: CNIError.self) {
            _ = try OverlayConfiguration(call("ADD", ["CNI_ARGS": "K8S_POD_NAME=a"]))
        }
        #expect(error?.message.contains("K8S_POD_NAME") == true)
        _ = try OverlayConfiguration(call("ADD", ["CNI_ARGS": "IgnoreUnknown=1;K8S_POD_NAME=a"]))
        _ = try OverlayConfiguration(call("DEL", ["CNI_ARGS": "MARTLET_END=1"]))
    }

    @Test func `the device's name follows from network, id and device`() {
        func name(_ id: String, _ interface: String, in network: String = "n1") -> String {
            OverlayNames.hostEnd(of: PluginAttachment(containerID: id, interface: interface), in: network)
        }
        #expect(name("c1", "eth0") == "mv2c246cab9e062")
        #expect(name("c1", "eth0") != name("c1e", "th0"))
        #expect(name("c1", "eth0") != name("c1", "eth0", in: "n2"))
        let names = Set((0..<10_000).map { name("container\($0)", "eth0") })
        #expect(names.count == 10_000 && names.allSatisfy { $0.utf8.count == 15 })
    }
}
