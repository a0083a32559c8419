import CNISpec
import JSON
import Testing

@Suite struct ResultTests {
    /// As the reference plugins print it.
    private let modern = """
        {"cniVersion": "1.0.0",
         "interfaces": [{"name": "martlet0", "mac": "72:f6:14:28:6c:53"},
                        {"name": "eth0", "mac": "9e:7f:6e:1e:e8:07", "sandbox": "/run/netns/c1"}],
         "ips": [{"interface": 1, "address": "10.213.0.2/16", "gateway": "10.213.0.1"}],
         "routes": [{"dst": "0.0.0.0/0"}, {"dst": "10.0.0.0/8", "gw": "10.213.0.9"}],
         "dns": {"nameservers": ["10.213.0.1"], "domain": "local", "search": ["a.b"], "options": ["ndots:2"]}}
        """

    @Test func `a result is read whole`() throws {
        let result = try CNIResult(parse(modern), version: .v1_0_0)
        #expect(result.interfaces[1].sandbox == "/run/netns/c1")
        #expect(result.interfaces[1].mac?.description == "9e:7f:6e:1e:e8:07")
        #expect(result.addresses[0].address.description == "10.213.0.2/16")
        #expect(result.addresses[0].gateway?.description == "10.213.0.1")
        #expect(result.addresses[0].interface == 1)
        #expect(result.routes.map(\.destination.description) == ["0.0.0.0/0", "10.0.0.0/8"])
        #expect(result.dns.options == ["ndots:2"])
    }

    @Test(arguments: CNIVersion.allCases)
    func `it survives the shape of every version`(version: CNIVersion) throws {
        let result = try CNIResult(parse(modern), version: nil)
        let written = result.json(version: version)
        #expect(try CNIResult(JSONReader(written), version: version) == result)
        let address = try #require(written["ips"]?.arrayValue?.first)
        #expect((address["version"] == "4") == (version < .v1_0_0), "addresses name their family only before 1.0.0")
    }

    @Test func `what only 1-1 knows is kept there and left out before`() throws {
        let text = """
            {"cniVersion": "1.1.0", "interfaces": [{"name": "a", "mtu": 1400, "pciID": "0000:00:1f.6"}],
             "routes": [{"dst": "::/0", "priority": 5, "table": 100}]}
            """
        let result = try CNIResult(parse(text), version: .v1_1_0)
        let new = result.json(version: .v1_1_0)
        #expect(new["interfaces"]?.arrayValue?.first?["mtu"] == 1400)
        #expect(new["routes"]?.arrayValue?.first?["table"] == 100)
        let old = result.json(version: .v1_0_0)
        #expect(old["interfaces"]?.arrayValue?.first?["mtu"] == nil)
        #expect(old["routes"]?.arrayValue?.first?["table"] == nil)
    }

    @Test(arguments: [
        (#"{}"#, "$.cniVersion"), (#"{"cniVersion": "0.4.0"}"#, "wanted 1.0.0"),
        (#"{"cniVersion": "1.0.0", "ips": [{"address": "10.0.0.1"}]}"#, "$.ips[0].address"),
        (#"{"cniVersion": "1.0.0", "ips": [{"address": "10.0.0.1/8", "gateway": "x"}]}"#, "$.ips[0].gateway"),
        (#"{"cniVersion": "1.0.0", "ips": [{"address": "10.0.0.1/8", "gateway": "::1"}]}"#, "another family"),
        (#"{"cniVersion": "1.0.0", "ips": [{"address": "10.0.0.1/8", "interface": 0}]}"#, "no interface 0"),
        (#"{"cniVersion": "1.0.0", "ips": [{"address": "10.0.0.1/8", "interface": -1}]}"#, "no interface -1"),
        (#"{"cniVersion": "1.0.0", "interfaces": [{"name": "a/b"}]}"#, "$.interfaces[0].name"),
        (#"{"cniVersion": "1.0.0", "interfaces": [{"name": "a", "mac": "x"}]}"#, "$.interfaces[0].mac"),
        (#"{"cniVersion": "1.0.0", "interfaces": {}}"#, "expected an array"),
        (#"{"cniVersion": "1.0.0", "routes": [{"dst": "x"}]}"#, "$.routes[0].dst"),
        (#"{"cniVersion": "1.0.0", "dns": {"nameservers": ["1.1.1.1\nnameserver 6.6.6.6"]}}"#, "resolv.conf"),
        (#"{"cniVersion": "1.0.0", "dns": {"nameservers": ["host"]}}"#, "no IP address"),
        (#"{"cniVersion": "1.0.0", "dns": {"search": ["a b"]}}"#, "$.dns.search[0]"),
        (#"{"cniVersion": "1.0.0", "dns": {"domain": "a\nb"}}"#, "$.dns.domain"),
        (#"{"cniVersion": "1.0.0", "dns": []}"#, "expected an object"),
    ])
    func `garbage is refused with its place`(text: String, message: String) throws {
        let error = #expect(throws: JSONError.self) { try CNIResult(parse(text), version: .v1_0_0) }
        #expect(try #require(error).description.contains(message), "\(error?.description ?? "")")
    }

    @Test func `a family that contradicts its address is refused`() throws {
        let text = #"{"cniVersion": "0.4.0", "ips": [{"version": "6", "address": "10.0.0.1/8"}]}"#
        #expect(throws: JSONError.self) { try CNIResult(parse(text), version: .v0_4_0) }
    }

    @Test func `counts are bounded`() throws {
        for (key, element, count) in [
            ("interfaces", #"{"name": "a"}"#, 257), ("ips", #"{"address": "10.0.0.1/8"}"#, 257),
            ("routes", #"{"dst": "10.0.0.0/8"}"#, 4097),
        ] {
            let elements = [String](repeating: element, count: count).joined(separator: ",")
            let error = #expect(throws: JSONError.self) {
                try CNIResult(parse(#"{"cniVersion": "1.0.0", "\#(key)": [\#(elements)]}"#), version: nil)
            }
            #expect(error?.kind == .tooLarge, "\(key)")
        }
    }

    @Test func `plugins' errors are one bounded line`() throws {
        let text = #"{"cniVersion": "1.0.0", "code": 11, "msg": "busy\nvery", "details": "later"}"#
        let error = try CNIError(parse(text))
        #expect(error.code == CNIError.tryAgainLater)
        #expect(error.description == "busy very: later (code 11)")
        #expect(try CNIError(JSONReader(error.json(version: .v1_0_0))) == error)
        #expect(throws: JSONError.self) { try CNIError(parse(#"{"msg": "no code"}"#)) }
        let long = String(repeating: "x", count: 5000)
        #expect(try CNIError(parse(#"{"code": 1, "msg": "\#(long)"}"#)).message.count == 1000)
    }

    @Test func `the VERSION reply`() throws {
        let reply = try VersionReply(parse(#"{"cniVersion": "1.0.0", "supportedVersions": ["0.3.1", "1.0.0", "7.0"]}"#))
        #expect(reply.supports(.v1_0_0) && reply.supports(.v0_3_1) && !reply.supports(.v1_1_0))
        #expect(try VersionReply(JSONReader(reply.json(version: .v1_0_0))) == reply)
    }

    @Test func `a plugin's output must be one JSON object`() {
        for text in ["", "hello", "[]", "{}{}", "{} trailing", "null"] {
            #expect(throws: JSONError.self, "\(text)") { try PluginAnswer.object(Array(text.utf8)) }
        }
        #expect(throws: JSONError.self) { try PluginAnswer.object([UInt8](repeating: 32, count: CNILimits.bytes + 1)) }
    }
}
