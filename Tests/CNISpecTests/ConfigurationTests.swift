import CNISpec
import JSON
import Testing

func parse(_ text: String) throws -> JSONReader { JSONReader(try JSONValue.parse(text)) }

@Suite struct ConfigurationTests {
    private func list(_ text: String) throws -> NetworkConfigurationList {
        try NetworkConfigurationList.parse(Array(text.utf8))
    }

    @Test(arguments: ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"])
    func `a list of every version is read`(version: String) throws {
        let list = try list(
            """
            {"cniVersion": "\(version)", "name": "net", "disableCheck": true,
             "plugins": [{"type": "bridge", "ipam": {"type": "host-local"}},
                         {"type": "portmap", "capabilities": {"portMappings": true, "mac": false}}]}
            """)
        #expect(list.version.rawValue == version)
        #expect(list.plugins.map(\.type) == ["bridge", "portmap"])
        #expect(list.plugins[1].capabilities == ["portMappings"])
        #expect(list.disableCheck)
        #expect(try NetworkConfigurationList(JSONReader(list.json)) == list)
    }

    @Test func `a single plugin's configuration is a list of one`() throws {
        let list = try list(#"{"cniVersion": "0.4.0", "name": "lo", "type": "loopback"}"#)
        #expect(list.plugins.map(\.type) == ["loopback"])
        #expect(!list.disableCheck)
    }

    @Test func `the highest known of several versions is taken`() throws {
        let text = #"{"cniVersion": "0.4.0", "cniVersions": ["0.4.0", "1.1.0", "9.0.0"], "name": "n", "type": "x"}"#
        #expect(try list(text).version == .v1_1_0)
    }

    @Test(arguments: [
        (#"{"name": "n", "type": "x"}"#, "$.cniVersion: the member is missing"),
        (#"{"cniVersion": "0.2.0", "name": "n", "type": "x"}"#, #"CNI version "0.2.0" is not supported"#),
        (#"{"cniVersion": "1.0.0", "type": "x"}"#, "$.name: the member is missing"),
        (#"{"cniVersion": "1.0.0", "name": "a/b", "type": "x"}"#, "$.name:"),
        (#"{"cniVersion": "1.0.0", "name": "-a", "type": "x"}"#, "$.name:"),
        (#"{"cniVersion": "1.0.0", "name": "n", "plugins": []}"#, "at least one plugin"),
        (#"{"cniVersion": "1.0.0", "name": "n", "plugins": [{}]}"#, "$.plugins[0].type: the member is missing"),
        (#"{"cniVersion": "1.0.0", "name": "n", "plugins": [{"type": "../x"}]}"#, "$.plugins[0].type:"),
        (#"{"cniVersion": "1.0.0", "name": "n", "plugins": [{"type": "/bin/sh"}]}"#, "must be a plain file name"),
        (#"{"cniVersion": "1.0.0", "name": "n", "plugins": [{"type": ".."}]}"#, "must be a plain file name"),
        (
            #"{"cniVersion": "1.0.0", "name": "n", "plugins": [{"type": "x", "capabilities": {"mac": 1}}]}"#,
            "expected a boolean"
        ),
        (#"{"cniVersion": "1.0.0", "name": "n", "plugins": "x"}"#, "expected an array"),
        ("[]", "expected an object"), ("{", "$"),
    ])
    func `what is wrong is named with its place`(text: String, message: String) throws {
        let error = #expect(throws: JSONError.self) { try list(text) }
        #expect(try #require(error).description.contains(message), "\(error?.description ?? "")")
    }

    @Test func `too many plugins and too many bytes are refused`() throws {
        let plugins = [String](repeating: #"{"type": "x"}"#, count: 33).joined(separator: ",")
        #expect(throws: JSONError.self) { try list(#"{"cniVersion": "1.0.0", "name": "n", "plugins": [\#(plugins)]}"#) }
        let long = String(repeating: " ", count: CNILimits.bytes)
        #expect(throws: JSONError.self) { try list(#"{"cniVersion": "1.0.0", "name": "n", "type": "x"}"# + long) }
    }

    @Test func `a plugin reads its own fields, the network's name, its capabilities and the result before it`() throws {
        let list = try list(
            """
            {"cniVersion": "0.4.0", "name": "net", "plugins": [
              {"type": "a", "own": [1], "cniVersion": "9", "prevResult": "stale", "runtimeConfig": "stale",
               "capabilities": {"portMappings": true, "mac": true, "ips": false}}]}
            """)
        var arguments = CapabilityArguments(portMappings: [PortMapping(hostPort: 80, containerPort: 8080)])
        arguments.addresses = [try #require(CIDR("10.0.0.5/8"))]
        arguments.bandwidth = Bandwidth()
        var previous = CNIResult()
        previous.addresses = [CNIResult.Address(try #require(CIDR("10.0.0.2/8")))]
        let configuration = list.plugins[0].execution(
            version: list.version, network: list.name, arguments: arguments, previous: previous)
        let wanted = try parse(
            """
            {"cniVersion": "0.4.0", "name": "net", "type": "a", "own": [1],
             "runtimeConfig": {"portMappings": [{"hostPort": 80, "containerPort": 8080, "protocol": "tcp"}]},
             "prevResult": {"cniVersion": "0.4.0", "ips": [{"version": "4", "address": "10.0.0.2/8"}],
                            "routes": [], "dns": {}}}
            """)
        #expect(configuration == wanted.value)
        let bare = list.plugins[0].execution(
            version: list.version, network: "net", arguments: CapabilityArguments(), previous: nil)
        #expect(bare == (try parse(#"{"cniVersion": "0.4.0", "name": "net", "type": "a", "own": [1]}"#)).value)
    }

    @Test func `capability arguments survive their JSON`() throws {
        var arguments = CapabilityArguments(portMappings: [
            PortMapping(hostPort: 1, containerPort: 2, transport: .udp, hostAddress: IPAddress("::1"))
        ])
        arguments.addresses = [try #require(CIDR("10.0.0.5/8"))]
        arguments.mac = MACAddress("02:00:00:00:00:01")
        var bandwidth = Bandwidth()
        bandwidth.egressRate = .max
        arguments.bandwidth = bandwidth
        #expect(try CapabilityArguments(JSONReader(.object(arguments.json))) == arguments)
    }

    @Test func `names of devices, networks and arguments`() {
        for name in ["eth0", "a", "martlet0", "a23456789012345"] { #expect(CNINames.isInterface(name)) }
        for name in ["", "a/b", ".", "..", "a b", "a:1", "a234567890123456", "é"] {
            #expect(!CNINames.isInterface(name))
        }
        for name in ["a", "A.b_c-1"] { #expect(CNINames.isName(name)) }
        for name in ["", ".a", "-a", "a/b", "a b", "é", String(repeating: "a", count: 101)] {
            #expect(!CNINames.isName(name))
        }
        #expect(
            CNINames.isArgumentValue("a=b c") && !CNINames.isArgumentValue("a;b") && !CNINames.isArgumentValue("a\nb"))
    }
}
