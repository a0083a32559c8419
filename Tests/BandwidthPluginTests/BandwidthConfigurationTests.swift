import CNIPlugin
import CNISpec
import JSON
import Netlink
import Testing

@testable import BandwidthPlugin

/// A call of bandwidth with members added to its configuration.
private func call(
    _ verb: String = "ADD", arguments: String = "", _ change: (inout JSONObject) -> Void = { _ in }
) throws(CNIError) -> PluginCall {
    var configuration: JSONObject = [
        "cniVersion": "1.1.0", "name": "net", "type": "bandwidth", "capabilities": ["bandwidth": true],
    ]
    change(&configuration)
    let words = [
        "CNI_COMMAND": verb, "CNI_CONTAINERID": "c1", "CNI_NETNS": "/run/netns/c1", "CNI_IFNAME": "eth0",
        "CNI_ARGS": arguments,
    ]
    return try PluginCall(environment: { words[$0] }, input: JSONValue.object(configuration).serialized())
}

@Suite struct BandwidthConfigurationTests {
    @Test func `bits become bytes, and beyond the bucket 25 ms of traffic may wait`() throws {
        let configuration = try BandwidthConfiguration(
            call {
                $0["runtimeConfig"] = [
                    "bandwidth": [
                        "ingressRate": 8_000_000, "ingressBurst": 800_000, "egressRate": 80_000_000_000,
                        "egressBurst": 34_359_738_360,
                    ]
                ]
            })
        #expect(configuration.ingress == TokenBucket(rate: 1_000_000, burst: 100_000, limit: 125_000))
        #expect(configuration.egress == TokenBucket(rate: 10_000_000_000, burst: .max, limit: .max))
        #expect(configuration.previous == nil)
    }

    @Test func `one direction alone, none, and zeros that mean none`() throws {
        let one = try BandwidthConfiguration(
            call {
                $0["egressRate"] = 8
                $0["egressBurst"] = 16
                $0["ingressRate"] = 0
                $0["ingressBurst"] = 0
            })
        #expect(one.ingress == nil)
        #expect(one.egress == TokenBucket(rate: 1, burst: 2, limit: 2))
        for runtime: JSONValue in [[:], ["bandwidth": [:]], ["bandwidth": ["egressRate": 0]]] {
            let none = try BandwidthConfiguration(call { $0["runtimeConfig"] = runtime })
            #expect(none.ingress == nil && none.egress == nil)
        }
    }

    @Test func `what the list says holds, whatever the container asks for`() throws {
        let configuration = try BandwidthConfiguration(
            call {
                $0["ingressRate"] = 8000
                $0["ingressBurst"] = 80000
                $0["runtimeConfig"] = ["bandwidth": ["ingressRate": 800_000, "ingressBurst": 80000]]
            })
        #expect(configuration.ingress?.rate == 1000)
    }

    /// Members of `runtimeConfig.bandwidth`, and what the refusal names.
    @Test(arguments: [
        (#"{"ingressRate":1000}"#, "ingressBurst"), (#"{"ingressBurst":1000}"#, "ingressRate"),
        (#"{"egressRate":1000,"egressBurst":0}"#, "egressBurst"), (#"{"egressBurst":1}"#, "egressRate"),
        (#"{"ingressRate":7,"ingressBurst":8000}"#, "7 is not between 8 and 1000000000000000 bits a second"),
        (#"{"ingressRate":1000000000000001,"ingressBurst":8000}"#, "1000000000000001"),
        (#"{"egressRate":8000,"egressBurst":7}"#, "7 is not between 8 and 34359738360 bits"),
        (#"{"egressRate":8000,"egressBurst":34359738361}"#, "34359738361"),
        (#"{"egressRate":18446744073709551615,"egressBurst":8000}"#, "18446744073709551615"),
        (#"{"ingressRate":-8,"ingressBurst":8000}"#, "ingressRate"),
        (#"{"ingressRate":1.5,"ingressBurst":8000}"#, "ingressRate"),
        (#"{"ingressRate":"1M","ingressBurst":8000}"#, "ingressRate"), ("3", "bandwidth"), (#"[]"#, "bandwidth"),
    ])
    func `what cannot be is refused in one sentence`(json: String, word: String) throws {
        let value = try JSONValue.parse(json)
        let error = #expect(throws: CNIError.self) {
            _ = try BandwidthConfiguration(call { $0["runtimeConfig"] = ["bandwidth": value] })
        }
        #expect(error?.code == CNIError.invalidConfiguration)
        #expect(error?.message.contains(word) == true, "\(error?.message ?? "")")
    }

    @Test func `a field that is not known is refused with its value`() {
        let places: [(String, (inout JSONObject) -> Void)] = [
            (#"$.shapedSubnets, which is ["10.0.0.0/8"],"#, { $0["shapedSubnets"] = ["10.0.0.0/8"] }),
            ("$.ipam,", { $0["ipam"] = [:] }),
            ("$.runtimeConfig.mac,", { $0["runtimeConfig"] = ["mac": "02:00:00:00:00:01"] }),
            ("$.runtimeConfig.bandwidth.rate,", { $0["runtimeConfig"] = ["bandwidth": ["rate": 8]] }),
        ]
        for (words, change) in places {
            let error = #expect(throws: CNIError.self) { _ = try BandwidthConfiguration(call("ADD", change)) }
            #expect(error?.code == CNIError.unsupportedField)
            #expect(error?.message.hasPrefix(words) == true, "\(error?.message ?? "")")
        }
        let error = #expect(throws: CNIError.self) { _ = try BandwidthConfiguration(call(arguments: "A=1")) }
        #expect(error?.code == CNIError.invalidEnvironment)
        #expect(throws: Never.self) { _ = try BandwidthConfiguration(call(arguments: "A=1;IgnoreUnknown=1")) }
    }
}

@Suite struct ShapingMarkTests {
    @Test func `an alias says whose a device is, and fits whatever the names are`() {
        let longest = String(repeating: "n", count: CNINames.longest)
        let mark = ShapingMark(
            network: longest, attachment: PluginAttachment(containerID: longest, interface: "123456789012345"),
            hostEnd: "mv0123456789abc")
        #expect(mark.alias.utf8.count <= 255, "IFALIASZ")
        #expect(ShapingMark(mark.alias) == mark)
    }

    @Test(arguments: [
        "", "martlet-bandwidth", "martlet-bandwidth net c1 eth0", "martlet-bandwidth net c1 eth0 mv0 more",
        "martlet-bandwidth net ../c1 eth0 mv0", "other net c1 eth0 mv0", "martlet-bandwidth net c1 eth0 ",
    ])
    func `an alias of somebody else's says nothing`(alias: String) {
        #expect(ShapingMark(alias) == nil)
    }

    @Test func `a device's name follows from network, id and device`() {
        func name(_ id: String, _ interface: String, _ network: String) -> String {
            Shaping(
                attachment: PluginAttachment(containerID: id, interface: interface), network: network,
                namespacePath: ""
            ).deviceName
        }
        let names = [
            name("c1", "eth0", "net"), name("c1", "eth1", "net"), name("c2", "eth0", "net"), name("c1", "eth0", "o"),
        ]
        #expect(Set(names).count == 4)
        #expect(names.allSatisfy { CNINames.isInterface($0) && $0.hasPrefix("mb") && $0.utf8.count == 15 })
    }
}
